"""A proxy before a hub that passes everything on, remembers what was answered where it is asked to, and while it is
told to, gives other answers to some requests."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Lie:
    status: int
    body: bytes
    media: str = "application/json"
    missing: int = 0  # bytes that are promised and never come

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": self.media, "Content-Length": str(len(self.body) + self.missing)}


class LyingProxy:
    """The hub hears every request; a lie only takes the place of its answer."""

    def __init__(self, url: str) -> None:
        self._hub = urlsplit(url)
        self._lie: Lie | None = None
        self._about = ""
        self.told = 0
        self.remembers = ""  # the ends of paths
        self.remembered: list[bytes] = []  # answers
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *arguments: object) -> None:
                """Silent."""

            def do_POST(self) -> None:
                proxy.answer(self)

            do_GET = do_DELETE = do_HEAD = do_PATCH = do_POST  # the library's names

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def lying(self, about: str, lie: Lie) -> Iterator[None]:
        """In answers to paths that end so."""
        self.told, self._about, self._lie = 0, about, lie
        try:
            yield
        finally:
            self._lie = None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, asked: BaseHTTPRequestHandler) -> None:
        body = asked.rfile.read(int(asked.headers.get("Content-Length") or 0))
        hub = http.client.HTTPConnection(str(self._hub.hostname), self._hub.port, timeout=90)
        try:
            headers = {name: value for name, value in asked.headers.items() if name.lower() != "host"}
            hub.request(asked.command, asked.path, body, headers)
            reply = hub.getresponse()
            said = reply.read()
            if self.remembers and asked.path.endswith(self.remembers):
                self.remembered.append(said)
            lie = self._lie
            if lie is not None and asked.path.endswith(self._about):
                self.told += 1
                self._send(asked, lie.status, lie.headers, lie.body)
                asked.close_connection = bool(lie.missing)
            else:
                kept = {name: value for name, value in reply.getheaders() if name.lower() != "content-length"}
                length = reply.getheader("Content-Length", "0") if asked.command == "HEAD" else str(len(said))
                self._send(asked, reply.status, {**kept, "Content-Length": length}, said)
        except OSError:
            asked.close_connection = True  # one of the two went away
        finally:
            hub.close()

    @staticmethod
    def _send(asked: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        asked.send_response(status)
        for name, value in headers.items():
            asked.send_header(name, value)
        asked.end_headers()
        asked.wfile.write(body)
