"""Registration: once, with a nonce and a credential of this process, repeated as it is until the hub answers.

The hub binds the launch's token to them. A lost reply is asked for again; another process that comes with the same
token is the second registrant, is refused, and exits at once. A worker without a token shows its identity instead
(worker/link/identity.py), and waits until its manager has said whose worker it is.
"""

from __future__ import annotations

import hashlib
import os
import socket
from typing import Any, Callable, Dict, NamedTuple, Optional

from worker import answers
from worker.link import client
from worker.link.connection import Unreachable, exchange
from worker.link.http1 import Response
from worker.link.line import backoff_ms, spread
from worker.options import Options
from worker.protocol import PROTOCOL_VERSION, Register, Registered, Shape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from worker.link.identity import Identification

DOUBTED_MS = 5_000
LATER = ("identity-not-known", "identity-unverified")


class Joined(NamedTuple):
    registered: Registered
    credential: str
    connection: socket.socket  # of the registration, kept open
    reusable: bool
    asked_at: int


class GaveUp(Exception):
    """The hub could not be reached, or did not admit us, for as long as we were to try."""


class NotAdmitted(Unreachable):
    """The hub answers and does not know us yet: not a failure that makes us wait longer each time."""


class Stopped(Exception):
    """A signal came before the hub could be reached."""


class Joining:
    def __init__(self, options: Options, shape: Shape, host: Dict[str, Any]) -> None:
        self._options = options
        self._credential = os.urandom(32).hex()
        self.message: Register = {
            "protocol": PROTOCOL_VERSION,
            "worker": options.worker,
            "nonce": os.urandom(16).hex(),
            "credential_sha256": hashlib.sha256(self._credential.encode()).hexdigest(),
            "pool": options.pool,
            "shape": shape.to_wire(),
            "host": host,
            "idle_exit_ms": options.terms.idle_exit_ms,
            "max_runs": options.terms.max_runs,
            "config": options.config,
        }
        self._identity: Optional[Identification] = None
        if options.identity:
            from worker.link.identity import identification

            self.message["worker"] = ""  # the launch knows it by another name
            self._identity = identification(options.server, self.message["nonce"], self.message["credential_sha256"])

    def join(
        self,
        clock: Callable[[], int],
        wait: Callable[[int], bool],
        say: Callable[..., None],
    ) -> Joined:
        """Raises client.Refused, GaveUp and Stopped. `wait(ms)` is False when a signal came."""
        began, failures = clock(), 0
        while True:
            asked_at = clock()
            try:
                return self._try(asked_at)
            except NotAdmitted as error:
                pause, reason = int(error.retry_after_ms * (1 + spread() / 2)), str(error)
                say("not-admitted", hub=str(self._options.server), text=reason, again_in_ms=pause)
            except Unreachable as error:
                failures += 1
                pause = max(backoff_ms(failures, spread()), error.retry_after_ms)
                say("hub-unreachable", hub=str(self._options.server), text=str(error), again_in_ms=pause)
                reason = "the hub could not be reached: %s" % error
            if clock() + pause - began > self._options.join_ms:
                raise GaveUp(reason)
            if not wait(pause):
                raise Stopped

    def _try(self, asked_at: int) -> Joined:
        to, path = self._options.server, "/v1/workers"
        if self._identity is not None:
            self.message["identity"], path = self._identity.now(), "/v1/join"
        connection = client.dial(to)
        try:
            message: Any = self.message
            response = exchange(connection, client.post(to, path, self._options.token, message))
            registered = answers.registered(self._answer(response))
        except BaseException:
            connection.close()
            raise
        return Joined(registered, self._credential, connection, response.keep, asked_at)

    def _answer(self, response: Response) -> Dict[str, Any]:
        """An identity that is not known yet, or not believed by a platform that hands out keys and time a moment
        late, may be good in a moment."""
        try:
            return client.answer(response)
        except Unreachable as error:
            if error.code not in LATER:
                raise
            raise NotAdmitted(str(error), error.retry_after_ms or DOUBTED_MS) from None
        except client.Refused as refused:
            if self._identity is None or refused.code != "identity-refused":
                raise
            self._identity.forget()
            raise NotAdmitted(str(refused), DOUBTED_MS) from None
