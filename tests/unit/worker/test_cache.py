"""The cache of one file system, with several workers of one process."""

import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.cache import digests
from worker.cache.alive import Alive
from worker.cache.entries import Entries
from worker.cache.errors import CacheFull, CacheUnusable, Cancelled, WrongContent
from worker.cache.place import PUBLIC, Place
from worker.cache.store import SCRUBBED, Cache

MIB = 2**20


def key_of(data: bytes) -> str:
    return "file-" + hashlib.sha256(data).hexdigest()


def named(number: int) -> str:
    return f"name-{number:064x}"


class Fetch:
    """Writes some bytes, and counts how often it was asked to."""

    def __init__(self, data: bytes = b"data") -> None:
        self.data = data
        self.times = 0

    def __call__(self, path: str) -> None:
        self.times += 1
        Path(path).write_bytes(self.data)


def everybodys(cache: Cache) -> dict[str, int]:
    """What is everybody's, and its size."""
    return {one.key: one.size for one in cache.entries.all() if one.scope == PUBLIC}


def nothing_may_be_built(path: str) -> None:
    raise AssertionError(f"{path} was built")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def worker(root: Path, name: str = "w1", quota: int | None = None, **more: object) -> Cache:
    return Cache(str(root), name, quota, **more)  # type: ignore[arg-type]


def test_what_one_worker_got_the_others_have(root: Path) -> None:
    fetch = Fetch(b"hello")
    key = key_of(b"hello")
    first, second = worker(root, "w1"), worker(root, "w2")
    pin = first.get(key, fetch)
    assert Path(pin.path).read_bytes() == b"hello"
    assert Path(second.get(key, nothing_may_be_built).path).read_bytes() == b"hello"
    assert fetch.times == 1
    assert (first.counts["misses"], first.counts["built_bytes"]) == (1, 5)
    assert (second.counts["hits"], second.counts["hit_bytes"]) == (1, 5)
    assert everybodys(second) == {key: 5}


def test_what_came_is_held_against_its_name(root: Path) -> None:
    cache = worker(root)
    with pytest.raises(WrongContent, match="its digest is"):
        cache.get(key_of(b"good"), Fetch(b"bad"))
    assert everybodys(cache) == {}
    assert Path(cache.get(key_of(b"good"), Fetch(b"good")).path).read_bytes() == b"good"


def test_a_build_that_fails_leaves_nothing_and_may_be_tried_again(root: Path) -> None:
    cache = worker(root)

    def broken(path: str) -> None:
        Path(path).write_bytes(b"half")
        raise ConnectionError("it broke off")

    with pytest.raises(ConnectionError):
        cache.get(named(1), broken)
    assert list((root / "building").glob("w1-*/*")) == []
    assert list((root / "claims").iterdir()) == []
    assert cache.get(named(1), Fetch()).size == 4


def test_a_tree_is_one_entry(root: Path) -> None:
    def tree(path: str) -> None:
        (Path(path) / "sub").mkdir(parents=True)
        (Path(path) / "sub" / "a").write_bytes(b"aaa")
        (Path(path) / "run").write_bytes(b"#!/bin/sh\n")
        (Path(path) / "run").chmod(0o755)
        (Path(path) / "link").symlink_to("sub/a")

    cache = worker(root)
    pin = cache.get(named(1), tree)
    assert (Path(pin.path) / "link").read_bytes() == b"aaa"
    assert pin.size == 13
    digest = digests.of_tree(pin.path).digest
    assert worker(root, "w2").get("tree-" + digest, tree).size == 13
    assert os.access(Path(pin.path) / "run", os.X_OK)


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "sub/../../outside"])
def test_a_link_that_leads_out_of_its_tree_is_refused(root: Path, target: str) -> None:
    def tree(path: str) -> None:
        (Path(path) / "sub").mkdir(parents=True)
        (Path(path) / "link").symlink_to(target)

    with pytest.raises(WrongContent, match="leads out"):
        worker(root).get(named(1), tree)


@pytest.mark.parametrize("key", ["", "x", "file-" + "g" * 64, "file-../../" + "0" * 58, "other-" + "0" * 64])
def test_only_a_key_is_a_key(root: Path, key: str) -> None:
    with pytest.raises(ValueError, match="no name in a cache"):
        worker(root).get(key, Fetch())


