"""`get jobs|workers|pools|events`, once or watched."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import click

from worker.protocol import JobState
from worker_manager.cli import kinds
from worker_manager.cli.ids import job_id
from worker_manager.cli.lazy import LazyGroup, OurCommand, with_connection
from worker_manager.cli.output import FORMATS, Kind, show_list
from worker_manager.cli.world import Invocation, takes_invocation
from worker_manager.config.flags import CONNECTION
from worker_manager.errors import HubError, UsageError

PAGE = 1000
WAIT_MS = 20_000

Row = Mapping[str, Any]
Fetch = Callable[[], tuple[Sequence[Row], str | None]]


class _OneOrMany(LazyGroup):
    """`get job` is `get jobs`."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, f"{cmd_name}s")


@click.group(cls=_OneOrMany)
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


def _names(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("names", nargs=-1, metavar="[ID…]")(command)


@get.command(cls=OurCommand)
@_listing
@click.option("--state", type=click.Choice(JobState.ALL), help="Only in this state.")
@click.option("--owner", help="Only of this owner.")
@click.option("--queue", help="Only in this queue.")
@click.option("--name", help="Only of this name.")
@click.option("--worker", help="Jobs of this worker.")
@click.option("--array", metavar="ID", help="The tasks of this array, those that were begun.")
@_names
def jobs(
    inv: Invocation,
    names: tuple[str, ...],
    output: str,
    watch: bool,
    limit: int,
    cursor: str | None,
    **options: Any,
) -> int:
    """Jobs, newest first; or those that are named."""
    connection, wanted = _split(options)
    client = inv.plus(**connection).client()
    if "array" in wanted:
        wanted["array"] = job_id(wanted["array"])

    def fetch() -> tuple[Sequence[Row], str | None]:
        return pages(client, "/v1/jobs", "jobs", wanted, limit, cursor)

    named = _Named(inv, client, "/v1/jobs/{}", [job_id(name) for name in names], wanted)
    none = "no job is like that" if wanted else "there are no jobs: submit one with worker-manager submit -- COMMAND"
    return _show(inv, client, kinds.jobs, named if names else fetch, output, watch, none)


@get.command(cls=OurCommand)
@_listing
@click.option("--state", help="Only in this state: ready, draining, lost, …")
@click.option("--pool", help="Only of this pool.")
@_names
def workers(
    inv: Invocation,
    names: tuple[str, ...],
    output: str,
    watch: bool,
    limit: int,
    cursor: str | None,  # noqa: ARG001 - all of them come at once
    **options: Any,
) -> int:
    """Workers that the hub knows; or those that are named."""
    connection, wanted = _split(options)
    client = inv.plus(**connection).client()

    def fetch() -> tuple[Sequence[Row], str | None]:
        # The hub tells all that live, and those that were launched; choosing among them is cheap here.
        told = client.get("/v1/workers", params={})
        found = [*told["workers"], *(told.get("awaited") or ())]
        chosen = [item for item in found if all(item.get(name) == value for name, value in wanted.items())]
        return chosen[:limit], None

    named = _Named(inv, client, "/v1/workers/{}", names, wanted)
    none = "no worker is like that" if wanted else "there are no workers now"
    return _show(inv, client, kinds.workers, named if names else fetch, output, watch, none)


@get.command(cls=OurCommand)
@_listing
@_names
def pools(
    inv: Invocation,
    names: tuple[str, ...],
    output: str,
    watch: bool,
    limit: int,
    cursor: str | None,
    **connection: Any,
) -> int:
    """Pools as their managers last saw and planned them."""
    client = inv.plus(**connection).client()

    def fetch() -> tuple[Sequence[Row], str | None]:
        found, following = pages(client, "/v1/pools", "pools", {}, 100_000 if names else limit, cursor)
        return [pool for pool in found if not names or pool.get("pool") in names][:limit], following

    none = "no manager has such a pool" if names else "no manager has told of its pools yet"
    return _show(inv, client, kinds.pools, fetch, output, watch, none)


@get.command(cls=OurCommand)
@_listing
@click.option("--kind", help="Only this kind.")
@click.option("--subject", help="Only about this job, worker or pool.")
def events(inv: Invocation, output: str, watch: bool, limit: int, cursor: str | None, **options: Any) -> None:
    """The last things that happened, oldest first; -w goes on with what happens next."""
    connection, wanted = _split(options)
    client = inv.plus(**connection).client()
    kind = kinds.events(inv.world.now_ms())
    found, following = _events(client, wanted, limit, cursor or "last", 0)
    if not found and not watch:
        inv.say("no event is like that" if wanted else "nothing has happened")
    show_list(inv, kind, found, output, None if watch else following)
    # Without a cursor the list ends at the newest event: there is no more.
    if cursor and len(found) >= min(limit, PAGE) and output in ("table", "wide") and not watch:
        inv.say(f"more: --cursor {following}")
    while watch:
        found, following = _events(client, wanted, PAGE, following, WAIT_MS)
        if found:
            show_list(inv, kind, found, output, titled=False)


class _Named:
    """The things with these names, one request each. What there is not is told, once."""

    def __init__(
        self, inv: Invocation, client: Any, path: str, names: Sequence[str], wanted: Mapping[str, Any]
    ) -> None:
        if wanted and names:
            raise UsageError(f"name them, or choose them by --{next(iter(wanted))}; not both")
        self._inv = inv
        self._client = client
        self._path = path
        self._names = list(dict.fromkeys(names))
        self.missing = 0

    def __call__(self) -> tuple[Sequence[Row], str | None]:
        found = []
        for name in tuple(self._names):
            try:
                found.append(self._client.get(self._path.format(quote(name, safe=""))))
            except HubError as error:
                if error.status != 404:
                    raise
                self._inv.say(f"worker-manager: {error}")
                self._names.remove(name)
                self.missing += 1
        return found, None


def pages(
    client: Any, path: str, key: str, wanted: Mapping[str, Any], limit: int, cursor: str | None
) -> tuple[list[Row], str | None]:
    """Up to `limit` items, from as many pages as that takes, and the cursor to go on with."""
    found: list[Row] = []
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
) -> tuple[list[Row], str | None]:
    params = {**wanted, "after": after, "limit": min(PAGE, limit), "wait_ms": wait_ms}
    page = client.get("/v1/events", params=params, timeout=wait_ms / 1000 + 10)
    return page["events"], page.get("next") or after


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    connection = {flag.key: options.pop(flag.key) for flag in CONNECTION}
    return connection, {name: value for name, value in options.items() if value is not None}


def _show(
    inv: Invocation,
    client: Any,
    kind_at: Callable[[int], Kind],
    fetch: Fetch,
    output: str,
    watch: bool,
    none: str,
) -> int:
    """Exit code: 1 when one that was named is not there."""
    after = newest(client) if watch else None
    items, following = fetch()
    missing = getattr(fetch, "missing", 0)
    if items or not missing:
        show_list(inv, kind_at(inv.world.now_ms()), items, output, following)
    if not items and not missing:
        inv.say(none)
    if following and output in ("table", "wide") and not watch:
        inv.say(f"more: --cursor {following}")
    if watch and (items or not missing):
        _watch(inv, client, kind_at, fetch, output, items, after)
    return 1 if missing else 0


def _watch(
    inv: Invocation,
    client: Any,
    kind_at: Callable[[int], Kind],
    fetch: Fetch,
    output: str,
    shown: Sequence[Row],
    after: str | None,
) -> None:
    """On a terminal the list is drawn anew; elsewhere the rows that changed are printed."""
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
    return _events(client, {}, 1, "now", 0)[1]
