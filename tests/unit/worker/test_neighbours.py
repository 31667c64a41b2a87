"""Workers that share a machine, in one process; the deaths are real."""

import contextlib
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import needs
from worker.machine.folder import MOST_NAMES, Folder, NotShared, Standing
from worker.machine.neighbours import Neighbours
from worker.machine.seat import Seat, sees
from worker.machine.shares import Part
from worker.protocol import Shape

GB = 10**9
MACHINE = {"cpus": 32_000, "memory": 64 * GB}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "machine"


def worker(
    folder: Path, name: str, gpus: tuple[str, ...] = (), most: dict[str, int] | None = None, **sees: int
) -> Neighbours:
    """One that sees this of the machine, and may use `most` of it."""
    sees = sees or MACHINE
    common = Folder(str(folder))
    return Neighbours(str(folder), name, common.take_lock(name), Part(sees, most or {**sees, "gpus": len(gpus)}, gpus))


def cores(one: Neighbours) -> tuple[int, int]:
    offer = one.offer()
    return offer["cpus"] // 1000, offer["memory"] // GB


def task(cpus: int, memory: int) -> tuple[tuple[str, int], ...]:
    return (("cpus", cpus * 1000), ("memory", memory * GB))


def news(one: Neighbours, seconds: float = 10) -> bool:
    came = bool(select.select([one], [], [], seconds)[0])
    if came:
        one.heard()
        one.look()
    return came


def quiet(*all_of_them: Neighbours) -> None:
    for one in all_of_them:
        while news(one, 0):
            pass


# ---------------------------------------------------------------- who may use what


def test_three_workers_of_32_cores_number_by_number(folder: Path) -> None:
    """Each takes one task at a time, and leaves when it has done it."""
    worker1 = worker(folder, "worker1")
    assert cores(worker1) == (32, 64)
    assert worker1.take(task(8, 16)) == []
    worker2 = worker(folder, "worker2")
    assert cores(worker2) == (24, 48)
    assert worker2.take(task(20, 40)) == []
    worker3 = worker(folder, "worker3")
    assert cores(worker3) == (4, 8)
    for each in (worker1, worker2, worker3):
        each.tell()
    quiet(worker1, worker2, worker3)
    worker1.close()  # has finished its task, and terminates
    assert news(worker2)
    assert news(worker3)
    assert cores(worker2) == (32, 64)  # its own task is part of what it offers: 12 and 24 are left of it
    assert cores(worker3) == (12, 24)
    worker2.close()
    assert news(worker3)
    assert cores(worker3) == (32, 64)
    worker3.close()
    assert list(folder.iterdir()) == []


def test_no_two_can_hold_the_same(folder: Path) -> None:
    one, other = worker(folder, "a", cpus=2000), worker(folder, "b", cpus=2000)
    assert one.take((("cpus", 1500),)) == []
    assert other.fits((("cpus", 1000),)), "it has not looked since"
    assert other.take((("cpus", 1000),)) is None
    assert not other.fits((("cpus", 1000),))
    assert other.take((("cpus", 500),)) == []
    assert one.take((("cpus", 1),)) is None
    one.give_back((("cpus", 1500),), [])
    assert other.take((("cpus", 1000),)) == []


def test_gpus_go_by_their_ids(folder: Path) -> None:
    one, other = (worker(folder, name, ("GPU-a", "GPU-b", "GPU-c"), cpus=8000) for name in "ab")
    two = (("gpus", 2),)
    assert one.take(two) == ["GPU-a", "GPU-b"]
    assert other.take(two) is None
    assert other.offer()["gpus"] == 1
    assert other.take((("gpus", 1),)) == ["GPU-c"]
    one.give_back(two, ["GPU-a", "GPU-b"])
    other.lose_gpu("GPU-a")
    other.look()
    assert other.offer()["gpus"] == 2, "the one that it has, and one that it may still take"


def test_gpus_with_other_names_cannot_be_told_apart(folder: Path) -> None:
    one, other = worker(folder, "a", ("0", "1"), cpus=8000), worker(folder, "b", ("GPU-a", "GPU-b"), cpus=8000)
    assert one.take((("gpus", 1),)) == ["0"]
    other.look()
    assert other.offer()["gpus"] == 0


def test_what_the_machine_does_not_have_is_not_held(folder: Path) -> None:
    assert worker(folder, "a", cpus=1000).take((("cpus", 1), ("custom:fpga", 1))) is None


def test_the_machine_is_what_all_see_of_it(folder: Path) -> None:
    """Who may use less than there is does not make the machine smaller; who sees less of it does."""
    large = worker(folder, "large", cpus=32_000)
    little = worker(folder, "little", most={"cpus": 8000}, cpus=32_000)
    large.look()
    assert (large.offer()["cpus"], little.offer()["cpus"]) == (32_000, 8000)
    assert large.take((("cpus", 20_000),)) == []
    little.look()
    assert little.offer()["cpus"] == 8000, "8 of the 12 that are left"
    inside = worker(folder, "inside", **{"cpus": 24_000, "custom:fpga": 2})
    assert inside.offer() == {"cpus": 4000, "custom:fpga": 2, "gpus": 0}
    large.look()
    assert large.offer()["cpus"] == 24_000