def test_scopes_are_apart(root: Path) -> None:
    cache, fetch = worker(root), Fetch()
    cache.get(named(1), fetch, scope="owner-a")
    cache.get(named(1), fetch, scope="owner-b")
    assert fetch.times == 2
    assert everybodys(cache) == {}


# ---------------------------------------------------------------- several at once


def both(*acts: Callable[[], object]) -> None:
    threads = [threading.Thread(target=act) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_many_that_want_it_at_once_build_it_once(root: Path) -> None:
    built, all_there = threading.Event(), threading.Barrier(8)

    def once(path: str) -> None:
        assert not built.is_set(), "built twice"
        built.set()
        Path(path).write_bytes(b"x" * 100)

    def want(one: Cache) -> None:
        all_there.wait(30)
        one.get(named(1), once)

    workers = [worker(root, f"w{number}") for number in range(8)]
    both(*(lambda w=w: want(w) for w in workers))  # type: ignore[misc]
    assert sum(w.counts["misses"] for w in workers) == 1
    assert sum(w.counts["hits"] for w in workers) == 7


def test_one_that_is_no_longer_wanted_is_not_waited_for(root: Path) -> None:
    first, second = worker(root, "w1"), worker(root, "w2")
    assert first.claims.take("public", named(1))
    asked = iter((True, True, False))
    with pytest.raises(Cancelled):
        second.get(named(1), nothing_may_be_built, wanted=lambda: next(asked))


def test_two_builds_of_one_entry_do_no_harm(root: Path) -> None:
    first, second = worker(root, "w1"), worker(root, "w2")

    def while_another_is_faster(path: str) -> None:
        first.claims.let_go("public", named(1))
        second.get(named(1), Fetch(b"theirs"))
        Path(path).write_bytes(b"theirs")

    pin = first.get(named(1), while_another_is_faster)
    assert Path(pin.path).read_bytes() == b"theirs"
    assert list((root / "building").glob("w1-*/*")) == []


# ---------------------------------------------------------------- room


def test_the_longest_unused_goes_first_and_its_bytes_are_free(root: Path) -> None:
    cache = worker(root, quota=10 * MIB)
    for number in range(4):
        cache.get(named(number), Fetch(b"x" * (3 * MIB))).release()
        if number == 1:
            cache.get(named(0), nothing_may_be_built).release()  # used again: 1 is older now
    assert set(everybodys(cache)) == {named(0), named(2), named(3)}
    assert cache.room.evicted_bytes == 3 * MIB
    on_disk = sum(path.stat().st_blocks * 512 for path in root.rglob("*") if path.is_file())
    assert on_disk < 9.5 * MIB


def test_what_is_in_use_never_goes(root: Path) -> None:
    mine, other = worker(root, "w1", quota=5 * MIB), worker(root, "w2", quota=5 * MIB)
    held = mine.get(named(1), Fetch(b"x" * (3 * MIB)))
    for number in range(2, 8):
        other.get(named(number), Fetch(b"y" * (2 * MIB))).release()
    assert Path(held.path).stat().st_size == 3 * MIB
    assert named(1) in everybodys(mine)
    held.release()
    other.get(named(9), Fetch(b"z" * (4 * MIB))).release()
    assert named(1) not in everybodys(mine)


def test_a_full_disk_costs_what_is_not_in_use(root: Path) -> None:
    cache = worker(root)
    cache.get(named(1), Fetch(b"x" * MIB)).release()
    held = cache.get(named(2), Fetch(b"y" * MIB))

    def full_once(path: str) -> None:
        if named(1) in everybodys(cache):
            raise OSError(28, "No space left on device")
        Path(path).write_bytes(b"z")

    assert cache.get(named(3), full_once).size == 1
    assert set(everybodys(cache)) == {named(2), named(3)}
    held.release()


def test_a_disk_that_stays_full_is_said(root: Path) -> None:
    def full(path: str) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(CacheFull, match="No space left"):
        worker(root).get(named(1), full)


# ---------------------------------------------------------------- what goes wrong


def broken(pin: str) -> None:
    Path(pin).chmod(0o600)
    with open(pin, "r+b") as file:  # noqa: PTH123
        file.write(b"!!")


def test_an_entry_that_was_written_to_is_built_anew(root: Path) -> None:
    cache, key = worker(root), key_of(b"hello")
    pin = cache.get(key, Fetch(b"hello"))
    broken(pin.path)
    again = worker(root, "w2").get(key, Fetch(b"hello"))
    assert Path(again.path).read_bytes() == b"hello"


def test_one_that_is_broken_without_a_trace_is_found_by_its_digest(root: Path) -> None:
    cache, key = worker(root), key_of(b"hello")
    pin = cache.get(key, Fetch(b"hello"))
    before = Path(pin.path).stat()
    broken(pin.path)
    os.utime(pin.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    Path(pin.path).chmod(before.st_mode & 0o777)
    pin.release()
    cache.scrub_some(lambda: 0.0)
    assert everybodys(cache) == {}
    assert cache.counts["broken"] == 1


def test_the_larger_an_entry_the_seldomer_it_is_read(root: Path) -> None:
    def large(path: str) -> None:
        with open(path, "wb") as file:  # noqa: PTH123
            file.truncate(2 * SCRUBBED)

    cache = worker(root)
    cache.scrub_some(lambda: 0.9)
    pin = cache.get(named(1), large)
    broken(pin.path)
    pin.release()
    cache.scrub_some(lambda: 0.9)
    assert named(1) in everybodys(cache), "it was not its turn"
    cache.scrub_some(lambda: 0.4)
    assert everybodys(cache) == {}


def test_one_that_was_only_touched_is_still_good(root: Path) -> None:
    cache, key = worker(root), key_of(b"hello")
    os.utime(cache.get(key, Fetch(b"hello")).path)
    assert cache.get(key, nothing_may_be_built).size == 5


def test_a_cache_of_another_layout_is_refused(root: Path) -> None:
    root.mkdir()
    (root / "layout").write_text("7\n")
    with pytest.raises(CacheUnusable, match="layout 7"):
        worker(root)


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheUnusable, match="cannot be used"):
        worker(tmp_path / "file" / "cache")


def long_dead(root: Path, cache: Cache) -> None:
    """Touched long ago, by a process that is somewhere else."""
    path = root / "alive" / cache.place.worker
    path.write_text("another-host pid:[1] boot\n1 1\n")
    os.utime(path, (time.time() - 10_000, time.time() - 10_000))


def test_what_a_dead_worker_held_is_free_again(root: Path) -> None:
    dead, cache = worker(root, "dead"), worker(root, quota=100)
    dead.get(named(1), Fetch(b"x" * 90))
    (Path(dead.place.my_building) / "1").mkdir()
    assert dead.claims.take("public", named(2))
    cache.tidy()
    assert Path(dead.place.my_pins).exists(), "it lives"
    long_dead(root, dead)
    cache = worker(root, "w2", quota=100)
    assert cache.get(named(2), Fetch(b"y" * 50)).size == 50, "its claim keeps nobody"
    cache.tidy()
    assert not Path(dead.place.my_pins).exists()
    assert not Path(dead.place.my_building).exists()
    cache.get(named(3), Fetch(b"z" * 40))
    assert named(1) not in everybodys(cache)
    assert dead.beat() is False


def test_an_eviction_that_was_cut_short_is_undone(root: Path) -> None:
    cache = worker(root)
    cache.get(named(1), Fetch()).release()
    entry = root / "entries" / "public" / named(1)
    (entry / "pin").rename(entry / "evicting.gone-long-ago")
    assert cache.get(named(1), nothing_may_be_built).size == 4


def test_one_that_is_cleared_away_while_it_builds_builds_again(root: Path) -> None:
    cache, other = worker(root), worker(root, "w2")
    times = []

    def taken_for_dead(path: str) -> None:
        Path(path).write_bytes(b"data")
        times.append(1)
        if len(times) == 1:
            other._clear(cache.place.worker)

    assert Path(cache.get(named(1), taken_for_dead).path).read_bytes() == b"data"
    assert len(times) == 2


def test_what_is_closed_holds_nothing(root: Path) -> None:
    cache, other = worker(root), worker(root, "w2", quota=3)
    cache.get(named(1), Fetch())
    cache.close()
    other.tidy()
    assert everybodys(other) == {}
    assert [path.name for path in (root / "alive").iterdir()] == [other.place.worker]


def test_one_that_has_just_begun_is_never_taken_for_dead(root: Path) -> None:
    """Others tidy at the worst moments: whatever of it they can see, they see that it lives."""
    other = worker(root, "other", quota=1)
    place = Place(str(root), "new")
    other.tidy()
    alive = Alive(place, time.monotonic)
    other.tidy()
    place.make_own()
    other.tidy()
    entries = Entries(place, time.monotonic, lambda _: None)
    other.get(named(1), Fetch()).release()
    pin = entries.pin("public", named(1))
    assert pin is not None
    other.tidy()
    assert Path(pin.path).exists()
    assert alive.beat() is True


# ---------------------------------------------------------------- in the name of another process


def helper(root: Path, **more: object) -> Cache:
    """Of the process that runs these tests."""
    return worker(root, "agent-1", process=os.getpid(), **more)


def test_one_who_goes_on_for_a_process_keeps_the_pins_that_are_held(root: Path) -> None:
    first = helper(root)
    for number, label in ((1, "held.1"), (2, "held.1"), (3, "over.1")):
        first.get(named(number), Fetch(), label=label)
    second = helper(root)
    kept = second.resume(lambda label: label == "held.1")
    assert {label: len(let_go) for label, let_go in kept.items()} == {"held.1": 2}
    second.room.quota = 0
    assert second.tidy() is None
    assert set(everybodys(second)) == {named(1), named(2)}, "what is held stays, the rest may go"
    for let_go in kept["held.1"]:
        let_go()
        let_go()
    second.tidy()
    assert everybodys(second) == {}


def test_what_its_dead_helper_built_and_claimed_is_gone_at_once(root: Path) -> None:
    first = helper(root)
    assert first.claims.take("public", named(1))
    (Path(first.place.my_building) / "half").mkdir()
    second = helper(root)
    second.resume(lambda _: False)
    assert not list((root / "claims").iterdir())
    assert not list(Path(second.place.my_building).iterdir())
    second.get(named(1), Fetch(), wait=lambda _: pytest.fail("there is nobody to wait for")).release()


def test_others_see_whether_the_process_lives_in_whose_name_it_is(root: Path) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        dead, alive = worker(root, "dead", process=process.pid), helper(root)
        for cache in (dead, alive):
            cache.get(named(1), Fetch())
    other = worker(root, "w2", clock=iter(range(0, 1000, 5)).__next__)
    assert other.alive.is_dead("dead")
    assert not other.alive.is_dead("agent-1")
    other.tidy()
    assert {path.name for path in (root / "pins").iterdir()} == {"agent-1", other.place.worker}


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_the_folder_of_a_scope_tells_who_may_read_what_is_in_it(root: Path) -> None:
    cache = worker(root)
    pin = cache.get(named(1), Fetch(), scope="owner-1")
    assert mode_of(root / "entries" / "owner-1") == 0o700
    assert mode_of(Path(pin.path)) == 0o444
    for scope, mode in (("owner-1", 0o710), ("public", 0o711)):
        cache.place.open_to(scope, os.getgid())
        assert mode_of(root / "entries" / scope) == mode
    assert mode_of(root) == mode_of(root / "entries") == 0o711
    assert all(mode_of(root / name) == 0o700 for name in ("pins", "building", "claims", "trash", "alive"))


def test_a_folder_is_opened_by_one_list_of_users_only(root: Path) -> None:
    """The number of ann on one machine may be that of bob on another."""
    here, there = worker(root, "here"), worker(root, "there")
    here.place.open_to("owner-1", os.getgid(), "list-1")
    here.place.open_to("owner-2", os.getgid(), "list-1")
    there.place.open_to("public", os.getgid(), "list-2")
    with pytest.raises(CacheUnusable, match="other numbers"):
        there.place.open_to("owner-3", os.getgid(), "list-2")
    assert (root / "entries" / "owner-3").exists() is False
    assert [path.name for path in root.iterdir() if path.name.startswith("numbers")] == ["numbers"]
