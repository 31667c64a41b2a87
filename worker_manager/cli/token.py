"""`token create|list|revoke`: how other people and machines reach a hub."""

from typing import Any

import click

from worker.protocol import UnitError, parse_duration
from worker_manager.cli.change import each
from worker_manager.cli.lazy import LazyGroup, OurCommand, with_connection
from worker_manager.cli.output import FORMATS, NOTHING, Column, Kind, Row, ago, show_list, text
from worker_manager.cli.world import Invocation, takes_invocation
from worker_manager.errors import UsageError

SCOPES = ("read", "submit", "worker", "manager", "operator")


@click.group(cls=LazyGroup)
def token() -> None:
    """Make, list and revoke tokens for other people and machines."""


@token.command(cls=OurCommand)
@click.option("--owner", required=True, help="Whose jobs are submitted with it.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    required=True,
    help="What it may do (repeatable): read everything; submit own jobs; worker, for one started by hand; "
    "manager, for a manager elsewhere; operator, everything.",
)
@click.option("--expires", metavar="TIME", help="It ends by itself after this, such as 90d. [default: never]")
@with_connection
@takes_invocation
def create(inv: Invocation, owner: str, scopes: tuple[str, ...], expires: str | None, **connection: Any) -> None:
    """Make a token. The secret goes to stdout, this once: write it to a file of mode 0600."""
    body: dict[str, Any] = {"owner": owner, "scopes": sorted(set(scopes))}
    if expires is not None:
        try:
            body["expires_ms"] = inv.world.now_ms() + parse_duration(expires)
        except UnitError as error:
            raise UsageError(f"--expires: {error}") from None
    made = inv.plus(**connection).client().post("/v1/tokens", body)
    inv.say(f"{made['id']} of {made['owner']}: {', '.join(made['scopes'])}")
    click.echo(made["token"])


@token.command("list", cls=OurCommand)
@click.option("-o", "--output", type=click.Choice(FORMATS), default="table", help="[default: table]")
@with_connection
@takes_invocation
def list_tokens(inv: Invocation, output: str, **connection: Any) -> None:
    """All tokens, without their secrets."""
    found = inv.plus(**connection).client().get("/v1/tokens")["tokens"]
    show_list(inv, tokens(inv.world.now_ms()), found, output)


@token.command(cls=OurCommand)
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@with_connection
@takes_invocation
def revoke(inv: Invocation, ids: tuple[str, ...], **connection: Any) -> int:
    """End tokens at once."""
    client = inv.plus(**connection).client()
    return each(inv, ids, lambda id: client.request("DELETE", "/v1/tokens", params={"id": id}, idempotent=True))


def tokens(now_ms: int) -> Kind:
    def when(name: str) -> Any:
        def cell(row: Row) -> str:
            return NOTHING if row.get(name) is None else ago(row[name], now_ms)

        return cell

    return Kind(
        "Token",
        (
            Column("ID", text("id")),
            Column("OWNER", text("owner")),
            Column("SCOPES", lambda row: ",".join(row.get("scopes") or ())),
            Column("CREATED", when("created_ms")),
            Column("BY", text("created_by")),
            Column("EXPIRES", when("expires_ms")),
        ),
    )
