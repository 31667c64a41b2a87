"""Addresses that are good for one blob, one way, one owner and a short time: workers hold no token for blobs.

The key never leaves the state directory, and no backup has it: a hub that was restored signs with another one.
"""

import hashlib
import hmac
import json
import logging
import os
import secrets
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlencode

from pydantic import Field

from worker_manager.clock import Clock
from worker_manager.hub.problems import Problem
from worker_manager.hub.types import Number, Query, Short

FILE = "blob-grants.key"
KEY_BYTES = 32

log = logging.getLogger("worker_manager.hub")

May = Literal["GET", "PATCH"]


class Grant(Query):
    """What stands in a granted address. All of it, or a token is asked for."""

    owner: Short | None = None
    until: Number | None = None  # UTC ms
    may: May | None = None
    signature: str | None = Field(default=None, max_length=100)


class Grants:
    def __init__(self, key: bytes, clock: Clock) -> None:
        self._key = key
        self._clock = clock

    def address(self, may: May, sha256: str, owner: str, until_ms: int) -> str:
        """Relative to the hub's URL."""
        return f"/v1/blobs/{quote(sha256)}?{self.sign(may, sha256, owner, until_ms)}"

    def sign(self, may: May, sha256: str, owner: str, until_ms: int) -> str:
        """The query of such an address."""
        signature = self._signature(may, sha256, owner, until_ms)
        return urlencode({"owner": owner, "until": until_ms, "may": may, "signature": signature})

    def owner(self, method: str, sha256: str, grant: Grant) -> str:
        """For whom this request speaks. Raises Problem (403), before anything is looked up."""
        if grant.owner is None or grant.until is None or grant.may is None or grant.signature is None:
            raise _refused("grant-refused", "the address is not complete")
        right = self._signature(grant.may, sha256, grant.owner, grant.until)
        if not hmac.compare_digest(right.encode(), grant.signature.encode()):
            raise _refused("grant-refused", "the hub has not signed this address")
        if grant.until <= self._clock.now_ms():
            raise _refused("grant-expired", "the address was good for a while that is over: ask for another one")
        if method not in (grant.may, "HEAD"):
            raise _refused("grant-refused", f"the address is good for {grant.may}, not for {method}")
        return grant.owner

    def _signature(self, may: str, sha256: str, owner: str, until_ms: int) -> str:
        text = json.dumps(["blob", may, sha256, owner, until_ms]).encode()
        return urlsafe_b64encode(hmac.digest(self._key, text, hashlib.sha256)).rstrip(b"=").decode()


def _refused(code: str, detail: str) -> Problem:
    return Problem(403, code, detail)


def key_in(state_dir: Path) -> bytes:
    """Made at the first start. One that is damaged, or cannot be kept, is replaced: what it signed is good for minutes
    only."""
    path = state_dir / FILE
    try:
        key = path.read_bytes()
        if len(key) == KEY_BYTES:
            return key
    except FileNotFoundError:
        pass
    key = secrets.token_bytes(KEY_BYTES)
    try:
        _keep(key, path)
    except OSError as error:
        log.warning("the key of signed addresses cannot be kept, so they end with this hub: %s", error)
    return key


def _keep(key: bytes, path: Path) -> None:
    unfinished = path.with_name(f".{FILE}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    unfinished.replace(path)
