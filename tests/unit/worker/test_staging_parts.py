"""The parts of the stager that need neither a process nor a line."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worker import files
from worker.staging import messages
from worker.staging.copying import copy
from worker.staging.digesting import SMALL, Digest
from worker.staging.errors import BrokeOff, Corrupt, Distrusted, Refused, Stopped, Unsafe, verdict
from worker.staging.grants import Book, read
from worker.staging.http import Source
from worker.staging.inventory import AT_ONCE, Inventory
from worker.staging.lanes import Lanes
from worker.staging.lines import Lines, Proxy, _is_direct
from worker.staging.messages import NotStaged, Progress, Staged
from worker.staging.outputs import BATCH_BYTES, BATCH_FILES, _batches
from worker.staging.patterns import Pattern
from worker.staging.site import Site, opened, place
from worker.staging.sources import Found, Item, _described
from worker.staging.stops import Stop
from worker.staging.survey import Kept
from worker.staging.wanted import wanted

DIGEST = "0" * 63 + "a"


def fits(pattern: str, path: str) -> bool:
    made = Pattern(pattern)
    where = made.start
    for name in path.split("/"):
        where = made.after(where, name)
    return made.fits(where)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a", ["a", "a/b", "a/b/c"], ["b", "ab", "b/a"]),
        ("a/", ["a/b"], ["b/a"]),
        ("*.txt", ["x.txt", ".txt", "x.txt/inside"], ["a/x.txt", "x.txt2", "X.TXT"]),
        ("**/*.txt", ["x.txt", "a/x.txt", "a/b/c/x.txt"], ["a/x.tx"]),
        ("a/**", ["a/b", "a/b/c"], ["b", "ab"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z/inside"], ["z", "b/z", "a/b"]),
        ("**", ["a", "a/b", ".hidden/x"], []),
        (".", ["a", "a/b"], []),
        ("./a//b", ["a/b"], ["a"]),
        ("r?n-[0-9]/out", ["run-1/out", "ran-9/out/x"], ["run-x/out", "run-10/out"]),
        ("**/a/**/b", ["a/b", "x/a/y/b", "a/a/b"], ["b/a", "a"]),
        ("[!a]*", ["b", ".x"], ["a", "ab"]),
    ],
)
def test_what_a_pattern_means(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [path for path in yes if not fits(pattern, path)] == []
    assert [path for path in no if fits(pattern, path)] == []


@pytest.mark.parametrize("pattern", ["/a", "../a", "a/../b", "a\0", "a\\b", "x" * 5000])
def test_a_pattern_that_leads_out(pattern: str) -> None:
    with pytest.raises(Refused, match="does not stay"):
        Pattern(pattern)


def test_where_nothing_can_fit_nobody_looks() -> None:
    made = Pattern("a/*/c")
    assert not made.after(made.start, "b")
    assert made.after(made.after(made.start, "a"), "x")


# ---------------------------------------------------------------- what is wanted, and how it is called


def one(**told: Any) -> Any:
    return wanted([{"to": "x", "source": "s3://b/x", **told}])[0]


def item(path: str = "", identity: str = "", **more: Any) -> Item:
    return Item(path, lambda to, progress: pytest.fail("nothing comes"), identity=identity, **more)


def described(told: Any, *items: Item) -> Found:
    return _described(told, list(items), items[0].path != "", "scope")


def test_an_input_with_a_digest_is_called_as_the_hub_calls_it() -> None:
    assert described(one(source="blob:" + DIGEST), item(identity=DIGEST)).key == files.input_key(DIGEST, False)
    assert described(one(sha256=DIGEST, unpack=True), item()).key == files.input_key(DIGEST, True)
    assert described(one(), item(identity=DIGEST)).sha256 == DIGEST


def test_keys_of_what_has_no_digest() -> None:
    keys = {
        described(one(), item(identity="tag 1")).key,
        described(one(), item(identity="tag 2")).key,
        described(one(source="s3://b/y"), item(identity="tag 1")).key,
        described(one(unpack=True), item(identity="tag 1")).key,
        described(one(), item(identity="tag 1", runs=True)).key,
        described(one(sha256=DIGEST), item(runs=True)).key,
        described(one(), item("a", "tag 1")).key,
        described(one(), item("b", "tag 1")).key,
        described(one(), item("a", "tag 1"), item("b", "tag 1")).key,
    }
    assert len(keys) == 9 and all(key.startswith("name-") for key in keys)
    assert described(one(), item()).key == ""
    assert described(one(), item("a", DIGEST), item("b")).key == ""


def test_a_tree_whose_files_are_known_is_the_same_wherever_it_comes_from() -> None:
    first, second = one(source="job:j1/out/"), one(source="job:j2/out/")
    assert described(first, item("a", DIGEST)).key == described(second, item("a", DIGEST)).key
    assert described(first, item("a", "tag 1")).key != described(second, item("a", "tag 1")).key


def test_what_the_hub_says_is_held_against_what_the_job_says() -> None:
    with pytest.raises(Corrupt, match="digest"):
        described(one(sha256="1" * 64), item(identity=DIGEST))
    with pytest.raises(Corrupt, match="bytes"):
        described(one(size=5), item(size=6))


# ---------------------------------------------------------------- grants


def answer(url: str = "/v1/blobs/x?sig=1", **more: Any) -> dict[str, Any]:
    return {"get": [{"files": [{"path": "", "url": url, **more}]}], "until_ms": 1_000_000}


class Hub:
    def __init__(self) -> None:
        self.now = 0
        self.asked = 0

    def ask(self, what: dict[str, Any], read: Callable[[dict[str, Any]], Any]) -> Any:
        self.asked += 1
        return read(answer(f"/v1/blobs/x?sig={self.asked}"))


def test_an_address_is_asked_for_once_while_it_is_good() -> None:
    hub = Hub()
    book = Book(hub.ask, lambda: hub.now)
    first = book.newest("s", "", None)
    assert book.newest("s", "", None) == first
    assert book.newest("s", "", Source("of another who was refused, and has asked anew")) == first
    assert hub.asked == 1
    assert book.newest("s", "", first).url.endswith("2")
    hub.now = 990_000
    assert book.newest("s", "", None).url.endswith("3")


def test_with_a_clock_that_differs_it_is_not_asked_for_each_file() -> None:
    hub = Hub()
    hub.now = 50_000_000
    book = Book(hub.ask, lambda: hub.now)
    assert [book.newest("s", "", None).url for _ in range(5)] == ["/v1/blobs/x?sig=1"] * 5


def test_what_the_hub_refuses_and_what_may_pass() -> None:
    refused = {"get": [{"refused": {"code": "source-missing", "text": "it is gone"}}], "until_ms": 5}
    with pytest.raises(Refused, match="it is gone"):
        Book(lambda _, read: read(refused), lambda: 0).parts("s")
    with pytest.raises(BrokeOff, match="later"):
        read(["s"], {"get": [{"refused": {"code": "storage-unavailable", "text": "later"}}], "until_ms": 5})
    with pytest.raises(Refused, match="empty"):
        Book(lambda _, read: read({"get": [{"files": []}], "until_ms": 5}), lambda: 0).parts("s")


def test_what_had_no_room_in_an_answer_is_asked_for_by_itself() -> None:
    asked: list[list[str]] = []

    def ask(what: dict[str, Any], read: Callable[[dict[str, Any]], Any]) -> Any:
        asked.append(what["get"])
        again = {"refused": {"code": "ask-again", "text": "full"}}
        (one,) = answer()["get"]
        return read({"get": [one if not n else again for n in range(len(what["get"]))], "until_ms": 5})

    book = Book(ask, lambda: 0)
    book.learn(["a", "b", "c"])
    assert [len(book.parts(source)) for source in ("a", "b", "c")] == [1, 1, 1]
    assert asked == [["a", "b", "c"], ["b"], ["c"]]


def test_a_mark_counts_only_without_a_digest() -> None:
    (parts,), _ = read(["s"], answer(tag="t", sha256=DIGEST))
    assert isinstance(parts, list) and (parts[0].identity, parts[0].source.tag) == (DIGEST, "")
    (parts,), _ = read(["s"], answer(tag="t"))
    assert isinstance(parts, list) and (parts[0].identity, parts[0].source.tag) == ("tag t", "t")


# ---------------------------------------------------------------- lanes


def test_lanes_are_shared_fairly_and_resting_gives_one_away() -> None:
    lanes = Lanes(parallel=2, each=1)
    at_once: list[str] = []
    most: list[int] = []
    lock, go_on = threading.Lock(), threading.Event()

    def task(name: str) -> Callable[[], None]:
        def run() -> None:
            with lock:
                at_once.append(name)
                most.append(len(at_once))
                assert at_once.count(name) == 1
            go_on.wait(30)
            with lock:
                at_once.remove(name)

        return run

    for name in ("a", "a", "a", "b", "c"):
        lanes.put(name, task(name))
    go_on.set()
    for name in "abc":
        lanes.wait_for(name)
    assert max(most) <= 2

    done, resting = threading.Event(), threading.Event()

    def rests() -> None:
        with lanes.rest("a"):
            resting.set()
            assert done.wait(30)

    lanes.put("a", rests)
    assert resting.wait(30)
    lanes.put("a", done.set)
    lanes.wait_for("a")


def test_what_is_forgotten_never_begins() -> None:
    lanes = Lanes(parallel=1, each=1)
    begun, go_on, ran = threading.Event(), threading.Event(), []
    lanes.put("a", lambda: (begun.set(), go_on.wait(30)))  # type: ignore[arg-type, return-value]
    assert begun.wait(30)
    lanes.put("a", lambda: ran.append(1))
    lanes.forget("a")
    assert lanes.has("a")
    go_on.set()
    lanes.wait_for("a")
    assert not ran and not lanes.has("a")


def test_a_stop_wakes_who_waits() -> None:
    stop = Stop()
    threading.Timer(0.01, stop.now).start()
    with pytest.raises(Stopped):
        stop.wait(30)
    with pytest.raises(Stopped):
        stop.check()


# ---------------------------------------------------------------- what the hub is told of the cache


def test_only_what_has_changed_is_told() -> None:
    inventory = Inventory()
    counts = {"hits": 1}
    assert inventory.news([("s", "a", 1)], counts) == {
        "all": True,
        "added": [["s", "a", 1]],
        "gone": [],
        "counts": counts,
    }
    assert inventory.news([("s", "a", 1)], counts) is None
    assert inventory.news([("s", "b", 2)], counts) == {"added": [["s", "b", 2]], "gone": [["s", "a"]], "counts": counts}
    assert inventory.news([("s", "b", 2)], {"hits": 2}) == {"added": [], "gone": [], "counts": {"hits": 2}}


def test_much_is_told_in_parts() -> None:
    inventory = Inventory()
    has = [("s", f"k{number}", number) for number in range(AT_ONCE + 5)]
    assert len((inventory.news(has, {}) or {})["added"]) == AT_ONCE
    second = inventory.news(has, {}) or {}
    assert len(second["added"]) == 5 and "all" not in second
    assert inventory.news(has, {}) is None


# ---------------------------------------------------------------- folders of the site


def test_below_which_folder_a_source_lies() -> None:
    assert place("file:///data/x%20y/z", ["/data"]) == ("/data", ("x y", "z"))
    assert place("file:///data/x/z", ["/", "/data/x"]) == ("/data/x", ("z",))
    for wrong in (
        "file:///database/x",
        "file:///data/../etc/passwd",
        "file:///data/%2e%2e/etc",
        "file:///",
        "file:///da",
    ):
        with pytest.raises(Refused):
            place(wrong, ["/data"])


def test_links_are_followed_only_within(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("good")
    (tmp_path / "secret").write_text("secret")
    links = {
        "in": "a/b",
        "absolute": str(root / "a"),
        "around": "a/../a/b/../b/file",
        "out": "..",
        "far": "/etc",
        "twisted": "in/../../../secret",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)

    def read_at(*parts: str) -> str:
        handle = opened(str(root), parts)
        try:
            return os.read(handle, 100).decode()
        finally:
            os.close(handle)

    assert read_at("in", "file") == read_at("absolute", "b", "file") == read_at("around") == "good"
    for wrong in (("out", "secret"), ("far", "passwd"), ("twisted",), ("in", "..", "..", "..", "secret")):
        with pytest.raises(Refused, match="leads out"):
            read_at(*wrong)


@pytest.mark.parametrize(
    ("at", "target", "stays"),
    [
        ("x", "a/b", True),
        ("a/x", "../y", True),
        ("a/x", "../../y", False),
        ("x", "/a", False),
        ("x", "a/../b", False),
        ("x", "..", False),
    ],
)
def test_links_of_a_tree_stay_in_it(tmp_path: Path, at: str, target: str, stays: bool) -> None:
    path = tmp_path / at
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    site = Site(f"file://{tmp_path}", [str(tmp_path)], Stop())
    if stays:
        assert [piece.link for piece in site.pieces() if piece.link] == [target]
    else:
        with pytest.raises(Unsafe, match="leads out"):
            site.pieces()


# ---------------------------------------------------------------- small things


def test_a_digest_of_much_and_of_little() -> None:
    import hashlib

    for size in (0, 5, SMALL + 7, 3 * SMALL):
        data = os.urandom(1000) * (size // 1000) + b"x" * (size % 1000)
        digest = Digest()
        for at in range(0, len(data), 100_000):
            piece = data[at : at + 100_000]
            assert digest.room() is digest.room(), "nothing was added: it is the same room"
            digest.room()[: len(piece)] = piece
            digest.add(len(piece))
        assert (digest.hex(), digest.size) == (hashlib.sha256(data).hexdigest(), size)


def test_a_copy_is_writable_and_whole(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    (source / "a" / "run").write_bytes(os.urandom(3_000_000))
    (source / "a" / "run").chmod(0o555)
    (source / "link").symlink_to("a/run")
    (source / "a").chmod(0o555)
    copied: list[int] = []
    copy(str(source), str(tmp_path / "copy"), None, Stop(), copied.append)
    assert (tmp_path / "copy" / "link").read_bytes() == (source / "a" / "run").read_bytes()
    assert (tmp_path / "copy" / "a" / "run").stat().st_mode & 0o777 == 0o755
    (tmp_path / "copy" / "a" / "new").write_text("mine")
    assert sum(copied) == 3_000_000
    (source / "a").chmod(0o755)


def test_files_go_in_batches() -> None:
    def batch(*sizes: int) -> list[int]:
        return [len(each) for each in _batches([Kept("x", size, "hub") for size in sizes])]

    assert batch() == []
    assert batch(0) == [1]
    assert batch(*[1] * (BATCH_FILES + 1)) == [BATCH_FILES, 1]
    assert batch(5, BATCH_BYTES, 5, 6) == [1, 1, 2]


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (Refused("no"), "failed", "input-refused"),
        (Corrupt("no"), "failed", "input-corrupt"),
        (Unsafe("no"), "failed", "input-unsafe"),
        (BrokeOff("later"), "returned", "staging-failed"),
        (Distrusted("who?"), "returned", "staging-failed"),
        (OSError(errno.ENOSPC, "full"), "returned", "disk-full"),
        (OSError(errno.EDQUOT, "full"), "returned", "disk-full"),
        (OSError(errno.EIO, "bad"), "returned", "staging-failed"),
        (ZeroDivisionError("canary"), "returned", "staging-failed"),
    ],
)
def test_what_an_error_makes_of_the_attempt(error: Exception, outcome: str, reason: str) -> None:
    found = verdict(error, "input")
    assert found[:2] == (outcome, reason)
    assert "canary" not in found.text


@pytest.mark.parametrize("host", ["a.b", "x.a.b", "127.0.0.1"])
def test_where_no_proxy_is_asked(host: str) -> None:
    assert _is_direct(host, "other, .a.b,127.0.0.1:8080")
    assert not _is_direct("xa.b", ".a.b")
    assert _is_direct("anything", "*")


def test_a_proxys_password_goes_to_the_proxy() -> None:
    proxy = Proxy("http://us%40er:pass@proxy.example:3128")
    assert (proxy.host, proxy.port) == ("proxy.example", 3128)
    assert proxy.headers == {"Proxy-Authorization": "Basic dXNAZXI6cGFzcw=="}


@pytest.mark.parametrize("address", ["http://169.254.169.254/latest/", "http://[fe80::1]/"])
def test_where_a_cloud_tells_a_machine_who_it_is(address: str) -> None:
    from worker.staging import lines

    host = address.split("/")[2].strip("[]")
    with pytest.raises(Refused, match="cloud"):
        lines._must_be_no_metadata(FakeSocket(host))  # type: ignore[arg-type]
    lines._must_be_no_metadata(FakeSocket("127.0.0.1"))  # type: ignore[arg-type]
    assert Lines() is not None


class FakeSocket:
    def __init__(self, peer: str) -> None:
        self.getpeername = lambda: (peer, 80)


def test_messages_come_as_they_went() -> None:
    for said in (
        Staged("j", 1, "/x", ["/y"], {"files": 1}),
        NotStaged("j", 1, "failed", "input-refused", "no"),
        Progress("j", 1, "staging", 5, None),
        messages.Note("text"),
    ):
        assert messages.decode(messages.encode(said)) == said  # type: ignore[arg-type]


def test_a_name_in_a_cache_is_its_own_and_allowed() -> None:
    from worker.cache.place import WORKER

    names = {messages.cache_name(worker) for worker in ("w1", "w1", "Über.Worker_1", "-" * 80, "a" * 80)}
    assert len(names) == 5
    assert all(WORKER.fullmatch(name) for name in names)
