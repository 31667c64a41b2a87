"""One statement for many rows at the database driver's own price: the toolkit's work is done once for the statement,
not for each row."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.sql.dml import UpdateBase


def execute_many(connection: Connection, statement: UpdateBase, rows: Sequence[Mapping[str, Any]]) -> None:
    """`statement` lives as long as the program. All rows have the same names: those of its bound parameters, or, for an
    insert, of columns; their values are what the driver takes as it is (numbers, texts, None)."""
    if not rows:
        return
    text, fixed, in_order = _prepared(statement, connection.dialect, tuple(rows[0]))
    filled = [{**fixed, **row} for row in rows] if fixed else rows
    connection.exec_driver_sql(text, [in_order(row) for row in filled] if in_order else list(filled))


@lru_cache(maxsize=256)
def _prepared(statement: UpdateBase, dialect: Dialect, names: tuple[str, ...]) -> tuple[str, dict[str, Any], Any]:
    """Its text, the values that stand in the statement itself, and how a row is put into the driver's order."""
    columns = list(names) if statement.is_insert else None
    compiled: Any = statement.compile(dialect=dialect, column_keys=columns)
    fixed = {name: value for name, value in compiled.params.items() if name not in names}
    return compiled.string, fixed, itemgetter(*compiled.positiontup) if compiled.positional else None
