"""Where a launch goes when hosts refuse, fall silent or are full: hosts that are played, no processes."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends import registry
from backends.base import Accepted, Context, ListFailed, RefusalKind, Refused, Submission, Unknown, WorkerPhase
from backends.ssh import SshBackend
from backends.ssh.answers import Trouble
from backends.ssh.hosts import Host
from backends.ssh.pool import Pool
from backends.ssh.state import Placement
from worker.protocol import Shape
from worker_manager.clock import ManualClock

CAPACITY, CONFIG, AUTH = RefusalKind.CAPACITY, RefusalKind.CONFIG, RefusalKind.AUTH
DOWN = Trouble(CAPACITY, "it cannot be reached", certain=True)
SILENT = Trouble(CAPACITY, "no answer within 30 s", certain=False)
DENIED = Trouble(AUTH, "it does not accept our key", certain=True)
DISK_FULL = Trouble(CAPACITY, "the disk is full", certain=True, more={"refused": "capacity", "there": []})


class PlayedHosts:
    """Stands for the line to all of them."""

    def __init__(self) -> None:
        self.running: dict[str, dict[tuple[str, int], str]] = {}
        self.fails: dict[str, Trouble] = {}
        self.asked: list[tuple[str, str]] = []

    def call(self, host: Host, request: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
        self.asked.append((host.key, request["call"]))
        trouble = self.fails.get(host.key)
        if trouble and trouble.certain:
            raise trouble
        answer = self._do(host, request)
        if trouble:
            raise trouble
        return answer

    def _do(self, host: Host, request: Mapping[str, Any]) -> Mapping[str, Any]:
        mine = self.running.setdefault(host.key, {})
        if request["call"] == "list":
            workers = [{"submission": id, "index": n, "phase": phase, "at": 1} for (id, n), phase in mine.items()]
            return {"workers": workers, "boot": "b", "kept": True, "folder": "/f"}
        wanted = [(request["submission"], index) for index in request["indexes"]]
        missing = [one for one in wanted if one not in mine]
        if len(missing) > request["slots"] - len(mine):
            there = [index for id, index in wanted if (id, index) in mine]
            more = {"refused": "slots", "live": len(mine), "there": there}
            raise Trouble(CAPACITY, "slots are taken", certain=True, more=more)
        mine.update(dict.fromkeys(missing, "running"))
        return {"live": len(mine), "boot": "b"}

    def where(self) -> dict[str, list[int]]:
        return {host: sorted(index for _, index in mine) for host, mine in self.running.items() if mine}


Make = Callable[..., SshBackend]


@pytest.fixture
def hosts() -> PlayedHosts:
    return PlayedHosts()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make(hosts: PlayedHosts, clock: ManualClock, tmp_path: Path) -> Make:
    def made(*names: str) -> SshBackend:
        context = Context("m", "p", str(tmp_path), clock.now_ms)
        options = registry.load("ssh").read({"hosts": list(names), "retry": "10s"})
        return SshBackend(Pool(options, context, hosts), context, hosts)  # type: ignore[arg-type]

    return made


def submission(count: int = 1, number: int = 1) -> Submission:
    return Submission(f"m-{number}", count, "p", "m", Shape(), ("/bin/true",), {}, ())


def test_what_one_host_certainly_refuses_goes_to_another(make: Make, hosts: PlayedHosts) -> None:
    hosts.fails["a"] = DOWN
    outcome = make("a:2", "b:4").launch(submission(4))
    assert isinstance(outcome, Accepted)
    assert hosts.where() == {"b": [0, 1, 2, 3]}
    assert dict(outcome.handles) == {index: f"m-1-{index}@b" for index in range(4)}


def test_what_a_silent_host_may_have_started_goes_nowhere_else(make: Make, hosts: PlayedHosts) -> None:
    hosts.fails["a"] = SILENT
    backend = make("a:2", "b:2")
    outcome = backend.launch(submission(4))
    assert isinstance(outcome, Unknown)
    assert "a: no answer" in outcome.text
    assert {host: len(workers) for host, workers in hosts.where().items()} == {"a": 2, "b": 2}
    del hosts.fails["a"]
    assert len(backend.list().seen) == 4


def test_again_the_same_submission_makes_nothing_twice(make: Make, hosts: PlayedHosts) -> None:
    hosts.fails["a"] = SILENT
    assert isinstance(make("a:2", "b:2").launch(submission(3)), Unknown)
    before = hosts.where()
    hosts.fails["a"] = DOWN
    assert isinstance(make("a:2", "b:2").launch(submission(3)), Unknown), "a may have started its part the first time"
    del hosts.fails["a"]
    assert isinstance(make("a:2", "b:2").launch(submission(3)), Accepted)
    assert hosts.where() == before


def test_a_host_that_is_full_is_known_to_be_so_from_its_answer(make: Make, hosts: PlayedHosts) -> None:
    make("a:1", "b:1").launch(submission(2))
    fresh = make("a:1", "b:1")
    outcome = fresh.launch(submission(number=2))
    assert isinstance(outcome, Refused)
    assert outcome.kind is CAPACITY
    asked = len(hosts.asked)
    assert isinstance(fresh.launch(submission(number=3)), Refused)
    assert len(hosts.asked) == asked, "nobody is asked for what is known to be taken"


def test_workers_without_a_slot_are_over_for_want_of_capacity(make: Make, hosts: PlayedHosts) -> None:
    backend = make("a:1")
    outcome = backend.launch(submission(3))
    assert isinstance(outcome, Accepted)
    assert sorted(outcome.handles) == [0, 1, 2]
    phases = {one.index: (one.phase, one.refusal) for one in make("a:1").list().seen}
    assert phases == {
        0: (WorkerPhase.RUNNING, None),
        1: (WorkerPhase.ENDED, CAPACITY),
        2: (WorkerPhase.ENDED, CAPACITY),
    }
    hosts.running["a"].clear()
    assert dict(backend.launch(submission(3)).handles) == dict(outcome.handles)  # type: ignore[union-attr]
    assert hosts.where() == {"a": [0]}, "what was told to be over is not started after all"


@pytest.mark.parametrize(
    ("fails", "kind", "retry_s"),
    [
        ({"a": DENIED, "b": DENIED}, AUTH, 10),
        ({"a": DENIED, "b": DOWN}, CAPACITY, 10),
        ({"a": DISK_FULL, "b": DISK_FULL}, CAPACITY, 10),
    ],
)
def test_when_no_host_takes_any_it_is_refused_with_every_reason(
    make: Make, hosts: PlayedHosts, fails: dict[str, Trouble], kind: RefusalKind, retry_s: float
) -> None:
    hosts.fails = fails
    backend = make("a:2", "b:2")
    outcome = backend.launch(submission())
    assert isinstance(outcome, Refused)
    assert (outcome.kind, outcome.retry_after_s) == (kind, retry_s)
    assert all(f"{key}: {trouble.text}" in outcome.text for key, trouble in fails.items())
    hosts.fails = {}
    assert backend.list().seen == ()


def test_a_host_that_failed_is_left_alone_until_its_time_has_come(
    make: Make, hosts: PlayedHosts, clock: ManualClock
) -> None:
    hosts.fails["a"] = DISK_FULL
    make("a:9", "b:1").launch(submission())
    hosts.asked.clear()
    backend = make("a:9", "b:1")
    assert isinstance(backend.launch(submission(number=2)), Refused)
    assert ("a", "launch") not in hosts.asked, "also after a restart"
    hosts.fails = {}
    clock.advance(10_001)
    assert isinstance(backend.launch(submission(number=3)), Accepted)


def test_a_clock_that_is_set_back_shuts_nobody_out(make: Make, hosts: PlayedHosts, clock: ManualClock) -> None:
    clock.advance(10 * 3_600_000)
    hosts.fails["a"] = DENIED
    backend = make("a:1")
    backend.launch(submission())
    hosts.fails = {}
    backend._context = replace(backend._context, now_ms=lambda: clock.now_ms() - 5 * 3_600_000)
    backend._pool.context = backend._context
    assert isinstance(backend.launch(submission(number=2)), Accepted)


def test_a_list_is_complete_only_when_nothing_can_be_hidden(make: Make, hosts: PlayedHosts, clock: ManualClock) -> None:
    backend = make("a:1", "b:1")
    hosts.fails["a"] = DOWN
    assert not backend.list().complete, "a was never seen"
    hosts.fails = {}
    clock.advance(10_001)
    backend = make("a:1", "b:1", "c:1")
    backend.launch(submission())
    assert backend.list().complete
    [holder] = hosts.where()
    idle = next(key for key in ("a", "b", "c") if key != holder)
    hosts.fails = {idle: DOWN}
    assert backend.list().complete, "nothing of ours was there"
    hosts.fails = {holder: DOWN}
    assert not backend.list().complete
    hosts.fails = dict.fromkeys("abc", DOWN)
    with pytest.raises(ListFailed, match="a: "):
        backend.list()


def test_a_record_that_is_spoilt_may_mean_any_host(make: Make, hosts: PlayedHosts, tmp_path: Path) -> None:
    backend = make("a:1", "b:1")
    backend.launch(submission())
    (tmp_path / "launched" / "m-1").write_text("{")
    assert isinstance(backend.launch(submission()), Unknown)
    fresh = make("a:1", "b:1")
    fresh.list()
    assert fresh._pool.state.placements() == {"m-1": Placement(0)}


def test_a_state_folder_that_cannot_be_written_starts_nothing(make: Make, hosts: PlayedHosts, tmp_path: Path) -> None:
    backend = make("a:1")
    (tmp_path / "launched").rename(tmp_path / "away")
    (tmp_path / "launched").write_text("")
    outcome = backend.launch(submission())
    assert isinstance(outcome, Refused)
    assert hosts.where() == {}
    with pytest.raises(ListFailed):
        backend.list()
