"""Workers go: only idle ones, only with the source's leave, and what does not go by itself is ended."""

from pathlib import Path

import pytest

from backends.base import EndOutcome, RefusalKind
from backends.memory import FOREVER, Fate, Lose, Refuse, TimeOut
from tests.unit.control.world import ASKS, SHAPE, World
from worker_manager.policy.model import End
from worker_manager.policy.reasons import because
from worker_manager.sources.base import Command


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, idle_ms=5_000, end_grace_ms=10_000, start_timeout_ms=20_000, lost_timeout_ms=10_000)


def with_workers(world: World, count: int) -> list[str]:
    world.source.wait("g", ASKS, count)
    world.steps(4)
    assert world.admitted() == count
    world.source.wait("g", ASKS, 0)
    return sorted(fact.id for fact in world.source.workers())


def test_idle_workers_are_drained_and_their_intents_closed(world: World) -> None:
    with_workers(world, 2)
    world.steps(20)
    assert world.alive() == 0
    assert world.open_intents() == {}
    assert set(world.outcomes("drain")) == {"drained"}
    assert world.ledger.memory().pools["p"].history.last_drain_at is not None


def test_a_busy_worker_is_never_drained_or_ended(world: World) -> None:
    busy, idle = with_workers(world, 2)
    world.source.change(busy, running=1, idle_since=None)
    for _ in range(60):
        world.step()
        fact = world.source.worker(busy)
        assert fact is not None
        assert fact.state == "ready"
    assert [worker.id for worker in world.platform.workers()] == [busy]
    assert world.source.worker(idle) is None or world.source.worker(idle).state == "gone"  # type: ignore[union-attr]


def test_a_job_that_comes_between_plan_and_cordon_keeps_its_worker(world: World) -> None:
    (worker,) = with_workers(world, 1)
    cordon = world.source.cordon

    def claim_first(cordons):  # type: ignore[no-untyped-def]
        world.source.change(worker, running=1, idle_since=None)
        return cordon(cordons)

    world.source.cordon = claim_first  # type: ignore[method-assign]
    world.steps(30)
    fact = world.source.worker(worker)
    assert fact is not None
    assert fact.state == "ready"
    assert "not drained" in world.outcomes("drain")
    assert world.alive() == 1


def test_work_that_comes_back_calls_a_draining_worker_back(world: World) -> None:
    (worker,) = with_workers(world, 1)
    world.clock.advance(6_000)
    world.manager.tick()
    assert world.source.worker(worker).state == "draining"  # type: ignore[union-attr]
    world.source.wait("g", ASKS, 1)
    world.clock.advance(100)
    world.manager.tick()
    assert world.source.worker(worker).state == "ready"  # type: ignore[union-attr]
    assert world.alive() == 1
    assert world.outcomes("undrain") == ["works again"]


def test_a_worker_that_never_registers_loses_its_token_and_is_ended(world: World) -> None:
    world.source.wait("g", ASKS, 1)
    world.tick()
    (ghost,) = world.platform.workers()
    token = ghost.join_token
    for _ in range(40):
        world.clock.advance(1_000)
        world.manager.tick()
        if not any(worker.id == ghost.id for worker in world.platform.workers()):
            break
    else:
        pytest.fail("it was not ended")
    assert world.ledger.memory().pools["p"].history.failures[-1].kind == "boot"
    with pytest.raises(Exception, match=ghost.id):
        world.source.register(ghost.id, "p", token, SHAPE)


def test_one_that_registers_while_its_end_is_decided_is_left_alone(world: World) -> None:
    world.source.wait("g", ASKS, 1)
    world.tick()
    (late,) = world.platform.workers()
    bury = world.source.bury

    def register_first(workers, reason):  # type: ignore[no-untyped-def]
        if world.source.worker(late.id) is None:
            world.source.register(late.id, "p", late.join_token, SHAPE)
        return bury(workers, reason)

    world.source.bury = register_first  # type: ignore[method-assign]
    for _ in range(25):
        world.clock.advance(1_000)
        world.manager.tick()
    assert [worker.id for worker in world.platform.workers()] == [late.id]
    assert "not ended" in world.outcomes("end")


