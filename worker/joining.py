"""Registration: once, with a nonce and a credential of this process, repeated as it is until the hub answers.

The hub binds the launch's token to them. A lost reply is asked for again; another process that comes with the same
token is the second registrant, is refused, and exits at once.
"""

import hashlib
import os
import socket
from typing import Any, Callable, Dict, NamedTuple

from worker import answers, client
from worker.connection import Unreachable, exchange
from worker.line import backoff_ms, spread
from worker.options import Options
from worker.protocol import PROTOCOL_VERSION, Register, Registered, Shape


class Joined(NamedTuple):
    registered: Registered
    credential: str
    connection: socket.socket  # of the registration, kept open
    reusable: bool
    asked_at: int


class GaveUp(Exception):
    """The hub could not be reached for as long as we were to try."""


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
            except Unreachable as error:
                failures += 1
                pause = max(backoff_ms(failures, spread()), error.retry_after_ms)
                say("hub-unreachable", hub=str(self._options.server), text=str(error), again_in_ms=pause)
                reason = str(error)
            if clock() + pause - began > self._options.join_ms:
                raise GaveUp("the hub could not be reached: %s" % reason)
            if not wait(pause):
                raise Stopped

    def _try(self, asked_at: int) -> Joined:
        to = self._options.server
        connection = client.dial(to)
        try:
            message: Any = self.message
            response = exchange(connection, client.post(to, "/v1/workers", self._options.token, message))
            registered = answers.registered(client.answer(response))
        except BaseException:
            connection.close()
            raise
        return Joined(registered, self._credential, connection, response.keep, asked_at)
