"""Submitting, depending, arrays, cancelling."""

import pytest

from tests.unit.hub.store.house import House, after, job
from worker.protocol import Shape
from worker_manager.hub.contract import JobFilter
from worker_manager.hub.refusals import Forbidden, IdempotencyMismatch, Invalid, NotFound, Overloaded


def test_the_same_key_and_request_give_the_same_answer_and_no_second_job(house: House) -> None:
    first = house.submit(job(), job(), key="k", request_sha256="a")
    assert house.submit(job(), job(), key="k", request_sha256="a") == first
    assert house.store.info()["jobs"]["queued"] == 2


def test_the_same_key_with_another_request_is_refused(house: House) -> None:
    house.submit(job(), key="k", request_sha256="a")
    with pytest.raises(IdempotencyMismatch):
        house.submit(job(), key="k", request_sha256="b")
    assert house.submit(job(), key="k", request_sha256="b", owner="bob") == ["j2"]


def test_the_answer_is_remembered_over_a_restart(house: House) -> None:
    first = house.submit(job(), key="k", request_sha256="a")
    house.restart()
    assert house.submit(job(), key="k", request_sha256="a") == first
    assert house.submit(job()) == ["j2"]


def test_nothing_of_a_request_with_a_mistake_is_stored(house: House) -> None:
    with pytest.raises(Invalid, match=r"jobs\[1\].depends_on\[0\].job"):
        house.submit(job(), job(depends_on=after("#1")))
    for wrong in ("#-1", "#x", "j99", "nonsense", "j1-0"):
        with pytest.raises(Invalid):
            house.submit(job(), job(depends_on=after(wrong)))
    assert house.store.list_jobs(JobFilter())[0] == []
    assert house.group_counts() == []


def test_a_job_waits_for_what_it_needs(house: House) -> None:
    house.submit(job(), job(depends_on=after("#0")), job(depends_on=after("#0", needs="end")))
    assert [house.state(j) for j in ("j1", "j2", "j3")] == ["queued", "blocked", "blocked"]
    house.worker("w", cpus=1)
    house.end("w", ("j1", 1))
    assert [house.state(j) for j in ("j2", "j3")] == ["assigned", "assigned"]


def test_what_needs_a_failed_job_is_cancelled_and_so_on_down(house: House) -> None:
    house.submit(
        job(),
        job(depends_on=after("#0")),
        job(depends_on=after("#1"), array=3),
        job(depends_on=after("#2", needs="end")),
    )
    house.worker("w", cpus=1)
    house.end("w", ("j1", 1), outcome="failed", exit_code=3)
    assert [house.state(j) for j in ("j1", "j2", "j3", "j4")] == ["failed", "cancelled", "cancelled", "assigned"]
    refused = house.store.get_job("j3")
    assert refused["reason"] == "dependency-failed"
    assert refused["array"]["cancelled"] == 3
    assert "j2" in refused["text"]


def test_dependencies_on_what_has_ended_already_are_settled_at_once(house: House) -> None:
    house.submit(job(), job())
    house.worker("w", cpus=2)
    house.end("w", ("j1", 1))
    house.end("w", ("j2", 1), outcome="failed")
    house.report("w", draining=True)
    house.submit(job(depends_on=after("j1")), job(depends_on=after("j2")), job(depends_on=after("j2", needs="end")))
    assert [house.state(j) for j in ("j3", "j4", "j5")] == ["queued", "cancelled", "queued"]


def test_a_job_that_needs_an_array_waits_for_all_its_tasks(house: House) -> None:
    house.submit(job(array=3), job(depends_on=after("#0")))
    house.worker("w", cpus=3)
    tasks = house.taken("w")
    assert [name for name, _ in tasks] == ["j1-0", "j1-1", "j1-2"]
    house.end("w", *tasks[:2])
    assert (house.state("j1"), house.state("j2")) == ("running", "blocked")
    house.end("w", tasks[2])
    assert (house.state("j1"), house.state("j2")) == ("succeeded", "assigned")


def test_an_array_is_one_row_until_its_tasks_are_given_out(house: House) -> None:
    house.submit(job(array=100_000))
    assert house.group_counts() == [100_000]
    assert len(house.store.list_jobs(JobFilter(array="j1"))[0]) == 0
    assert house.state("j1-99999") == "queued"
    with pytest.raises(NotFound):
        house.state("j1-100000")
    house.worker("w", cpus=2)
    assert len(house.store.list_jobs(JobFilter(array="j1"))[0]) == 2
    assert house.group_counts() == [100_000]
    array = house.store.get_job("j1")["array"]
    assert (array["queued"], array["assigned"]) == (99_998, 2)


def test_a_failed_task_is_tried_again_by_itself_and_fails_the_array(house: House) -> None:
    house.submit(job(array=2, retries=1))
    house.worker("w", cpus=2)
    house.end("w", ("j1-0", 1), ("j1-1", 1), outcome="failed", exit_code=1)
    assert house.taken("w") == [("j1-0", 2), ("j1-1", 2)]
    house.end("w", ("j1-0", 2))
    house.end("w", ("j1-1", 2), outcome="failed", exit_code=1)
    whole = house.store.get_job("j1")
    assert whole["state"] == "failed"
    assert (whole["array"]["succeeded"], whole["array"]["failed"]) == (1, 1)
    assert [a["epoch"] for a in house.store.get_job("j1-1")["attempts"]] == [1, 2]


