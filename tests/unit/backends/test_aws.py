"""What an error of AWS means, and which clients an account gives. No network."""

import sys
from typing import Any

import pytest
from botocore import exceptions
from botocore.exceptions import ClientError

from backends import aws
from backends.aws import COMMON_OPTIONS, Account, error_code, refused_or_unknown
from backends.base import BackendUnusable, RefusalKind, Refused, Unknown
from backends.options import read


def error(code: str, status: int, text: str = "why", headers: dict[str, str] | None = None) -> ClientError:
    answer = {
        "Error": {"Code": code, "Message": text},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}},
    }
    return ClientError(answer, "SubmitJob")  # type: ignore[arg-type]


def account(**given: Any) -> Account:
    return Account(read(COMMON_OPTIONS, given), 10.0)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("TooManyRequestsException", 429, RefusalKind.THROTTLED),
        ("Throttling", 400, RefusalKind.THROTTLED),
        ("RequestLimitExceeded", 503, RefusalKind.THROTTLED),
        ("SomethingNew", 429, RefusalKind.THROTTLED),
        ("ExpiredTokenException", 403, RefusalKind.AUTH),
        ("AccessDeniedException", 400, RefusalKind.AUTH),
        ("SomethingNew", 403, RefusalKind.AUTH),
        ("VcpuLimitExceeded", 400, RefusalKind.QUOTA),
        ("InsufficientInstanceCapacity", 500, RefusalKind.CAPACITY),
        ("ClientException", 400, RefusalKind.CONFIG),
        ("NoSuchThing", 404, RefusalKind.CONFIG),
    ],
)
def test_what_was_said_before_anything_was_done_is_a_refusal(code: str, status: int, kind: RefusalKind) -> None:
    outcome = refused_or_unknown(error(code, status))
    assert isinstance(outcome, Refused)
    assert outcome.kind is kind
    assert "why" in outcome.text


@pytest.mark.parametrize(
    "failed",
    [
        error("InternalError", 500),
        error("ServiceUnavailable", 503),
        error("", 200),
        error("RequestTimeout", 408),
        exceptions.ReadTimeoutError(endpoint_url="u"),
        exceptions.ConnectionClosedError(endpoint_url="u"),
        exceptions.EndpointConnectionError(endpoint_url="u"),
        exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    ],
)
def test_what_may_have_been_done_is_unknown(failed: Exception) -> None:
    assert isinstance(refused_or_unknown(failed), Unknown)


def test_what_never_left_this_machine_is_a_refusal() -> None:
    outcome = refused_or_unknown(exceptions.NoCredentialsError())
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.AUTH
    outcome = refused_or_unknown(exceptions.ParamValidationError(report="a number is expected"))
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.CONFIG


def test_a_service_may_have_words_of_its_own() -> None:
    outcome = refused_or_unknown(
        error("ScalingActivityInProgress", 400), {"ScalingActivityInProgress": RefusalKind.THROTTLED}
    )
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.THROTTLED


@pytest.mark.parametrize(("said", "meant"), [("2.5", 2.5), ("0", None), ("soon", None), ("-1", None), ("nan", None)])
def test_how_long_to_wait_is_taken_only_from_a_number(said: str, meant: float | None) -> None:
    outcome = refused_or_unknown(error("Throttling", 400, headers={"retry-after": said}))
    assert isinstance(outcome, Refused)
    assert outcome.retry_after_s == meant


def test_a_long_reason_is_clipped() -> None:
    assert len(refused_or_unknown(error("ClientException", 400, "x" * 10**7)).text) <= 2000


def test_the_names_of_errors_are_those_of_the_sdk() -> None:
    """They are compared by name, so a name that the SDK does not have would never be met."""
    names = aws._NO_CREDENTIALS | aws._NEVER_SENT
    assert not [name for name in names if not hasattr(exceptions, name)]


@pytest.mark.parametrize("strange", [None, "", 7, {}, {"Error": None}, {"Error": {"Code": None}}, ValueError("x")])
def test_what_has_no_code_has_none(strange: Any) -> None:
    assert error_code(strange) == ""


def test_a_create_has_one_attempt_and_a_read_shares_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "7")  # the SDK's own setting changes nothing about it
    mine = account()
    once, reading = mine.once("batch").meta.config, mine.reading("batch").meta.config
    assert once.retries["total_max_attempts"] == 1
    assert once.read_timeout == 10.0
    assert reading.retries["total_max_attempts"] * reading.read_timeout == 10.0
    assert mine.once("batch") is mine.once("batch")
    assert "worker-manager" in once.user_agent_extra


def test_region_and_address_are_those_of_the_options() -> None:
    client = account(**{"region": "eu-west-1", "endpoint-url": "http://127.0.0.1:9"}).once("batch")
    assert client.meta.region_name == "eu-west-1"
    assert client.meta.endpoint_url == "http://127.0.0.1:9"
    assert account().region == "us-east-1"


def test_without_the_sdk_the_line_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from backends import registry
    from backends.base import Context

    monkeypatch.setitem(sys.modules, "boto3", None)
    kind = registry.load("aws-batch")
    with pytest.raises(BackendUnusable, match=r"needs boto3.*pip install 'worker-manager\[aws\]'"):
        kind.create(kind.read({}), Context("m", "p", "", lambda: 0))


def test_a_profile_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(BackendUnusable, match="nonesuch"):
        account(profile="nonesuch")
