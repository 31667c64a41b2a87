"""A web server for tests: files to fetch, places to put some, and gates at which a transfer waits until the test lets
it go on."""

import contextlib
import hashlib
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE_S = 60


class Web:
    """`files` is what can be fetched; what was put lies there too. `asked` counts whole requests by method and path.
    A path in `gates` sends (or takes) half, and the rest once its gate is open."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        self.gates: dict[str, threading.Event] = {}
        self._waits = Counter[str]()
        self._changed = threading.Condition()
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.head()

            def do_GET(self) -> None:
                data = self.head()
                web.asked["GET", self.path] += 1
                if self.path in web.gates:
                    self.wfile.write(data[: len(data) // 2])
                    self.wfile.flush()
                    web.wait_at(self.path)
                    data = data[len(data) // 2 :]
                self.wfile.write(data)

            def do_PUT(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                web.asked["PUT", self.path] += 1
                web.wait_at(self.path)
                web.files[self.path] = data
                self.send_response(201)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def head(self) -> bytes:
                data = web.files.get(self.path)
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                self.send_header("ETag", f'"{hashlib.sha256(data or b"").hexdigest()}"')
                self.end_headers()
                return data or b""

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, address: Any) -> None:
                pass  # who asked has gone

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def put(self, path: str, data: bytes) -> str:
        self.files[path] = data
        return self.url(path)

    def gate(self, path: str) -> threading.Event:
        return self.gates.setdefault(path, threading.Event())

    def wait_at(self, path: str) -> None:
        if path in self.gates:
            with self._changed:
                self._waits[path] += 1
                self._changed.notify_all()
            self.gates[path].wait(PATIENCE_S)

    def until_waiting(self, path: str, times: int = 1) -> None:
        """So many transfers have come to this gate."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._waits[path] >= times, PATIENCE_S), f"nobody came for {path}"

    def close(self) -> None:
        for gate in self.gates.values():
            gate.set()
        with contextlib.suppress(OSError):
            self._server.shutdown()
            self._server.server_close()
