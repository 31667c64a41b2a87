"""`explain job|pool`: the reasons, in sentences with their numbers."""

from typing import Any
from urllib.parse import quote

import click

from worker_manager.cli.describe import counts, show_decisions, show_verdicts
from worker_manager.cli.kinds import pool_why
from worker_manager.cli.lazy import OurCommand, with_connection
from worker_manager.cli.output import show_one
from worker_manager.cli.world import Invocation, takes_invocation


@click.command(cls=OurCommand)
@click.argument("kind", type=click.Choice(["job", "pool"]))
@click.argument("name", metavar="ID")
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text", help="[default: text]")
@with_connection
@takes_invocation
def explain(inv: Invocation, kind: str, name: str, output: str, **connection: Any) -> None:
    """Why a job waits, or why a pool is as large as it is."""
    answer = inv.plus(**connection).client().get(f"/v1/{kind}s/{quote(name, safe='')}/explain")
    if output != "text":
        show_one(f"{kind.capitalize()}Explanation", answer, output)
        return
    if kind == "job":
        click.echo(f"{answer.get('job', name)} is {answer.get('state', 'unknown')}: {answer.get('text') or '-'}")
        if answer.get("ahead") is not None:
            click.echo(f"{answer['ahead']} jobs are ahead of it")
        show_verdicts(inv, answer.get("verdicts"))
        return
    for pool in answer.get("pools") or ():
        click.echo(f"{name} of {pool.get('manager', '-')}: {counts(pool)}")
        click.echo(f"because {pool_why(pool)}")
        show_verdicts(inv, pool.get("verdicts"))
        show_decisions(inv, pool.get("decisions"))
