"""The proof of who a worker is: signed as AWS's own signer signs it, and good for one hub and one registration."""

from collections.abc import Iterator

import pytest

from tests.stand_ins.aws_identity import REGION, Cloud, FakeMetadata, Instance, signature_by_botocore
from worker.link.address import endpoint
from worker.link.connection import Unreachable
from worker.link.identity import (
    SIGNED_AGAIN_MS,
    Identification,
    Keys,
    keys_of,
    name_of,
    signed,
)
from worker.metadata import AWS_VARIABLE, host_and_port
from worker.protocol import IDENTITY_BODY

INSTANCE = Instance("i-0123456789abcdef0")
KEYS = Keys(INSTANCE.access_key, INSTANCE.secret_key, INSTANCE.session_token, REGION, "amazonaws.com")
BOUND = {"x-wm-hub": "https://hub.example sha256:" + "0a" * 32, "x-wm-worker": "nonce " + "ab" * 32}


@pytest.fixture
def metadata() -> Iterator[FakeMetadata]:
    with FakeMetadata(INSTANCE) as server:
        yield server


@pytest.mark.parametrize("bound", [{}, BOUND])
@pytest.mark.parametrize("region", ["eu-west-1", "us-gov-east-1"])
def test_the_signature_is_the_one_of_awss_own_signer(bound: dict[str, str], region: str) -> None:
    headers = signed(KEYS._replace(region=region), bound, 1_700_000_000)
    authorization = headers.pop("authorization")
    scope = f"Credential={INSTANCE.access_key}/20231114/{region}/sts/aws4_request"
    names = "SignedHeaders=" + ";".join(sorted(headers))
    expected = signature_by_botocore(INSTANCE, region, headers, IDENTITY_BODY.encode())
    assert authorization == f"AWS4-HMAC-SHA256 {scope}, {names}, Signature={expected}"
    assert headers["host"] == f"sts.{region}.amazonaws.com"
    assert {*bound, "x-amz-security-token", "x-amz-date"} <= headers.keys()


def test_no_secret_is_sent_nor_shown() -> None:
    headers = signed(KEYS, BOUND, 1_700_000_000)
    assert INSTANCE.secret_key not in "".join(headers.values())
    for secret in (INSTANCE.access_key, INSTANCE.secret_key, INSTANCE.session_token):
        assert secret not in repr(KEYS)


def test_the_keys_come_from_the_instance(metadata: FakeMetadata) -> None:
    assert keys_of(metadata.url) == KEYS


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("/latest/meta-data/iam/security-credentials/", "has no role"),
        ("/latest/meta-data/iam/security-credentials/workers", "answers 404"),
        ("/latest/meta-data/placement/region", "answers 404"),
    ],
)
def test_an_instance_that_does_not_tell_its_role_yet_is_asked_again(
    metadata: FakeMetadata, missing: str, said: str
) -> None:
    metadata.missing.add(missing)
    with pytest.raises(Unreachable, match=said):
        keys_of(metadata.url)
    metadata.missing.clear()
    assert keys_of(metadata.url) == KEYS


def test_no_instance_at_all_is_something_to_wait_for() -> None:
    with FakeMetadata(INSTANCE) as server:
        url = server.url
    with pytest.raises(Unreachable, match="hop limit"):
        keys_of(url)


def test_a_proof_is_repeated_while_it_is_fresh_and_made_anew_later(metadata: FakeMetadata) -> None:
    now = [1_700_000_000_000]
    ours = Identification(endpoint("http://127.0.0.1:80"), "n", "c", {AWS_VARIABLE: metadata.url}, lambda: now[0])
    first = ours.now()
    assert first["headers"]["x-wm-worker"] == "n c"
    assert first["headers"]["x-wm-hub"] == "http://127.0.0.1 -"
    now[0] += SIGNED_AGAIN_MS - 1
    assert ours.now() is first
    now[0] += 1
    second = ours.now()
    assert second["headers"]["x-amz-date"] != first["headers"]["x-amz-date"]
    now[0] -= 3_600_000  # the clock was set right
    assert ours.now()["headers"]["x-amz-date"] < first["headers"]["x-amz-date"]
    ours.forget()
    metadata.instance = Cloud().instance(INSTANCE.id)
    assert metadata.instance.access_key in ours.now()["headers"]["authorization"]


def test_a_hub_is_named_by_its_address_and_what_is_pinned() -> None:
    pinned = endpoint("https://hub.example:8443/base/", "SHA256:" + "AB" * 32)
    assert name_of(pinned) == "https://hub.example:8443/base sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://169.254.169.254", ("169.254.169.254", 80)),
        ("http://127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("http://[fd00:ec2::254]", ("fd00:ec2::254", 80)),
        ("http://[fd00:ec2::254]:81", ("fd00:ec2::254", 81)),
    ],
)
def test_the_metadata_service_may_be_elsewhere(url: str, found: tuple[str, int]) -> None:
    assert host_and_port(url) == found
