"""The fake, where it does more than the conformance suite asks for: time-tables, chance, the simulator's questions."""

import pytest

from backends.base import Accepted, Context, ListFailed, RefusalKind, Refused, Submission, Unknown, WorkerPhase
from backends.memory import FOREVER, Fate, Hang, Lose, MemoryBackend, MemoryPlatform, Refuse, TimeOut, Unreadable
from worker.protocol import Shape
from worker_manager.clock import ManualClock


class World:
    def __init__(self, **words: object) -> None:
        self.clock = ManualClock(0)
        self.platform = MemoryPlatform(self.clock.now_ms, **words)  # type: ignore[arg-type]
        self.backend = MemoryBackend(self.platform, Context("m", "p", "", self.clock.now_ms, 0.01))
        self.count = 0

    def submission(self, count: int = 1) -> Submission:
        self.count += 1
        name = f"m-{self.count}"
        return Submission(name, count, "p", "m", Shape(), ("w",), {}, tuple(f"t{i}" for i in range(count)))

    def launch(self, count: int = 1) -> Submission:
        submission = self.submission(count)
        assert isinstance(self.backend.launch(submission), Accepted)
        return submission

    def phases(self) -> list[str]:
        return [seen.phase.value for seen in self.backend.list().seen]


def test_next_change_leads_through_a_life_and_then_to_nothing() -> None:
    world = World(defaults=Fate(queue_ms=2000, boot_ms=3000, run_ms=10_000), keep_ended_ms=1000)
    world.launch()
    told = []
    while (at := world.platform.next_change(world.clock.now_ms())) is not None:
        world.clock.advance(at - world.clock.now_ms())
        told.append((at, world.phases()))
    assert told == [(2000, ["starting"]), (5000, ["running"]), (15_000, ["ended"])]
    world.clock.advance(1000)
    assert world.phases() == []


def test_a_worker_that_waits_for_ever_changes_never() -> None:
    world = World(defaults=Fate(queue_ms=FOREVER))
    world.launch()
    assert world.platform.next_change(0) is None
    world.clock.advance(10**12)
    assert world.phases() == ["pending"]


def test_an_end_takes_its_time_and_a_second_request_does_not_start_it_again() -> None:
    world = World(defaults=Fate(end_ms=5000))
    world.launch()
    handle = world.backend.list().seen[0].handle
    world.backend.terminate(handle, force=False)
    world.clock.advance(3000)
    world.backend.terminate(handle, force=False)
    assert world.phases() == ["ending"]
    world.clock.advance(2000)
    assert world.phases() == ["ended"]


def test_a_worker_that_has_no_machine_yet_ends_at_once() -> None:
    world = World(defaults=Fate(queue_ms=5000, end_ms=5000))
    world.launch()
    world.backend.terminate(world.backend.list().seen[0].handle, force=False)
    (seen,) = world.backend.list().seen
    assert (seen.phase, seen.exit_code) == (WorkerPhase.ENDED, None)


def test_a_worker_leaves_by_itself_or_vanishes() -> None:
    world = World()
    first, second = world.launch(2), world.launch()
    world.platform.leave(first.worker_id(0), exit_code=3, detail="idle")
    world.platform.vanish(second.worker_id(0))
    seen = {(one.submission, one.index): one for one in world.backend.list().seen}
    assert seen[first.id, 0].exit_code == 3
    assert seen[first.id, 0].detail == "idle"
    assert seen[first.id, 1].phase is WorkerPhase.RUNNING
    assert (second.id, 0) not in seen
    assert [worker.id for worker in world.platform.workers()] == [first.worker_id(1)]


def test_a_submission_is_remembered_until_its_last_worker_is_forgotten() -> None:
    world = World(keep_ended_ms=1000)
    submission = world.launch(2)
    world.platform.leave(submission.worker_id(0))
    world.clock.advance(5000)
    assert isinstance(world.backend.launch(submission), Accepted)
    assert [seen.index for seen in world.backend.list().seen] == [1]


def test_the_quota_counts_only_the_living() -> None:
    world = World(quota=2)
    submission = world.launch(2)
    refused = world.backend.launch(world.submission())
    assert isinstance(refused, Refused)
    assert refused.kind is RefusalKind.QUOTA
    world.platform.leave(submission.worker_id(0))
    assert isinstance(world.backend.launch(world.submission()), Accepted)


def test_orders_are_met_in_their_order_and_so_often() -> None:
    world = World()
    world.platform.faults.inject("launch", Refuse(RefusalKind.QUOTA), times=2)
    world.platform.faults.inject("launch", TimeOut(executes=True))
    kinds = [type(world.backend.launch(world.submission())) for _ in range(4)]
    assert kinds == [Refused, Refused, Unknown, Accepted]
    assert len(world.backend.list().seen) == 2


