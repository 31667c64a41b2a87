"""Everything of one kind with a pool's labels, page by page.

A list whose continuation has expired (410) begins anew once; what is still missing then makes it incomplete, because
the absence of a worker from a part means nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.kubernetes.api import Api, NoAnswer

MOST_PAGES = 1000


@dataclass(frozen=True)
class Listed:
    things: tuple[Mapping[str, Any], ...]
    version: str  # where a watch goes on from
    complete: bool


def everything(api: Api, path: str, selector: str, page_size: int, deadline: float) -> Listed:
    """Raises NoAnswer when not even the first page could be read."""
    try:
        return _pages(api, path, selector, page_size, deadline)
    except _Expired:
        return _pages(api, path, selector, page_size, deadline, again=True)


class _Expired(Exception):
    """The continuation is too old, and it is worth to begin anew."""


def _pages(api: Api, path: str, selector: str, page_size: int, deadline: float, again: bool = False) -> Listed:
    """Raises _Expired unless it is `again`."""
    things: list[Mapping[str, Any]] = []
    query = [("labelSelector", selector), ("limit", str(page_size))]
    token, version = "", ""
    for _ in range(MOST_PAGES):
        try:
            answer = api.call("GET", path, deadline, query=[*query, *([("continue", token)] if token else [])])
            if answer.status == 410 and token and not again:
                raise _Expired
            if not answer.good:
                raise NoAnswer(f"{path}: HTTP {answer.status}: {answer.words()}")
            page = answer.thing()
            items, metadata = _items(page), page.get("metadata") or {}
        except NoAnswer:
            if not token:
                raise
            return Listed(tuple(things), "", complete=False)
        things += items
        token, version = str(metadata.get("continue") or ""), str(metadata.get("resourceVersion") or "")
        if not token:
            return Listed(tuple(things), version, complete=True)
    return Listed(tuple(things), "", complete=False)


def _items(page: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    items = page.get("items")
    kind = str(page.get("kind", ""))
    if items is None and kind.endswith("List"):
        return []
    if not isinstance(items, list) or not all(isinstance(one, Mapping) and "metadata" in one for one in items):
        raise NoAnswer("the API server answered with something that is no list")
    return items
