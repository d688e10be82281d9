"""Steps on a PostgreSQL connection: one round trip each, arrays instead of many rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import count
from typing import Any, Final, TypeVar

import asyncpg

from homefed.ledger.sql_steps import Ask, Insert, Row, Select, Step, Steps

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


async def drive(connection: asyncpg.Connection, steps: Steps[T]) -> T:
    """Run the steps to their end."""
    rows: Sequence[Row] | None = None
    try:
        while True:
            rows = await _run(connection, next(steps) if rows is None else steps.send(rows))
    except StopIteration as done:
        result: T = done.value
        return result


async def _run(connection: asyncpg.Connection, step: Step) -> Sequence[Row]:
    match step:
        case Select(sql, values):
            return await fetch(connection, sql.replace("IN ({})", "= ANY($1)"), [*values]) if values else []
        case Ask(sql, parameters):
            return await fetch(connection, native(sql), *parameters)
        case Insert(table, rows):
            return await fetch(connection, _insert_sql(table), *map(list, zip(*rows, strict=True))) if rows else []


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
def _insert_sql(table: str) -> str:
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(_COLUMNS[table].split(), 1))
    return f"INSERT INTO {table} SELECT * FROM unnest({arrays})"  # noqa: S608 - constants