def test_healing_takes_back_orders_and_chances() -> None:
    world = World()
    world.platform.faults.inject("list", Unreadable(), times=100)
    world.platform.faults.chance("list", Unreadable(), 1.0)
    with pytest.raises(ListFailed):
        world.backend.list()
    world.platform.faults.heal()
    assert world.backend.list().complete


def test_chance_follows_the_seed() -> None:
    def outcomes(seed: int) -> list[type]:
        world = World(seed=seed)
        world.platform.faults.chance("launch", TimeOut(executes=False), 0.3)
        return [type(world.backend.launch(world.submission())) for _ in range(200)]

    assert outcomes(1) == outcomes(1)
    assert outcomes(1) != outcomes(2)
    assert 30 <= outcomes(1).count(Unknown) <= 90


def test_a_hang_comes_back_as_unknown_or_goes_on_when_the_answer_came() -> None:
    world = World()
    waited = []

    def never(timeout_s: float) -> bool:
        waited.append(timeout_s)
        return False

    world.platform.faults.inject("launch", Hang(never, executes=True))
    world.platform.faults.inject("launch", Hang(lambda timeout_s: True))
    assert isinstance(world.backend.launch(world.submission()), Unknown)
    assert isinstance(world.backend.launch(world.submission()), Accepted)
    assert waited == [0.01]
    assert len(world.backend.list().seen) == 2


def test_a_list_may_lose_workers_without_knowing_it() -> None:
    world = World()
    world.launch(3)
    world.platform.faults.inject("list", Lose(5, complete=True))
    assert world.backend.list().seen == ()
    assert len(world.backend.list().seen) == 3


def test_a_fault_that_a_call_cannot_have_is_refused() -> None:
    with pytest.raises(ValueError, match="Unreadable is not a fault of 'launch'"):
        World().platform.faults.inject("launch", Unreadable())
    with pytest.raises(ValueError, match="'lunch'"):
        World().platform.faults.chance("lunch", Refuse(), 0.5)


def test_a_fate_says_only_what_it_says() -> None:
    world = World(defaults=Fate(queue_ms=1000, boot_ms=1000))
    world.platform.faults.inject(
        "worker", Fate(boot_ms=5000, dies_at_boot=True, refusal=RefusalKind.QUOTA, detail="no")
    )
    world.launch()
    assert world.platform.next_change(0) == 1000
    world.clock.advance(6000)
    (seen,) = world.backend.list().seen
    assert (seen.phase, seen.exit_code, seen.refusal, seen.detail) == ("ended", 1, RefusalKind.QUOTA, "no")


# ------------------------------------------------ notices


def test_a_platform_that_gets_no_answer_ends_the_worker_when_its_patience_does() -> None:
    platform, backend, clock = speaking()
    worker = platform.workers()[0]
    notice = platform.warn(worker.id, "scale in", patience_ms=1_000)
    assert backend.notices() == (notice,)
    clock.advance(900)
    backend.hold(notice)
    clock.advance(900)
    assert platform.workers() == (worker,)
    clock.advance(100)
    assert platform.workers() == ()
    assert backend.notices() == ()
    (seen,) = backend.list().seen
    assert (seen.phase, seen.exit_code, seen.detail) == (WorkerPhase.ENDED, 137, "scale in")


def test_a_deadline_is_not_moved_by_holding() -> None:
    platform, backend, clock = speaking()
    notice = platform.warn(platform.workers()[0].id, in_ms=1_000)
    assert notice.deadline_ms == clock.now_ms() + 1_000
    clock.advance(900)
    assert isinstance(backend.hold(notice), Accepted)
    clock.advance(100)
    assert platform.workers() == ()


def test_a_released_worker_ends_and_one_that_leaves_by_itself_takes_its_notice_along() -> None:
    platform, backend, _clock = speaking()
    first = platform.warn(platform.workers()[0].id)
    assert isinstance(backend.release(first), Accepted)
    assert platform.workers() == ()
    assert isinstance(backend.release(first), Accepted)
    platform, backend, _clock = speaking()
    platform.warn(platform.workers()[0].id)
    platform.leave(platform.workers()[0].id)
    assert backend.notices() == ()


def test_a_notice_may_mean_nobody_of_ours() -> None:
    platform, backend, _clock = speaking()
    notice = platform.warn_of_stranger("m", "p")
    assert backend.notices() == (notice,)
    assert notice.handle == ""
    backend.release(notice)
    assert backend.notices() == ()


def speaking() -> tuple[MemoryPlatform, MemoryBackend, ManualClock]:
    clock = ManualClock()
    platform = MemoryPlatform(clock.now_ms)
    backend = MemoryBackend(platform, Context("m", "p", "", clock.now_ms))
    backend.launch(Submission("m-1", 1, "p", "m", Shape(), ("agent",), {}, ("t",)))
    return platform, backend, clock
