from typing import Any

import pytest

from tests.unit.policy.worlds import launching, pool, ready, snapshot
from worker_manager.policy.laws import DEFAULT, LAWS, OPTIONS, Look, Wish
from worker_manager.policy.laws.backlog import backlog
from worker_manager.policy.laws.idle import idle
from worker_manager.policy.laws.pack import pack
from worker_manager.policy.laws.step import step
from worker_manager.policy.model import WorkerView
from worker_manager.policy.standing import standings


def look(*workers: WorkerView, options: dict[str, Any] | None = None, **seen: int) -> Look:
    standing = standings(snapshot(workers=list(workers), pools=[pool(law_options=options or {})]))["p"]
    return Look(standing, **{"waiting": 0, "unplaced": 0, "room": 0, "for_new": 0, "occupied": 0, "new": 0, **seen})


def told(wish: Wish) -> tuple[int, int, str]:
    return wish.more, wish.total, wish.reason.text


def test_pack_wants_what_holds_the_rest() -> None:
    seen = look(waiting=10, room=2, for_new=8, occupied=3, new=2)
    assert told(pack(seen)) == (2, 5, "8 jobs wait: 2 more workers of this shape would hold them")
    assert told(pack(look(waiting=2, room=2, occupied=1))) == (
        *(0, 1),
        "2 jobs wait; 2 have room on workers that run or are on their way",
    )
    assert told(pack(look(occupied=3))) == (0, 3, "no job waits that it could run")


@pytest.mark.parametrize(("waiting", "pending", "more"), [(0, 0, 0), (1, 0, 1), (1, 1, 0), (5, 4, 1), (5, 5, 0)])
def test_step_wants_one_while_fewer_are_on_their_way_than_jobs_wait(waiting: int, pending: int, more: int) -> None:
    coming = [launching(f"w{n}") for n in range(pending)]
    wish = step(look(*coming, waiting=waiting, unplaced=waiting, for_new=waiting, new=waiting))
    assert wish.more == more


def test_step_takes_off_the_room_on_workers_that_run() -> None:
    assert step(look(ready(), waiting=3, unplaced=0, room=3)).more == 0


def test_backlog_wants_a_worker_for_so_many_jobs() -> None:
    assert backlog(look(ready(used=1), options={"target-jobs": 4}, waiting=10)).more == 2
    assert backlog(look(launching(), launching("x"), options={"target-jobs": 5}, waiting=10)).more == 0
    assert backlog(look(ready(used=1))).more == 0


def test_backlog_counts_one_job_a_worker_by_default() -> None:
    assert told(backlog(look(waiting=3))) == (3, 3, "3 jobs wait: 3 more workers of this shape would hold them")


def test_idle_keeps_so_many_on_top() -> None:
    assert told(idle(look(options={"idle-workers": 2}))) == (2, 2, "keep idle: 0 of 2 stand idle")
    assert told(idle(look(ready(used=1), ready("x"), options={"idle-workers": 2}, occupied=1))) == (
        *(1, 3),
        "keep idle: 1 of 2 stand idle",
    )
    seen = look(ready(used=1), waiting=4, for_new=4, occupied=1, new=1)
    assert (idle(seen).more, idle(seen).total) == (2, 3)


def test_the_registry_names_every_law() -> None:
    assert sorted(LAWS) == ["backlog", "idle", "pack", "step"]
    assert DEFAULT in LAWS


def test_every_law_says_what_it_may_be_told() -> None:
    assert set(OPTIONS) == set(LAWS)
    for options in OPTIONS.values():
        assert all(default >= 1 for default in options.values())
