"""A connection to the hub, and one request with its response over it. Whatever fails here may be tried again."""

import socket
import time

from worker.link import http1
from worker.link.address import Endpoint

CONNECT_S = 10.0
EXCHANGE_S = 20.0


class Unreachable(Exception):
    """No answer of the hub, or none but "later": try again, not before `retry_after_ms` when it said so."""

    def __init__(self, text: str, retry_after_ms: int = 0, code: str = "") -> None:
        super().__init__(text)
        self.retry_after_ms = retry_after_ms
        self.code = code  # the hub's own, of a problem document


def plain(to: Endpoint, timeout_s: float) -> socket.socket:
    connection = socket.create_connection((to.host, to.port), timeout_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection


def exchange(connection: socket.socket, data: bytes, timeout_s: float = EXCHANGE_S) -> http1.Response:
    """One request and its response, all of it within `timeout_s`: one that trickles is as bad as none."""
    until = time.monotonic() + timeout_s
    connection.settimeout(timeout_s)
    reader = http1.Reader()
    try:
        connection.sendall(data)
        while True:
            connection.settimeout(max(until - time.monotonic(), 0.001))
            part = connection.recv(65536)
            if not part:
                raise Unreachable("it closed the connection without an answer")
            response = reader.feed(part)
            if response is not None:
                return response
    except (OSError, http1.Garbled) as error:
        raise Unreachable(str(error) or type(error).__name__) from None
