"""`explain job|pool`: the reasons, in sentences with their numbers, and what comes next."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import click

from worker_manager.cli.describe import counts, show_awaited, show_decisions, show_verdicts
from worker_manager.cli.ids import kind_and_name
from worker_manager.cli.kinds import pool_why
from worker_manager.cli.lazy import OurCommand, with_connection
from worker_manager.cli.output import ago, show_one
from worker_manager.cli.world import Invocation, takes_invocation

SILENT_MS = 60_000  # a manager reports every 15 s


@click.command(cls=OurCommand)
@click.argument("words", nargs=-1, required=True, metavar="[job|pool] ID")
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text", help="[default: text]")
@with_connection
@takes_invocation
def explain(inv: Invocation, words: tuple[str, ...], output: str, **connection: Any) -> None:
    """Why a job waits, or why a pool is as large as it is, and what it will do next."""
    kind, name = kind_and_name(words, ["job", "pool"], "pool")
    answer = inv.plus(**connection).client().get(f"/v1/{kind}s/{quote(name, safe='')}/explain")
    if output != "text":
        show_one(f"{kind.capitalize()}Explanation", answer, output)
    elif kind == "job":
        _job(inv, answer)
    else:
        for pool in answer.get("pools") or ():
            _pool(inv, pool)


def _job(inv: Invocation, answer: Mapping[str, Any]) -> None:
    state, told = str(answer.get("state", "unknown")), str(answer.get("text") or "")
    # The hub's sentence begins with the state where it has no more to say than that.
    more = told.removeprefix(state).removeprefix(":").strip()
    click.echo(f"{answer.get('job')} is {state}" + (f": {more}" if more else ""))
    ahead = answer.get("ahead")
    if ahead is not None:
        click.echo(f"{ahead or 'no'} {'jobs' if ahead > 1 else 'job'} of its kind before it")
    show_verdicts(inv, answer.get("verdicts"))


def _pool(inv: Invocation, pool: Mapping[str, Any]) -> None:
    now = inv.world.now_ms()
    bounds = f"between {pool.get('min_workers', '-')} and {pool.get('max_workers', '-')}"
    click.echo(f"Pool {pool.get('pool')} of manager {pool.get('manager', '-')}: {counts(pool)}; {bounds} workers")
    click.echo(f"Why:   {pool_why(pool, now)}")
    click.echo(f"Now:   {doing(pool)}")
    click.echo(f"Next:  {following(pool, now)}")
    seen = pool.get("seen_ms")
    if seen is not None and now - seen > SILENT_MS:
        click.echo(f"Its manager was last heard {ago(seen, now)}: it may have stopped, and this is what it said then.")
    show_verdicts(inv, pool.get("verdicts"))
    show_awaited(inv, pool.get("awaited"))
    show_decisions(inv, pool.get("decisions"))


def doing(pool: Mapping[str, Any]) -> str:
    parts = [f"launches {pool['launch']}"] if pool.get("launch") else []
    parts += [f"drains {pool['drain']}"] if pool.get("drain") else []
    return " and ".join(parts) or "changes nothing"


def following(pool: Mapping[str, Any], now: int) -> str:
    """What would change it: an event, or the time at which a limit or an idle time ends."""
    event = "when the backlog or a worker changes"
    due = pool.get("next_due_ms")
    if due is None:
        return f"{event}; time alone changes nothing"
    return f"{event}, or {ago(due, now) if due > now else 'now'}, when a limit or an idle time ends"
