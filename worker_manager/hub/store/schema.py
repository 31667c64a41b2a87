"""Opening a database: a new one is made, an older one migrated, a newer or damaged one refused.

Alembic is slow to import and needed only when there is something to migrate, so a database at the head never loads it.
"""

from pathlib import Path

from sqlalchemy import Engine, insert, inspect, text
from sqlalchemy.exc import DBAPIError

from worker_manager.errors import StoreError
from worker_manager.hub.store.engine import translated
from worker_manager.hub.store.meta import FIRST
from worker_manager.hub.store.tables import meta, metadata

# Oldest first; a file each in `migrations/versions`.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
HEAD = REVISIONS[-1]
MIGRATIONS = Path(__file__).parent / "migrations"


def prepare(engine: Engine, where: str) -> None:
    """Raises StoreError."""
    try:
        found = _revision(engine)
        if found is None:
            _create(engine)
        elif found not in REVISIONS:
            raise StoreError(
                f"{where} was written by a newer version of worker-manager (schema {found}, this one knows {HEAD}): "
                "use that version, or restore a backup from before the upgrade"
            )
        elif found != HEAD:
            _migrate(engine)
        _check(engine, where)
    except DBAPIError as error:
        raise translated(error, where) from error


def _revision(engine: Engine) -> str | None:
    """None for an empty database. Raises StoreError for somebody else's."""
    tables = set(inspect(engine).get_table_names())
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise StoreError(f"{engine.url.database} is a database of something else: name another place for the hub's")
    with engine.connect() as connection:
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _create(engine: Engine) -> None:
    """What all migrations together make; a test holds the two equal."""
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(insert(meta), [{"name": name, "value": value} for name, value in FIRST.items()])
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        connection.execute(text("INSERT INTO alembic_version (version_num) VALUES (:head)"), {"head": HEAD})


def _migrate(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _check(engine: Engine, where: str) -> None:
    """Cheap: the first pages can be read and are what they should be. A full check is `hub check`'s."""
    with engine.connect() as connection:
        names = set(connection.execute(text("SELECT name FROM meta")).scalars())
    if not set(FIRST) <= names:
        raise StoreError(f"{where} is incomplete: restore it from a backup, or move it away to begin with an empty one")
