"""What the hub believes of workers' caches: what they told, within bounds, and nothing that makes no sense."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker_manager.hub.inventory import COUNTS, Inventory, mark_of, sensible
from worker_manager.hub.metrics import Metrics

A, B = ["public", "file-a", 10], ["public", "file-b", 20]
MARK_A, MARK_B = mark_of("public", "file-a"), mark_of("public", "file-b")


def knows(*news: Any, **bounds: Any) -> Inventory:
    inventory = Inventory(**bounds)
    for each in news:
        inventory.learn("w", 1, each)
    return inventory


def test_a_worker_s_word_is_added_up() -> None:
    inventory = knows(
        {"all": True, "added": [A]}, {"added": [B], "gone": [A[:2]]}, {"added": [["public", "file-b", 7]]}
    )
    assert inventory.held_by("w") == {MARK_B: 7}
    assert inventory.of_worker("w") == {"entries": 1, "bytes": 7}
    assert inventory.held() == (1, 7)


def test_everything_anew_forgets_what_was_told_before() -> None:
    inventory = knows({"all": True, "added": [A]}, {"all": True, "added": [B]})
    assert inventory.held_by("w") == {MARK_B: 20}
    assert inventory.holders_of([MARK_A]) == {}


def test_of_a_worker_that_told_only_changes_nothing_is_believed_and_all_is_asked() -> None:
    inventory = knows({"added": [A], "counts": {"hits": 3}})
    assert inventory.must_ask("w", 1)
    assert inventory.of_worker("w") is None
    assert inventory.is_empty
    inventory.learn("w", 1, {"all": True})
    assert not inventory.must_ask("w", 1)
    assert inventory.must_ask("w", 2), "another process of the same name"


def test_a_new_session_begins_anew() -> None:
    inventory = knows({"all": True, "added": [A]})
    inventory.learn("w", 2, {"added": [B]})
    assert inventory.is_empty
    assert inventory.must_ask("w", 2)


def test_who_holds_most_is_known() -> None:
    inventory = knows({"all": True, "added": [A, B]})
    inventory.learn("v", 1, {"all": True, "added": [B]})
    assert inventory.holders_of([MARK_A, MARK_B, mark_of("public", "file-c")]) == {"w": 30, "v": 20}
    inventory.forget("w")
    inventory.forget("nobody")
    assert inventory.holders_of([MARK_A, MARK_B]) == {"v": 20}


def test_it_stays_bounded() -> None:
    inventory = Inventory(most_workers=2, most_keys=2, most_in_all=3)
    many = [["public", f"file-{n}", 1] for n in range(5)]
    for worker in ("a", "b"):
        inventory.learn(worker, 1, {"all": True, "added": many})
    assert [len(inventory.held_by(worker)) for worker in "ab"] == [2, 1]
    inventory.learn("a", 1, {})
    inventory.learn("c", 1, {"all": True, "added": many})
    assert [len(inventory.held_by(worker)) for worker in "abc"] == [2, 0, 1], "the longest silent goes first"


def test_counts_add_up_over_workers_and_their_beginnings() -> None:
    inventory = Inventory(began_ms=1000)
    for counts in ({"hits": 2, "hit_bytes": 20}, {"hits": 5, "hit_bytes": 50}, {"hits": 1, "hit_bytes": 1}):
        inventory.learn("w", 1, {"all": True, "counts": counts}, ready_ms=1000)
    assert inventory.totals()["hits"] == 6, "it began to count anew"
    inventory.learn("v", 1, {"all": True, "counts": {"hits": 100}}, ready_ms=999)
    assert inventory.totals()["hits"] == 6, "counted before this hub began"
    inventory.learn("v", 1, {"counts": {"hits": 101}}, ready_ms=999)
    assert inventory.totals()["hits"] == 7


@pytest.mark.parametrize("told", [None, [], "x", 5, {"added": 5, "gone": {}, "counts": []}, {"all": "yes"}])
def test_what_makes_no_sense_is_nothing(told: Any) -> None:
    assert sensible(told) == {"all": False, "added": [], "gone": []}


def test_what_makes_sense_beside_it_is_taken() -> None:
    added = [A, ["public", "file-b"], [1, "x", 2], ["public", "x" * 81, 2], ["public", "y", -1], [*B, "more"], None]
    gone = [["public", "z"], ["public"], "zz"]
    news = sensible({"all": True, "added": added, "gone": gone, "counts": {"hits": 1, "misses": "2", "what": 3}})
    assert news == {"all": True, "added": [A, B], "gone": [["public", "z"]], "counts": {"hits": 1}}


ROWS = st.lists(st.tuples(st.just("s"), st.sampled_from("abc"), st.integers(0, 5)), max_size=4)
NEWS = st.tuples(st.sampled_from("vw"), st.booleans(), ROWS, st.lists(st.sampled_from("abc"), max_size=3))


@given(st.lists(NEWS, max_size=20))
def test_holders_and_holdings_always_agree(told: list[Any]) -> None:
    inventory = Inventory(most_keys=2, most_in_all=3)
    for worker, whole, added, gone in told:
        inventory.learn(
            worker, 1, {"all": whole, "added": [list(row) for row in added], "gone": [["s", k] for k in gone]}
        )
    held = {worker: dict(inventory.held_by(worker)) for worker in "vw"}
    for key in "abc":
        expected = {
            worker: entries[mark_of("s", key)] for worker, entries in held.items() if mark_of("s", key) in entries
        }
        assert inventory.holders_of([mark_of("s", key)]) == expected
    entries = sum(map(len, held.values()))
    assert inventory.held() == (entries, sum(sum(each.values()) for each in held.values()))
    assert inventory.is_empty == (entries == 0)


def test_metrics_show_what_caches_saved() -> None:
    metrics, inventory = Metrics(), Inventory()
    counts = dict(zip(COUNTS, range(1, 20), strict=False))
    inventory.learn("w", 1, {"all": True, "added": [A, B], "counts": counts})
    metrics.show_cache(inventory, 0)
    inventory.learn("w", 1, {"counts": {**counts, "hits": 11, "hit_bytes": 1002}})
    metrics.show_cache(inventory, 3)
    lines = metrics.text().decode().splitlines()
    for line in (
        "wm_hub_cache_hits_total 11.0",
        "wm_hub_cache_misses_total 3.0",
        "wm_hub_cache_saved_bytes_total 1002.0",
        "wm_hub_cache_fetched_bytes_total 4.0",
        "wm_hub_cache_evicted_total 7.0",
        "wm_hub_cache_evicted_bytes_total 8.0",
        "wm_hub_cache_entries 2.0",
        "wm_hub_cache_bytes 30.0",
        "wm_hub_jobs_to_holders_total 3.0",
    ):
        assert line in lines
