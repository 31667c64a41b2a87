"""What a blob survives: a hub killed between and within requests, at any step of giving it its name, and a full disk.
Whatever happens, what has a name is whole."""

import os
import threading
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import requests

from tests import needs
from tests.faults.hubs import MortalHub
from tests.faults.test_disk_full import fill
from tests.faults.tracing import injected
from tests.integration.blob_wire import Line, Sender, sha
from tests.place import until
from worker_manager.blob_client import BlobClient
from worker_manager.errors import HubError, SourceUnavailable
from worker_manager.hub.blobs.folder import SECOND
from worker_manager.hub_client import HubClient

MB = 1_000_000


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[MortalHub]:
    made = MortalHub(tmp_path / "hub")
    made.start()
    yield made
    made.close()


def torn(hub: Any) -> list[str]:
    """Blobs with a name and other bytes than it says."""
    whole = [path for path in (hub.state_dir / "blobs").glob("??/*") if not path.name.startswith(".")]
    return [path.name for path in whole if sha(path.read_bytes()) != path.name]


def test_a_hub_killed_between_two_pieces_goes_on_where_it_was(mortal: MortalHub) -> None:
    alice = Sender(mortal)
    data = os.urandom(3 * MB)
    digest = sha(data)
    assert alice.patch(digest, data[:MB], 0, len(data)).status_code == 204
    mortal.kill()
    mortal.start()
    assert alice.offset(digest) == MB
    assert alice.patch(digest, data[MB : 2 * MB], MB, len(data)).status_code == 204
    mortal.kill()
    mortal.start()
    assert alice.patch(digest, data[2 * MB :], 2 * MB, len(data)).status_code == 201
    assert alice.get(digest).content == data


def test_a_hub_killed_in_the_middle_of_a_piece_has_what_it_says(mortal: MortalHub) -> None:
    alice = Sender(mortal)
    data = os.urandom(4 * MB)
    digest = sha(data)
    with Line(alice, digest, 0, len(data)) as line:
        line.send(data[: 2 * MB])
        until(lambda: alice.offset(digest) > 0, "some of it to be there")
        mortal.kill()
    mortal.start()
    offset = alice.offset(digest)
    assert 0 < offset <= 2 * MB
    assert alice.patch(digest, data[offset:], offset, len(data)).status_code == 201
    assert alice.get(digest).content == data


def test_a_hub_killed_before_it_could_write_down_that_it_has_a_blob(mortal: MortalHub) -> None:
    """The file has its name already; the next request only asks to finish."""
    alice = Sender(mortal)
    data = os.urandom(MB)
    digest = sha(data)
    assert alice.patch(digest, data[:-1], 0, len(data)).status_code == 204
    mortal.kill()
    blobs = mortal.state_dir / "blobs"
    (unfinished,) = (blobs / "partial").iterdir()
    with unfinished.open("ab") as file:
        file.write(data[-1:])
    (blobs / digest[:2]).mkdir()
    os.link(unfinished, blobs / digest[:2] / digest)
    mortal.start()
    assert alice.offset(digest) == len(data)
    assert alice.patch(digest, b"", len(data), len(data)).status_code == 201
    assert alice.get(digest).content == data
    assert not list((blobs / "partial").iterdir())
    assert [path.name for path in (blobs / digest[:2]).iterdir()] == [digest]


