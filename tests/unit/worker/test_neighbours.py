"""Workers that share a machine, in one process; the deaths are real."""

import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worker.neighbours import Neighbours, NotShared

GB = 10**9
MACHINE = {"cpus": 32_000, "memory": 64 * GB}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "machine"


def worker(folder: Path, name: str, gpus: tuple[str, ...] = (), **has: int) -> Neighbours:
    return Neighbours(str(folder), name, has or MACHINE, gpus)


def cores(one: Neighbours) -> tuple[int, int]:
    amounts, _ = one.offer()
    return amounts["cpus"] // 1000, amounts["memory"] // GB


def task(cpus: int, memory: int) -> dict[str, int]:
    return {"cpus": cpus * 1000, "memory": memory * GB}


def news(one: Neighbours, seconds: float = 10) -> bool:
    came = bool(select.select([one], [], [], seconds)[0])
    if came:
        one.heard()
    return came


def test_three_workers_of_32_cores_number_by_number(folder: Path) -> None:
    """Each takes one task at a time, and leaves when it has done it."""
    worker1 = worker(folder, "worker1")
    assert cores(worker1) == (32, 64)
    assert worker1.hold("a", task(8, 16)) == ()
    worker2 = worker(folder, "worker2")
    assert cores(worker2) == (24, 48)
    assert worker2.hold("b", task(20, 40)) == ()
    worker3 = worker(folder, "worker3")
    assert cores(worker3) == (4, 8)
    assert news(worker1)
    while news(worker2, 0) or news(worker3, 0):
        pass
    worker1.close()  # has finished its task, and terminates
    assert news(worker2)
    assert news(worker3)
    assert cores(worker2) == (32, 64)  # its own task is part of what it offers: 12 and 24 are left of it
    assert cores(worker3) == (12, 24)
    worker2.close()
    assert news(worker3)
    assert cores(worker3) == (32, 64)
    worker3.close()
    assert [path.name for path in folder.iterdir()] == ["all.lock"]


def test_no_two_can_hold_the_same(folder: Path) -> None:
    one, other = worker(folder, "a", cpus=2000), worker(folder, "b", cpus=2000)
    assert one.hold("x", {"cpus": 1500}) == ()
    assert other.hold("y", {"cpus": 1000}) is None
    assert other.hold("z", {"cpus": 500}) == ()
    assert one.hold("w", {"cpus": 1}) is None
    one.let_go("x")
    one.let_go("x")
    assert other.hold("y", {"cpus": 1000}) == ()


def test_gpus_go_by_their_ids(folder: Path) -> None:
    one, other = (worker(folder, name, ("GPU-a", "GPU-b", "GPU-c"), cpus=8000) for name in "ab")
    assert one.hold("x", {}, gpus=2) == ("GPU-a", "GPU-b")
    assert other.offer()[1] == ("GPU-c",)
    assert other.hold("y", {}, gpus=2) is None
    assert other.hold("y", {}, gpus=1) == ("GPU-c",)


def test_what_the_machine_does_not_have_is_not_held(folder: Path) -> None:
    assert worker(folder, "a", cpus=1000).hold("x", {"cpus": 1, "fpga": 1}) is None


def test_what_makes_no_sense_holds_nothing(folder: Path) -> None:
    one, other = worker(folder, "a"), worker(folder, "b")
    other.hold("x", task(1, 1))
    (held,) = folder.glob("b-*.held")
    for text in ("", "{", "[]", '{"amounts": {"cpus": "many"}, "gpus": 3}', '{"amounts": {"cpus": -5000}, "gpus": []}'):
        held.write_text(text)
        assert cores(one) == (32, 64)


def test_a_folder_where_anyone_can_remove_anything_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(NotShared, match="chmod 1777"):
        worker(folder, "a")


def test_a_link_in_the_place_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    folder.symlink_to(tmp_path)
    with pytest.raises(NotShared, match="no folder"):
        worker(folder, "a")


HOLDER = """
import sys, time
from worker.neighbours import Neighbours
one = Neighbours(sys.argv[1], "holder", {"cpus": 32000, "memory": 64 * 10**9})
assert one.hold("x", {"cpus": 30000}) == ()
print("holds", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(folder: Path) -> Any:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.communicate()


def test_what_a_dead_one_held_is_free_at_once(folder: Path, holder: Any) -> None:
    one = worker(folder, "a")
    assert cores(one) == (2, 64)
    while news(one, 0):
        pass
    holder.send_signal(signal.SIGKILL)
    assert news(one)
    holder.wait()
    assert cores(one) == (32, 64)
    assert one.hold("x", task(32, 64)) == ()
    assert not list(folder.glob("holder-*"))


def test_one_that_is_stopped_keeps_what_it_holds(folder: Path, holder: Any) -> None:
    holder.send_signal(signal.SIGSTOP)
    assert cores(worker(folder, "a")) == (2, 64)
    holder.send_signal(signal.SIGCONT)