def test_nothing_is_ended_while_the_source_cannot_be_asked(world: World) -> None:
    world.source.wait("g", ASKS, 1)
    world.tick()
    (ghost,) = world.platform.workers()
    snapshot_source = world.source.bury

    def cut(workers, reason):  # type: ignore[no-untyped-def]
        world.source.unavailable = "cut"
        try:
            return snapshot_source(workers, reason)
        finally:
            world.source.unavailable = ""

    world.source.bury = cut  # type: ignore[method-assign]
    for _ in range(40):
        world.clock.advance(1_000)
        world.manager.tick()
    assert [worker.id for worker in world.platform.workers()] == [ghost.id]


def test_a_worker_that_does_not_end_is_forced(world: World) -> None:
    world.platform.faults.inject("worker", Fate(end_ms=FOREVER))
    (worker,) = with_workers(world, 1)
    world.source.change(worker, state="lost")
    world.source.wait("g", ASKS, 0)
    world.steps(60)
    assert world.alive() == 0
    assert "ended" in world.outcomes("end --force")


@pytest.mark.parametrize("fault", [Refuse(RefusalKind.THROTTLED), TimeOut(executes=False)])
def test_an_end_that_fails_is_asked_again(world: World, fault: object) -> None:
    (worker,) = with_workers(world, 1)
    world.source.change(worker, state="lost")
    world.platform.faults.inject("terminate", fault)  # type: ignore[arg-type]
    world.steps(60)
    assert world.alive() == 0
    assert {"refused", "unknown"} & set(world.outcomes("end"))


def test_the_confirmed_death_of_a_worker_is_told_to_the_source_at_once(world: World) -> None:
    (worker,) = with_workers(world, 1)
    world.source.change(worker, running=1, idle_since=None)
    world.platform.leave(worker, exit_code=137, detail="killed")
    world.clock.advance(1_000)
    world.manager.tick()
    assert world.source.said_gone == [worker]
    assert world.open_intents() == {}


def test_a_closing_tells_its_own_reason_and_the_platform_s_words(world: World) -> None:
    (worker,) = with_workers(world, 1)
    world.platform.leave(worker, exit_code=137, detail="killed")
    world.step()
    (closed,) = [made for made in world.ledger.decisions() if made["action"] == "close"]
    assert (closed["subject"], closed["outcome"], closed["text"]) == (worker, "closed", "killed")
    assert closed["reason"] == {"code": "ended", "numbers": {}, "text": "the backend says that it has ended"}
    assert world.ledger.closed(worker) == "ended: the backend says that it has ended: killed"


def test_a_death_of_which_the_source_could_not_be_told_stays_open(world: World) -> None:
    (worker,) = with_workers(world, 1)
    world.source.change(worker, running=1, idle_since=None)
    world.platform.leave(worker, exit_code=137)
    tell = world.source.declare_gone
    world.source.declare_gone = _raise_unavailable  # type: ignore[method-assign]
    world.step()
    assert list(world.open_intents()) == [worker]
    world.source.declare_gone = tell  # type: ignore[method-assign]
    world.step()
    assert world.open_intents() == {}


def _raise_unavailable(*_: object) -> None:
    from worker_manager.errors import SourceUnavailable

    raise SourceUnavailable("cut")


def test_a_worker_the_source_hears_from_is_not_gone_because_a_listing_lost_it(world: World) -> None:
    (worker,) = with_workers(world, 1)
    world.source.change(worker, running=1, idle_since=None)
    world.platform.faults.inject("list", Lose(1, complete=True), times=20)
    world.steps(20)
    assert list(world.open_intents()) == [worker]
    assert world.source.said_gone == []
    world.platform.vanish(worker)
    world.steps(3)
    assert world.open_intents() == {}
    assert world.source.said_gone == [worker]


def test_a_worker_that_came_and_went_while_no_manager_watched_leaves_nothing_open(world: World) -> None:
    world.source.wait("g", ASKS, 1)
    world.tick()
    (worker,) = world.platform.workers()
    world.clock.advance(2_000)
    world.agents()
    world.source.forget(worker.id)  # it left, and the source does not speak of it any more
    world.source.wait("g", ASKS, 0)
    world.platform.vanish(worker.id)
    world.restart()
    world.steps(10)
    assert world.open_intents() == {}
    assert "p" not in world.ledger.memory().pools or not world.ledger.memory().pools["p"].history.failures


def test_death_between_burial_and_its_record_buries_again(world: World) -> None:
    world.platform.faults.inject("worker", Fate(dies_at_boot=True))
    world.source.wait("g", ASKS, 1)
    world.tick()

    class Death(BaseException):
        pass

    def die(step: str) -> None:
        if step == "buried":
            raise Death

    world.restart(die)
    world.source.wait("g", ASKS, 0)
    with pytest.raises(Death):
        world.steps(5)
    world.restart()
    world.steps(3)
    assert world.open_intents() == {}
    assert len(world.ledger.memory().pools["p"].history.failures) == 1


