"""The local backend with real processes: what only it promises."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backends import registry
from backends.base import Accepted, Context, LaunchOutcome, Refused, Seen, Severity, Submission, WorkerPhase
from backends.local import LocalBackend, create, processes
from backends.local.processes import Process
from backends.local.records import Records
from worker.protocol import Shape
from worker_manager.clock import ManualClock

# Says one letter for each TERM and stays.
COUNTS_TERMS = "trap 'echo T' TERM; echo ready; while :; do sleep 600 & wait $!; kill -KILL $!; done"
RUNS = ("/bin/sleep", "600")


class Place:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = ManualClock()
        self.count = 0

    def backend(self, **options: object) -> LocalBackend:
        kind = registry.load("local")
        context = Context("m", "p", str(self.root), self.clock.now_ms)
        return create(kind.read({}) | options, context)

    def launch(
        self, backend: LocalBackend, command: tuple[str, ...] = RUNS, count: int = 1, setup: tuple[str, ...] = ()
    ) -> Submission:
        self.count += 1
        tokens = tuple(f"token-{index}" for index in range(count))
        submission = Submission(f"m-{self.count}", count, "p", "m", Shape(), command, {}, tokens, setup=setup)
        self.last: LaunchOutcome = backend.launch(submission)
        return submission

    def seen(self, backend: LocalBackend, handle: str) -> Seen | None:
        return next((seen for seen in backend.list().seen if seen.handle == handle), None)

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.005)

    def until_ended(self, backend: LocalBackend, handle: str) -> Seen:
        self.until(lambda: self._phase(backend, handle) is WorkerPhase.ENDED, f"the end of {handle}")
        seen = self.seen(backend, handle)
        assert seen
        return seen

    def _phase(self, backend: LocalBackend, handle: str) -> WorkerPhase | None:
        seen = self.seen(backend, handle)
        return seen.phase if seen else None

    def shell(self, handle: str) -> Process:
        folder = Records(self.root).find(handle)
        assert folder
        recorded = folder.process()
        assert recorded
        return recorded[0]

    def ours(self, table: processes.Table) -> set[int]:
        mark = os.fsencode(f"WM_WORKER_DIR={self.root}/")
        return {pid for pid in table if mark in _environ(pid)}


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    processes.end_all(made.ours)
    made.until(lambda: not made.ours(processes.table()), "the end of everything")


def test_a_worker_holds_nothing_of_its_manager(place: Place) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    backend = place.backend()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    script = "ls -l /proc/self/fd; grep Sig /proc/self/status; echo in $(pwd); ulimit -n; echo over"
    submission = place.launch(backend, ("/bin/sh", "-c", script))
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    os.close(writing)
    place.until_ended(backend, f"{submission.id}-0")
    assert os.read(reading, 1) == b"", "the pipe is still open somewhere"
    os.close(reading)
    log = backend.logs(f"{submission.id}-0", 10_000)
    assert " 0 -> /dev/null" in log
    assert f"in {place.root}/{submission.id}/0" in log
    ignored = int(next(line for line in log.splitlines() if line.startswith("SigIgn")).split()[1], 16)
    assert not ignored & 1 << (signal.SIGUSR1 - 1)
    blocked = int(next(line for line in log.splitlines() if line.startswith("SigBlk")).split()[1], 16)
    assert blocked == 0


def test_the_managers_own_secrets_are_not_passed_on(place: Place) -> None:
    os.environ["WM_CANARY_SECRET"] = "canary"
    os.environ["WM_CANARY_WANTED"] = "wanted"
    try:
        backend = place.backend(**{"inherit-environment": ("WM_CANARY_WANTED",)})
        submission = place.launch(backend, ("/usr/bin/env",))
    finally:
        del os.environ["WM_CANARY_SECRET"], os.environ["WM_CANARY_WANTED"]
    place.until_ended(backend, f"{submission.id}-0")
    log = backend.logs(f"{submission.id}-0", 10_000)
    assert "WM_CANARY_WANTED=wanted" in log
    assert "WM_CANARY_SECRET" not in log


def test_workers_outlive_the_manager_that_started_them(place: Place) -> None:
    code = (
        "import sys; from backends import registry; from backends.base import *; from worker.protocol import Shape\n"
        "b = registry.create('local', {}, Context('m', 'p', sys.argv[1], lambda: 5))\n"
        "print(b.launch(Submission('m-child', 2, 'p', 'm', Shape(), ('/bin/sleep', '600'), {}, ('a', 'b'))))"
    )
    subprocess.run([sys.executable, "-c", code, str(place.root)], check=True, capture_output=True, timeout=60)
    backend = place.backend()
    assert [seen.phase for seen in backend.list().seen] == ["running", "running"]
    assert isinstance(backend.terminate("m-child-0", force=False), Accepted)
    assert place.until_ended(backend, "m-child-0").exit_code == 143, "the shell kept the status, for nobody's child"
    assert place.seen(backend, "m-child-1").phase is WorkerPhase.RUNNING  # type: ignore[union-attr]


def test_a_polite_end_is_one_signal_however_often_it_is_asked_for(place: Place) -> None:
    backend = place.backend()
    handle = f"{place.launch(backend, ('/bin/sh', '-c', COUNTS_TERMS)).id}-0"
    place.until(lambda: "ready" in backend.logs(handle, 100), "the worker's first word")
    for manager in (backend, place.backend(), backend):
        manager.terminate(handle, force=False)
    place.until(lambda: "T" in backend.logs(handle, 100), "the signal")
    place.until(lambda: place.seen(backend, handle).phase is WorkerPhase.ENDING, "ending")  # type: ignore[union-attr]
    assert backend.logs(handle, 100).count("T") == 1
    backend.terminate(handle, force=True)
    place.until_ended(backend, handle)


@pytest.mark.parametrize("setup", [(), ("true",)], ids=["sh", "bash"])
def test_a_worker_that_ends_politely_keeps_its_own_status(place: Place, setup: tuple[str, ...]) -> None:
    """Many at once, because the moment in which the status could be lost is short."""
    backend = place.backend()
    script = "trap 'kill -KILL $!; exit 5' TERM; echo ready; sleep 600 & wait"
    submission = place.launch(backend, ("/bin/sh", "-c", script), count=40, setup=setup)
    handles = [submission.worker_id(index) for index in range(40)]
    place.until(lambda: all("ready" in backend.logs(handle, 100) for handle in handles), "every first word")
    for handle in handles:
        backend.terminate(handle, force=False)
    assert [place.until_ended(backend, handle).exit_code for handle in handles] == [5] * 40


def test_a_polite_end_is_not_lost_while_the_worker_is_being_started(place: Place) -> None:
    backend = place.backend()
    handles = [place.launch(backend).worker_id(0)]
    for number in range(60):
        handles.append(place.launch(backend).worker_id(0))
        for _ in range(number % 6):
            backend.list()  # some time passes
        backend.terminate(handles[-1], force=False)
    assert {place.until_ended(backend, handle).exit_code for handle in handles[1:]} == {143}
    assert place.seen(backend, handles[0]).phase is WorkerPhase.RUNNING  # type: ignore[union-attr]


def test_force_reaches_what_has_left_the_session_and_forks_meanwhile(place: Place) -> None:
    forks = "while :; do setsid sleep 600 & setsid sh -c 'setsid sleep 600 & wait' & sleep 0.01; done"
    backend = place.backend()
    handle = f"{place.launch(backend, ('/bin/sh', '-c', forks)).id}-0"
    place.until(lambda: len(place.ours(processes.table())) > 10, "a crowd")
    backend.terminate(handle, force=True)
    place.until_ended(backend, handle)
    assert not place.ours(processes.table())


def test_a_worker_whose_shell_was_killed_is_not_called_ended_while_it_lives(place: Place) -> None:
    backend = place.backend()
    handle = f"{place.launch(backend).id}-0"
    place.until(lambda: len(place.ours(processes.table())) == 2, "shell and worker")
    os.kill(place.shell(handle).pid, signal.SIGKILL)
    place.until(lambda: len(place.ours(processes.table())) == 1, "the shell's end")
    for manager in (backend, place.backend()):
        assert place.seen(manager, handle).phase is WorkerPhase.RUNNING  # type: ignore[union-attr]
    backend.terminate(handle, force=False)
    assert place.until_ended(backend, handle).exit_code == 137


def test_a_pid_that_belongs_to_somebody_else_by_now_is_left_alone(place: Place) -> None:
    backend = place.backend()
    handle = f"{place.launch(backend).id}-0"
    folder = Records(place.root).find(handle)
    assert folder
    backend.terminate(handle, force=True)
    place.until(lambda: not place.ours(processes.table()), "its end")
    with subprocess.Popen(RUNS, start_new_session=True) as bystander:
        stat = processes.look(bystander.pid)
        assert stat
        folder.record(Process(stat.pid, stat.start - 1), processes.boot_id(), 0)
        again = place.backend()
        again.terminate(handle, force=False)
        again.terminate(handle, force=True)
        assert not processes.send(Process(stat.pid, stat.start - 1), signal.SIGKILL)
        assert place.seen(again, handle).phase is WorkerPhase.ENDED  # type: ignore[union-attr]
        assert bystander.poll() is None
        bystander.kill()


def test_what_ran_before_the_machine_restarted_is_over(place: Place) -> None:
    backend = place.backend()
    handle = f"{place.launch(backend).id}-0"
    record = place.root / "m-1" / "0" / "process"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"boot": "another"}))
    seen = place.seen(place.backend(), handle)
    assert seen
    assert (seen.phase, seen.exit_code, seen.detail) == ("ended", None, "the machine was restarted")


def test_our_own_children_do_not_stay_zombies(place: Place) -> None:
    backend = place.backend()
    for code in ("0", "1", "2"):
        place.launch(backend, ("/bin/sh", "-c", f"exit {code}"))
    pids = [place.shell(f"m-{number}-0").pid for number in (1, 2, 3)]
    assert [place.until_ended(backend, f"m-{number}-0").exit_code for number in (1, 2, 3)] == [0, 1, 2]
    place.until(lambda: backend.list() and not any(processes.look(pid) for pid in pids), "no zombies")


def test_a_launch_without_room_for_a_process_is_refused_whole(place: Place) -> None:
    """The third of three cannot be started, so none is left."""
    backend = place.backend()
    (place.root / "m-1").mkdir()
    (place.root / "m-1" / "2").write_text("in the way")
    before = place.ours(processes.table())
    place.launch(backend, count=3)
    assert isinstance(place.last, Refused), place.last
    place.until(lambda: place.ours(processes.table()) == before, "nothing left")
    assert backend.list().seen == ()


def test_a_full_file_table_is_no_capacity(place: Place) -> None:
    backend = place.backend()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(used, soft), hard))
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    try:
        place.launch(backend)
    finally:
        for number in taken:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert isinstance(place.last, Refused)
    assert place.last.kind == "capacity"
    assert backend.list().seen == ()


def test_ended_workers_are_shown_for_a_while_and_their_logs_removed_with_the_next_launch(place: Place) -> None:
    backend = place.backend(**{"keep-ended": 60_000})
    handle = f"{place.launch(backend, ('/bin/echo', 'words')).id}-0"
    place.until_ended(backend, handle)
    assert "words" in backend.logs(handle, 100)
    place.clock.advance(60_001)
    assert place.seen(backend, handle) is None
    assert "words" in backend.logs(handle, 100)
    place.launch(backend)
    assert backend.logs(handle, 100) == ""
    assert not (place.root / "m-1").exists()
    assert (place.root / "m-2").exists()


def test_only_so_many_ended_submissions_are_kept_and_never_a_running_one(place: Place) -> None:
    backend = place.backend(**{"keep-ended-count": 2})
    runs = place.launch(backend)
    for _ in range(4):
        place.until_ended(backend, f"{place.launch(backend, ('/bin/true',)).id}-0")
    place.launch(backend)
    assert sorted(path.name for path in place.root.iterdir()) == ["m-1", "m-4", "m-5", "m-6"]
    assert place.seen(backend, f"{runs.id}-0").phase is WorkerPhase.RUNNING  # type: ignore[union-attr]


def test_check_names_a_slice_that_does_not_fit_and_a_folder_that_cannot_be_written(place: Place) -> None:
    context = Context("m", "p", str(place.root / "state"), place.clock.now_ms, shape=Shape(cpus=10**9), max_workers=1)
    backend = create(registry.load("local").read({}), context)
    errors = [finding for finding in backend.check() if finding.severity is Severity.ERROR]
    assert [finding.subject for finding in errors] == ["slice"]
    (place.root / "state").rmdir()
    errors = [finding for finding in backend.check() if finding.severity is Severity.ERROR]
    assert [finding.subject for finding in errors] == ["state folder", "slice"]
    assert all(finding.mend for finding in errors)


def test_a_state_folder_that_cannot_be_made_is_said(place: Place) -> None:
    (place.root / "file").write_text("")
    with pytest.raises(registry.BackendUnusable, match="cannot be made"):
        create(registry.load("local").read({}), Context("m", "p", str(place.root / "file" / "x"), place.clock.now_ms))
