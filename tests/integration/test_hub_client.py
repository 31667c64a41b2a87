"""The client against small servers on the loopback interface that behave well, badly or not at all."""

import datetime
import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from worker_manager.errors import HubError, SourceUnavailable, UsageError
from worker_manager.hub_client import HubClient

Answer = tuple[int, dict[str, str], bytes]
CANARY = "canary-7f3a"


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler, int], Answer | None]) -> None:
        self.answer = answer
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        answer = self.server.answer(self, len(self.server.seen))
        if answer is None:
            self.close_connection = True
            return
        status, headers, content = answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = handle_any

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(
    answer: Callable[[BaseHTTPRequestHandler, int], Answer | None], tls: Path | None = None
) -> Iterator[Server]:
    server = Server(answer)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def url(server: Server, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.server_port}"


def ok(value: Any) -> Answer:
    return 200, {}, json.dumps(value).encode()


def problem(status: int, code: str, headers: dict[str, str] | None = None, **more: Any) -> Answer:
    return status, headers or {}, json.dumps({"status": status, "code": code, "detail": "No.", **more}).encode()


def test_an_answer_is_decoded_and_the_token_travels_in_the_header(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(CANARY + "\n")
    with serving(lambda *_: ok({"a": 1})) as server:
        client = HubClient(url(server), token_file=token)
        assert client.get("/v1/info", params={"x": 2, "y": None}) == {"a": 1}
        token.write_text("rotated")
        client.post("/v1/jobs", {"jobs": []}, headers={"Idempotency-Key": "k"})
    get, post = server.seen
    assert get[:2] == ("GET", "/v1/info?x=2")
    assert get[2]["Authorization"] == f"Bearer {CANARY}"
    assert post[2]["Authorization"] == "Bearer rotated"
    assert post[2]["Idempotency-Key"] == "k"
    assert json.loads(post[3]) == {"jobs": []}


def test_a_problem_document_becomes_an_error_with_its_parts() -> None:
    with (
        serving(lambda *_: problem(422, "bad-job", errors=[{"where": "jobs[0]", "what": "x"}])) as server,
        pytest.raises(HubError) as caught,
    ):
        HubClient(url(server), token=CANARY).post("/v1/jobs", {})
    assert (caught.value.status, caught.value.code, caught.value.detail) == (422, "bad-job", "No.")
    assert caught.value.extra["errors"] == [{"where": "jobs[0]", "what": "x"}]


@pytest.mark.parametrize("status", [429, 503])
def test_a_read_is_repeated_until_the_hub_has_room(status: int) -> None:
    def answer(_: object, n: int) -> Answer:
        return problem(status, "busy", {"Retry-After": "0"}) if n < 3 else ok("fine")

    with serving(answer) as server:
        assert HubClient(url(server)).get("/v1/info") == "fine"
    assert len(server.seen) == 3


def test_what_may_not_be_repeated_is_sent_once() -> None:
    with serving(lambda *_: None) as server:
        with pytest.raises(SourceUnavailable, match="closed the connection"):
            HubClient(url(server)).post("/v1/tokens", {})
        assert len(server.seen) == 1
        with pytest.raises(SourceUnavailable):
            HubClient(url(server), attempts=3).post("/v1/jobs", {}, idempotent=True)
        assert len(server.seen) == 4


def test_a_refusal_is_not_repeated() -> None:
    with serving(lambda *_: problem(409, "coverage-taken")) as server, pytest.raises(HubError):
        HubClient(url(server)).get("/v1/info")
    assert len(server.seen) == 1


def test_a_hub_that_never_answers_costs_no_more_than_the_timeout() -> None:
    release = threading.Event()

    def answer(*_: object) -> Answer:
        release.wait(10)
        return ok(None)

    with serving(answer) as server:
        try:
            with pytest.raises(SourceUnavailable, match="no answer in time"):
                HubClient(url(server), attempts=1).get("/v1/info", timeout=0.05)
        finally:
            release.set()


def test_no_hub_at_all_is_unavailable_and_names_no_token() -> None:
    with serving(lambda *_: ok(1)) as server:
        address = url(server)
    with pytest.raises(SourceUnavailable) as caught:
        HubClient(address, token=CANARY, attempts=2).get("/v1/info")
    assert address in str(caught.value)
    assert CANARY not in "".join(str(e) for e in (caught.value, caught.value.__cause__, caught.value.__context__))


@pytest.mark.parametrize(
    "answer",
    [(200, {}, b"<html>a captive portal</html>"), (200, {}, b"[1, 2")],
)
def test_garbage_is_unavailable_never_empty(answer: Answer) -> None:
    with serving(lambda *_: answer) as server, pytest.raises(SourceUnavailable, match="is it a hub"):
        HubClient(url(server)).get("/v1/info")


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"[]", b""])
def test_a_proxys_error_page_is_an_error_with_its_status(body: bytes) -> None:
    with serving(lambda *_: (500, {}, body)) as server, pytest.raises(HubError) as caught:
        HubClient(url(server)).get("/v1/info")
    assert (caught.value.status, caught.value.code) == (500, "http-500")


def test_a_redirect_is_not_followed() -> None:
    with (
        serving(lambda *_: (302, {"Location": "http://127.0.0.1:9/"}, b"")) as server,
        pytest.raises(HubError) as caught,
    ):
        HubClient(url(server), token=CANARY).get("/v1/info")
    assert caught.value.status == 302


def test_a_log_is_streamed_with_its_headers() -> None:
    def answer(*_: object) -> Answer:
        return 200, {"X-Next-Offset": "300000"}, b"x" * 300_000

    with serving(answer) as server, HubClient(url(server)).stream("/v1/jobs/j1/logs", params={"offset": 0}) as log:
        assert log.headers["x-next-offset"] == "300000"
        assert sum(len(chunk) for chunk in log.chunks) == 300_000


def test_a_stream_that_breaks_off_says_so() -> None:
    with (
        serving(lambda handler, _: _cut(handler)) as server,
        HubClient(url(server)).stream("/v1/jobs/j1/logs") as log,
        pytest.raises(SourceUnavailable, match="broke off"),
    ):
        list(log.chunks)


def _cut(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "10")
    handler.end_headers()
    handler.wfile.write(b"xy")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("hub:80", "not the address"),
        ("ftp://hub", "not the address"),
        ("http://user:pw@localhost", "no password"),
        ("http://hub.example.org", "in the clear"),
    ],
)
def test_an_address_that_makes_no_sense_or_leaks_is_refused(address: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        HubClient(address, token=CANARY)


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="token file"):
        HubClient("http://127.0.0.1:1", token_file=tmp_path / "none").get("/v1/info")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hub")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "hub.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    digest = hashlib.sha256(made.public_bytes(serialization.Encoding.DER)).hexdigest()
    return path, digest


def test_a_pinned_hub_is_trusted_and_any_other_is_not(certificate: tuple[Path, str]) -> None:
    path, digest = certificate
    with serving(lambda *_: ok("hello"), tls=path) as server:
        address = url(server, "https")
        assert HubClient(address, fingerprint=f"sha256:{digest}").get("/v1/info") == "hello"
        with pytest.raises(SourceUnavailable, match="TLS failed"):
            HubClient(address, fingerprint="0" * 64, token=CANARY, attempts=1).get("/v1/info")
        with pytest.raises(SourceUnavailable, match="TLS failed"):
            HubClient(address, token=CANARY, attempts=1).get("/v1/info")
    assert all(CANARY not in str(seen) for seen in server.seen)
