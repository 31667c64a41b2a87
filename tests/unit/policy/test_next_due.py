"""Each pool's line says when time alone may change it."""

from tests.unit.policy.worlds import HOUR, MINUTE, NOW, group, idle, pool, snapshot
from worker_manager.control.publish import pool_wire
from worker_manager.policy.model import PoolPlan
from worker_manager.policy.plan import plan


def lines(*pools: object, **more: object) -> dict[str, PoolPlan]:
    found = plan(snapshot(pools=list(pools), **more))  # type: ignore[arg-type]
    return {line.pool: line for line in found.pools}


def test_each_pool_has_its_own_and_the_plan_the_earliest() -> None:
    pools = [pool("a", idle_ms=10 * MINUTE), pool("b", frozen_until=NOW + HOUR), pool("c")]
    found = plan(snapshot(workers=[idle("w", for_ms=4 * MINUTE, pool="a")], pools=pools))
    due = {line.pool: line.next_due for line in found.pools}
    assert due == {"a": NOW + 6 * MINUTE, "b": NOW + HOUR, "c": None}
    assert found.next_due == NOW + 6 * MINUTE


def test_on_the_wire() -> None:
    line = lines(pool("a", frozen_until=NOW + HOUR, freeze_text="lunch"), groups=[group()])["a"]
    wire = pool_wire(line)
    assert (wire["next_due_ms"], wire["frozen"]) == (NOW + HOUR, {"until_ms": NOW + HOUR, "text": "lunch"})
    assert not {"next_due", "frozen_until", "freeze_text"} & set(wire)
