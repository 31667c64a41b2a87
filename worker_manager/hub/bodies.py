"""Request bodies: read with a bound on bytes and time, then parsed strictly.

What cannot be read as one JSON object says so with a 400; too much is 413, too slow 408, compressed 415. Memory is
bounded by the limit of the route.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from starlette.types import Receive

from worker_manager.hub.problems import Problem, bad_request

MAX_DEPTH = 64


class Disconnected(Exception):
    """The client went away before its body was complete; nobody reads an answer."""


async def read(receive: Receive, headers: Mapping[bytes, bytes], limit: int, seconds: float) -> bytes:
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in (b"", b"identity"):
        raise Problem(415, "encoding-refused", "send the body uncompressed", headers={"Accept-Encoding": "identity"})
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind and kind != b"application/json" and not kind.endswith(b"+json"):
        raise Problem(415, "media-type-refused", "send the body as application/json")
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(seconds):
            return await _collect(receive, limit)
    except TimeoutError:
        detail = f"the body did not arrive within {seconds:g} s"
        raise Problem(408, "body-too-slow", detail, headers={"Connection": "close"}) from None


async def _collect(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit: int) -> Problem:
    detail = f"the body is larger than {limit} bytes"
    return Problem(413, "body-too-large", detail, headers={"Connection": "close"})


def parse_strict(body: bytes) -> dict[str, Any]:
    """For clients: also refuses repeated names, NUL characters and nesting that no request of ours has."""
    if b"\\u0000" in body:
        raise bad_request("nul-character", "NUL characters (\\u0000) are refused")
    value = _parse(body, strict=True)
    if too_deep(value):
        raise bad_request("too-deep", f"the JSON is nested deeper than {MAX_DEPTH}")
    return value


def parse_quick(body: bytes) -> dict[str, Any]:
    """For workers: only what keeps us safe."""
    return _parse(body, strict=False)


def _parse(body: bytes, strict: bool) -> dict[str, Any]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise bad_request("not-utf-8", "the body is not UTF-8") from None
    hook = _no_repeats if strict else None
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=hook)
    except RecursionError:
        raise bad_request("too-deep", "the JSON is nested too deep") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise bad_request("not-json", f"the body is not JSON: {error.msg} at {where}") from None
    except ValueError as error:  # an integer of thousands of digits
        raise bad_request("not-json", f"the body holds a number that cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise bad_request("not-an-object", "the body must be a JSON object")
    if b"\\ud" in body or b"\\uD" in body:
        _refuse_lone_surrogates(value)
    return value


def _no_constant(name: str) -> NoReturn:
    raise bad_request("not-finite", f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise bad_request("not-finite", "a number is too large")
    return value


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        again = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise bad_request("repeated-name", f"the name {again[:100]!r} stands twice in one object")
    return found


def _refuse_lone_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise bad_request("not-unicode", "a string holds half of a surrogate pair") from None
    except RecursionError:
        raise bad_request("too-deep", "the JSON is nested too deep") from None


def too_deep(value: Any, limit: int = MAX_DEPTH) -> bool:
    """Level by level, without recursion."""
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