def test_who_holds_more_than_there_is_leaves_nothing_but_what_one_has(folder: Path) -> None:
    one, greedy = worker(folder, "a"), worker(folder, "b", cpus=10**9)
    assert one.take(task(4, 4)) == []
    assert greedy.take((("cpus", 10),)) == []
    Folder(str(folder)).begin("b", Standing({}, {"cpus": 10**9}, ()))
    one.look()
    assert cores(one) == (4, 64)


# ---------------------------------------------------------------- what others write


def test_of_whom_nothing_makes_sense_everything_is_held(folder: Path) -> None:
    one, other = worker(folder, "a"), worker(folder, "b")
    assert one.take(task(2, 2)) == []
    good = (folder / "b.held").read_bytes()
    told = (b"{", b"[]", b"[" * 50_000, b"\x00\xff", b'{"sees": {}, "holds": {"cpus": "many"}, "gpus": 3}')
    told += (b'{"sees": {}, "holds": {"cpus": -5000}, "gpus": []}', b'{"sees": {}, "holds": {}, "gpus": [7]}')
    told += (
        b'{"sees": {}, "holds": {"cpus": Infinity}, "gpus": []}',
        b'{"sees": {"cpus": NaN}, "holds": {}, "gpus": []}',
    )
    records = [b"%08x%8d" % (zlib.crc32(text), len(text)) + text for text in told]
    half = good[:10] + good[10:].upper()
    for record in (b"", b"none at all", b"-" * 100_000, half, good[:40], *records):
        (folder / "b.held").write_bytes(record)
        one.look()
        assert cores(one) == (2, 2), record[:60]
    (folder / "b.held").write_bytes(good)
    one.look()
    assert cores(one) == (32, 64)
    other.close()


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PARTS = st.fixed_dictionaries(
    {}, optional={name: ANY | st.dictionaries(st.text(), ANY) for name in ("sees", "holds", "gpus")}
)


@given(PARTS | ANY)
@settings(max_examples=100, deadline=None)
def test_whatever_a_neighbour_writes_is_read_as_amounts_or_not_at_all(told: object) -> None:
    said = json.dumps(told).encode()
    with tempfile.TemporaryDirectory() as place:
        folder = Folder(place + "/machine")
        Path(folder.file("x", "held")).write_bytes(b"%08x%8d" % (zlib.crc32(said), len(said)) + said)
        standing = folder.standing("x")
    if standing is not None:
        amounts = [*standing.sees.values(), *standing.holds.values()]
        assert all(type(count) is int and count >= 0 for count in amounts)
        assert all(type(gpu) is str for gpu in standing.gpus)


def test_pipes_and_links_in_the_place_of_files_are_not_waited_for(folder: Path) -> None:
    one, other = worker(folder, "a"), worker(folder, "b")
    (folder / "b.held").unlink()
    os.mkfifo(folder / "b.held")
    (folder / "c.lock").symlink_to("/dev/zero")
    os.mkfifo(folder / "d.lock")
    one.look()
    assert cores(one) == (0, 0)
    (folder / "b.held").unlink()
    other.look_closely()
    one.look()
    assert cores(one) == (32, 64), "it has written it again, and the others never lived"


def test_so_many_that_they_cannot_be_looked_at_hold_everything(folder: Path) -> None:
    one = worker(folder, "a")
    for number in range(MOST_NAMES):
        (folder / f"x{number}.lock").touch()
    one.look()
    assert cores(one) == (0, 0)


def test_what_cannot_be_written_down_is_not_taken(folder: Path) -> None:
    """As on a full disk; by root, so a file in the place of the folder."""
    one = worker(folder, "a")
    away = folder.with_name("away")
    folder.rename(away)
    folder.touch()
    assert one.take(task(1, 1)) is None
    one.look_closely()
    assert cores(one) == (0, 0)
    folder.unlink()
    away.rename(folder)
    one.look_closely()
    assert cores(one) == (32, 64)
    assert one.take(task(1, 1)) == []


def test_who_cleans_up_does_not_make_anyone_unseen(folder: Path) -> None:
    one = worker(folder, "a")
    assert one.take(task(30, 1)) == []
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    one.look_closely()
    other = worker(folder, "b")
    assert cores(other) == (2, 63)
    assert news(one), "it hears again"
    one.close()
    other.look()
    assert cores(other) == (32, 64)


def test_a_lock_that_somebody_keeps_lets_nothing_start_and_nobody_wait(folder: Path) -> None:
    one = worker(folder, "a")
    kept = Folder(str(folder)).lock()
    assert one.take(task(1, 1)) is None
    os.close(kept)
    assert one.take(task(1, 1)) == []


