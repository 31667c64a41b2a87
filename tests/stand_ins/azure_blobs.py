"""A handful of Azure Blob calls, behind a SAS: put a blob, its properties, a part of it, the names in a container."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class FakeBlobs:
    def __init__(self, signature: str = "c2VjcmV0LXNhcw", rights: str = "rwcl") -> None:
        self.blobs: dict[str, bytes] = {}
        self.sas = f"sv=2025-05-05&sr=c&sp={rights}&sig={signature}"
        self._signature = signature
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                fake._put(self)

            def do_GET(self) -> None:
                fake._get(self)

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def container(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/store/logs"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _put(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if self._allowed(request):
            self.blobs[self._name(request)] = body
            answer(request, 201)

    def _get(self, request: BaseHTTPRequestHandler) -> None:
        if not self._allowed(request):
            return
        query = parse_qs(urlsplit(request.path).query)
        if query.get("comp") == ["list"]:
            names = "".join(f"<Blob><Name>{escape(name)}</Name></Blob>" for name in sorted(self.blobs)[:1])
            text = f"<?xml version='1.0'?><EnumerationResults><Blobs>{names}</Blobs><NextMarker/></EnumerationResults>"
            answer(request, 200, text.encode(), {"Content-Type": "application/xml"})
            return
        blob = self.blobs.get(self._name(request))
        if blob is None:
            answer(request, 404, headers={"x-ms-error-code": "BlobNotFound"})
            return
        asked = request.headers.get("x-ms-range") or request.headers.get("Range")
        headers = {"ETag": '"1"', "Last-Modified": "Fri, 20 Nov 2026 14:00:00 GMT", "x-ms-blob-type": "BlockBlob"}
        if not asked:
            answer(request, 200, blob, headers)
            return
        first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
        part = blob[first : last + 1]
        headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(blob)}"
        answer(request, 206, part, headers)

    def _allowed(self, request: BaseHTTPRequestHandler) -> bool:
        if parse_qs(urlsplit(request.path).query).get("sig") == [self._signature]:
            return True
        answer(request, 403, headers={"x-ms-error-code": "AuthenticationFailed"})
        return False

    @staticmethod
    def _name(request: BaseHTTPRequestHandler) -> str:
        return unquote(urlsplit(request.path).path).removeprefix("/store/logs").lstrip("/")


def answer(
    request: BaseHTTPRequestHandler, status: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> None:
    """In one piece, so that no half of it waits for an acknowledgement."""
    lines = [f"HTTP/1.1 {status} {'OK' if status < 400 else 'No'}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += [] if status == 204 else [f"Content-Length: {len(body)}"]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    request.wfile.write(head + (b"" if request.command == "HEAD" else body))
