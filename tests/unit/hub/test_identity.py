"""What a proof of identity must be before the hub sends it anywhere, and what the platform's answer means."""

from typing import Any

import pytest

from tests.stand_ins.aws_identity import REGION, Instance
from worker.link.identity import Keys, signed
from worker_manager.hub.identity import BadAnswer, BadProof, Denied, OwnNames, names_of, proof_of

INSTANCE = Instance("i-0123456789abcdef0")
KEYS = Keys(INSTANCE.access_key, INSTANCE.secret_key, INSTANCE.session_token, REGION, "amazonaws.com")
PIN = "0a" * 32
OWN = OwnNames(("https://hub.example", "https://127.0.0.1:8443"), (PIN,))
NONCE, CREDENTIAL = "nonce", "ab" * 32


def headers(hub: str = f"https://hub.example sha256:{PIN}", worker: str = f"{NONCE} {CREDENTIAL}") -> dict[str, str]:
    return signed(KEYS, {"x-wm-hub": hub, "x-wm-worker": worker}, 1_700_000_000)


def refused(found: Any) -> str:
    with pytest.raises(BadProof) as error:
        proof_of(found, NONCE, CREDENTIAL, OWN)
    return str(error.value)


def changed(**more: str) -> dict[str, Any]:
    return {"kind": "aws", "headers": {**headers(), **{name.replace("_", "-"): text for name, text in more.items()}}}


def test_what_an_agent_signs_for_us_is_fit_to_be_sent() -> None:
    proof = proof_of({"kind": "aws", "headers": headers()}, NONCE, CREDENTIAL, OWN)
    assert proof.host == f"sts.{REGION}.amazonaws.com"
    assert proof.body == b"Action=GetCallerIdentity&Version=2011-06-15"


@pytest.mark.parametrize(
    "hub",
    [
        "https://hub.example:443/ -",
        "https://HUB.example -",
        "https://127.0.0.1:8443 -",
        f"https://another-name-of-ours sha256:{PIN}",
    ],
)
def test_a_worker_knows_us_by_any_of_our_addresses_or_by_what_it_pins(hub: str) -> None:
    assert proof_of({"kind": "aws", "headers": headers(hub)}, NONCE, CREDENTIAL, OWN)


@pytest.mark.parametrize(
    "hub",
    [
        "https://evil.example -",
        "http://hub.example -",
        "https://hub.example:8443 -",
        "https://hub.example/below -",
        "",
        "-",
        f"https://evil.example sha256:{'0b' * 32}",
        "https://evil.example sha256:",
        "https://[x -",
        "https://evil:99999999 -",
    ],
)
def test_a_proof_for_another_hub_is_refused(hub: str) -> None:
    assert "signed for the hub" in refused({"kind": "aws", "headers": headers(hub)})


def test_a_proof_for_another_registration_is_refused() -> None:
    for worker in (f"other {CREDENTIAL}", f"{NONCE} {'cd' * 32}", ""):
        assert "another registration" in refused({"kind": "aws", "headers": headers(worker=worker)})


@pytest.mark.parametrize("name", ["x-wm-hub", "x-wm-worker", "host", "x-amz-date", "x-amz-security-token"])
def test_whatever_binds_it_must_be_covered_by_the_signature(name: str) -> None:
    """Else anybody could write it there."""
    found = headers()
    names = ";".join(sorted(found.keys() - {"authorization"}))
    without = names.replace(name, "").replace(";;", ";").strip(";")
    found["authorization"] = found["authorization"].replace(names, without)
    assert refused({"kind": "aws", "headers": found}) == f"its signature does not cover {name}"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "sts.evil.example",
        "sts.amazonaws.com.evil.example",
        "evil-sts.amazonaws.com",
        "sts.eu-west-1.amazonaws.com:8080",
        "sts.eu-west-1.amazonaws.com/",
        "sts.eu-west-1.amazonaws.com@evil",
        "s3.eu-west-1.amazonaws.com",
        "sts.eu.west.1.amazonaws.com",
        "169.254.169.254",
        "",
    ],
)
def test_nothing_but_aws_is_ever_asked(host: str) -> None:
    assert "is not AWS STS" in refused(changed(host=host))


@pytest.mark.parametrize(
    "host", ["sts.amazonaws.com", "sts.us-gov-west-1.amazonaws.com", "sts.cn-north-1.amazonaws.com.cn"]
)
def test_every_part_of_aws_may_be_asked(host: str) -> None:
    assert proof_of(changed(host=host), NONCE, CREDENTIAL, OWN).host == host


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        "aws",
        {},
        {"kind": "gcp", "headers": {}},
        {"kind": ["aws"]},
        {"kind": "aws", "headers": None},
        {"kind": "aws", "headers": {"authorization": "x"}},
        {"kind": "aws", "headers": {**headers(), "x-forwarded-for": "1.2.3.4"}},
        {"kind": "aws", "headers": {**headers(), "x-amz-date": 7}},
        {"kind": "aws", "headers": {**headers(), "x-amz-date": "a\r\nX-Evil: b"}},
        {"kind": "aws", "headers": {**headers(), "x-amz-security-token": "x" * 9000}},
        {"kind": "aws", "headers": {**headers(), "authorization": "Basic abc"}},
        {"kind": "aws", "headers": {**headers(), "authorization": headers()["authorization"].replace("/sts/", "/s3/")}},
    ],
)
def test_what_is_no_such_request_is_refused(found: Any) -> None:
    assert refused(found)


# ---------------------------------------------------------------- the answer

ARN = "arn:aws:sts::123456789012:assumed-role/workers/i-0123456789abcdef0"


def answer(arn: str = ARN, account: str = "123456789012", user: str = "AROAEXAMPLE:i-0123456789abcdef0") -> bytes:
    result = f"<Arn>{arn}</Arn><UserId>{user}</UserId><Account>{account}</Account>"
    inner = f"<GetCallerIdentityResult>{result}</GetCallerIdentityResult>"
    return f'<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/">{inner}</GetCallerIdentityResponse>'.encode()


def test_an_instance_is_known_with_its_role_and_without() -> None:
    assert names_of(200, answer()) == (
        "aws:123456789012:workers:i-0123456789abcdef0",
        "aws:123456789012:i-0123456789abcdef0",
    )


@pytest.mark.parametrize(
    "other",
    [
        answer("arn:aws:iam::123456789012:user/eve"),
        answer("arn:aws:sts::123456789012:assumed-role/admin/eve", user="AROAEXAMPLE:eve"),
        answer(user="AROAEXAMPLE:i-0aaaaaaaaaaaaaaaa"),
        answer(account="999999999999"),
        answer("arn:aws:sts::123456789012:federated-user/i-0123456789abcdef0"),
        answer(""),
        b"<nothing/>",
    ],
)
def test_who_is_no_instance_is_nobody(other: bytes) -> None:
    with pytest.raises(Denied):
        names_of(200, other)


def test_a_refusal_is_told_in_awss_words() -> None:
    body = b"<ErrorResponse><Error><Code>ExpiredToken</Code><Message>too old</Message></Error></ErrorResponse>"
    with pytest.raises(Denied, match="ExpiredToken: too old"):
        names_of(403, body)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html"),
        (200, b""),
        (200, b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'),
        (500, b"<x/>"),
        (302, b"<x/>"),
        (400, b"<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>"),
    ],
)
def test_what_is_no_answer_says_nothing_of_the_worker(status: int, body: bytes) -> None:
    with pytest.raises(BadAnswer):
        names_of(status, body)
