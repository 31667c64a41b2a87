"""Lists that a watch keeps up to date: what they save, and everything that sends them back to reading the whole."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backends.kubernetes import names
from backends.kubernetes.access import connect
from backends.kubernetes.api import Api, NoAnswer
from backends.kubernetes.settings import Access
from backends.kubernetes.view import MAX_AGE_S, View
from tests.stand_ins.kubernetes import Cluster, Fault, Say
from tests.stand_ins.kubernetes_store import Thing

SELECTOR = names.pool_selector("m", "p")
LABELS = {term.partition("=")[0]: term.partition("=")[2] for term in SELECTOR.split(",")}
PATH = "/api/v1/namespaces/default/pods"


class Place:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.api: Api = connect(Access(host=cluster.url), "")
        self.now = 0.0
        self.view = View(PATH, SELECTOR, 1000, lambda: self.now)

    def add(self, name: str, **labels: str) -> Thing:
        return self.cluster.store.add("pods", {"metadata": {"name": name, "labels": LABELS | labels}})

    def shown(self) -> list[str]:
        listed = self.view.look(self.api, time.monotonic() + 10, watch=True)
        assert listed.complete
        return sorted(thing["metadata"]["name"] for thing in listed.things)

    def shows(self, *wanted: str) -> None:
        self.until(lambda: self.shown() == list(wanted), f"{wanted} to be shown")

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.005)

    def calls(self, verb: str) -> int:
        return self.cluster.calls[f"{verb} pods"]

    def watching(self) -> None:
        """The next look hears of a change through the watch."""
        self.shown()
        self.until(lambda: self.calls("watch") > 0, "the watch to begin")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    cluster = Cluster(tmp_path, runs=False, validates=False)
    yield Place(cluster)
    cluster.close()


def test_changes_are_seen_without_another_list(place: Place) -> None:
    place.add("a")
    place.watching()
    place.add("b")
    place.add("of-others", **{names.POOL: "other"})
    place.shows("a", "b")
    place.cluster.store.remove("pods", "a")
    place.shows("b")
    assert (place.calls("list"), place.calls("watch")) == (1, 1)


def test_what_we_made_is_there_before_the_watch_says_so(place: Place) -> None:
    place.watching()
    with place.cluster.store.lock:  # the watch cannot say anything now
        made = place.add("a")
        place.view.put(made)
        assert place.shown() == ["a"]
    place.cluster.store.remove("pods", "a")
    place.shows()
    assert place.calls("list") == 1


def test_a_watch_that_ended_in_its_time_is_resumed_where_it_was(place: Place) -> None:
    place.cluster.longest_watch_s = 0.05
    place.add("a")
    place.watching()
    place.until(lambda: place.shown() == ["a"] and place.calls("watch") >= 3, "a watch to be resumed twice")
    place.add("b")
    place.shows("a", "b")
    assert place.calls("list") == 1


def test_a_watch_whose_place_is_forgotten_leads_back_to_a_list(place: Place) -> None:
    """410: as after a pause longer than the server's memory."""
    place.cluster.longest_watch_s = 0.05
    place.add("a")
    place.watching()
    place.cluster.store.remove("pods", "a")
    place.add("b")
    place.cluster.store.forget_history()
    place.shows("b")
    assert place.calls("list") >= 2


def test_a_watch_that_breaks_leads_back_to_a_list_or_to_an_error(place: Place) -> None:
    place.add("a")
    place.watching()
    place.cluster.faults.append(Fault("list", "pods", Say(500, "InternalError", "etcd is away"), times=10**6))
    place.cluster.drop_watches()

    def fails() -> bool:
        try:
            place.shown()
        except NoAnswer as failed:
            assert "etcd is away" in str(failed)
            return True
        return False

    place.until(fails, "the error: never the old list, never an empty one")
    place.cluster.faults.clear()
    assert place.shown() == ["a"]


@pytest.mark.parametrize("do", [Say(403, "Forbidden", "no watch for you"), "garbage", "cut-before"])
def test_where_no_watch_is_to_be_had_every_look_is_a_list(place: Place, do: Say | str) -> None:
    place.cluster.faults.append(Fault("watch", "pods", do, times=10**6))
    place.add("a")
    place.until(lambda: place.shown() == ["a"] and place.calls("watch") >= 3, "the watch to be tried again and again")
    place.cluster.store.remove("pods", "a")
    place.shows()
    assert place.calls("list") >= 2


def test_no_watch_is_believed_for_long(place: Place) -> None:
    place.watching()
    place.now = MAX_AGE_S - 1
    place.shown()
    assert place.calls("list") == 1
    place.now = MAX_AGE_S + 1
    place.shown()
    assert place.calls("list") == 2


def test_an_incomplete_list_is_not_kept(place: Place) -> None:
    for name in "abc":
        place.add(name)
    view = View(PATH, SELECTOR, 1)
    place.cluster.faults.append(Fault("list", "pods", "cut-before", continues=True))
    listed = view.look(place.api, time.monotonic() + 10, watch=True)
    assert (len(listed.things), listed.complete) == (1, False)
    listed = view.look(place.api, time.monotonic() + 10, watch=True)
    assert (len(listed.things), listed.complete) == (3, True)


def test_a_list_whose_continuation_expired_begins_anew(place: Place) -> None:
    for name in "abc":
        place.add(name)
    place.cluster.faults.append(Fault("list", "pods", Say(410, "Expired", "too old"), continues=True))
    listed = View(PATH, SELECTOR, 1).look(place.api, time.monotonic() + 10, watch=False)
    assert (len(listed.things), listed.complete) == (3, True)
    assert place.calls("list") == 5


def test_a_look_never_waits_for_a_watch(place: Place) -> None:
    place.watching()
    begun = time.monotonic()
    for _ in range(20):
        place.shown()
    assert time.monotonic() - begun < 5
    assert place.calls("list") == 1
