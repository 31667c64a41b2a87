"""What a hub is told of a cache adds up to what the cache holds, whatever is lost on the way."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import answers, cachenews
from worker.cache import place
from worker.cachenews import CacheTale
from worker.files import PUBLIC, cache_scope, input_digest, input_scope
from worker.link.connection import Unreachable
from worker.outbox import Outbox
from worker.spool import Spool
from worker.state import State
from worker.terms import Terms

A, B = ["public", "file-a", 10], ["public", "file-b", 20]


class Hub:
    """What one would hold that believes what it is told."""

    def __init__(self) -> None:
        self.holds: dict[tuple[str, str], int] = {}

    def hear(self, news: Any) -> None:
        if news.get("all"):
            self.holds = {}
        for scope, key, size in news.get("added", ()):
            self.holds[scope, key] = size
        for scope, key in news.get("gone", ()):
            self.holds.pop((scope, key), None)


def a_state() -> State:
    outbox = Outbox(session=7, heartbeat_ms=15_000, spool=Spool("/nowhere"), now=0)
    return State({"session": 7, "lease_ms": 60_000}, Terms(), outbox, 0, 0)


def exchange(state: State, **answer: Any) -> Any:
    report = state.report(1)
    state.reported({"ack": report["seq"], **answer}, 1, 1)
    return report


def test_a_worker_that_was_told_nothing_tells_nothing() -> None:
    state = a_state()
    assert "cache" not in exchange(state)
    state.cached({})
    state.cached({"added": [], "gone": [["public", "file-x"]], "counts": {}})
    assert "cache" not in exchange(state)


def test_news_goes_with_the_next_report_merged_and_only_once() -> None:
    state = a_state()
    state.cached({"added": [A], "counts": {"misses": 1}})
    state.cached({"added": [B], "gone": [A[:2]], "counts": {"misses": 2}})
    assert exchange(state)["cache"] == {"all": True, "added": [B], "counts": {"misses": 2}}
    assert "cache" not in exchange(state)
    state.cached({"added": [A, B]})
    assert exchange(state)["cache"] == {"added": [A], "counts": {"misses": 2}}
    state.cached({"gone": [A[:2]]})
    assert exchange(state)["cache"] == {"gone": [A[:2]], "counts": {"misses": 2}}


def test_news_never_makes_a_report_come_sooner() -> None:
    state = a_state()
    before = state.report_at()
    state.cached({"added": [A]})
    assert state.report_at() == before


def test_an_unacknowledged_report_carries_its_news_again() -> None:
    state = a_state()
    state.cached({"added": [A]})
    report = state.report(1)
    state.cached({"added": [B]})
    assert state.outbox.under_way is report
    assert report["cache"]["added"] == [A]
    state.reported({"ack": 1}, 1, 1)
    assert exchange(state)["cache"] == {"added": [B]}


def test_a_hub_that_asks_hears_everything_even_of_an_empty_cache() -> None:
    state = a_state()
    exchange(state, tell=["cache", "what-comes-later"])
    assert exchange(state)["cache"] == {"all": True, "added": []}
    state.cached({"added": [A, B]})
    exchange(state)
    exchange(state, tell=["cache"])
    assert exchange(state)["cache"] == {"all": True, "added": [A, B]}


def test_everything_that_a_stager_tells_anew_is_told_as_a_change() -> None:
    tale = CacheTale()
    tale.learn({"all": True, "added": [A, B]})
    tale.take()
    tale.learn({"all": True, "added": [B, ["public", "file-c", 3]]})
    assert tale.take() == {"added": [["public", "file-c", 3]], "gone": [A[:2]]}


def test_much_is_told_in_parts_and_too_much_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cachenews, "MOST", 7)
    monkeypatch.setattr(cachenews, "AT_ONCE", 3)
    tale, hub, parts = CacheTale(), Hub(), 0
    tale.learn({"added": [["public", f"file-{n}", n] for n in range(9)]})
    while tale.waits:
        hub.hear(tale.take())
        parts += 1
    assert (len(hub.holds), parts) == (7, 3)


KEYS = st.sampled_from(["a", "b", "c", "d"])
NEWS = st.fixed_dictionaries(
    {"all": st.booleans(), "added": st.lists(st.tuples(st.just("s"), KEYS, st.integers(0, 3)), max_size=4)},
    optional={"gone": st.lists(st.tuples(st.just("s"), KEYS), max_size=4)},
)
STEPS = st.lists(st.one_of(NEWS, st.sampled_from(["report", "restart"])), max_size=20)


@given(STEPS)
def test_what_was_told_adds_up_to_what_is_there(steps: list[Any]) -> None:
    tale, hub, truth = CacheTale(), Hub(), {}
    for step in steps:
        if step == "report":
            if tale.waits:
                hub.hear(tale.take())
        elif step == "restart":
            hub = Hub()
            tale.tell_all()
        else:
            if step["all"]:
                truth = {}
            for one in step.get("gone", ()):
                truth.pop(one, None)
            truth.update({(scope, key): size for scope, key, size in step["added"]})
            tale.learn(step)
    while tale.waits:
        hub.hear(tale.take())
    assert hub.holds == truth


def test_an_answer_that_asks_for_something_odd_is_not_believed() -> None:
    assert answers.reported({"ack": 1, "tell": ["cache"]}, 1)["tell"] == ["cache"]
    for odd in ("cache", [1], {}):
        with pytest.raises(Unreachable, match="tell"):
            answers.reported({"ack": 1, "tell": odd}, 1)


@pytest.mark.parametrize(
    ("source", "public"),
    [
        ("https://a.example/file@1.tar", True),
        ("http://a.example", True),
        ("https://user@a.example/file", False),
        ("https://a.example/file?signature=x", False),
        ("s3://bucket/key", False),
        ("file:///shared/x", False),
        ("blob:" + "0" * 64, False),
        ("job:j1/out", False),
    ],
)
def test_only_what_anybody_could_fetch_is_everybodys(source: str, public: bool) -> None:
    assert input_scope(source, "ann") == (PUBLIC if public else cache_scope("ann"))
    assert PUBLIC == place.PUBLIC


def test_a_blob_s_digest_stands_in_its_name() -> None:
    assert input_digest({"source": "blob:" + "a" * 64}) == "a" * 64
    assert input_digest({"source": "https://a.example/x", "sha256": "b" * 64}) == "b" * 64
    assert input_digest({"source": "https://a.example/x"}) == ""
