"""The parts of limits that need no process: where groups can be made, which cores, sums over /proc, what is known."""

import os
from pathlib import Path

import pytest

from worker.answers import mistake_in
from worker.limits.cores import Cores
from worker.limits.group import Group, counter, number
from worker.limits.groups import emptied, locked_folder, remove_leftovers
from worker.limits.places import find, ways
from worker.limits.watch import children_of, cpu_ms, family, proportional, resident
from worker.protocol import Shape
from worker.telling import limits

ME = 4321


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# ---------------------------------------------------------------- where groups can be made


def first_version(root: Path, controller: str, path: str, *pids: int) -> Path:
    folder = root / controller / path
    write(folder / "cgroup.procs", "".join(f"{pid}\n" for pid in pids))
    write(folder / "tasks")
    return folder


def where(tmp_path: Path, membership: str) -> dict[str, tuple[int, str]]:
    told = write(tmp_path / "membership", membership)
    found = find(str(tmp_path / "cgroup"), str(told), ME)
    return {name: (place.version, place.parent) for name, place in found.items()}


def test_version_one_has_a_place_for_each_controller(tmp_path: Path) -> None:
    memory = first_version(tmp_path / "cgroup", "memory", "jobs/7", 1, ME)
    pids = first_version(tmp_path / "cgroup", "pids", "", ME)
    assert where(tmp_path, "4:memory:/jobs/7\n8:pids:/\n0::/\n") == {"memory": (1, str(memory)), "pids": (1, str(pids))}


def test_a_path_of_the_host_that_is_not_mounted_here_means_the_root_of_the_mount(tmp_path: Path) -> None:
    memory = first_version(tmp_path / "cgroup", "memory", "", ME)
    assert where(tmp_path, "4:memory:/docker/abc\n") == {"memory": (1, str(memory))}


def test_a_group_in_which_we_do_not_stand_is_not_ours(tmp_path: Path) -> None:
    first_version(tmp_path / "cgroup", "memory", "", 1)
    assert where(tmp_path, "4:memory:/docker/abc\n") == {}


def test_what_cannot_be_written_is_no_place(tmp_path: Path) -> None:
    folder = first_version(tmp_path / "cgroup", "memory", "", ME)
    (folder / "tasks").unlink()
    assert where(tmp_path, "4:memory:/\n") == {}


def second_version(folder: Path, *pids: int, controllers: str = "cpu memory pids") -> Path:
    write(folder / "cgroup.procs", "".join(f"{pid}\n" for pid in pids))
    write(folder / "cgroup.controllers", controllers)
    write(folder / "cgroup.subtree_control")
    write(folder / "cgroup.type", "domain\n")
    return folder


