"""Asking a worker's platform who it is: a request of its own to the outside, so it is bounded in every direction.

A few are asked at once, each for a few seconds at the most, in threads that nothing else waits for. What a proof has
come to is remembered for a while, because its worker repeats it until its manager has said whose worker it is.
"""

import asyncio
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.error import HTTPError

from worker_manager.hub.identity import BadAnswer, Denied, Proof, names_of

AT_ONCE = 8
WAITING = 64  # beyond those that are asked about: more is turned away
DEADLINE_S = 10.0
LARGEST_ANSWER = 65_536
REMEMBERED_S = 240.0  # a signature is good for five minutes
AT_MOST = 10_000


class Unanswered(Exception):
    """The platform could not be asked: nothing is known of the worker."""


class Vouching:
    """`endpoint` is where requests go instead of the host that they are signed for: a private one, or a stand-in."""

    def __init__(
        self, endpoint: str = "", clock: Callable[[], float] = time.monotonic, deadline_s: float = DEADLINE_S
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._deadline_s = deadline_s
        self._threads: ThreadPoolExecutor | None = None
        self._waiting = 0
        self._known: OrderedDict[str, tuple[float, tuple[str, ...]]] = OrderedDict()

    async def names(self, proof: Proof) -> tuple[str, ...]:
        """By which the worker may be known. Raises Denied and Unanswered."""
        known = self._remembered(proof)
        if known:
            return known
        if self._waiting >= AT_ONCE + WAITING:
            raise Unanswered("too many workers come at once")
        self._waiting += 1
        try:
            async with asyncio.timeout(3 * self._deadline_s):
                names = await asyncio.get_running_loop().run_in_executor(
                    self._pool(), ask, self._endpoint, proof, self._deadline_s
                )
        except TimeoutError:
            raise Unanswered("it does not answer") from None
        finally:
            self._waiting -= 1
        self._known[proof.signature] = (self._clock() + REMEMBERED_S, names)
        if len(self._known) > AT_MOST:
            self._known.popitem(last=False)
        return names

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _remembered(self, proof: Proof) -> tuple[str, ...]:
        until, names = self._known.get(proof.signature, (0.0, ()))
        return names if self._clock() < until else ()

    def _pool(self) -> ThreadPoolExecutor:
        self._threads = self._threads or ThreadPoolExecutor(AT_ONCE, "vouch")
        return self._threads


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Signed headers go where they were signed for, and nowhere else."""


def ask(endpoint: str, proof: Proof, deadline_s: float = DEADLINE_S) -> tuple[str, ...]:
    """One attempt. AWS itself is asked through the environment's proxy, where the hub has to use one."""
    url = endpoint or f"https://{proof.host}/"
    request = urllib.request.Request(url, proof.body, dict(proof.headers), method="POST")  # noqa: S310 - ours or AWS's
    handlers = (_NoRedirects(), urllib.request.ProxyHandler({})) if endpoint else (_NoRedirects(),)
    until = time.monotonic() + deadline_s
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=deadline_s) as reply:
            return names_of(reply.status, _body(reply, until))
    except HTTPError as error:
        with error:
            return _refused(error, until)
    except (OSError, HTTPException, ValueError, BadAnswer) as error:
        raise Unanswered(f"{url} cannot be asked: {error}") from None


def _refused(error: HTTPError, until: float) -> tuple[str, ...]:
    try:
        return names_of(error.code, _body(error, until))
    except (OSError, HTTPException, BadAnswer):
        raise Unanswered(f"it answers {error.code}") from None


def _body(reply: Any, until: float) -> bytes:
    """All of it, if it is short and comes in time."""
    parts = b""
    while part := reply.read1(LARGEST_ANSWER):
        parts += part
        if len(parts) > LARGEST_ANSWER:
            raise BadAnswer("its answer is too long")
        if time.monotonic() > until:
            raise BadAnswer("its answer does not end")
    return parts


__all__ = ("Denied", "Unanswered", "Vouching", "ask")
