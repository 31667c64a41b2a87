"""`explain job|pool`: the reasons, in sentences with their numbers."""

from typing import Any
from urllib.parse import quote

import click

from worker_manager.cli.describe import show_verdicts
from worker_manager.cli.kinds import pool_why, sentence
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
    else:
        numbers = answer.get("plan") or answer
        click.echo(
            f"{name}: {numbers.get('wanted', '?')} wanted, {numbers.get('requested', '?')} requested, "
            f"{numbers.get('observed', '?')} observed"
        )
        click.echo(f"because {pool_why({**numbers, **answer})}")
        for decision in answer.get("decisions") or ():
            click.echo(f"  {decision.get('kind') or decision.get('action')}: {sentence(decision.get('reason'))}")
    show_verdicts(inv, answer.get("verdicts"))
