"""What people and managers ask again and again is found by an index, however large the tables are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from tests.unit.hub.store.house import House
from worker.protocol import JobState
from worker_manager.hub.contract import JobFilter


@contextmanager
def statements(house: House) -> Iterator[list[tuple[str, Any]]]:
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            seen.append((statement, parameters))

    event.listen(house.store._reads, "before_cursor_execute", note)
    yield seen
    event.remove(house.store._reads, "before_cursor_execute", note)


def plan_of(house: House, ask: Callable[[], Any], table: str) -> str:
    """How SQLite finds the rows of this table; the statement's other tables are left out."""
    with statements(house) as seen:
        ask()
    (statement, parameters) = next(one for one in seen if f"FROM {table}" in one[0])
    with house.store._reads.connect() as connection:
        rows = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters).all()
    return "; ".join(row[3] for row in rows if f" {table}" in row[3] or "TEMP B-TREE" in row[3])


@pytest.mark.parametrize("state", JobState.ALL)
def test_jobs_of_a_state_newest_first(house: House, state: str) -> None:
    plan = plan_of(house, lambda: house.store.list_jobs(JobFilter(state=state)), "jobs")
    assert plan == "SEARCH jobs USING INDEX jobs_state (state=?)"


def test_all_jobs_newest_first(house: House) -> None:
    assert "TEMP B-TREE" not in plan_of(house, lambda: house.store.list_jobs(JobFilter()), "jobs")


def test_what_stands_on_a_worker(house: House) -> None:
    wanted = JobFilter(state="running", worker="w")
    plan = plan_of(house, lambda: house.store.list_jobs(wanted), "jobs")
    assert plan.startswith("SEARCH jobs USING INDEX jobs_active (worker=?)")


def test_workers_that_are_here(house: House) -> None:
    assert "workers_here" in plan_of(house, house.store.list_workers, "workers")