# ---------------------------------------------------------------- orders of an operator


def order(
    world: World, kind: str, target: str = "", expires_in: int = 60_000, pool: str = "p", **options: object
) -> str:
    name = f"c{len(world.source.commands)}-{kind}"
    at = world.clock.now_ms() + expires_in
    world.source.order(Command(name, pool, kind, target, None, at, options, by="alice"))
    return name


def results(world: World) -> dict[str, tuple[bool, str]]:
    found = {}
    for report in world.source.published:
        for result in report["results"]:
            found[result["command"]] = (result["ok"], result["text"])
    return found


def test_an_ordered_end_is_carried_out_once_and_its_result_reported(world: World) -> None:
    first, second = with_workers(world, 2)
    for worker in (first, second):
        world.source.change(worker, running=1, idle_since=None)
    calls: list[bool] = []
    backend = world.pool().backend
    terminate = backend.terminate

    def counted(handle: str, force: bool) -> EndOutcome:
        calls.append(force)
        return terminate(handle, force)

    backend.terminate = counted  # type: ignore[method-assign]
    world.manager.reload([world.pool(backend=backend)])
    name = order(world, "end-worker", first, force=True)
    world.tick()
    world.tick()
    world.steps(3)
    assert calls == [True]
    assert [worker.id for worker in world.platform.workers()] == [second]
    assert results(world)[name] == (True, "ended")
    assert world.source.commands == []


def test_a_forced_end_with_a_grace_asks_first_and_forces_when_it_is_over(world: World) -> None:
    world.platform.faults.inject("worker", Fate(end_ms=FOREVER))
    (worker,) = with_workers(world, 1)
    world.source.change(worker, running=1, idle_since=None)
    order(world, "end-worker", worker, force=True, grace_ms=4_000)
    world.tick()
    world.step(3_000)
    assert world.alive() == 1
    world.restart()  # the grace is kept across a restart
    world.tick()
    world.step(2_000)
    assert world.alive() == 0
    (forced,) = [made for made in world.ledger.decisions() if made["action"] == "end --force"]
    assert forced["outcome"] == "ended"
    assert forced["reason"]["text"] == "the grace that an operator gave it is over: it was asked to end 5s ago"


def test_a_freeze_holds_launches_until_it_ends_and_survives_a_restart(world: World) -> None:
    order(world, "freeze", until_ms=world.clock.now_ms() + 10_000, text="maintenance")
    world.tick()
    world.source.wait("g", ASKS, 1)
    world.restart()
    world.steps(5)
    assert world.alive() == 0
    world.steps(10)
    assert world.alive() == 1


def test_a_freeze_can_be_lifted(world: World) -> None:
    order(world, "freeze", until_ms=world.clock.now_ms() + 10**9, text="x")
    world.tick()
    order(world, "unfreeze")
    world.step()
    world.source.wait("g", ASKS, 1)
    world.step()
    assert world.alive() == 1


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("freeze", {}, "until_ms"),
        ("dance", {}, "does not know"),
        ("freeze", {"pool": "other", "until_ms": 1}, "no pool"),
        ("unfreeze", {"expires_in": -1}, "expired"),
    ],
)
def test_an_order_that_makes_no_sense_fails_with_a_sentence(
    world: World, kind: str, options: dict[str, object], sentence: str
) -> None:
    name = order(world, kind, **options)  # type: ignore[arg-type]
    world.tick()
    ok, text = results(world)[name]
    assert not ok
    assert sentence in text


def test_a_result_that_was_not_heard_is_sent_again(world: World) -> None:
    name = order(world, "unfreeze")
    publish = world.source.publish
    world.source.publish = _raise_unavailable  # type: ignore[method-assign,assignment]
    world.tick()
    assert results(world) == {}
    world.source.publish = publish  # type: ignore[method-assign]
    world.step()
    assert results(world)[name][0]


def test_an_end_that_cannot_be_done_is_said_once(world: World) -> None:
    end = End("p", "m-unheard-of-0", because("orphaned"))
    applier = world.manager._applier
    for _ in range(5):
        applier.ends.end([end], {}, {}, {})
    assert world.outcomes("end") == ["not ended"]
