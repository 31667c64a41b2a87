"""A registry of container images on a port of this machine: one image, or an answer that it gives instead."""

import gzip
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """Serves the tar file as image `small:1`. `instead`: status and code that any question for a manifest gets."""

    def __init__(self, rootfs: Path) -> None:
        self.instead: tuple[int, str] | None = None
        self.pulls = 0
        self.delay_s = 0.0  # before it sends a layer
        plain = rootfs.read_bytes()
        layer = gzip.compress(plain, 1)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Env": ["PATH=/bin"]},
                "rootfs": {"type": "layers", "diff_ids": [_digest(plain)]},
            }
        ).encode()
        self._blobs = {_digest(data): data for data in (layer, config)}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _entry("application/vnd.docker.container.image.v1+json", config),
            "layers": [_entry("application/vnd.docker.image.rootfs.diff.tar.gzip", layer)],
        }
        self._manifest = json.dumps(manifest).encode()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """(status, type, body)"""
        if path in ("/v2", "/v2/"):
            return 200, "application/json", b"{}"
        if "/manifests/" in path:
            return self._of_manifest(path)
        data = self._blobs.get(path.rpartition("/")[2])
        if data is None:
            return 404, "application/json", _problem("BLOB_UNKNOWN")
        time.sleep(self.delay_s)
        return 200, "application/octet-stream", data

    def _of_manifest(self, path: str) -> tuple[int, str, bytes]:
        if self.instead is not None:
            return self.instead[0], "application/json", _problem(self.instead[1])
        if path.rpartition("/")[2] not in ("1", _digest(self._manifest)) or "/small/" not in path:
            return 404, "application/json", _problem("MANIFEST_UNKNOWN")
        self.pulls += 1
        return 200, MANIFEST, self._manifest

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, kind, body = registry.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
                self.send_header("Docker-Content-Digest", _digest(body))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *args: object) -> None:
                pass

        return Handler


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _entry(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": kind, "size": len(data), "digest": _digest(data)}


def _problem(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}).encode()
