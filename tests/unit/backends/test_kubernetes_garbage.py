"""Whatever a server says instead of Jobs and pods: a listing of it is right, or an error; never a crash."""

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Context, ListFailed, Listing
from backends.kubernetes import KubernetesBackend
from backends.kubernetes.api import Answer, Api
from tests.unit.backends.kubernetes_words import chosen

LABELS = {"worker-manager/submission": "m-7", "worker-manager/index": "0"}
WORDS = st.sampled_from(
    ["metadata", "status", "spec", "labels", "phase", "Running", "Failed", "conditions", "type", "reason", "uid",
     "containerStatuses", "state", "terminated", "running", "exitCode", "name", "worker", "ownerReferences", "kind"]
)  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
THINGS = st.fixed_dictionaries(
    {"metadata": st.just({"name": "m-7-0", "uid": "u", "labels": LABELS}) | ANYTHING},
    optional={"status": ANYTHING, "spec": ANYTHING},
)


class Says(Api):
    """A server with fixed answers."""

    def __init__(self, pages: Mapping[str, Any]) -> None:
        self.namespace = "default"
        self.denied = False
        self._pages = pages

    def call(self, method: str, path: str, deadline: float, **_: Any) -> Answer:
        return Answer(200, json.dumps(self._pages[path.rpartition("/")[2]]).encode())


def listed(pages: Mapping[str, Any]) -> Listing:
    backend = KubernetesBackend(chosen(watch="false"), Context("m", "p", "/x", lambda: int(time.time() * 1000)))
    backend._connected = Says({"events": {"items": []}, **pages})
    return backend.list()


@given(st.lists(THINGS, max_size=2), st.lists(THINGS, max_size=2))
def test_odd_objects_are_an_error_or_a_listing(jobs: list[Any], pods: list[Any]) -> None:
    try:
        listing = listed({"jobs": {"items": jobs}, "pods": {"items": pods}})
    except ListFailed as failed:
        assert 0 < len(str(failed)) <= 2100
    else:
        assert listing.complete


@given(ANYTHING)
def test_odd_answers_are_an_error_or_a_listing(page: Any) -> None:
    empty: dict[str, Any] = {"items": []}
    for pages in ({"jobs": page, "pods": empty}, {"jobs": empty, "pods": page}):
        with pytest.raises(ListFailed):
            listed(pages)


def test_an_empty_list_may_leave_its_items_out() -> None:
    assert listed({"jobs": {"kind": "JobList", "items": None}, "pods": {"kind": "PodList"}}) == Listing(())
