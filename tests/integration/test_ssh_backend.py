"""The ssh backend on real hosts: what only it promises."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends import registry
from backends.base import (
    AGENT,
    Accepted,
    AgentFile,
    Context,
    ListFailed,
    RefusalKind,
    Refused,
    Seen,
    Severity,
    Submission,
    Unknown,
    WorkerPhase,
)
from backends.ssh import SshBackend
from tests import needs
from tests.place import alive, until
from tests.stand_ins.ssh import SshSite, pids, read
from worker.protocol import Shape
from worker_manager.clock import ManualClock, SystemClock

RUNS = ("/bin/sleep", "600")
MOST_S = 60.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshSite]:
    needs.sshd()
    site = SshSite(tmp_path_factory.mktemp("ssh") / "site")
    yield site
    site.close()


class Bench:
    """Backends on the site's hosts, with records in a folder of the test's own."""

    def __init__(self, site: SshSite, root: Path) -> None:
        self.site = site
        self.root = root
        self.remote = root / "remote"
        self.made: list[SshBackend] = []
        self.count = 0

    def backend(
        self,
        *hosts: str,
        manager: str = "m",
        pool: str = "p",
        state: str = "state",
        timeout: float = 30.0,
        **options: Any,
    ) -> SshBackend:
        clock, server = options.pop("clock", SystemClock()), options.pop("server", "")
        context = Context(
            manager,
            pool,
            str(self.root / state),
            clock.now_ms,
            timeout,
            Shape(cpus=1000, memory=2**20),
            max_workers=2,
            server=server,
        )
        given = {**self.site.options, "hosts": hosts or ("alpha:4",), "remote-dir": str(self.remote), "retry": 1}
        backend = registry.load("ssh").create(given | {k.replace("_", "-"): v for k, v in options.items()}, context)
        assert isinstance(backend, SshBackend)
        self.made.append(backend)
        return backend

    def submission(self, count: int = 1, command: tuple[str, ...] = RUNS, **more: Any) -> Submission:
        self.count += 1
        tokens = tuple(f"wmj_canary_{self.count}_{index}" for index in range(count))
        made = Submission(f"m-{self.count}", count, "p", "m", Shape(), command, {}, tokens)
        return replace(made, **more)

    def launch(self, backend: SshBackend, count: int = 1, command: tuple[str, ...] = RUNS, **more: Any) -> list[str]:
        outcome = backend.launch(self.submission(count, command, **more))
        assert isinstance(outcome, Accepted), outcome
        return [outcome.handles[index] for index in sorted(outcome.handles)]

    def seen(self, backend: SshBackend, handle: str) -> Seen | None:
        """None also when a host did not come to answer in time, as on a machine that has much to do."""
        try:
            return next((one for one in backend.list().seen if one.handle == handle), None)
        except ListFailed:
            return None

    def until_phase(self, backend: SshBackend, handle: str, phase: WorkerPhase) -> Seen:
        def there() -> Seen | None:
            one = self.seen(backend, handle)
            return one if one and one.phase is phase else None

        found = until(there, f"{handle} {phase}", MOST_S)
        assert isinstance(found, Seen)
        return found

    def folder(self, handle: str) -> Path:
        """Of that worker, on its host."""
        worker, _, host = handle.partition("@")
        submission, _, index = worker.rpartition("-")
        [found] = (self.remote / host).glob(f"*/{submission}/{index}")
        return found

    def processes(self, handle: str) -> list[int]:
        mark = os.fsencode(f"WM_WORKER_DIR={self.folder(handle)}\0")
        return [pid for pid in pids() if mark in read(pid, "environ") and alive(pid)]

    def attendant(self, handle: str) -> int:
        return int(json.loads((self.folder(handle) / "process").read_text())["pid"])

    def close(self) -> None:
        for host in self.site.hosts.values():
            host.thaw()
            for order in host.orders():
                (host.folder / "orders" / order).unlink()
            host.calm()
        for backend in self.made:
            backend.close()
        mark = os.fsencode(str(self.root))
        for pid in pids():
            if mark in read(pid, "environ"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def bench(site: SshSite, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(site, tmp_path)
    yield made
    made.close()


# ---------------------------------------------------------------- how many calls


def test_one_call_for_each_host_to_launch_to_list_and_to_end(bench: Bench) -> None:
    backend = bench.backend("alpha:4", "beta:4")
    before = bench.site.calls()
    handles = bench.launch(backend, 8)
    assert bench.site.calls() - before == 2
    assert sorted(handle.partition("@")[2] for handle in handles) == ["alpha"] * 4 + ["beta"] * 4
    assert len(backend.list().seen) == 8
    assert bench.site.calls() - before == 4
    backend.terminate(handles[0], force=True)
    assert bench.site.calls() - before == 5


# ---------------------------------------------------------------- slots


def test_when_every_slot_is_taken_it_is_refused_and_nothing_starts(bench: Bench) -> None:
    backend = bench.backend("alpha:1", "beta:1")
    bench.launch(backend, 2)
    outcome = backend.launch(bench.submission())
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.CAPACITY
    assert "alpha: 1 of 1 slots are taken" in outcome.text
    fresh = bench.backend("alpha:1", "beta:1", state="elsewhere")  # it does not know what is taken
    outcome = fresh.launch(bench.submission())
    assert isinstance(outcome, Refused)
    assert "beta: 1 of 1 slots are taken" in outcome.text
    assert len(backend.list().seen) == 2


def test_workers_without_a_slot_are_shown_as_ended_for_want_of_capacity(bench: Bench) -> None:
    clock = ManualClock()
    backend = bench.backend("alpha:1", "beta:1", clock=clock)
    handles = bench.launch(backend, 4)
    found = {one.handle: one for one in backend.list().seen}
    assert [found[handle].phase for handle in handles] == [WorkerPhase.RUNNING] * 2 + [WorkerPhase.ENDED] * 2
    assert {found[handle].refusal for handle in handles[2:]} == {RefusalKind.CAPACITY}
    assert "slots are taken" in found[handles[3]].detail
    assert isinstance(backend.terminate(handles[3], force=True), Accepted)
    assert backend.logs(handles[3], 100) == ""


def test_a_slot_is_free_again_when_its_worker_has_ended(bench: Bench) -> None:
    backend = bench.backend("alpha:1")
    [first] = bench.launch(backend, command=("/bin/true",))
    bench.until_phase(backend, first, WorkerPhase.ENDED)
    bench.launch(backend)


def test_the_hosts_file_may_change_and_a_host_that_left_keeps_its_workers(bench: Bench) -> None:
    file = bench.root / "hosts"
    file.write_text("# ours\nalpha slots=1\n")
    backend = bench.backend(hosts=(), hosts_file=str(file))
    [first] = bench.launch(backend)
    assert first.endswith("@alpha")
    file.write_text("beta slots=1\n")
    [second] = bench.launch(backend)
    assert second.endswith("@beta")
    assert {one.handle for one in backend.list().seen} == {first, second}
    file.write_text("what is this = nonsense\n")
    assert len(backend.list().seen) == 2
    assert isinstance(backend.terminate(first, force=True), Accepted)
    bench.until_phase(backend, first, WorkerPhase.ENDED)


# ---------------------------------------------------------------- hosts that fail


def test_a_host_that_is_down_is_set_aside_and_the_others_go_on(bench: Bench) -> None:
    backend = bench.backend("alpha:2", "beta:2", retry=600_000)
    assert backend.list().complete
    alpha = bench.site.hosts["alpha"]
    alpha.stop()
    try:
        handles = bench.launch(backend, 2)
        assert {handle.partition("@")[2] for handle in handles} == {"beta"}
        listing = backend.list()
        assert len(listing.seen) == 2
        assert listing.complete, "alpha was listed before, and nothing of ours was there"
        state = json.loads((bench.root / "state" / "hosts.json").read_text())
        assert "cannot be reached" in state["hosts"]["alpha"]["aside"]["text"]
        again = bench.backend("alpha:2", "beta:2", retry=600_000)
        outcome = again.launch(bench.submission(3))
        assert isinstance(outcome, Unknown | Accepted | Refused)
        assert "alpha" not in repr(getattr(outcome, "handles", "")), "still set aside after a restart"
    finally:
        alpha.start()


def test_a_host_with_workers_that_cannot_be_reached_makes_the_list_incomplete(bench: Bench) -> None:
    backend = bench.backend("alpha:1", "beta:1")
    bench.launch(backend, 2)
    assert backend.list().complete
    alpha = bench.site.hosts["alpha"]
    alpha.stop()
    try:
        for manager in (backend, bench.backend("alpha:1", "beta:1")):
            listing = manager.list()
            assert [one.handle.partition("@")[2] for one in listing.seen] == ["beta"]
            assert not listing.complete
        assert not bench.backend("alpha:1", "beta:1", state="lost").list().complete, "it was never listed"
        outcome = backend.terminate(next(iter(backend.list().seen)).handle.replace("beta", "alpha"), force=False)
        assert isinstance(outcome, Unknown)
    finally:
        alpha.start()
    until(lambda: backend.list().complete and len(backend.list().seen) == 2, "the whole list", MOST_S)


def test_a_host_that_will_never_be_back_is_said_to_be_gone(bench: Bench) -> None:
    file = bench.root / "hosts"
    file.write_text("alpha:1\nbeta:1\n")
    backend = bench.backend(hosts=(), hosts_file=str(file))
    handles = bench.launch(backend, 2)
    bench.site.hosts["alpha"].stop()
    try:
        file.write_text("beta:1\n")
        assert not backend.list().complete, "that it left the file says nothing of its workers"
        file.write_text("alpha:gone\nbeta:1\n")
        listing = backend.list()
        assert listing.complete
        assert [one.handle for one in listing.seen] == [one for one in handles if one.endswith("@beta")]
    finally:
        bench.site.hosts["alpha"].start()


def test_hosts_that_are_all_down_are_an_error_and_no_empty_list(bench: Bench) -> None:
    backend = bench.backend("alpha:1")
    backend.list()
    bench.site.hosts["alpha"].stop()
    try:
        with pytest.raises(ListFailed, match=r"alpha: it cannot be reached .*Connection refused"):
            backend.list()
        outcome = bench.backend("alpha:1", state="new").launch(bench.submission())
        assert isinstance(outcome, Refused)
        assert outcome.kind is RefusalKind.CAPACITY
    finally:
        bench.site.hosts["alpha"].start()


def test_a_frozen_host_costs_no_more_than_the_deadline_and_hides_nothing_of_the_others(bench: Bench) -> None:
    backend = bench.backend("alpha:1", "beta:1", timeout=6.0)
    bench.launch(backend, 2)
    backend.list()
    bench.site.hosts["alpha"].freeze()
    listing = backend.list()
    assert [one.handle.partition("@")[2] for one in listing.seen] == ["beta"]
    assert not listing.complete
    bench.site.hosts["alpha"].thaw()
    until(lambda: backend.list().complete, "the host to be back", MOST_S)


def test_a_slow_host_is_waited_for(bench: Bench) -> None:
    backend = bench.backend("alpha:1", "beta:1")
    bench.launch(backend, 2)
    bench.site.hosts["alpha"].order("slow")
    listing = backend.list()
    assert listing.complete
    assert len(listing.seen) == 2


def test_what_a_host_says_to_whoever_logs_in_does_no_harm(bench: Bench) -> None:
    backend = bench.backend()
    bench.site.hosts["alpha"].order("noise")
    [handle] = bench.launch(backend)
    bench.site.hosts["alpha"].order("noise")
    assert [one.handle for one in backend.list().seen] == [handle]


def test_ten_megabytes_of_noise_are_no_answer_and_told_in_short(bench: Bench) -> None:
    backend = bench.backend()
    bench.site.hosts["alpha"].order("flood")
    outcome = backend.launch(bench.submission())
    assert isinstance(outcome, Unknown)
    assert len(outcome.text) <= 2100
    bench.site.hosts["alpha"].order("flood")
    with pytest.raises(ListFailed) as failed:
        backend.list()
    assert len(str(failed.value)) <= 2100


@pytest.mark.parametrize(
    ("order", "kind", "words"),
    [
        ("strange-key", RefusalKind.CONFIG, "ssh-keyscan -H alpha >> ~/.ssh/known_hosts"),
        ("denied", RefusalKind.AUTH, "it does not accept our key"),
        ("refused", RefusalKind.CAPACITY, "it cannot be reached"),
        ("no-python", RefusalKind.CONFIG, "install Python 3.9 or newer there"),
    ],
)
def test_a_refusal_says_what_to_do(bench: Bench, order: str, kind: RefusalKind, words: str) -> None:
    backend = bench.backend()
    bench.site.hosts["alpha"].order(order)
    outcome = backend.launch(bench.submission())
    assert isinstance(outcome, Refused), outcome
    assert outcome.kind is kind
    assert words in outcome.text
    assert backend.list().seen == (), "it certainly did nothing"


def test_an_unknown_key_is_taken_only_when_that_was_asked_for(bench: Bench) -> None:
    empty = bench.root / "nobody is known"
    empty.touch()
    strict = bench.backend(state="strict", **{"known-hosts": str(empty)})
    assert isinstance(strict.launch(bench.submission()), Refused)
    assert empty.read_text() == ""
    bench.launch(bench.backend(state="new", **{"known-hosts": str(empty), "host-keys": "accept-new"}))
    assert empty.read_text() != "", "and it counts from now on"
    bench.launch(bench.backend(state="off", **{"host-keys": "off"}))


# ---------------------------------------------------------------- workers that end


def test_a_worker_that_is_killed_has_ended_by_that_signal(bench: Bench) -> None:
    backend = bench.backend()
    [handle] = bench.launch(backend, command=("/bin/sh", "-c", "kill -KILL $$"))
    assert bench.until_phase(backend, handle, WorkerPhase.ENDED).exit_code == 137


def test_a_worker_whose_attendant_was_killed_is_still_seen_and_can_be_ended(bench: Bench) -> None:
    backend = bench.backend()
    [handle] = bench.launch(backend)
    until(lambda: bench.processes(handle), "the worker", MOST_S)
    os.kill(bench.attendant(handle), signal.SIGKILL)
    assert bench.until_phase(backend, handle, WorkerPhase.RUNNING)
    assert bench.processes(handle)
    assert isinstance(backend.terminate(handle, force=True), Accepted)
    ended = bench.until_phase(backend, handle, WorkerPhase.ENDED)
    assert "without leaving an exit status" in ended.detail


def test_a_polite_end_is_one_signal_however_often_it_is_asked_for(bench: Bench) -> None:
    script = "trap 'echo T' TERM; echo ready; while :; do sleep 600 & wait $!; kill -KILL $!; done"
    backend = bench.backend()
    [handle] = bench.launch(backend, command=("/bin/sh", "-c", script))
    until(lambda: "ready" in backend.logs(handle, 100), "its first word", MOST_S)
    for manager in (backend, bench.backend(), backend):
        manager.terminate(handle, force=False)
    until(lambda: "T" in backend.logs(handle, 100), "the signal", MOST_S)
    assert bench.until_phase(backend, handle, WorkerPhase.ENDING)
    assert backend.logs(handle, 100).count("T") == 1


def test_what_escapes_its_session_is_still_the_workers(bench: Bench) -> None:
    backend = bench.backend()
    [handle] = bench.launch(backend, command=("/bin/sh", "-c", "setsid sleep 600 & exit 5"))
    one = bench.until_phase(backend, handle, WorkerPhase.ENDING)
    assert one.exit_code is None
    backend.terminate(handle, force=True)
    assert bench.until_phase(backend, handle, WorkerPhase.ENDED).exit_code == 5
    assert not bench.processes(handle)


def test_after_a_restart_of_the_host_its_workers_are_over(bench: Bench) -> None:
    backend = bench.backend()
    [handle] = bench.launch(backend)
    record = bench.folder(handle) / "process"
    found = json.loads(record.read_text())
    record.write_text(json.dumps({**found, "boot": "another"}))
    ended = bench.until_phase(backend, handle, WorkerPhase.ENDED)
    assert ended.detail == "the host was restarted"
    assert isinstance(backend.terminate(handle, force=True), Accepted)


def test_a_pid_that_belongs_to_somebody_else_now_is_left_alone(bench: Bench) -> None:
    backend = bench.backend()
    [handle] = bench.launch(backend, command=("/bin/true",))
    until(lambda: (bench.folder(handle) / "exit").exists(), "its end", MOST_S)
    other = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True)
    try:
        record = bench.folder(handle) / "process"
        record.write_text(json.dumps({**json.loads(record.read_text()), "pid": other.pid}))
        assert bench.until_phase(backend, handle, WorkerPhase.ENDED)
        backend.terminate(handle, force=True)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_records_that_are_gone_are_no_empty_list(bench: Bench) -> None:
    """As when the home folder is not mounted."""
    backend = bench.backend()
    [handle] = bench.launch(backend)
    (bench.remote / "alpha").rename(bench.remote / "away")
    with pytest.raises(ListFailed, match="is the home folder mounted"):
        backend.list()
    (bench.remote / "away").rename(bench.remote / "alpha")
    until(lambda: bench.seen(backend, handle), "it to be seen again", MOST_S)


def test_old_records_are_removed_and_forgotten(bench: Bench) -> None:
    backend = bench.backend(keep_ended=1)
    [handle] = bench.launch(backend, command=("/bin/true",))
    folder = bench.folder(handle)
    until(lambda: backend.list().seen == () and (folder / "ended").exists(), "its end", MOST_S)
    bench.launch(backend, command=("/bin/true",))
    assert not folder.exists()
    until(
        lambda: backend.list() and not (bench.root / "state" / "launched" / "m-1").exists(),
        "it to be forgotten",
        MOST_S,
    )


# ---------------------------------------------------------------- the agent


def agent_file(bench: Bench, text: str = "import sys; print('agent', sys.argv[1:])") -> AgentFile:
    path = bench.root / "agent.pyz"
    path.write_text(text)
    return AgentFile("http://127.0.0.1:9/none", hashlib.sha256(text.encode()).hexdigest(), str(path))


def test_the_agent_is_brought_along_once_and_made_good_when_it_is_spoilt(bench: Bench) -> None:
    backend = bench.backend()
    agent = agent_file(bench)
    words: dict[str, Any] = {"command": (AGENT, "--worker-id", "{worker}"), "agent": agent}
    [handle] = bench.launch(backend, **words)
    until(lambda: "agent ['--worker-id', 'm-1-0']" in backend.logs(handle, 1000), "the agent's words", MOST_S)
    copy = bench.remote / "agents" / f"{agent.sha256}.pyz"
    assert copy.stat().st_mode & 0o777 == 0o600
    before = bench.site.calls()
    bench.launch(backend, **words)
    assert bench.site.calls() - before == 1
    copy.write_text("print('evil')")
    [handle] = bench.launch(backend, **words)
    until(lambda: "agent [" in backend.logs(handle, 1000), "the agent's words", MOST_S)
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == agent.sha256


def test_an_agent_that_is_not_what_the_launch_names_starts_nothing(bench: Bench) -> None:
    backend = bench.backend()
    agent = replace(agent_file(bench), sha256="0" * 64)
    outcome = backend.launch(bench.submission(command=(AGENT,), agent=agent))
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.CONFIG
    assert "not the agent of this launch" in outcome.text
    Path(agent.path).unlink()
    assert isinstance(backend.launch(bench.submission(command=(AGENT,), agent=agent)), Refused)
    assert backend.list().seen == ()


def test_the_agent_may_be_fetched_by_the_host_itself(bench: Bench) -> None:
    backend = bench.backend(agent="fetch")
    text = backend.render(bench.submission(command=(AGENT, "--server", "x"), agent=agent_file(bench)))
    assert "http://127.0.0.1:9/none" in text
    assert "WM_AGENT" not in text
    copied = bench.backend().render(bench.submission(command=(AGENT, "--server", "x"), agent=agent_file(bench)))
    assert '"$WM_AGENT"' in copied


# ---------------------------------------------------------------- hostile names, secrets, rights


@pytest.mark.parametrize("name", ["../../escape", ".", 'it\'s $(id) `id`; "x"', "line\nbreak", "x" * 300, "日本"])
def test_pools_and_managers_of_any_name_stay_in_their_own_folder(bench: Bench, name: str) -> None:
    backend = bench.backend(pool=name, manager=name)
    [handle] = bench.launch(backend, pool=name, manager=name)
    assert bench.until_phase(backend, handle, WorkerPhase.RUNNING)
    assert {path.name for path in bench.remote.iterdir()} == {"agents", "alpha"}
    assert len(list((bench.remote / "alpha").iterdir())) == 1
    assert bench.backend(state="another").list().seen == ()


def test_a_folder_that_others_can_write_is_refused(bench: Bench) -> None:
    bench.remote.mkdir(mode=0o777)
    bench.remote.chmod(0o777)
    outcome = bench.backend().launch(bench.submission())
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.CONFIG
    assert "others cannot write" in outcome.text


def test_nothing_of_a_worker_can_be_read_by_others(bench: Bench) -> None:
    backend = bench.backend()
    bench.launch(backend, setup=("true",))
    for path in [bench.remote, *bench.remote.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_worker_gets_nothing_of_the_connection_nor_of_the_manager(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WM_CANARY_SECRET", "canary")
    backend = bench.backend()
    script = "env; ls -l /proc/self/fd; ps -o sid=,pid= -p $$; echo over"
    [handle] = bench.launch(backend, command=("/bin/sh", "-c", script))
    until(lambda: "over" in backend.logs(handle, 10_000), "its words", MOST_S)
    said = backend.logs(handle, 10_000)
    assert "canary" not in said.replace("wmj_canary", "")
    assert "SSH_" not in said
    assert f"HOME={bench.site.hosts['alpha'].home}" in said
    assert "socket:" not in said
    assert " 0 -> /dev/null" in said


# ---------------------------------------------------------------- doctor


def test_check_tells_of_each_host(bench: Bench) -> None:
    backend = bench.backend("alpha:1", "beta:400")
    bench.site.hosts["alpha"].order("denied")
    found = {finding.subject: finding for finding in backend.check()}
    assert found["alpha"].severity is Severity.ERROR
    assert "ssh -o BatchMode=yes alpha true" in found["alpha"].mend
    assert found["beta"].severity is Severity.OK
    assert found["beta: slots"].severity is Severity.WARNING
    assert found["beta: slots"].mend.startswith("beta:")
    assert found["slots"].severity is Severity.OK
    assert not bench.remote.exists(), "it changes nothing"


def test_check_tells_of_a_clock_and_a_hub_out_of_reach(bench: Bench) -> None:
    backend = bench.backend(clock=ManualClock(), server="http://127.0.0.1:1")
    found = {finding.subject: finding for finding in backend.check()}
    assert "s ahead" in found["alpha: clock"].text
    assert "http://127.0.0.1:1 cannot be reached from there" in found["alpha: hub"].text
    assert "--advertise-url" in found["alpha: hub"].mend


def test_a_launch_that_is_repeated_goes_to_the_same_hosts(bench: Bench) -> None:
    backend = bench.backend("alpha:2", "beta:2")
    submission = bench.submission(3)
    first = backend.launch(submission)
    assert isinstance(first, Accepted)
    again = bench.backend("alpha:2", "beta:2").launch(submission)
    assert isinstance(again, Accepted)
    assert dict(again.handles) == dict(first.handles)
    assert len(backend.list().seen) == 3
