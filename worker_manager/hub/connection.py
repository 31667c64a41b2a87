"""One HTTP connection, as uvicorn speaks it, with two bounds that it lacks: how much may come that makes neither a
whole head nor a piece of a body, and how long that may take.

Without them anyone who reaches the port could fill our memory with a header that never ends, or hold a connection for
ever with half a request.
"""

from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 128 * 1024
ABORT = "worker_manager.abort"  # in the scope of a request: cuts its line at once
_REFUSAL = (
    b'{"type":"about:blank","title":"Request Header Fields Too Large","status":431,"code":"head-too-large",'
    b'"detail":"the address and the headers of a request are larger than %d bytes together"}' % LARGEST_HEAD
)
_ANSWER = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/problem+json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n" % len(_REFUSAL)
)


class Connection(HttpToolsProtocol):
    patience_s = 30.0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._unused = 0  # bytes that came since the last that was of use
        self._late: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._late = self.loop.call_later(self.patience_s, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The hub ends. A TLS connection that is idle would wait for the other end's goodbye, which a client that only
        keeps it for later never says."""
        idle = self.cycle is None or self.cycle.response_complete
        super().shutdown()
        if idle and not self.transport.get_write_buffer_size():
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._unused += len(data)
        super().data_received(data)
        if self._unused > LARGEST_HEAD:
            self._refuse()
        elif not self._unused:
            self._in_time()
        elif self._late is None:
            self._late = self.loop.call_later(self.patience_s, self.transport.close)

    def on_headers_complete(self) -> None:
        self._unused = 0
        self.scope[ABORT] = self.transport.abort  # type: ignore[literal-required]  # a name of ours
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unused = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unused = 0
        super().on_message_complete()

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_ANSWER + _REFUSAL)
            self.transport.close()


def within(patience_s: float) -> type[Connection]:
    """Connections that wait so long for the rest of a request's head."""
    return type("Connection", (Connection,), {"patience_s": patience_s})
