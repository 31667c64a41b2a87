"""Whose blobs are here, and for how long."""

from collections.abc import Callable
from typing import Any

from tests.unit.hub.store.house import House, job, sha
from worker_manager.hub.contract import Removed
from worker_manager.hub.store import blobs
from worker_manager.hub.store.tables import WHOLE

A, B, C = sha("a"), sha("b"), sha("c")
DAY = 86_400_000
EVER = 10**15


def have(house: House, *digests: str, owner: str = "ann", size: int = 5) -> None:
    for added in [house.store.add_blob(owner, digest, size) for digest in digests]:
        added.result()


def write(house: House, act: Callable[[Any, int], Any]) -> Any:
    return house.store._writer.submit(lambda batch: act(batch.connection, batch.now)).result()


def refer(house: House, number: int, *digests: str, owner: str = "ann", idx: int = WHOLE) -> list[str]:
    missing: list[str] = write(house, lambda c, _: blobs.refer(c, owner, number, idx, digests))
    return missing


def release(house: House, number: int, *tasks: int) -> None:
    write(house, lambda c, now: blobs.release(c, now, number, tasks or [WHOLE]))


def unused(house: House) -> set[tuple[str, str]]:
    return {(digest, owner) for digest, owner, _ in house.store.unused_blobs(EVER, 100)}


def remove(house: House, digest: str, owner: str = "ann", before: int = EVER) -> Removed:
    return house.store.remove_blob(owner, digest, before).result()


def test_each_owner_has_his_own_and_the_bytes_count_once(house: House) -> None:
    assert house.store.add_blob("ann", A, 5).result() is True
    assert house.store.add_blob("bob", A, 5).result() is False
    assert house.store.add_blob("ann", A, 5).result() is False
    assert house.store.find_blob("ann", A) == house.store.find_blob("bob", A) == 5
    assert house.store.find_blob("eve", A) is None
    assert house.store.count_blobs() == (1, 5)
    assert house.store.known_blobs([A, B]) == {A}


def test_a_job_keeps_what_it_needs_until_it_goes(house: House) -> None:
    have(house, A, B)
    assert refer(house, 1, A, A) == []
    assert refer(house, 1, A) == []
    assert unused(house) == {(B, "ann")}
    assert refer(house, 2, A, B) == []
    release(house, 1)
    release(house, 1)
    assert unused(house) == set()
    release(house, 2)
    assert unused(house) == {(A, "ann"), (B, "ann")}


def test_what_the_owner_has_not_is_told_and_the_rest_is_kept(house: House) -> None:
    have(house, A)
    have(house, B, owner="bob")
    assert refer(house, 1, A, B, C) == sorted([B, C])
    assert unused(house) == {(B, "bob")}


def test_tasks_keep_their_own_and_go_in_parts(house: House) -> None:
    have(house, A, B)
    for task in range(3):
        refer(house, 7, A, *([B] if task == 1 else []), idx=task)
    release(house, 7, 0, 1)
    assert unused(house) == {(B, "ann")}
    release(house, 7, 2)
    assert unused(house) == {(A, "ann"), (B, "ann")}


def test_more_than_fit_in_one_statement(house: House) -> None:
    many = [sha(str(number)) for number in range(1200)]
    have(house, *many)
    assert refer(house, 1, *many, C) == [C]
    assert unused(house) == set()
    release(house, 1)
    assert len(house.store.unused_blobs(EVER, 5000)) == 1200
    assert house.store.known_blobs([*many, C]) == set(many)


def test_nothing_goes_that_is_needed_again_or_was_asked_for(house: House) -> None:
    have(house, A, B, C)
    house.clock.advance(2 * DAY)
    before = house.clock.now_ms() - DAY
    assert house.store.is_blob_unused("ann", A, before)
    refer(house, 1, A)
    house.store.renew_blob("ann", B).result()
    assert not house.store.is_blob_unused("ann", A, before) and not house.store.is_blob_unused("ann", B, before)
    assert [digest for digest, _, _ in house.store.unused_blobs(before, 10)] == [C]
    assert [remove(house, digest, before=before) for digest in (A, B, C)] == [Removed.NO, Removed.NO, Removed.LAST]
    assert house.store.find_blob("ann", C) is None
    house.store.renew_blob("ann", A).result()
    assert unused(house) == {(B, "ann")}, "one that is needed is not unused by being asked for"


def test_the_bytes_stay_while_anybody_owns_them(house: House) -> None:
    have(house, A)
    have(house, A, owner="bob")
    assert remove(house, A) is Removed.ROW
    assert remove(house, A) is Removed.NO
    assert remove(house, A, owner="bob") is Removed.LAST


def test_the_longest_unused_go_first(house: House) -> None:
    for digest in (B, A, C):
        have(house, digest)
        house.clock.advance(1000)
    assert [digest for digest, _, _ in house.store.unused_blobs(EVER, 2)] == [B, A]


def test_retention_frees_what_its_jobs_kept(house: House) -> None:
    have(house, A)
    (name,) = house.submit(job())
    refer(house, int(name[1:]), A)
    house.store.cancel_job(name, None, "op").result()
    house.clock.advance(31 * DAY)
    assert unused(house) == set()
    house.store.purge().result()
    assert unused(house) == {(A, "ann")}
    assert house.store.unused_blobs(house.clock.now_ms(), 10) == [], "only from now on"


def test_what_is_unused_is_found_by_an_index(house: House) -> None:
    with house.store._reads.connect() as connection:
        query = "SELECT sha256 FROM blobs WHERE unused_ms IS NOT NULL AND unused_ms < 5 ORDER BY unused_ms LIMIT 3"
        plan = "; ".join(row[3] for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + query))
    assert "blobs_unused" in plan and "TEMP B-TREE" not in plan
