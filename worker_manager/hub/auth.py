"""Who calls: bearer tokens, looked up by their SHA-256, and what each may do.

The secret itself is never stored, logged or repeated. A token that was found is remembered for a second, so that a
client that sends many requests costs one look-up; revoking one here forgets it at once. Workers' credentials and join
tokens are checked by the store, in the transaction that uses them; only output, which is written before, needs more.
"""

import hashlib
import ipaddress
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from worker_manager.clock import Clock
from worker_manager.hub.contract import Access
from worker_manager.hub.problems import Problem

REMEMBER_MS = 1000
AT_MOST = 10_000
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="worker-manager"'}


def new_secret() -> str:
    return "wm_" + secrets.token_urlsafe(32)


def sha256_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def bearer_sha256(headers: Mapping[bytes, bytes]) -> str:
    """Of the token in the request. 401 where there is none."""
    scheme, _, secret = headers.get(b"authorization", b"").strip().partition(b" ")
    secret = secret.strip()
    if scheme.lower() != b"bearer" or not secret:
        raise Problem(401, "token-missing", "send a token: Authorization: Bearer …", headers=CHALLENGE)
    return hashlib.sha256(secret).hexdigest()


def require(access: Access | None, scopes: tuple[str, ...]) -> Access:
    """The access, when it holds one of the scopes; `operator` holds all. Else 401 or 403."""
    if access is None:
        invalid = {"WWW-Authenticate": CHALLENGE["WWW-Authenticate"] + ', error="invalid_token"'}
        raise Problem(401, "token-unknown", "the token is unknown, revoked or expired", headers=invalid)
    if "operator" in access.scopes or not access.scopes.isdisjoint(scopes):
        return access
    needed = " or ".join(scopes)
    challenge = CHALLENGE["WWW-Authenticate"] + f', error="insufficient_scope", scope="{scopes[0]}"'
    detail = f"this needs the scope {needed}; the token has {', '.join(sorted(access.scopes)) or 'none'}"
    raise Problem(403, "scope-missing", detail, headers={"WWW-Authenticate": challenge})


def from_loopback(scope: Mapping[str, Any]) -> bool:
    client = scope.get("client")
    try:
        return client is not None and ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


class Tokens:
    """The look-up, with its short memory. `find` blocks (it asks the store); `remembered` does not."""

    def __init__(self, look_up: Callable[[str], Access | None], clock: Clock) -> None:
        self._look_up = look_up
        self._clock = clock
        self._known: dict[str, tuple[Access, int]] = {}

    def remembered(self, sha256: str) -> Access | None:
        known = self._known.get(sha256)
        return known[0] if known is not None and self._clock.boot_ms() < known[1] else None

    def find(self, sha256: str) -> Access | None:
        """Only what was found is remembered: a token made a moment ago works at once."""
        began = self._clock.boot_ms()
        access = self._look_up(sha256)
        if access is not None:
            if len(self._known) >= AT_MOST:
                self._known.clear()
            self._known[sha256] = (access, began + REMEMBER_MS)
        return access

    def forget(self) -> None:
        self._known.clear()


class Credentials:
    """Workers' credentials as they were seen to be right, so that output costs no look-up of its own. One is never
    changed during a worker's life, and what is taken of a report is decided by the store."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def knows(self, worker: str, sha256: str) -> bool:
        return self._known.get(worker) == sha256

    def learn(self, worker: str, sha256: str) -> None:
        if len(self._known) >= AT_MOST:
            self._known.clear()
        self._known[worker] = sha256
