"""Azure Blob and Google Cloud Storage as far as the hub and its workers use them, behind real HTTP. Every signature is
computed anew from what arrived, by the vendors' descriptions and not by their libraries, and anything else is refused.

    with AzureStorageStandIn("account", key) as azure: …   container and blob below azure.url
    with GoogleStorageStandIn(public_key) as google: …     bucket and object below google.url
"""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

PAGE = 2  # objects of a listing


class _StandIn:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}  # by container or bucket, a slash, and the name
        self.metadata: dict[str, dict[str, str]] = {}
        self.forbidden = False  # the hub's own identity may do nothing
        self.asked: list[str] = []
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
                headers = {name.lower(): value for name, value in self.headers.items()}
                stand_in.asked.append(f"{self.command} {parts.path}")
                status, sent, told = stand_in.answer(self.command, parts.path, parts.query, query, headers, body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(sent)), **told}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(sent)

            do_GET = do_PUT = do_HEAD = do_POST = handle_one

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(
        self, method: str, path: str, raw: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        raise NotImplementedError

    def page(self, place: str, prefix: str, marker: str) -> tuple[list[str], str]:
        names = sorted(key[len(place) + 1 :] for key in self.objects if key.startswith(f"{place}/{prefix}"))
        first = int(marker or 0)
        return names[first : first + PAGE], str(first + PAGE) if len(names) > first + PAGE else ""

    def etag(self, key: str) -> str:
        return f'"{hashlib.sha256(self.objects[key]).hexdigest()[:16]}"'


class AzureStorageStandIn(_StandIn):
    """A service SAS is checked; of what the hub asks itself (Shared Key) only that it is signed at all."""

    def __init__(self, account: str, key: str) -> None:
        super().__init__()
        self.account = account
        self.key = key

    @property
    def url(self) -> str:
        return f"http://{self.host}/{self.account}"

    @property
    def connection_string(self) -> str:
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account};AccountKey={self.key};BlobEndpoint={self.url};"
        )

    def answer(
        self, method: str, path: str, raw: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        key = unquote(path).removeprefix(f"/{self.account}/")
        if "sig" in query:
            right = "w" if method == "PUT" else "r"
            if right not in query["sp"] or not hmac.compare_digest(query["sig"], self._signature(key, query)):
                return 403, b"", {"x-ms-error-code": "AuthenticationFailed"}
        elif self.forbidden or not headers.get("authorization", "").startswith("SharedKey "):
            return 403, b"", {"x-ms-error-code": "AuthorizationFailure"}
        if query.get("comp") == "list":
            return 200, self._listing(key, query), {"Content-Type": "application/xml"}
        if method == "PUT":
            if headers.get("x-ms-blob-type") != "BlockBlob":
                return 400, b"", {"x-ms-error-code": "MissingRequiredHeader"}
            self.objects[key] = body
            self.metadata[key] = {n[10:]: value for n, value in headers.items() if n.startswith("x-ms-meta-")}
            return 201, b"", {}
        if key not in self.objects:
            return 404, b"", {"x-ms-error-code": "BlobNotFound"}
        told = {f"x-ms-meta-{name}": value for name, value in self.metadata.get(key, {}).items()}
        told |= {
            "ETag": self.etag(key),
            "x-ms-blob-type": "BlockBlob",
            "Last-Modified": "Fri, 20 Nov 2026 14:00:00 GMT",
        }
        return 200, self.objects[key], told

    def _signature(self, key: str, query: Mapping[str, str]) -> str:
        """https://learn.microsoft.com/rest/api/storageservices/create-service-sas"""
        lines = [query.get(name, "") for name in ("sp", "st", "se")]
        lines += [f"/blob/{self.account}/{key}", query.get("si", "")]
        lines += [query.get(name, "") for name in ("sip", "spr", "sv", "sr")]
        lines += ["", query.get("ses", "")]
        lines += [query.get(name, "") for name in ("rscc", "rscd", "rsce", "rscl", "rsct")]
        made = hmac.digest(base64.b64decode(self.key), "\n".join(lines).encode(), hashlib.sha256)
        return base64.b64encode(made).decode()

    def _listing(self, container: str, query: Mapping[str, str]) -> bytes:
        names, following = self.page(container, query.get("prefix", ""), query.get("marker", ""))
        blobs = "".join(self._listed(container, name) for name in names)
        prefix = f"<Prefix>{escape(query.get('prefix', ''))}</Prefix>"
        told = f"{prefix}<Blobs>{blobs}</Blobs><NextMarker>{following}</NextMarker>"
        return f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults>{told}</EnumerationResults>'.encode()

    def _listed(self, container: str, name: str) -> str:
        key = f"{container}/{name}"
        metadata = "".join(f"<{n}>{escape(value)}</{n}>" for n, value in self.metadata.get(key, {}).items())
        about = f"<Content-Length>{len(self.objects[key])}</Content-Length><Etag>{escape(self.etag(key))}</Etag>"
        properties = f"<Properties>{about}<BlobType>BlockBlob</BlobType></Properties>"
        return f"<Blob><Name>{escape(name)}</Name>{properties}<Metadata>{metadata}</Metadata></Blob>"


class GoogleStorageStandIn(_StandIn):
    """V4 signatures are checked with the public key; the JSON API wants the token that `/token` gives."""

    TOKEN = "token-of-the-stand-in"

    def __init__(self, public_key: RSAPublicKey) -> None:
        super().__init__()
        self._public_key = public_key

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def answer(
        self, method: str, path: str, raw: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        if path == "/token":
            told = {"access_token": self.TOKEN, "expires_in": 3600, "token_type": "Bearer"}
            return 200, json.dumps(told).encode(), {"Content-Type": "application/json"}
        if path.startswith("/storage/v1/b/"):
            if self.forbidden or headers.get("authorization") != f"Bearer {self.TOKEN}":
                return 403, b"{}", {}
            return self._json(path.removeprefix("/storage/v1/b/"), query)
        if not self._is_signed(method, path, raw, query, headers):
            return 403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>", {}
        key = unquote(path)[1:]
        if method == "PUT":
            if headers.get("x-goog-content-sha256") not in (None, hashlib.sha256(body).hexdigest()):
                return 400, b"<Error><Code>XGoogContentSHA256Mismatch</Code></Error>", {}
            self.objects[key] = body
            self.metadata[key] = {n[12:]: value for n, value in headers.items() if n.startswith("x-goog-meta-")}
            return 200, b"", {}
        if key not in self.objects:
            return 404, b"", {}
        return 200, self.objects[key], {"ETag": self.etag(key)}

    def _json(self, rest: str, query: Mapping[str, str]) -> tuple[int, bytes, dict[str, str]]:
        bucket, _, name = rest.partition("/o")
        if name:
            key = f"{bucket}/{unquote(name[1:])}"
            return (200, json.dumps(self._told(key)).encode(), {}) if key in self.objects else (404, b"{}", {})
        names, following = self.page(bucket, query.get("prefix", ""), query.get("pageToken", ""))
        found: dict[str, Any] = {"items": [self._told(f"{bucket}/{name}") for name in names]}
        if following:
            found["nextPageToken"] = following
        return 200, json.dumps(found).encode(), {}

    def _told(self, key: str) -> dict[str, Any]:
        told = {"name": key.partition("/")[2], "size": str(len(self.objects[key])), "etag": self.etag(key)}
        return {**told, "metadata": self.metadata.get(key, {})}

    def _is_signed(
        self, method: str, path: str, raw: str, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> bool:
        """https://cloud.google.com/storage/docs/authentication/canonical-requests"""
        names = query.get("X-Goog-SignedHeaders", "").split(";")
        if "host" not in names or any(name not in headers for name in names):
            return False
        asked = "&".join(sorted(pair for pair in raw.split("&") if not pair.startswith("X-Goog-Signature=")))
        lines = [f"{name}:{headers[name].strip()}\n" for name in sorted(names)]
        canonical = f"{method}\n{quote(unquote(path), safe='/~')}\n{asked}\n{''.join(lines)}\n{';'.join(sorted(names))}"
        payload = headers["x-goog-content-sha256"] if "x-goog-content-sha256" in names else "UNSIGNED-PAYLOAD"
        digest = hashlib.sha256(f"{canonical}\n{payload}".encode()).hexdigest()
        scope = query["X-Goog-Credential"].partition("/")[2]
        text = f"GOOG4-RSA-SHA256\n{query['X-Goog-Date']}\n{scope}\n{digest}"
        try:
            signature = bytes.fromhex(query["X-Goog-Signature"])
            self._public_key.verify(signature, text.encode(), padding.PKCS1v15(), SHA256())
        except (InvalidSignature, ValueError, KeyError):
            return False
        return True
