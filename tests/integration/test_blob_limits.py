"""Bounds of a hub's blobs: how much, how many at once, how slowly, and that neither memory nor others pay for them."""

import os
import re
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests

from tests.integration.blob_wire import Line, Sender, sha
from tests.place import until
from worker_manager.blob_client import BlobClient
from worker_manager.hub import discovery
from worker_manager.hub_client import HubClient

MIB = 2**20


def shown(hub: Any, name: str) -> float:
    """A number of its metrics."""
    text = hub.call("GET", "/metrics", by=None).text
    (found,) = re.findall(rf"^{re.escape(name)} ([0-9.e+]+)$", text, re.MULTILINE)
    return float(found)


def test_a_limit_in_bytes_holds_for_whole_and_unfinished_ones(start_hub: Any) -> None:
    hub = start_hub(blob_limit=MIB)
    alice, bob = Sender(hub), Sender(hub, "bob")
    never = alice.patch(sha(b""), b"x", 0, MIB + 1)
    assert (never.status_code, never.json()["code"]) == (413, "blob-too-large")
    whole = os.urandom(300_000)
    alice.send(whole)
    begun = os.urandom(400_000)
    assert alice.patch(sha(begun), begun[:300_000], 0, len(begun)).status_code == 204
    more = os.urandom(500_000)
    full = bob.patch(sha(more), more, 0, len(more))
    assert (full.status_code, full.json()["code"]) == (507, "blobs-full")
    assert "1 MiB" in full.json()["detail"]
    assert bob.send(whole), "the same bytes take room only while they come"
    assert alice.patch(sha(begun), begun[300_000:], 300_000, len(begun)).status_code == 201
    assert shown(hub, "wm_hub_blobs") == 2
    assert shown(hub, 'wm_hub_blob_bytes{part="whole"}') == 700_000
    assert shown(hub, 'wm_hub_blob_bytes{part="unfinished"}') == 0
    hub.restart()
    assert shown(hub, 'wm_hub_blob_bytes{part="whole"}') == 700_000
    assert bob.patch(sha(more), more, 0, len(more)).status_code == 507


def test_what_is_promised_to_one_upload_is_not_given_to_another(start_hub: Any) -> None:
    hub = start_hub(blob_limit=MIB)
    alice = Sender(hub)
    with Line(alice, sha(b"one"), 0, 700_000) as line:
        line.send(b"x" * 1000)
        until(lambda: shown(hub, 'wm_hub_blob_transfers{way="upload"}') == 1, "the first to begin")
        assert alice.patch(sha(b"two"), b"y", 0, 700_000).status_code == 507
        line.cut()
    until(lambda: alice.patch(sha(b"two"), b"y", 0, 700_000).status_code == 204, "the promise to end with the upload")


def test_a_body_that_stands_still_ends_and_what_came_is_kept(start_hub: Any) -> None:
    hub = start_hub(transfer_stall_s=1.0)
    alice = Sender(hub)
    with Line(alice, sha(b"slow"), 0, MIB) as line:
        line.send(b"x" * 100_000)
        status, text = line.answer()
    assert status == 408 and "body-too-slow" in text and "upload-offset: 100000" in text.lower()
    assert alice.offset(sha(b"slow")) == 100_000


def test_a_body_that_only_drips_ends_too(start_hub: Any) -> None:
    """Each byte in time, all of them never."""
    hub = start_hub(transfer_stall_s=1.0)
    with Line(Sender(hub), sha(b"drip"), 0, MIB) as line:
        began = time.monotonic()
        answered = line.drip(every_s=0.1, at_most_s=30)
        assert answered and time.monotonic() - began < 20
        assert line.answer()[0] == 408


def test_who_does_not_read_what_he_asked_for_is_let_go(start_hub: Any) -> None:
    hub = start_hub(transfer_stall_s=1.0, max_transfers=1)
    alice = Sender(hub)
    data = os.urandom(32 * MIB)
    digest = alice.send(data)
    headers = {"Authorization": f"Bearer {alice.token}"}
    with requests.get(f"{hub.url}/v1/blobs/{digest}", headers=headers, stream=True, timeout=60) as lazy:
        assert lazy.status_code == 200
        until(lambda: shown(hub, 'wm_hub_blob_transfers{way="download"}') == 0, "the lazy one to be let go")
    assert alice.get(digest).content == data


