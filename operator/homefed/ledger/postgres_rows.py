"""Steps on a PostgreSQL connection: one round trip each, arrays instead of many rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import count
from typing import Any, Final, TypeVar

import asyncpg

from homefed.ledger.sql_steps import APPENDED, Append, Ask, Insert, Row, Select, Several, Step, Steps

T = TypeVar("T")
_TYPE: Final = "split_part(name, ':', 1)"
_COLUMNS: Final = {
    "checkpoints": "bigint bigint text",
    "seals": "bigint",
    "leaves": "bigint bytea text bigint bytea bytea",
    "accounts": "bigint text",
    "entries": "bigint bigint bigint text bigint",
    "chains": "bigint bigint text",
    "claims": "bigint bigint bigint bytea bytea text text text" + 8 * " bigint",
    "resolutions": "bigint bigint text",
    "floors": "bigint bigint bigint bigint",
    "parts": "bytea bigint bytea text bytea bigint bigint bigint",
    "nodes": "bigint bigint bytea",
}
"""Of the tables that the writer inserts into, as the migration has them."""
_PARAMETERS: Final = sum(len(_COLUMNS[table].split()) for table in APPENDED) + 2
_APPEND: Final = f"SELECT append_batch({', '.join(f'${number}' for number in range(1, _PARAMETERS + 1))})"


async def drive(connection: asyncpg.Connection, steps: Steps[T]) -> T:
    """Run the steps to their end."""
    rows: Sequence[Any] | None = None
    try:
        while True:
            rows = await _run(connection, next(steps) if rows is None else steps.send(rows))
    except StopIteration as done:
        result: T = done.value
        return result


async def _run(connection: asyncpg.Connection, step: Step) -> Sequence[Any]:
    match step:
        case Select(sql, values):
            return await fetch(connection, _select_sql(sql, 1), [*values]) if values else []
        case Ask(sql, parameters):
            return await fetch(connection, native(sql), *parameters)
        case Several(selects):
            return await _several(connection, selects)
        case Insert(table, rows):
            return await fetch(connection, _insert_sql(table), *_columns(table, rows)) if rows else []
        case Append(rows, adopted):
            columns = [column for table in APPENDED for column in _columns(table, rows[table])]
            claims, parts = zip(*adopted, strict=True) if adopted else ((), ())
            return await fetch(connection, _APPEND, *columns, claims, parts)


async def _several(connection: asyncpg.Connection, selects: Sequence[Select]) -> list[Sequence[Row]]:
    """Of those that ask for something."""
    asked = tuple([number for number, one in enumerate(selects) if one.values])
    found: list[Sequence[Row]] = [()] * len(selects)
    if asked:
        sql = _several_sql(tuple([selects[number].sql for number in asked]))
        (row,) = await fetch(connection, sql, *[[*selects[number].values] for number in asked])
        for number, rows in zip(asked, row, strict=True):
            found[number] = rows
    return found


def _columns(table: str, rows: Sequence[Row]) -> Sequence[Sequence[Any]]:
    """One array for each column."""
    return [*zip(*rows, strict=True)] if rows else [()] * len(_COLUMNS[table].split())


async def fetch(connection: asyncpg.Connection, sql: str, *parameters: Any) -> Sequence[Row]:
    """asyncpg keeps statements prepared by their text."""
    rows: Sequence[Row] = await connection.fetch(sql, *parameters)
    return rows


@cache
def native(sql: str) -> str:
    """Numbered parameters, and this database's expression for the type of an account."""
    numbers = count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", sql.replace("{type}", _TYPE))


@cache
def _select_sql(sql: str, number: int) -> str:
    """The values are one array."""
    return sql.replace("IN ({})", f"= ANY(${number})")


@cache
def _several_sql(selects: tuple[str, ...]) -> str:
    """One row with the rows of each."""
    numbered = [_select_sql(sql, number) for number, sql in enumerate(selects, 1)]
    found = [f"ARRAY(SELECT found FROM ({sql}) AS found)" for sql in numbered]  # noqa: S608 - constants
    return f"SELECT {', '.join(found)}"


@cache
def _insert_sql(table: str) -> str:
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(_COLUMNS[table].split(), 1))
    return f"INSERT INTO {table} SELECT * FROM unnest({arrays})"  # noqa: S608 - constants