@pytest.mark.parametrize(
    ("call", "about"),
    [
        ("fdatasync", "unfinished"),
        ("link,linkat", "unfinished"),
        ("rename,renameat,renameat2", "second"),
        ("fsync", "folder"),
        ("unlink,unlinkat", "unfinished"),
    ],
)
def test_a_hub_killed_at_a_step_of_giving_a_blob_its_name(mortal: MortalHub, call: str, about: str) -> None:
    alice = Sender(mortal)
    data = os.urandom(MB)
    digest = sha(data)
    assert alice.patch(digest, data[:1000], 0, len(data)).status_code == 204
    blobs = mortal.state_dir / "blobs"
    (unfinished,) = (blobs / "partial").iterdir()
    folder = blobs / digest[:2]
    folder.mkdir()
    path = {"unfinished": unfinished, "second": folder / f"{SECOND}{unfinished.name}", "folder": folder}[about]
    with injected(mortal.pid, f"{call}:signal=KILL", path=path), pytest.raises(requests.ConnectionError):
        alice.patch(digest, data[1000:], 1000, len(data))
    mortal.ended()
    assert torn(mortal) == []
    mortal.start()
    if alice.head(digest).status_code != 200:
        assert alice.offset(digest) == len(data), "all of it is there: it only has to be finished"
        assert alice.patch(digest, b"", len(data), len(data)).status_code == 201
    assert alice.get(digest).content == data
    assert [path.name for path in folder.iterdir()] == [digest]


def test_a_hub_killed_again_and_again_under_uploads_never_has_a_torn_one(mortal: MortalHub) -> None:
    token = Sender(mortal).token
    over = threading.Event()
    acknowledged: list[str] = []
    wrong: list[BaseException] = []
    # The address stays: a hub takes its old port again.
    url = mortal.url

    def send(number: int) -> None:
        path = mortal.state_dir.parent / f"file-{number}"
        client = BlobClient(HubClient(url, token=token, attempts=1), tries=1, pause=lambda _: None)
        for size in cycle((1000, 300_000, 2 * MB)):
            if over.is_set():
                return
            path.write_bytes(os.urandom(size))
            try:
                acknowledged.append(client.upload(path).sha256)
            except (SourceUnavailable, HubError):
                over.wait(0.2)  # the next hub needs the processor
            except BaseException as error:
                wrong.append(error)
                return

    senders = [threading.Thread(target=send, args=(number,)) for number in range(3)]
    for sender in senders:
        sender.start()
    try:
        for delay_s in (0.0, 0.05):
            before = len(acknowledged)
            until(lambda before=before: len(acknowledged) > before + 5 or wrong, "some blobs to be taken")
            over.wait(delay_s)
            mortal.kill()
            assert torn(mortal) == []
            mortal.start()
    finally:
        over.set()
        for sender in senders:
            sender.join()
    assert not wrong
    assert torn(mortal) == []
    alice = Sender(mortal)
    for digest in acknowledged:
        assert alice.head(digest).status_code == 200
        assert (mortal.state_dir / "blobs" / digest[:2] / digest).exists()


def test_a_disk_that_fills_up_in_the_middle_keeps_what_was_there(tmp_path: Path, start_hub: Any) -> None:
    with needs.small_disk(tmp_path / "hub" / "blobs", "16m") as disk:
        hub = start_hub()
        alice = Sender(hub)
        data = os.urandom(6 * MB)
        digest = sha(data)
        with Line(alice, digest, 0, len(data)) as line:
            line.send(data[: 2 * MB])
            until(lambda: alice.offset(digest) >= MB, "the beginning to be written")
            filler = fill(disk)
            line.send(data[2 * MB :])
            status, text = line.answer()
        assert status == 507 and "disk-full" in text, text
        offset = alice.offset(digest)
        assert f"upload-offset: {offset}" in text.lower() and offset >= MB
        assert hub.get("/healthz", by=None) == {"status": "ok"}
        refused = alice.patch(digest, data[offset:], offset, len(data))
        assert (refused.status_code, refused.json()["code"]) == (507, "disk-full")
        filler.unlink()
        assert alice.patch(digest, data[offset:], offset, len(data)).status_code == 201
        assert alice.get(digest).content == data
        too_large = alice.patch(sha(b"large"), b"x", 0, 12 * MB)
        assert (too_large.status_code, too_large.json()["code"]) == (507, "disk-full"), "said before anything is sent"
        assert discarded(disk)


def discarded(disk: Path) -> bool:
    """Nothing was begun for what could not come."""
    return not list((disk / "partial").iterdir())