def test_who_goes_away_in_the_middle_gives_back_his_place(start_hub: Any) -> None:
    hub = start_hub(max_transfers=1)
    alice = Sender(hub)
    digest = alice.send(os.urandom(32 * MIB))
    headers = {"Authorization": f"Bearer {alice.token}"}
    with requests.get(f"{hub.url}/v1/blobs/{digest}", headers=headers, stream=True, timeout=60) as reply:
        next(reply.iter_content(1000))
    until(lambda: shown(hub, 'wm_hub_blob_transfers{way="download"}') == 0, "his place to be free")
    assert shown(hub, "wm_hub_blob_bytes_sent_total") < 16 * MIB, "nobody reads the rest from the disk for nobody"


def test_transfers_do_not_turn_other_requests_away(start_hub: Any) -> None:
    hub = start_hub(max_requests=2)
    alice = Sender(hub)
    with ExitStack() as lines:
        for number in range(4):  # until it has begun each is a request like any other, and may keep others out
            line = lines.enter_context(Line(alice, sha(b"%d" % number), 0, MIB))
            line.send(b"x")
            begun = f'wm_hub_blob_transfers{{way="upload"}} {number + 1}.0'
            until(lambda begun=begun: begun in hub.call("GET", "/metrics", by=None).text, begun)
        assert hub.get("/v1/jobs") == {"jobs": [], "next": None}
        assert shown(hub, "wm_hub_requests_serving") == 1


def test_no_more_transfers_than_allowed_and_workers_do_not_wait_for_them(start_hub: Any, wire_worker: Any) -> None:
    hub = start_hub(max_transfers=2)
    alice = Sender(hub)
    worker = wire_worker(hub, hub.token("worker"))
    small = alice.send(b"small")
    with Line(alice, sha(b"a"), 0, MIB) as one, Line(alice, sha(b"b"), 0, MIB) as two:
        one.send(b"x")
        two.send(b"x")
        until(lambda: shown(hub, 'wm_hub_blob_transfers{way="upload"}') == 2, "both to begin")
        third = alice.patch(sha(b"c"), b"x", 0, MIB)
        assert (third.status_code, third.json()["code"], third.headers["Retry-After"]) == (429, "transfers-full", "2")
        assert alice.get(small).content == b"small", "what is small takes no place"
        assert worker.report(running=0) is not None
        one.cut()
        until(lambda: alice.patch(sha(b"c"), b"x", 0, MIB).status_code == 204, "the place to be free")


def test_a_hub_that_ends_tells_its_senders_and_the_next_one_goes_on(start_hub: Any) -> None:
    hub = start_hub()
    alice = Sender(hub)
    data = os.urandom(2 * MIB)
    digest = sha(data)
    with Line(alice, digest, 0, len(data)) as line:
        line.send(data[:MIB])
        until(lambda: alice.offset(digest) > 0, "the sending to begin")
        began = time.monotonic()
        assert discovery.stop(hub.state_dir)
        assert time.monotonic() - began < 8, "it waited for the sender"
        status, text = line.answer()
        assert status == 503 and "hub-ends" in text
    hub.found = discovery.start(hub.settings)
    offset = alice.offset(digest)
    assert offset == MIB
    assert alice.patch(digest, data[offset:], offset, len(data)).status_code == 201


def test_a_hub_that_ends_does_not_wait_for_who_does_not_read(start_hub: Any) -> None:
    hub = start_hub()
    alice = Sender(hub)
    digest = alice.send(os.urandom(32 * MIB))
    headers = {"Authorization": f"Bearer {alice.token}"}
    with requests.get(f"{hub.url}/v1/blobs/{digest}", headers=headers, stream=True, timeout=60) as lazy:
        assert lazy.status_code == 200
        until(lambda: shown(hub, "wm_hub_blob_bytes_sent_total") > MIB, "the line to be full")
        began = time.monotonic()
        assert discovery.stop(hub.state_dir)
        assert time.monotonic() - began < 8, "it waited for the reader"
    assert '"error"' not in discovery.tail(hub.state_dir)


def test_memory_does_not_grow_with_a_file(start_hub: Any, tmp_path: Path) -> None:
    hub = start_hub()
    alice = Sender(hub)
    client = BlobClient(HubClient(hub.url, token=alice.token))
    alice.get(alice.send(os.urandom(MIB)))
    before = peak(hub.pid)
    file = tmp_path / "large"
    block = os.urandom(MIB)
    with file.open("wb") as out:
        for number in range(200):
            out.write(number.to_bytes(4, "big") + block[4:])
    sent = client.upload(file)
    got = client.download(sent.sha256, tmp_path / "back")
    assert (sent.size, got) == (200 * MIB, sent)
    assert peak(hub.pid) - before < 40 * MIB
    assert not list(hub.state_dir.glob("blobs/partial/*"))


def peak(pid: int) -> int:
    """The most memory that it had so far, in bytes."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
