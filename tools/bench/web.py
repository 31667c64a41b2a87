"""A web server for one file, in a process of its own: it sends as fast as the kernel can, and counts what it sent."""

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Web:
    def __init__(self, base: str) -> None:
        self.url = base + "/file"
        self._base = base

    def counts(self) -> dict[str, int]:
        """Of downloads and of their bytes, and of bytes that came, since it began."""
        with urllib.request.urlopen(self._base + "/counts") as answer:  # noqa: S310  # our own
            counts: dict[str, int] = json.load(answer)
        return counts


@contextmanager
def serving(file: Path) -> Iterator[Web]:
    command = [sys.executable, "-m", "tools.bench.web", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101  # it was asked for
            yield Web(process.stdout.readline().strip())
        finally:
            process.terminate()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    file = Path()
    lock = threading.Lock()
    counts = {"downloads": 0, "bytes": 0, "received": 0}  # noqa: RUF012  # one server, one process

    def do_GET(self) -> None:
        if self.path == "/counts":
            self._answer(json.dumps(self.counts).encode())
        else:
            self._send_file()

    def do_PUT(self) -> None:
        left = int(self.headers["Content-Length"])
        buffer = memoryview(bytearray(2**20))
        while left:
            count = self.rfile.readinto(buffer[: min(left, len(buffer))])
            if not count:
                return
            left -= count
            with self.lock:
                self.counts["received"] += count
        self._answer(b"")

    def _send_file(self) -> None:
        with self.file.open("rb") as file:
            size = self.file.stat().st_size
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.send_header("ETag", '"one"')
            self.end_headers()
            sent = self.connection.sendfile(file)
        with self.lock:
            self.counts["downloads"] += 1
            self.counts["bytes"] += sent

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def main() -> None:
    _Handler.file = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
