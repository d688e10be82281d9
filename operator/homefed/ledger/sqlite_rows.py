"""Steps and queries on an SQLite connection.

Many rows go into one statement: each statement that Python steps through costs a hand-over of the interpreter lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final, TypeVar

from homefed.ledger.sql_queries import Query
from homefed.ledger.sql_steps import APPENDED, Append, Ask, Insert, Row, Select, Several, Step, Steps

T = TypeVar("T")
MAX_ROWS: Final = 256
_SIZES: Final = tuple(1 << power for power in range(MAX_ROWS.bit_length() - 1, -1, -1))
"""Powers of two: few enough statements that all of them stay prepared."""
_TYPE: Final = "substr(name, 1, instr(name, ':') - 1)"


def drive(db: sqlite3.Connection, steps: Steps[T]) -> T:
    """Run the steps to their end."""
    rows: Sequence[Any] | None = None
    try:
        while True:
            rows = _run(db, next(steps) if rows is None else steps.send(rows))
    except StopIteration as done:
        result: T = done.value
        return result


def ask(db: sqlite3.Connection, query: Query[T], parameters: Sequence[Any]) -> T:
    return query.read(db.execute(_native(query.sql), parameters).fetchall())


def _run(db: sqlite3.Connection, step: Step) -> Sequence[Any]:
    match step:
        case Select(sql, values):
            return _select(db, sql, values)
        case Ask(sql, parameters):
            return db.execute(sql, parameters).fetchall()
        case Several(selects):
            return [_select(db, one.sql, one.values) for one in selects]
        case Insert(table, rows):
            _insert(db, table, rows)
            return []
        case Append(rows, adopted):
            _append(db, rows, adopted)
            return []


def _append(db: sqlite3.Connection, rows: Mapping[str, Sequence[Row]], adopted: Sequence[tuple[bytes, int]]) -> None:
    for table in APPENDED:
        _insert(db, table, rows[table])
    claims_of: dict[int, list[bytes]] = {}
    for claim, parts in adopted:
        claims_of.setdefault(parts, []).append(claim)
    for parts, claims in claims_of.items():
        _select(db, f"UPDATE parts SET pending = 0 WHERE number <= {parts} AND claim_id IN ({{}})", claims)  # noqa: S608


def _insert(db: sqlite3.Connection, table: str, rows: Sequence[Row]) -> None:
    done = 0
    while done < len(rows):
        size = next(size for size in _SIZES if size <= len(rows) - done)
        chunk = rows[done : done + size]
        db.execute(_insert_sql(table, len(chunk[0]), size), [*chain.from_iterable(chunk)])
        done += size


def _select(db: sqlite3.Connection, sql: str, values: Collection[Any]) -> list[Row]:
    """Lists are padded with NULL, which equals nothing."""
    found: list[Row] = []
    rest = [*values]
    while rest:
        chunk, rest = rest[:MAX_ROWS], rest[MAX_ROWS:]
        size = min(size for size in _SIZES if size >= len(chunk))
        found += db.execute(_select_sql(sql, size), chunk + [None] * (size - len(chunk))).fetchall()
    return found


@cache
def _native(sql: str) -> str:
    return sql.replace("{type}", _TYPE)


@cache
def _insert_sql(table: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"INSERT INTO {table} VALUES {', '.join([row] * rows)}"  # noqa: S608 - placeholders


@cache
def _select_sql(sql: str, values: int) -> str:
    return sql.replace("{}", ", ".join("?" * values))
