"""Connections, their settings, and the translation of the database's errors.

SQLite runs in WAL mode with synchronous=FULL: what was committed survives a power cut. Two engines stand beside each
other: one connection that writes, and a pool of connections that only read.
"""

import sqlite3
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from worker_manager.errors import StoreError

BUSY_MS = 5_000  # how long a lock of another process is waited for


class StoreBroken(StoreError):
    """The disk did not keep what it was given to keep: the process must end, and start again from what is there."""


def writing_engine(url: str, busy_ms: int = BUSY_MS) -> Engine:
    """One connection, for the writer's thread."""
    engine = create_engine(url, poolclass=NullPool, **_arguments(url, busy_ms))
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, "BEGIN IMMEDIATE", busy_ms, query_only=False)
    return engine


def reading_engine(url: str, busy_ms: int = BUSY_MS, connections: int = 8) -> Engine:
    engine = create_engine(
        url, poolclass=QueuePool, pool_size=connections, max_overflow=0, pool_timeout=30, **_arguments(url, busy_ms)
    )
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, "BEGIN", busy_ms, query_only=True)
    return engine


def _arguments(url: str, busy_ms: int) -> dict[str, Any]:
    if not url.startswith("sqlite"):
        return {}
    return {"connect_args": {"isolation_level": None, "check_same_thread": False, "timeout": busy_ms / 1000}}


def _prepare_sqlite(engine: Engine, begin: str, busy_ms: int, *, query_only: bool) -> None:
    @event.listens_for(engine, "connect")
    def settle(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA busy_timeout={busy_ms}")
        if _may_be_ours(connection):
            connection.execute("PRAGMA journal_mode=WAL")
        for pragma in (
            "synchronous=FULL",
            "foreign_keys=ON",
            "cache_size=-32768",
            "temp_store=MEMORY",
            "mmap_size=268435456",
            "wal_autocheckpoint=4000",
            f"query_only={int(query_only)}",
        ):
            connection.execute("PRAGMA " + pragma)

    @event.listens_for(engine, "begin")
    def begin_ourselves(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def _may_be_ours(connection: sqlite3.Connection) -> bool:
    """Empty, or made by us. Somebody else's is refused later on, and must not have been changed before."""
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return not names or "alembic_version" in names


def translated(error: DBAPIError, where: str) -> StoreError:
    """What a person can do about it."""
    name = str(getattr(error.orig, "sqlite_errorname", ""))
    words = str(error.orig)
    if name.startswith("SQLITE_FULL") or "disk is full" in words:
        return StoreError(f"the disk of {where} is full: free some space; nothing of this was stored")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreError(f"{where} is kept locked by another process (`fuser {where}` names it): try again")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StoreError(
            f"{where} is damaged ({words}): restore it from a backup, or move it away to begin with an empty one"
        )
    if name.startswith("SQLITE_READONLY"):
        return StoreError(f"{where} cannot be written: {words}")
    if name.startswith("SQLITE_IOERR"):
        return StoreBroken(f"reading or writing {where} failed ({name}): look at the disk and the kernel's log")
    if name.startswith("SQLITE_CANTOPEN"):
        return StoreError(f"{where} cannot be opened: {words}")
    return StoreError(f"{where}: {words}")
