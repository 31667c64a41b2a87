"""What makes short jobs cheap changes nothing of what is stored."""

from pathlib import Path

import pytest
from sqlalchemy import bindparam, column, insert, select, table, text, update

from tests.unit.hub.store.house import House, job
from worker_manager.hub.store.engine import writing_engine
from worker_manager.hub.store.many import execute_many

THINGS = table("things", column("id"), column("name"), column("seen"))
ADD = insert(THINGS)
SEE = (
    update(THINGS).where(THINGS.c.id == bindparam("thing")).values(name="seen", seen=THINGS.c.seen + bindparam("times"))
)


def test_many_rows_at_once_are_what_the_toolkit_would_write(tmp_path: Path) -> None:
    engine = writing_engine(f"sqlite:///{tmp_path}/things.sqlite")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE things (id INTEGER, name TEXT, seen INTEGER)"))
        execute_many(connection, ADD, [])
        execute_many(connection, ADD, [{"id": n, "name": None, "seen": n} for n in range(3)])
        execute_many(connection, ADD, [{"seen": 0, "id": 3}])
        execute_many(connection, SEE, [{"times": 10, "thing": 0}, {"times": 20, "thing": 2}])
        rows = connection.execute(select(THINGS).order_by(THINGS.c.id)).all()
    assert [tuple(row) for row in rows] == [(0, "seen", 10), (1, None, 1), (2, "seen", 22), (3, None, 0)]
    engine.dispose()


def test_a_run_told_by_one_report_keeps_its_start_and_all_counters(house: House) -> None:
    house.submit(job(array=3))
    house.worker("w", cpus=3)
    house.clock.advance(50)
    began = house.clock.now_ms()
    house.clock.advance(50)
    ended = {"job": "j1-0", "epoch": 1, "outcome": "succeeded", "exit_code": 0, "run_ms": 9, "started_ms": began}
    started = [["j1-0", 1, began], ["j1-1", 1, began]]
    assert house.report("w", started=started, results=[ended])["stale"] == []
    assert house.store.get_job("j1-0")["started_ms"] == house.store.get_job("j1-1")["started_ms"] == began
    counters = house.store.get_job("j1")["array"]
    assert (counters["assigned"], counters["running"], counters["succeeded"]) == (1, 1, 1)
    tallies = house.store.info()["jobs"]
    assert (tallies["assigned"], tallies["running"], tallies["succeeded"]) == (1, 1, 1)


@pytest.mark.parametrize(("ran", "losses"), [(True, 1), (False, 0)])
def test_one_handed_back_in_the_report_that_tells_its_start_has_run(house: House, ran: bool, losses: int) -> None:
    house.submit(job())
    house.worker("w")
    house.report("w", draining=True)
    now = house.clock.now_ms()
    back = {"job": "j1", "epoch": 1, "outcome": "returned", "started_ms": now}
    house.report("w", started=[["j1", 1, now]] if ran else [], results=[back])
    house.worker("v")
    assert house.store.get_job("j1")["losses"] == losses


def test_a_start_and_an_end_of_somebody_elses_attempt_are_stale(house: House) -> None:
    house.submit(job())
    house.worker("w")
    ended = {"job": "j1", "epoch": 7, "outcome": "succeeded", "started_ms": 1}
    assert house.report("w", started=[["j1", 7, 1]], results=[ended])["stale"] == [["j1", 7]]
    assert house.state("j1") == "assigned"
