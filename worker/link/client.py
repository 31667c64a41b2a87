"""The agent's way to the hub: where it is, how to reach it, and what its answers mean.

Two kinds of failure, never mixed up: `Refused` is the hub's own no, in its own words (a problem document); anything
else, a cut line, silence, a proxy's page, garbage, an overloaded hub, is `Unreachable`, which is to be tried again.
"""

import json
import socket
from typing import Any, Dict, Optional

from worker.link import http1
from worker.link.address import Endpoint
from worker.link.connection import CONNECT_S, Unreachable, plain


class Refused(Exception):
    """The hub said no, and will say it again."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


def dial(to: Endpoint, timeout_s: float = CONNECT_S) -> socket.socket:
    """A connection that is ready for a request; blocks for `timeout_s` at the most for each step."""
    try:
        if to.secure:
            from worker.link.pinned import connect

            return connect(to, timeout_s)
        return plain(to, timeout_s)
    except (OSError, http1.Garbled) as error:
        raise Unreachable("cannot connect to %s: %s" % (to, error)) from None


def post(to: Endpoint, path: str, token: str, body: Dict[str, Any]) -> bytes:
    text = json.dumps(body, separators=(",", ":"))
    return http1.request("POST", to.base + path, to.authority, token, text.encode())


def answer(response: http1.Response) -> Dict[str, Any]:
    """What the hub said. Raises Refused or Unreachable."""
    status = response.status
    if status in (408, 429) or status >= 500:
        problem = _problem(response)
        text = "it answers %d: %s" % (status, problem.get("detail") or "no reason given")
        raise Unreachable(text, _retry_after_ms(response), str(problem.get("code") or ""))
    if 400 <= status < 500:
        problem = _problem(response)
        if not problem:
            raise Unreachable("something that is not the hub answers %d" % status)
        text = problem.get("detail") or problem.get("title") or "no reason given"
        raise Refused(status, str(problem.get("code") or ""), str(text)[:1000])
    if not 200 <= status < 300:
        raise Unreachable("it answers %d" % status)
    return _object(response.body)


def _object(body: bytes) -> Dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Unreachable("its answer is no JSON") from None
    if not isinstance(value, dict):
        raise Unreachable("its answer is no JSON object")
    return value


def _problem(response: http1.Response) -> Dict[str, Any]:
    """The problem document of an error; {} when there is none."""
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return {}
    try:
        return _object(response.body)
    except Unreachable:
        return {}


def _retry_after_ms(response: http1.Response) -> int:
    text: Optional[str] = response.headers.get("retry-after")
    return min(int(text), 3600) * 1000 if text and text.isascii() and text.isdigit() else 0
