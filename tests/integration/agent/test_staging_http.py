"""Files over HTTP from a server that does what a bad network and a bad server do."""

import hashlib
import os
import resource
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from worker.staging.errors import BrokeOff, Forbidden, Moved, Refused, Stopped
from worker.staging.http import Patience, Source, fetch, look
from worker.staging.lines import Lines
from worker.staging.replies import shown
from worker.staging.stops import Stop

DATA = os.urandom(300_000)
DIGEST = hashlib.sha256(DATA).hexdigest()
Answer = Callable[[Any], None]


class Server:
    """Each request is answered by the next of `answers`; the last one goes on."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [whole]
        self.asked: list[dict[str, str]] = []
        self.paths: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append({name.lower(): value for name, value in self.headers.items()})
                server.paths.append(self.path)
                answer = server.answers[0] if len(server.answers) == 1 else server.answers.pop(0)
                answer(self)
                self.close_connection = True

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/file?signature=canary"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def says(request: Any, status: int, data: bytes = b"", **headers: str) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(data)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(data)


def whole(request: Any) -> None:
    asked = request.headers.get("Range")
    if asked and request.headers.get("If-Range") == '"v1"':
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        says(request, 206, DATA[start:], ETag='"v1"', Content_Range=f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
    else:
        says(request, 200, DATA, ETag='"v1"')


def cut(after: int, **headers: str) -> Answer:
    def answer(request: Any) -> None:
        asked = request.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        more = {"Content_Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"} if start else {}
        request.send_response(206 if start else 200)
        for name, value in {"Content-Length": str(len(DATA) - start), "ETag": '"v1"', **more, **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(DATA[start : start + after])

    return answer


def status(number: int, **headers: str) -> Answer:
    return lambda request: says(request, number, **headers)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "file")


def got(server: Server, path: str, **more: Any) -> list[float]:
    """The pauses that were made on the way."""
    pauses: list[float] = []
    more.setdefault("patience", Patience(tries=3))
    content = fetch(
        Source(server.url, **more.pop("source", {})), path, wait=lambda seconds, _: pauses.append(seconds), **more
    )
    assert content == (DIGEST, len(DATA))
    assert Path(path).read_bytes() == DATA
    return pauses


def test_a_file_comes_whole_and_digested(server: Server, path: str) -> None:
    seen: list[tuple[int, int | None]] = []
    assert got(server, path, progress=lambda there, of: seen.append((there, of))) == []
    assert seen[-1] == (len(DATA), len(DATA))


def test_what_broke_off_goes_on_where_it_was(server: Server, path: str) -> None:
    server.answers = [cut(100_000), cut(50_000), whole]
    assert len(got(server, path)) == 2
    assert [asked.get("range") for asked in server.asked] == [None, "bytes=100000-", "bytes=150000-"]


def test_progress_renews_the_patience(server: Server, path: str) -> None:
    server.answers = [cut(40_000)] * 7 + [whole]
    assert len(got(server, path)) == 7


def test_what_has_changed_meanwhile_is_begun_anew(server: Server, path: str) -> None:
    server.answers = [cut(100_000, ETag='"v0"'), whole]
    got(server, path)
    assert server.asked[1]["if-range"] == '"v0"'


def test_a_server_without_a_mark_is_asked_for_everything(server: Server, path: str) -> None:
    server.answers = [cut(100_000, ETag='W/"weak"'), whole]
    got(server, path)
    assert "range" not in server.asked[1]


def test_one_that_goes_on_at_the_wrong_place_is_not_believed(server: Server, path: str) -> None:
    def wrong(request: Any) -> None:
        says(request, 206, DATA[7:], ETag='"v1"', Content_Range=f"bytes 7-{len(DATA) - 1}/{len(DATA)}")

    server.answers = [cut(100_000), wrong, whole]
    got(server, path)


@pytest.mark.parametrize("number", [429, 500, 503])
def test_what_passes_is_waited_for(server: Server, path: str, number: int) -> None:
    server.answers = [status(number, Retry_After="7"), whole]
    assert got(server, path)[0] >= 7


@pytest.mark.parametrize("number", [400, 401, 403, 404, 410])
def test_what_does_not_pass_is_said_at_once_without_the_secret(server: Server, path: str, number: int) -> None:
    server.answers = [status(number)]
    with pytest.raises(Refused, match=f"HTTP {number}") as refused:
        got(server, path)
    assert "canary" not in str(refused.value)
    assert not refused.value.again


def test_patience_has_an_end(server: Server, path: str) -> None:
    server.answers = [status(503)]
    with pytest.raises(BrokeOff, match="503") as broke:
        got(server, path)
    assert len(server.asked) == 3
    assert broke.value.again


def test_nobody_there(path: str) -> None:
    with pytest.raises(BrokeOff, match=r"127\.0\.0\.1:9: "):
        fetch(Source("http://127.0.0.1:9/x?secret=canary"), path, wait=lambda *_: None, patience=Patience(tries=2))


def test_a_redirect_is_followed_without_the_headers_of_the_first(server: Server, path: str) -> None:
    other = Server()
    try:
        server.answers = [status(302, Location=other.url)]
        got(server, path, source={"headers": {"Authorization": "Bearer canary"}})
        assert server.asked[0]["authorization"] == "Bearer canary"
        assert "authorization" not in other.asked[0]
    finally:
        other.close()


def test_redirects_without_end(server: Server, path: str) -> None:
    server.answers = [lambda request: says(request, 302, Location="/again")]
    with pytest.raises(Refused, match="leads on and on"):
        got(server, path)


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///etc/passwd", "http:///x", "nonsense"])
def test_what_is_no_address(url: str, path: str) -> None:
    with pytest.raises(Refused, match="no address"):
        fetch(Source(url), path)


def test_a_size_that_was_promised(server: Server, path: str) -> None:
    with pytest.raises(Refused, match="not 5"):
        got(server, path, source={"size": 5})


def test_one_that_is_packed(server: Server, path: str) -> None:
    server.answers = [lambda request: says(request, 200, DATA, Content_Encoding="gzip")]
    with pytest.raises(Refused, match="packed"):
        got(server, path)


def test_a_full_disk_is_no_broken_line(server: Server, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            got(server, str(tmp_path / "file"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(server.asked) == 1


def test_what_nobody_wants_any_more_is_left(server: Server, path: str) -> None:
    stop = Stop()
    stop.now()
    with pytest.raises(Stopped):
        got(server, path, stop=stop)


def test_a_stop_ends_even_a_line_on_which_nothing_comes(server: Server, path: str) -> None:
    stop, asked = Stop(), threading.Event()

    def silent(request: Any) -> None:
        asked.set()
        request.rfile.read(1)  # until the other side is gone

    server.answers = [silent]
    threading.Thread(target=lambda: asked.wait(30) and stop.now()).start()
    with pytest.raises(Stopped):
        got(server, path, stop=stop)


def test_an_address_that_has_ended_is_renewed_and_the_rest_fetched_with_the_new_one(server: Server, path: str) -> None:
    server.answers = [cut(100_000), status(403), whole]
    newest = iter(["old", "old", "old", "new", "new"])
    refused: list[bool] = []

    def renewed(again: bool) -> Source:
        refused.append(again)
        return Source(server.url + "&" + next(newest))

    got(server, path, renewed=renewed)
    assert refused == [False, False, True, False]
    assert [name.rpartition("&")[2] for name in server.paths] == ["old", "old", "new"]
    assert server.asked[2]["range"] == "bytes=100000-"


def test_one_that_stays_forbidden(server: Server, path: str) -> None:
    server.answers = [status(403)]
    with pytest.raises(Forbidden, match="403"):
        got(server, path, renewed=lambda _: Source(server.url))
    assert len(server.asked) == 4


def test_another_version_than_the_one_that_is_meant(server: Server, path: str) -> None:
    with pytest.raises(Moved):
        got(server, path, source={"tag": '"v0"'})
    Path(path).unlink()
    got(server, path, source={"tag": "v1"})


def test_what_lies_there(server: Server) -> None:
    server.answers = [lambda request: says(request, 200, ETag='"v9"')]
    assert look(server.url, Lines(), Stop()) == ('"v9"', 0)
    server.answers = [status(501)]
    assert look(server.url, Lines(), Stop()) == ("", None)
    server.answers = [status(503)]
    with pytest.raises(BrokeOff):
        look(server.url, Lines(), Stop())


def test_what_is_shown_of_a_url() -> None:
    assert shown("https://user:secret@host:8443/a/b?X-Amz-Signature=canary#part") == "https://host:8443/a/b"
