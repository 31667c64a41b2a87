"""Where the hub is, and what its answers mean."""

import pytest

from worker import answers
from worker.link.address import BadAddress, endpoint
from worker.link.client import Refused, answer
from worker.link.connection import Unreachable
from worker.link.http1 import Response

PROBLEM = {"content-type": "application/problem+json"}


@pytest.mark.parametrize(
    ("url", "shown", "port"),
    [
        ("http://127.0.0.1:8700", "http://127.0.0.1:8700", 8700),
        ("http://localhost:1/base/", "http://localhost:1/base", 1),
        ("https://hub.example", "https://hub.example", 443),
        ("https://hub.example:8443/a/b", "https://hub.example:8443/a/b", 8443),
        ("http://[::1]:5", "http://[::1]:5", 5),
        ("https://[fe80::1]", "https://[fe80::1]", 443),
    ],
)
def test_addresses(url: str, shown: str, port: int) -> None:
    assert str(endpoint(url)) == shown
    assert endpoint(url).port == port


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("hub:8700", "no address"),
        ("ftp://hub", "no address"),
        ("https://", "no address"),
        ("https://user:word@hub", "no address"),
        ("https://hub:0", "port"),
        ("https://hub:x", "port"),
        ("https://hub/a b", "characters"),
        ("https://hub/\r\nX: y", "characters"),
        ("http://hub.example:8700", "https"),
        ("http://127.evil.example", "https"),
    ],
)
def test_addresses_that_cannot_be_used(url: str, word: str) -> None:
    with pytest.raises(BadAddress, match=word):
        endpoint(url)


def test_a_fingerprint_is_64_hex_digits_and_means_tls() -> None:
    assert endpoint("https://hub", "SHA256:" + "AB:" * 31 + "AB").fingerprint == "ab" * 32
    with pytest.raises(BadAddress, match="64 hex"):
        endpoint("https://hub", "sha256:abc")
    with pytest.raises(BadAddress, match="nothing with http"):
        endpoint("http://127.0.0.1:1", "ab" * 32)


def test_the_hubs_own_no_is_a_refusal_with_its_code() -> None:
    body = b'{"code": "second-registrant", "detail": "taken"}'
    with pytest.raises(Refused, match="taken") as caught:
        answer(Response(409, PROBLEM, body, True))
    assert (caught.value.status, caught.value.code) == (409, "second-registrant")


@pytest.mark.parametrize(
    "response",
    [
        Response(200, {}, b"<html>", True),
        Response(200, {}, b"[1]", True),
        Response(200, {}, b"[" * 100_000, True),
        Response(302, {}, b"", True),
        Response(403, {"content-type": "text/html"}, b"a proxy says no", True),
        Response(404, PROBLEM, b"not json", True),
        Response(500, PROBLEM, b'{"code": "broken"}', True),
        Response(503, PROBLEM, b"{}", True),
        Response(429, PROBLEM, b"{}", True),
    ],
)
def test_everything_else_is_unreachable(response: Response) -> None:
    with pytest.raises(Unreachable):
        answer(response)


@pytest.mark.parametrize(("text", "ms"), [("2", 2000), ("999999999", 3_600_000), ("soon", 0), ("", 0)])
def test_a_hub_that_asks_for_patience_gets_it_within_bounds(text: str, ms: int) -> None:
    with pytest.raises(Unreachable) as caught:
        answer(Response(503, {"retry-after": text}, b"", True))
    assert caught.value.retry_after_ms == ms


@pytest.mark.parametrize(
    "told",
    [
        {"seq": "1"},
        {"seq": True},
        {"seq": 1, "assign": {}},
        {"seq": 1, "assign": [{"job": "j1"}]},
        {"seq": 1, "assign": [{"job": "j1", "epoch": -1}]},
        {"seq": 1, "cancel": ["j1"]},
        {"seq": 1, "drain": "now"},
        {"seq": 1, "drain": {"deadline_ms": "soon"}},
        {"seq": 1, "lease_ms": 0},
    ],
)
def test_an_answer_to_a_poll_is_taken_whole_or_not_at_all(told: dict[str, object]) -> None:
    with pytest.raises(Unreachable, match="makes no sense"):
        answers.polled(told)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"command": "true"}, "command"),
        ({"command": []}, "command"),
        ({"command": [1]}, "command"),
        ({"env": {"A": 1}}, "environment"),
        ({"shape": {"cpus": "many"}}, "shape"),
        ({"shape": {"custom": {"x": -1}}}, "shape"),
        ({"shape": []}, "shape"),
        ({"time_limit_ms": "1h"}, "time_limit_ms"),
        ({"grace_ms": True}, "grace_ms"),
    ],
)
def test_one_assignment_that_cannot_be_tried_says_why(wrong: dict[str, object], word: str) -> None:
    right = {"job": "j1", "epoch": 1, "command": ["true"], "env": {"A": "b"}, "shape": {"cpus": 1, "tags": ["a"]}}
    assert answers.mistake_in(right) == ""
    assert word in answers.mistake_in({**right, **wrong})


@pytest.mark.parametrize("told", [{}, {"ack": 4}, {"ack": None}, {"ack": 5, "stale": [["j1"]]}])
def test_an_answer_to_a_report_must_acknowledge_it(told: dict[str, object]) -> None:
    with pytest.raises(Unreachable, match="makes no sense"):
        answers.reported(told, 5)


def test_answers_of_a_newer_hub_are_taken() -> None:
    assert answers.polled({"seq": 1, "assign": None, "new": {}})["seq"] == 1
    assert answers.reported({"ack": 5, "new": 1}, 5)["ack"] == 5
    assert answers.registered({"session": 0, "lease_ms": 1, "poll_ms": 0, "heartbeat_ms": 0, "x": 1})
    with pytest.raises(Unreachable):
        answers.registered({"session": 0, "lease_ms": 0, "poll_ms": 0, "heartbeat_ms": 0})
