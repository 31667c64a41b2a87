"""The client for blobs against a real hub, over lines that break, and against answers that lie."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.integration.blob_wire import Sender, sha
from tests.integration.test_hub_client import serving
from worker_manager.blob_client import BlobClient, Broken, Stored
from worker_manager.errors import HubError, SourceUnavailable, UsageError, WorkerManagerError
from worker_manager.hub_client import HubClient

MB = 1_000_000


class Cutter:
    """Passes a connection on, and cuts it when so many bytes have gone through it one way."""

    def __init__(self, url: str, up: int, down: int) -> None:
        address = urlsplit(url)
        self._to = (address.hostname, address.port)
        self._most = {"up": up, "down": down}
        self.passed = {"up": 0, "down": 0}
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._to)
            for way, one, other in (("up", near, far), ("down", far, near)):
                threading.Thread(target=self._pass, args=(way, one, other), daemon=True).start()

    def _pass(self, way: str, one: socket.socket, other: socket.socket) -> None:
        gone = 0
        try:
            while (block := one.recv(65_536)) and gone < self._most[way]:
                other.sendall(block)
                gone += len(block)
            self.cuts += bool(block)
        except OSError:
            pass
        self.passed[way] += gone
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self) -> None:
        self._listener.close()


@contextmanager
def cutting(url: str, up: int = 10**12, down: int = 10**12) -> Iterator[Cutter]:
    cutter = Cutter(url, up, down)
    try:
        yield cutter
    finally:
        cutter.close()


def client(url: str, token: str = "", **more: Any) -> BlobClient:
    more.setdefault("pause", lambda _: None)
    return BlobClient(HubClient(url, token=token), **more)


@pytest.fixture(scope="module")
def alice(shared_hub: Any) -> Sender:
    return Sender(shared_hub)


@pytest.fixture
def mine(alice: Sender) -> BlobClient:
    return client(alice.hub.url, alice.token)


@pytest.mark.parametrize("size", [0, 1, 5 * MB])
def test_a_file_goes_there_and_comes_back(alice: Sender, mine: BlobClient, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    told: list[tuple[int, int | None]] = []
    sent = mine.upload(tmp_path / "file", lambda done, total: told.append((done, total)))
    assert sent == Stored(sha(data), size)
    assert told[-1] == (size, size) and [done for done, _ in told] == sorted(done for done, _ in told)
    assert alice.get(sent.sha256).content == data
    told.clear()
    got = mine.download(sent.sha256, tmp_path / "back", progress=lambda done, total: told.append((done, total)))
    assert got == sent and (tmp_path / "back").read_bytes() == data
    assert not told or told[-1] == (size, size)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "file"]


def test_a_file_goes_there_and_comes_back_over_tls(start_hub: Any, tmp_path: Path) -> None:
    hub = start_hub(tls="own")
    token = Path(hub.state_dir / "tokens" / "operator.token")
    pinned = BlobClient(HubClient(hub.url, token_file=token, fingerprint=hub.found.fingerprint))
    trusting = BlobClient(HubClient(hub.url, token_file=token, ca=hub.found.ca))
    (tmp_path / "file").write_bytes(os.urandom(5 * MB))
    sent = pinned.upload(tmp_path / "file")
    assert trusting.download(sent.sha256, tmp_path / "back") == sent
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()


def test_what_is_there_is_not_sent_again(alice: Sender, tmp_path: Path) -> None:
    data = os.urandom(3 * MB)
    (tmp_path / "file").write_bytes(data)
    assert alice.patch(sha(data), data[: 2 * MB], 0, len(data)).status_code == 204
    with cutting(alice.hub.url) as line:
        client(line.url, alice.token).upload(tmp_path / "file")
        client(line.url, alice.token).upload(tmp_path / "file")
    assert line.passed["up"] < MB + 100_000
    assert alice.get(sha(data)).content == data


def test_a_line_that_breaks_again_and_again_costs_little(alice: Sender, tmp_path: Path) -> None:
    data = os.urandom(20 * MB)
    (tmp_path / "file").write_bytes(data)
    with cutting(alice.hub.url, up=6 * MB) as line:
        sent = client(line.url, alice.token, pause=lambda _: time.sleep(0.05)).upload(tmp_path / "file")
        assert line.cuts >= 3 and line.passed["up"] < 26 * MB
    assert alice.get(sent.sha256).content == data
    with cutting(alice.hub.url, down=6 * MB) as line:
        got = client(line.url, alice.token).download(sent.sha256, tmp_path / "back")
        assert line.cuts >= 3 and line.passed["down"] < 26 * MB
    assert got == sent and (tmp_path / "back").read_bytes() == data


def test_an_earlier_call_that_broke_off_is_gone_on_with(alice: Sender, tmp_path: Path) -> None:
    data = os.urandom(5 * MB)
    digest = alice.send(data)
    with cutting(alice.hub.url, down=2 * MB) as line, pytest.raises(SourceUnavailable):
        client(line.url, alice.token, tries=1).download(digest, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    begun = (tmp_path / ".back.part").stat().st_size
    assert begun > MB
    with cutting(alice.hub.url) as line:
        client(line.url, alice.token).download(digest, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert line.passed["down"] < len(data) - begun + 100_000


@pytest.mark.parametrize("spoil", ["other bytes", "too many", "all there"])
def test_what_an_earlier_call_left_is_believed_only_as_far_as_it_is_right(
    alice: Sender, mine: BlobClient, tmp_path: Path, spoil: str
) -> None:
    data = os.urandom(MB)
    digest = alice.send(data)
    left = {"other bytes": b"x" * 1000, "too many": data + b"x", "all there": data}[spoil]
    (tmp_path / ".back.part").write_bytes(left)
    assert mine.download(digest, tmp_path / "back").sha256 == digest
    assert (tmp_path / "back").read_bytes() == data


def test_no_more_than_so_many_tries_without_any_progress(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    pauses: list[float] = []
    nobody = client("http://127.0.0.1:1", tries=4, pause=pauses.append)
    with pytest.raises(SourceUnavailable):
        nobody.upload(tmp_path / "file")
    assert len(pauses) == 3 and all(0 < pause <= 10 for pause in pauses)
    with pytest.raises(SourceUnavailable):
        nobody.download("a" * 64, tmp_path / "back")


def test_a_refusal_that_will_not_change_is_told_at_once(alice: Sender, tmp_path: Path) -> None:
    pauses: list[float] = []
    with pytest.raises(HubError) as unknown:
        client(alice.hub.url, alice.token, pause=pauses.append).download("a" * 64, tmp_path / "back")
    assert unknown.value.status == 404
    (tmp_path / "file").write_bytes(b"data")
    with pytest.raises(HubError) as refused:
        client(alice.hub.url, "wm_made-up", pause=pauses.append).upload(tmp_path / "file")
    assert refused.value.status == 401
    assert pauses == []


def test_a_hub_that_is_busy_says_how_long_to_wait(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    pauses: list[float] = []

    def answer(_: Any, number: int) -> Any:
        if number <= 2:
            return 429, {"Retry-After": "3", "Content-Length": "0"}, b""
        return 200, {"Content-Length": "0"}, b""

    with serving(answer) as server:
        server.RequestHandlerClass.do_HEAD = server.RequestHandlerClass.do_GET  # type: ignore[attr-defined]
        client(f"http://127.0.0.1:{server.server_address[1]}", pause=pauses.append).upload(tmp_path / "file")
    assert pauses == [3.0, 3.0]


def test_a_file_that_changes_while_it_is_sent_is_said_to(alice: Sender, mine: BlobClient, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * MB)

    def change(done: int, total: int | None) -> None:
        with path.open("r+b") as file:
            file.seek(MB - 1)
            file.write(b"b")

    with pytest.raises(UsageError, match="changed while it was sent"):
        mine.upload(path, change)
    for wrong in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="cannot be read"):
            mine.upload(wrong)


def test_bytes_that_lie_are_fetched_twice_and_never_kept(tmp_path: Path) -> None:
    with serving(lambda *_: (200, {}, b"not what was asked for")) as server:
        liar = client(f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(Broken):
            liar.download("a" * 64, tmp_path / "back")
    assert list(tmp_path.iterdir()) == [] and len(server.seen) == 2


def test_a_redirect_is_followed_without_the_token(alice: Sender, tmp_path: Path) -> None:
    data = os.urandom(1000)
    with serving(lambda *_: (200, {}, data)) as storage:
        place = f"http://127.0.0.1:{storage.server_address[1]}/object?signature=canary"
        with serving(lambda *_: (302, {"Location": place}, b"")) as hub:
            mine = client(f"http://127.0.0.1:{hub.server_address[1]}", "wm_secret")
            assert mine.download("/v1/jobs/j1/files/a", tmp_path / "a", sha(data)).sha256 == sha(data)
    (asked,) = storage.seen
    assert asked[1] == "/object?signature=canary" and "Authorization" not in asked[2]
    with serving(lambda *_: (302, {"Location": "http://127.0.0.1:1/?signature=canary"}, b"")) as hub:
        mine = client(f"http://127.0.0.1:{hub.server_address[1]}", tries=1)
        with pytest.raises(SourceUnavailable) as gone:
            mine.download("/v1/jobs/j1/files/a", tmp_path / "b")
    assert "canary" not in str(gone.value)


def test_a_place_that_cannot_be_written_is_named(alice: Sender, mine: BlobClient, tmp_path: Path) -> None:
    digest = alice.send(b"data")
    with pytest.raises(WorkerManagerError, match=r"nowhere/back cannot be written: No such file"):
        mine.download(digest, tmp_path / "nowhere" / "back")