def test_cancelling_an_array_ends_what_waits_at_once_and_tells_the_rest(house: House) -> None:
    house.submit(job(array=1000))
    house.worker("w", cpus=2)
    taken = house.taken("w")
    changed, shown = house.store.cancel_job("j1", "ann", "ann").result()
    assert changed
    assert shown["array"]["cancelled"] == 998
    assert house.group_counts() == [2]
    assert [(c["job"], c["epoch"]) for c in house.poll("w")["cancel"]] == taken
    house.end("w", *taken, outcome="cancelled")
    assert house.state("j1") == "cancelled"
    assert house.state("j1-500") == "cancelled"
    assert house.group_counts() == []
    assert house.store.info()["jobs"]["cancelled"] == 1000


def test_one_task_can_be_cancelled_by_itself(house: House) -> None:
    house.submit(job(array=4))
    house.store.cancel_job("j1-2", "ann", "ann").result()
    assert [house.state(f"j1-{i}") for i in range(4)] == ["queued", "queued", "cancelled", "queued"]
    house.worker("w", cpus=4)
    taken = house.taken("w")
    assert [name for name, _ in taken] == ["j1-0", "j1-1", "j1-3"]
    house.end("w", *taken)
    assert house.state("j1") == "cancelled"


def test_cancelling_twice_changes_nothing_and_strangers_may_not(house: House) -> None:
    house.submit(job(), job())
    with pytest.raises(Forbidden):
        house.store.cancel_job("j1", "bob", "bob").result()
    assert house.store.cancel_job("j1", None, "operator").result()[0]
    assert not house.store.cancel_job("j1", "ann", "ann").result()[0]
    assert house.group_counts() == [1]
    for unknown in ("j9", "j1-0", "1", "j0", "j1-", "j١"):
        with pytest.raises(NotFound):
            house.store.cancel_job(unknown, None, "op").result()


def test_a_result_that_crosses_a_cancel_counts(house: House) -> None:
    house.submit(job(), job(retries=5))
    house.worker("w")
    house.store.cancel_job("j1", "ann", "ann").result()
    house.store.cancel_job("j2", "ann", "ann").result()
    assert house.store.get_job("j1")["cancelling"]
    house.end("w", ("j1", 1))
    house.end("w", ("j2", 1), outcome="failed")
    assert (house.state("j1"), house.state("j2")) == ("succeeded", "cancelled")


def test_priorities_come_first_then_age(house: House) -> None:
    house.submit(job(), job(), job(priority=5))
    house.worker("w", cpus=1)
    assert house.taken("w") == [("j3", 1)]
    house.end("w", ("j3", 1))
    assert house.taken("w")[0] == ("j1", 1)


def test_jobs_come_in_pages_newest_first(house: House) -> None:
    house.submit(*[job(name=f"n{i % 2}") for i in range(7)])
    first, cursor = house.store.list_jobs(JobFilter(limit=4))
    second, end = house.store.list_jobs(JobFilter(limit=4, cursor=cursor))
    assert [j["id"] for j in first + second] == [f"j{i}" for i in range(7, 0, -1)]
    assert end is None
    assert [j["id"] for j in house.store.list_jobs(JobFilter(name="n1"))[0]] == ["j6", "j4", "j2"]
    assert len(house.store.list_jobs(JobFilter(state="queued"))[0]) == 7
    with pytest.raises(Invalid):
        house.store.list_jobs(JobFilter(cursor="x"))
    with pytest.raises(Invalid):
        house.store.list_jobs(JobFilter(state="lazy"))


def test_too_many_kinds_of_jobs_are_refused_and_nothing_is_lost(house: House) -> None:
    house.settings = house.settings.__class__(max_groups=20)
    house.restart()
    accepted = 0
    with pytest.raises(Overloaded) as refusal:
        for i in range(30):
            house.submit(job(shape=Shape(tags=(f"t{i}",))))
            accepted += 1
    assert refusal.value.code == "too-many-groups"
    assert accepted == 20
    assert sum(house.group_counts()) == 20


def test_the_job_says_why_it_waits(house: House) -> None:
    house.submit(job())
    key = house.store.backlog()["groups"][0]["key"]
    never = {"group": key, "pool": "p", "status": "never", "jobs": 1, "reason": {"code": "memory", "text": "too big"}}
    house.store.publish("m", {"pools": [{"pool": "p"}], "verdicts": [never]}).result()
    shown = house.store.get_job("j1")
    assert shown["unservable"]["code"] == "memory"
    assert shown["why"][0]["manager"] == "m"
    explained = house.store.explain_job("j1")
    assert (explained["ahead"], "too big" in explained["text"]) == (0, True)
    served = {**never, "pool": "q", "status": "served"}
    house.store.publish("m", {"pools": [{"pool": "p"}], "verdicts": [never, served]}).result()
    assert house.store.get_job("j1")["unservable"] is None


def test_a_list_says_what_keeps_each_job(house: House) -> None:
    house.submit(job())
    [waiting] = house.submit(job())
    [after_both] = house.submit(job(depends_on=after("j1", waiting)))
    key = house.store.backlog()["groups"][0]["key"]
    told = [
        {"group": key, "pool": pool, "status": status, "jobs": 1, "reason": {"code": "c", "text": pool}}
        for pool, status in (("p", "launching"), ("q", "waiting"), ("r", "never"))
    ]
    house.store.publish("m", {"pools": [], "verdicts": told}).result()
    shown = {one["id"]: one for one in house.store.list_jobs(JobFilter())[0]}
    assert shown[waiting]["waits"] == {"pool": "q", "status": "waiting", "reason": {"code": "c", "text": "q"}}
    assert (shown[after_both]["waits"], shown[after_both]["waits_for"]) == (None, ["j1", waiting])
    assert house.store.explain_job(after_both)["text"] == f"waits for j1, {waiting}"
    house.worker("w", cpus=1)
    house.end("w", *house.taken("w"))
    assert house.store.get_job(after_both)["waits_for"] == [waiting]
    house.store.publish("m", {"pools": [], "verdicts": told[2:]}).result()
    assert house.store.get_job(waiting)["waits"] is None
