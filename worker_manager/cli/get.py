"""`get jobs|workers|pools|events`, once or watched."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from worker.protocol import JobState
from worker_manager.cli import kinds
from worker_manager.cli.lazy import LazyGroup, OurCommand, with_connection
from worker_manager.cli.output import FORMATS, Kind, show_list
from worker_manager.cli.world import Invocation, takes_invocation

PAGE = 1000
WAIT_MS = 20_000


@click.group(cls=LazyGroup)
def get() -> None:
    """List things of the hub."""


def _listing(command: Callable[..., Any]) -> Callable[..., Any]:
    command = takes_invocation(with_connection(command))
    command = click.option("-o", "--output", type=click.Choice(FORMATS), default="table", help="[default: table]")(
        command
    )
    command = click.option("-w", "--watch", is_flag=True, help="Show it again whenever something changes.")(command)
    command = click.option("--limit", type=click.IntRange(1), default=100, help="At most this many. [default: 100]")(
        command
    )
    return click.option("--cursor", help="Go on where an earlier list ended.")(command)


@get.command(cls=OurCommand)
@_listing
@click.option("--state", type=click.Choice(JobState.ALL))
@click.option("--owner")
@click.option("--queue")
@click.option("--name")
@click.option("--worker", help="Jobs of this worker.")
@click.option("--array", metavar="ID", help="The tasks of this array.")
def jobs(inv: Invocation, output: str, watch: bool, limit: int, cursor: str | None, **options: Any) -> None:
    """Jobs, newest first."""
    connection, wanted = _split(options)
    client = inv.plus(**connection).client()

    def fetch() -> tuple[Sequence[Mapping[str, Any]], str | None]:
        return pages(client, "/v1/jobs", "jobs", wanted, limit, cursor)

    _show(inv, client, kinds.jobs, fetch, output, watch)


@get.command(cls=OurCommand)
@_listing
@click.option("--state", help="ready, draining, lost, …")
@click.option("--pool")
def workers(inv: Invocation, output: str, watch: bool, limit: int, cursor: str | None, **options: Any) -> None:
    """Workers that the hub knows."""
    connection, wanted = _split(options)
    client = inv.plus(**connection).client()

    def fetch() -> tuple[Sequence[Mapping[str, Any]], str | None]:
        # The hub tells all that live; choosing among them is cheap here.
        found, following = pages(client, "/v1/workers", "workers", {}, limit if not wanted else 100_000, cursor)
        chosen = [item for item in found if all(item.get(name) == value for name, value in wanted.items())]
        return chosen[:limit], following

    _show(inv, client, kinds.workers, fetch, output, watch)


@get.command(cls=OurCommand)
@_listing
def pools(inv: Invocation, output: str, watch: bool, limit: int, cursor: str | None, **connection: Any) -> None:
    """Pools as their managers last saw and planned them."""
    client = inv.plus(**connection).client()

    def fetch() -> tuple[Sequence[Mapping[str, Any]], str | None]:
        return pages(client, "/v1/pools", "pools", {}, limit, cursor)

    _show(inv, client, kinds.pools, fetch, output, watch)


@get.command(cls=OurCommand)
@_listing
@click.option("--kind", help="Only this kind.")
@click.option("--subject", help="Only about this job, worker or pool.")
def events(inv: Invocation, output: str, watch: bool, limit: int, cursor: str | None, **options: Any) -> None:
    """What happened, oldest first; -w goes on with what happens next."""
    connection, wanted = _split(options)
    client = inv.plus(**connection).client()
    kind = kinds.events(inv.world.now_ms())
    found, following = _events(client, wanted, limit, cursor, 0)
    show_list(inv, kind, found, output, None if watch else following)
    while watch:
        found, following = _events(client, wanted, PAGE, following, WAIT_MS)
        if found:
            show_list(inv, kind, found, output, titled=False)


def pages(
    client: Any, path: str, key: str, wanted: Mapping[str, Any], limit: int, cursor: str | None
) -> tuple[list[Mapping[str, Any]], str | None]:
    """Up to `limit` items, from as many pages as that takes, and the cursor to go on with."""
    found: list[Mapping[str, Any]] = []
    paged = path == "/v1/jobs"
    while True:
        paging = {"limit": min(PAGE, limit - len(found)), "cursor": cursor} if paged else {}
        page = client.get(path, params={**wanted, **paging})
        found += page[key]
        cursor = page.get("next")
        if cursor is None or len(found) >= limit:
            return found[:limit], cursor


def _events(
    client: Any, wanted: Mapping[str, Any], limit: int, after: str | None, wait_ms: int
) -> tuple[list[Mapping[str, Any]], str | None]:
    params = {**wanted, "after": after, "limit": min(PAGE, limit), "wait_ms": wait_ms}
    page = client.get("/v1/events", params=params, timeout=wait_ms / 1000 + 10)
    return page["events"], page.get("next") or after


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    connection = {name: options.pop(name) for name in ("server", "token_file", "state_dir")}
    return connection, {name: value for name, value in options.items() if value is not None}


def _show(
    inv: Invocation,
    client: Any,
    kind_at: Callable[[int], Kind],
    fetch: Callable[[], tuple[Sequence[Mapping[str, Any]], str | None]],
    output: str,
    watch: bool,
) -> None:
    items, following = fetch()
    show_list(inv, kind_at(inv.world.now_ms()), items, output, following)
    if following and output in ("table", "wide") and not watch:
        inv.say(f"more: --cursor {following}")
    if watch:
        _watch(inv, client, kind_at, fetch, output, items)


def _watch(
    inv: Invocation,
    client: Any,
    kind_at: Callable[[int], Kind],
    fetch: Callable[[], tuple[Sequence[Mapping[str, Any]], str | None]],
    output: str,
    shown: Sequence[Mapping[str, Any]],
) -> None:
    """On a terminal the list is drawn anew; elsewhere the rows that changed are printed."""
    after = newest(client)
    while True:
        _, after = _events(client, {}, PAGE, after, WAIT_MS)
        items, _ = fetch()
        before = {str(item): None for item in shown}
        changed = [item for item in items if str(item) not in before]
        shown = items
        if inv.world.terminal() and output in ("table", "wide"):
            click.clear()
            show_list(inv, kind_at(inv.world.now_ms()), items, output)
        elif changed:
            show_list(inv, kind_at(inv.world.now_ms()), changed, output, titled=False)


def newest(client: Any) -> str | None:
    """The cursor behind everything that has happened so far."""
    after: str | None = None
    while True:
        found, after = _events(client, {}, PAGE, after, 0)
        if len(found) < PAGE:
            return after