@pytest.mark.parametrize("mode", [0o777, 0o773])
def test_a_folder_where_anyone_can_remove_anything_is_refused(folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(NotShared, match="chmod 1777"):
        worker(folder, "a")


def test_a_link_in_the_place_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    folder.symlink_to(tmp_path)
    with pytest.raises(NotShared, match="no folder"):
        worker(folder, "a")


def test_a_path_too_long_for_a_socket_is_none(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    one = worker(folder, "a")
    worker(folder, "b")
    assert news(one)


# ---------------------------------------------------------------- the agent's part


def test_a_seat_is_seen_before_its_keeper_begins(folder: Path) -> None:
    there = Shape(cpus=32_000, memory=64 * GB, disk=100 * GB)
    one = Seat(str(folder), "a", there, there, ())
    assert one.offer() == Shape(cpus=32_000, memory=64 * GB, disk=100 * GB, machine=one.offer().machine)
    keeper = Neighbours(str(folder), one.name, os.dup(one.lock), Part(one.told.sees, dict(one.told.sees), ()))
    assert keeper.take((("cpus", 8000), ("disk", 30 * GB))) == []
    less = Shape(cpus=32_000, memory=64 * GB, disk=80 * GB)  # 20 of its 30 are filled
    other = Seat(str(folder), "b", less, Shape(cpus=8000), ())
    assert other.told.sees == {"cpus": 32_000, "memory": 64 * GB, "disk": 110 * GB}
    assert other.offer() == Shape(cpus=8000, machine=one.offer().machine)
    keeper.close()
    one.close()
    one.close()
    other.close()
    assert list(folder.iterdir()) == []


def test_who_was_told_of_more_than_was_found_is_believed() -> None:
    assert sees(Shape(cpus=2000, gpus=1), Shape(cpus=32_000, custom=(("fpga", 2),)), 0) == {
        "cpus": 32_000,
        "gpus": 1,
        "custom:fpga": 2,
    }


# ---------------------------------------------------------------- deaths

HOLDER = """
import os, sys, time
from worker.machine.neighbours import Neighbours
from worker.machine.shares import Part
from worker.machine.seat import Seat
from worker.protocol import Shape
shape = Shape(cpus=32000, memory=64 * 10**9)
seat = Seat(sys.argv[1], "holder", shape, shape, ())
keeper = os.fork()
if keeper == 0:
    part = Part(seat.told.sees, dict(seat.told.sees), ())
    assert Neighbours(*seat.told[:2], seat.lock, part).take((("cpus", 30000),)) == []
    print(os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(folder: Path) -> Iterator[tuple[int, int]]:
    """(agent, keeper), as far as this goes."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    keeper = int(process.stdout.readline())
    yield process.pid, keeper
    for pid in (keeper, process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def test_what_a_dead_one_held_is_free_at_once_when_neither_of_its_two_processes_lives(
    folder: Path, holder: tuple[int, int]
) -> None:
    agent, keeper = holder
    one = worker(folder, "a")
    assert cores(one) == (2, 64)
    quiet(one)
    os.kill(agent, signal.SIGKILL)
    assert news(one)
    assert cores(one) == (2, 64), "its keeper may still end its jobs"
    quiet(one)
    os.kill(keeper, signal.SIGKILL)
    assert news(one)
    assert cores(one) == (32, 64)
    assert one.take(task(32, 64)) == []
    assert not list(folder.glob("holder-*"))


def test_one_that_is_stopped_keeps_what_it_holds(folder: Path, holder: tuple[int, int]) -> None:
    for pid in holder:
        os.kill(pid, signal.SIGSTOP)
    assert cores(worker(folder, "a")) == (2, 64)


# ---------------------------------------------------------------- another user

NOBODY = 65534


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Where another user gets, too; under the umask of an agent."""
    needs.root()
    before = os.umask(0o077)
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place / "machine"
    os.umask(before)
    shutil.rmtree(place)


def test_workers_of_two_users_count_each_other_and_spoil_nothing(open_folder: Path) -> None:
    folder = open_folder
    one = worker(folder, "a")
    assert one.take(task(8, 16)) == []
    dead = worker(folder, "dead")
    assert dead.take(task(20, 20)) == []
    os.close(dead._lock)
    there, gone = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(gone[1])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            other = worker(folder, "b")
            said = f"{cores(other)} {other.take(task(20, 40))}"
            other.tell()
        except BaseException as error:
            said = repr(error)
        os.write(there[1], said.encode())
        os.read(gone[0], 1)
        os._exit(0)
    os.close(gone[0])
    assert os.read(there[0], 1000).decode() == "(24, 48) []", (
        "what the dead one held is free, though he may not bury it"
    )
    assert news(one), "he can be heard"
    assert cores(one) == (12, 24)
    assert not list(folder.glob("dead.*")), "its own user has"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    os.close(gone[1])
    os.waitpid(child, 0)
    one.look()
    assert cores(one) == (32, 64)
    one.close()
