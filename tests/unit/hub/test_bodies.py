"""Bodies are bounded in size and time, and read strictly."""

import asyncio
from typing import Any

import pytest

from worker_manager.hub import bodies
from worker_manager.hub.problems import Problem

BAD = {
    "empty": (b"", "not-json"),
    "cut": (b'{"a": 1', "not-json"),
    "two values": (b"{} {}", "not-json"),
    "a list": (b"[]", "not-an-object"),
    "null": (b"null", "not-an-object"),
    "NaN": (b'{"a": NaN}', "not-finite"),
    "minus infinity": (b'{"a": -Infinity}', "not-finite"),
    "a number beyond floats": (b'{"a": 1e999}', "not-finite"),
    "an integer of thousands of digits": (b'{"a": ' + b"9" * 5000 + b"}", "not-json"),
    "not UTF-8": (b'{"a": "\xff"}', "not-utf-8"),
    "UTF-16": ("{}".encode("utf-16"), "not-utf-8"),
    "half a surrogate pair": (b'{"a": "\\ud800"}', "not-unicode"),
    "half a surrogate pair as a name": (b'{"\\uDFFF": 1}', "not-unicode"),
    "deep lists": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too-deep"),
}
STRICT = {
    "a name twice": (b'{"a": 1, "a": 2}', "repeated-name"),
    "a name twice inside": (b'{"a": [{"b": 1, "c": 2, "b": 1}]}', "repeated-name"),
    "NUL": (b'{"a": "\\u0000"}', "nul-character"),
    "just too deep": (b'{"a":' + b"[" * 70 + b"]" * 70 + b"}", "too-deep"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("parse", [bodies.parse_strict, bodies.parse_quick])
def test_what_is_not_one_json_object_is_refused(name: str, parse: Any) -> None:
    body, code = BAD[name]
    with pytest.raises(Problem) as refused:
        parse(body)
    assert (refused.value.status, refused.value.code) == (400, code)


@pytest.mark.parametrize("name", STRICT)
def test_clients_are_read_more_strictly_than_workers(name: str) -> None:
    body, code = STRICT[name]
    with pytest.raises(Problem) as refused:
        bodies.parse_strict(body)
    assert (refused.value.status, refused.value.code) == (400, code)
    assert isinstance(bodies.parse_quick(body), dict)


def test_what_is_right_is_read() -> None:
    assert bodies.parse_strict('{"a": [1, 2.5, "ä\\ud83d\\ude00", null]}'.encode()) == {"a": [1, 2.5, "ä😀", None]}


@pytest.mark.parametrize(("depth", "deep"), [(1, False), (bodies.MAX_DEPTH, False), (bodies.MAX_DEPTH + 1, True)])
def test_depth_is_counted_by_level(depth: int, deep: bool) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    assert bodies.too_deep(value) is deep


class Sender:
    """Gives its messages one by one, then nothing more for ever."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = list(messages)
        self.read = 0

    async def __call__(self) -> dict[str, Any]:
        if not self._messages:
            await asyncio.Event().wait()
        self.read += 1
        return self._messages.pop(0)


def chunk(data: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


def read(sender: Sender, limit: int = 100, headers: dict[bytes, bytes] | None = None, seconds: float = 5) -> bytes:
    return asyncio.run(bodies.read(sender, headers or {}, limit, seconds))


def test_chunks_are_put_together() -> None:
    assert read(Sender(chunk(b"ab"), chunk(b""), chunk(b"c", more=False))) == b"abc"


def test_too_much_is_refused_before_it_is_all_here() -> None:
    sender = Sender(chunk(b"x" * 60), chunk(b"x" * 60), chunk(b"x" * 60))
    with pytest.raises(Problem) as refused:
        read(sender)
    assert refused.value.status == 413
    assert sender.read == 2


def test_a_declared_length_is_believed_when_it_is_too_large() -> None:
    sender = Sender(chunk(b"x"))
    with pytest.raises(Problem) as refused:
        read(sender, headers={b"content-length": b"101"})
    assert refused.value.status == 413
    assert sender.read == 0


def test_a_body_that_does_not_come_is_refused() -> None:
    with pytest.raises(Problem) as refused:
        read(Sender(chunk(b"x")), seconds=0.01)
    assert refused.value.status == 408


def test_a_client_that_goes_away_gets_no_answer() -> None:
    with pytest.raises(bodies.Disconnected):
        read(Sender(chunk(b"x"), {"type": "http.disconnect"}))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({b"content-encoding": b"gzip"}, 415),
        ({b"content-encoding": b"identity"}, None),
        ({b"content-type": b"text/plain"}, 415),
        ({b"content-type": b"application/json; charset=utf-8"}, None),
        ({b"content-type": b"application/x-www-form-urlencoded"}, 415),
    ],
)
def test_only_plain_json_is_taken(headers: dict[bytes, bytes], status: int | None) -> None:
    sender = Sender(chunk(b"{}", more=False))
    if status is None:
        assert read(sender, headers=headers) == b"{}"
        return
    with pytest.raises(Problem) as refused:
        read(sender, headers=headers)
    assert refused.value.status == status
