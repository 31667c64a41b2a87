"""The ledger's tables, and how an older ledger becomes a newer one.

Times are UTC milliseconds, shapes and reasons JSON in their wire form. Tokens are never here. Changes expand first and
contract a version later, so that the version before can still be started again.
"""

from collections.abc import Callable

from sqlalchemy import Column, Connection, Index, Integer, MetaData, Table, Text
from sqlalchemy.schema import CreateColumn

tables = MetaData()

lease = Table(
    "lease",
    tables,
    Column("manager", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False),
)

# Written before the source hears of a submission: what is announced there and never came to an intent is taken back.
announcements = Table(
    "announcements",
    tables,
    Column("submission", Text, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("workers", Integer, nullable=False),
    Column("at", Integer, nullable=False),
)

submissions = Table(
    "submissions",
    tables,
    Column("id", Text, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("workers", Integer, nullable=False),
    Column("at", Integer, nullable=False),
    Column("call_deadline", Integer, nullable=False),
    Column("outcome", Text),  # accepted | refused | unknown | not-called; NULL until the call returned
    Column("text", Text, nullable=False, default=""),
    Column("ended_at", Integer),
)

intents = Table(
    "intents",
    tables,
    Column("id", Text, primary_key=True),
    Column("submission", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("shape", Text, nullable=False),
    Column("requested_at", Integer, nullable=False),
    Column("call_deadline", Integer, nullable=False),
    Column("submitted_at", Integer),
    Column("handle", Text),
    Column("seen_listed_at", Integer),
    Column("missed_listings", Integer, nullable=False, default=0),
    Column("registered_at", Integer),
    Column("end_asked_at", Integer),
    Column("force_asked_at", Integer),
    Column("force_due_at", Integer),  # an operator's end with a grace
    Column("config", Text, nullable=False, default=""),
    Column("closed_at", Integer),
    Column("closed_why", Text),
)
Index("intents_open", intents.c.pool, sqlite_where=intents.c.closed_at.is_(None))
Index("intents_closed", intents.c.closed_at)

pools = Table(
    "pools",
    tables,
    Column("pool", Text, primary_key=True),
    Column("last_launch_at", Integer),
    Column("last_drain_at", Integer),
    Column("last_success_at", Integer),
    Column("starts", Text, nullable=False, server_default="[]"),  # of version 2: History.starts
    Column("frozen_until", Integer),
    Column("freeze_text", Text, nullable=False, default=""),
)

failures = Table(
    "failures",
    tables,
    Column("id", Integer, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("at", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("retry_after_ms", Integer),
)
Index("failures_by_pool", failures.c.pool, failures.c.at)

notes = Table(
    "notes",
    tables,
    Column("pool", Text, primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("value", Text, nullable=False),
)

decisions = Table(
    "decisions",
    tables,
    Column("id", Integer, primary_key=True),
    Column("at", Integer, nullable=False),
    Column("pool", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False),  # Reason.to_wire()
    Column("limited", Text, nullable=False, server_default="[]"),  # of version 2: the same of each limit
    Column("outcome", Text, nullable=False),
    Column("text", Text, nullable=False, default=""),
)
Index("decisions_by_time", decisions.c.at)

REPORTED = "reported"  # the newest decision that the source has heard of

marks = Table(  # of version 2
    "marks",
    tables,
    Column("name", Text, primary_key=True),
    Column("value", Integer, nullable=False),
)

# Of workers that never registered, what they wrote last: NULL until their backend was asked for it.
outputs = Table(  # of version 3
    "outputs",
    tables,
    Column("worker", Text, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("handle", Text, nullable=False),
    Column("at", Integer, nullable=False),
    Column("text", Text),
)

commands = Table(
    "commands",
    tables,
    Column("id", Text, primary_key=True),
    Column("at", Integer, nullable=False),
    Column("ok", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("published", Integer, nullable=False, default=0),
)

APPLICATION_ID = 0x574D4C31  # "WML1": tells a ledger from any other SQLite file


def second(connection: Connection) -> None:
    """What an older ledger has decided, the source has heard."""
    expand(connection)
    connection.exec_driver_sql(
        f"INSERT OR IGNORE INTO marks SELECT '{REPORTED}', max(id) FROM decisions HAVING max(id) IS NOT NULL"  # noqa: S608
    )


def expand(connection: Connection) -> None:
    """Adds the tables and columns that are missing. A new ledger has them all from the start."""
    tables.create_all(connection)
    for table in tables.sorted_tables:
        there = {row[1] for row in connection.exec_driver_sql(f"PRAGMA table_info({table.name})")}
        for column in table.columns:
            if column.name not in there:
                added = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {added}")


# MIGRATIONS[n] brings a ledger of version n to n + 1.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (tables.create_all, second, expand)
VERSION = len(MIGRATIONS)
