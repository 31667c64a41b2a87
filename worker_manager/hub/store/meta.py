"""Numbers that only rise: the next job, the backlog's version."""

from sqlalchemy import Connection, bindparam, select, update

from worker_manager.hub.store.tables import meta

FIRST = {"next_job": 1, "backlog_version": 1, "generation": 1}
_READ = select(meta.c.value).where(meta.c.name == bindparam("of"))
_RAISE = (
    update(meta)
    .where(meta.c.name == bindparam("of"))
    .values(value=meta.c.value + bindparam("by"))
    .returning(meta.c.value)
)


def read_number(connection: Connection, name: str) -> int:
    return int(connection.execute(_READ, {"of": name}).scalar_one())


def take_numbers(connection: Connection, name: str, count: int) -> int:
    """The first of `count` numbers that nobody else gets."""
    return int(connection.execute(_RAISE, {"of": name, "by": count}).scalar_one()) - count


def raise_number(connection: Connection, name: str) -> int:
    return int(connection.execute(_RAISE, {"of": name, "by": 1}).scalar_one())