def test_version_two_moves_us_into_a_leaf_and_hands_the_controllers_down(tmp_path: Path) -> None:
    ours = second_version(tmp_path / "cgroup" / "user" / "job.scope", ME)
    leaf = write(ours / "wm-agents" / "cgroup.procs")
    told = write(tmp_path / "membership", "0::/user/job.scope\n")
    found = find(str(tmp_path / "cgroup"), str(told), ME)
    assert {(name, each.parent, each.home) for name, each in found.items()} == {
        (name, str(ours), str(ours / "wm-agents")) for name in ("memory", "pids")
    }
    assert leaf.read_text() == str(ME)
    assert (ours / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_version_two_goes_on_from_a_leaf_of_an_agent_before_us(tmp_path: Path) -> None:
    ours = second_version(tmp_path / "cgroup" / "scope")
    (ours / "cgroup.subtree_control").write_text("memory pids")
    second_version(ours / "wm-agents", ME)
    assert where(tmp_path, "0::/scope/wm-agents\n") == {name: (2, str(ours)) for name in ("memory", "pids")}
    assert (ours / "cgroup.subtree_control").read_text() == "memory pids"


def test_a_group_with_others_in_it_is_left_as_it_is(tmp_path: Path) -> None:
    ours = second_version(tmp_path / "cgroup" / "scope", 1, ME)
    assert where(tmp_path, "0::/scope\n") == {}
    assert not (ours / "wm-agents").exists()
    assert (ours / "cgroup.subtree_control").read_text() == ""


def test_without_a_controller_there_is_nothing_to_arrange(tmp_path: Path) -> None:
    ours = second_version(tmp_path / "cgroup" / "scope", ME, controllers="hugetlb")
    assert where(tmp_path, "0::/scope\n") == {}
    assert not (ours / "wm-agents").exists()


def test_only_the_kernel_can_bound_processes(tmp_path: Path) -> None:
    first_version(tmp_path / "cgroup", "pids", "", ME)
    told = write(tmp_path / "membership", "8:pids:/\n")
    assert "max-processes" in ways(find(str(tmp_path / "cgroup"), str(told), ME))
    assert ways({}) == ["cpu-affinity", "max-files"]


# ---------------------------------------------------------------- what a group tells


def test_counters_of_both_versions(tmp_path: Path) -> None:
    write(tmp_path / "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    write(tmp_path / "memory.events", "low 0\noom 2\noom_kill 1\noom_group_kill 1\n")
    write(tmp_path / "memory.usage_in_bytes", "1000\n")
    write(tmp_path / "memory.peak", "9000\n")
    first, second = Group(1, str(tmp_path), ""), Group(2, str(tmp_path), "")
    assert (first.oom_kills(), second.oom_kills()) == (3, 1)
    assert (first.usage(), second.usage(), second.peak()) == (1000, None, 9000)
    assert first.refused_processes() == 0


def test_copies_of_files_are_told_from_the_rest(tmp_path: Path) -> None:
    write(tmp_path / "memory.stat", "cache 5\ntotal_cache 700\ntotal_shmem 200\n")
    assert Group(1, str(tmp_path), "").file_pages() == 500
    write(tmp_path / "memory.stat", "anon 5\nfile 700\nshmem 100\n")
    assert Group(2, str(tmp_path), "").file_pages() == 600


def test_what_cannot_be_read_is_unknown() -> None:
    assert (number(None), number("max\n"), counter(None, "oom_kill"), counter("oom_kill x", "oom_kill")) == (
        None,
        None,
        0,
        0,
    )


# ---------------------------------------------------------------- leftovers


def test_a_folder_that_nobody_locks_goes_and_a_locked_one_stays(tmp_path: Path) -> None:
    mine, lock = locked_folder(str(tmp_path))
    left = tmp_path / "wm-left"
    (left / "1" / "inner").mkdir(parents=True)
    (tmp_path / "wm-agents").mkdir()
    (tmp_path / "other").mkdir()
    try:
        remove_leftovers(str(tmp_path))
        assert sorted(each.name for each in tmp_path.iterdir()) == sorted(["other", "wm-agents", Path(mine).name])
    finally:
        os.close(lock)
    remove_leftovers(str(tmp_path))
    assert not Path(mine).exists()


def test_removing_what_is_gone_is_done() -> None:
    assert emptied("/nowhere/wm-x")


# ---------------------------------------------------------------- cores


def test_jobs_get_cores_of_their_own_while_there_are_any() -> None:
    cores = Cores({3, 1, 2})
    first, second = cores.take(2), cores.take(1)
    assert (first, second) == ([1, 2], [3])
    cores.give_back(first)
    assert cores.take(1) == [1]
    assert cores.take(2) == [1, 2], "where more is given than there is they overlap, the least used first"
    assert cores.take(9) == [1, 2, 3], "never more than there are"


# ---------------------------------------------------------------- sums over /proc


def process(proc: Path, pid: int, children: str = "", pages: int = 0, pss: int | None = None) -> None:
    write(proc / str(pid) / "task" / str(pid) / "children", children)
    write(proc / str(pid) / "statm", f"999 {pages} 1 1 0 1 0\n")
    write(proc / str(pid) / "stat", f"{pid} (a b) c) S 1 1 1 0 -1 0 0 0 0 0 {pid} 0 1 0 20 0 1 0 5\n")
    if pss is not None:
        write(proc / str(pid) / "smaps_rollup", f"00-ff ---p 00 00:00 0 [rollup]\nRss: 9 kB\nPss: {pss} kB\n")


def test_a_family_is_everyone_below(tmp_path: Path) -> None:
    process(tmp_path, 1, "2 3 ")
    process(tmp_path, 2, "4 ", pages=10)
    process(tmp_path, 3, "", pages=5)
    process(tmp_path, 4)
    write(tmp_path / "1" / "task" / "77" / "children", "5 ")  # a child of its second thread
    assert sorted(family([1], str(tmp_path))) == [1, 2, 3, 4, 5]
    assert children_of(99, str(tmp_path)) == []
    assert resident([2, 3, 99], str(tmp_path)) == 15 * os.sysconf("SC_PAGE_SIZE")


def test_shared_pages_count_once_where_the_system_tells(tmp_path: Path) -> None:
    process(tmp_path, 1, pss=30)
    process(tmp_path, 2, pss=12)
    process(tmp_path, 3)
    assert proportional([1, 2, 99], str(tmp_path)) == 42 * 1024
    assert proportional([3, 99], str(tmp_path)) is None


def test_processor_time_counts_children_that_were_waited_for(tmp_path: Path) -> None:
    process(tmp_path, 100)  # 100 ticks of its own, 1 of its children
    assert cpu_ms([100, 99], str(tmp_path)) == 101 * 1000 // os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------- what is asked


def test_a_job_that_asks_for_nothing_has_no_limits() -> None:
    assert limits({"job": "j1", "epoch": 1, "command": ["true"]}, Shape()) is None
    assert limits({"work": {}}, Shape(memory=5)) == (5, 0, 0, 0)
    work = {"max_processes": 3, "max_files": 20, "cpu_affinity": True}
    assert limits({"work": work}, Shape(cpus=2000)) == (0, 3, 20, 2)


@pytest.mark.parametrize(
    ("work", "mistake"),
    [
        (None, ""),
        ({}, ""),
        ({"max_processes": 3, "max_files": 20, "cpu_affinity": True}, ""),
        ({"max_processes": "3"}, "max_processes makes no sense"),
        ({"cpu_affinity": 1}, "cpu_affinity makes no sense"),
        ({"teleport": True}, "this worker does not know teleport"),
        ([], "its work is no object"),
    ],
)
def test_what_a_worker_does_not_know_it_does_not_run(work: object, mistake: str) -> None:
    assert mistake_in({"job": "j1", "epoch": 1, "command": ["true"], "work": work}) == mistake
