"""The databases defend themselves: whoever opens one with other tools, or with the service's rights, cannot unbalance,
change or take away anything; and what is derived can be derived again."""
# ruff: noqa: S608 - the tables are named in this file

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from homefed.api.errors import Refused
from homefed.ledger.places import refuse_network_file_system
from homefed.ledger.postgres import PostgresStore
from homefed.ledger.sqlite import SqliteStore
from homefed.ledger.store import StoreFailed
from testbed.books import Place, PostgresPlace, SqlitePlace, opened
from testbed.claims import Chain, floor, resolution
from testbed.postgres import Database, Postgres

TABLES = (
    "leaves",
    "checkpoints",
    "seals",
    "accounts",
    "entries",
    "chains",
    "claims",
    "resolutions",
    "floors",
    "nodes",
    "cosignatures",
)
HASH = "decode(repeat('78', 32), 'hex')"
FIRST_COLUMN = "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum = 1"
BALANCES = "SELECT account_id, unit, sum(amount) FROM entries GROUP BY account_id, unit ORDER BY 1, 2"
SUMS = ("charged", "paid", "held", "released", "fee", "dust")
CHAIN_SUMS = (
    f"SELECT chain_id, {', '.join(f'sum(sign * {name})' for name in SUMS)} FROM ("
    "SELECT claims.*, CASE WHEN reverses IS NULL THEN 1 ELSE -1 END AS sign FROM claims WHERE phase = 'posted'"
    " UNION ALL SELECT claims.*, 1 FROM resolutions JOIN claims ON claims.leaf_index = resolutions.claim"
    " WHERE outcome = 'post') AS effects GROUP BY chain_id ORDER BY 1"
)


async def commit(connection: asyncpg.Connection, statements: Sequence[str]) -> None:
    async with connection.transaction():
        for statement in statements:
            await connection.execute(statement)


async def fill(place: Place) -> None:
    """Every table gets a row, the tree's upper level too."""
    async with opened(place) as books:
        chain = Chain()
        first = chain.next({"a": 10, "b": 5}, fee=1)
        await books.post(first, floor("a", -1000), chain.next({"a": 7}))
        await books.post(chain.advance(chain.make({"b": 1}, phase="pending")))
        pending = chain.next({"a": 2}, phase="pending")
        await books.post(pending, resolution(pending.id, "post"))
        chain.posted(pending)
        last = chain.next({"a": 3}, held=1)
        await books.post(last)
        await books.post(chain.advance(chain.reversal(last)))
        await books.post(*[chain.next({"a": 1}) for _ in range(250)])
        assert await books.store.add_cosignature(books.log.published.size, "w", "— w x", 0)


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A closed SQLite database with something in every table."""
    await fill(SqlitePlace(tmp_path))
    return tmp_path / "ledger.db"


@pytest.fixture
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection without any of the ledger's settings but foreign keys."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        yield connection


@pytest.fixture
async def database(postgresql: Postgres, tmp_path: Path) -> Database:
    made = await postgresql.new_database()
    await fill(PostgresPlace(tmp_path, made))
    return made


def test_in_sqlite_nothing_is_updated_deleted_or_replaced(raw: sqlite3.Connection) -> None:
    for table in TABLES:
        before = raw.execute(f"SELECT * FROM {table}").fetchall()
        assert before, table
        column = raw.execute(f"SELECT * FROM {table}").description[0][0]
        for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                raw.execute(statement)
        with pytest.raises(sqlite3.IntegrityError):
            raw.execute(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}")
        assert raw.execute(f"SELECT * FROM {table}").fetchall() == before


def test_in_sqlite_a_leaf_is_not_replaced_under_its_id(raw: sqlite3.Connection) -> None:
    (size,) = raw.execute("SELECT max(size) FROM seals").fetchone()
    raw.execute("BEGIN")
    raw.execute("INSERT INTO checkpoints VALUES (?, 0, '')", (size + 1,))
    with pytest.raises(sqlite3.IntegrityError, match="the leaf exists"):
        raw.execute(
            "INSERT OR REPLACE INTO leaves SELECT ?, id, kind, ?, hash, envelope FROM leaves WHERE leaf_index = 0",
            (size, size + 1),
        )
    raw.execute("ROLLBACK")


def test_in_sqlite_a_batch_that_nobody_sealed_cannot_be_committed(raw: sqlite3.Connection) -> None:
    (size,) = raw.execute("SELECT max(size) FROM seals").fetchone()
    raw.execute("BEGIN")
    raw.execute("INSERT INTO checkpoints VALUES (?, 0, '')", (size + 1,))
    new = (size, b"x" * 32, "floor", size + 1, b"h" * 32, b"{}")
    raw.execute("INSERT INTO leaves VALUES (?, ?, ?, ?, ?, ?)", new)
    raw.execute("INSERT INTO entries VALUES (?, 0, 1, 'ucredit', 100)", (size,))
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        raw.execute("COMMIT")
    with pytest.raises(sqlite3.IntegrityError, match="sum to zero"):
        raw.execute("INSERT INTO seals VALUES (?)", (size + 1,))
    raw.execute("INSERT INTO entries VALUES (?, 1, 2, 'ucredit', -100)", (size,))
    raw.execute("INSERT INTO seals VALUES (?)", (size + 1,))
    with pytest.raises(sqlite3.IntegrityError, match="sealed"):
        raw.execute("INSERT INTO entries VALUES (?, 2, 1, 'ucredit', 1)", (size,))
    raw.execute("COMMIT")
    with pytest.raises(sqlite3.IntegrityError, match="sealed"):
        raw.execute("INSERT INTO entries VALUES (0, 99, 1, 'ucredit', 1)")


@pytest.mark.parametrize("amount", [0, 2**60 + 1, -(2**60) - 1])
def test_an_entry_moves_something_and_not_more_than_64_bits_can_add_up(raw: sqlite3.Connection, amount: int) -> None:
    (size,) = raw.execute("SELECT max(size) FROM seals").fetchone()
    raw.execute("BEGIN")
    raw.execute("INSERT INTO checkpoints VALUES (?, 0, '')", (size + 1,))
    raw.execute("INSERT INTO leaves VALUES (?, ?, 'floor', ?, ?, ?)", (size, b"x" * 32, size + 1, b"h" * 32, b"{}"))
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        raw.execute("INSERT INTO entries VALUES (?, 0, 1, 'ucredit', ?)", (size, amount))
    raw.execute("ROLLBACK")


def test_in_sqlite_what_is_derived_is_rebuilt_from_entries_claims_and_resolutions(raw: sqlite3.Connection) -> None:
    balances = raw.execute("SELECT account_id, unit, balance FROM balances ORDER BY 1, 2").fetchall()
    assert len(balances) > 8
    assert balances == raw.execute(BALANCES).fetchall()
    sums = raw.execute("SELECT * FROM chain_sums ORDER BY 1").fetchall()
    assert sums == raw.execute(CHAIN_SUMS).fetchall()
    assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert raw.execute("PRAGMA foreign_key_check").fetchall() == []


async def test_in_postgresql_what_is_derived_is_rebuilt_too(database: Database) -> None:
    connection = await asyncpg.connect(database.service, server_settings={"search_path": "ledger"})
    balances = await connection.fetch("SELECT account_id, unit, balance FROM balances ORDER BY 1, 2")
    assert [tuple(row) for row in balances] == [tuple(row) for row in await connection.fetch(BALANCES)]
    sums = await connection.fetch("SELECT * FROM chain_sums ORDER BY 1")
    assert [tuple(row) for row in sums] == [tuple(row) for row in await connection.fetch(CHAIN_SUMS)]
    assert sums
    await connection.close()


async def test_in_postgresql_the_service_has_no_right_to_change_anything(database: Database) -> None:
    connection = await asyncpg.connect(database.service, server_settings={"search_path": "ledger"})
    for table in (*TABLES, "identity", "balances", "chain_sums"):
        column = (
            await connection.fetch(
                "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum = 1", table
            )
        )[0][0]
        statements = (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}", f"TRUNCATE {table}")
        for statement in (*statements, f"ALTER TABLE {table} DISABLE TRIGGER ALL", f"DROP TABLE {table}"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    for table in ("balances", "chain_sums"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"INSERT INTO {table} SELECT * FROM {table}")
    await connection.close()


async def test_in_postgresql_triggers_hold_the_owner_back_too(database: Database) -> None:
    connection = await asyncpg.connect(database.owner, server_settings={"search_path": "ledger"})
    for table in TABLES:
        column = (
            await connection.fetch(
                "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum = 1", table
            )
        )[0][0]
        for statement in (
            f"UPDATE {table} SET {column} = {column}",
            f"DELETE FROM {table}",
            f"TRUNCATE {table} CASCADE",
        ):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
                await connection.execute(statement)
    await connection.close()


async def test_in_postgresql_nothing_is_added_to_what_is_sealed_nor_left_unsealed(database: Database) -> None:
    connection = await asyncpg.connect(database.service, server_settings={"search_path": "ledger"})
    size = await connection.fetchval("SELECT max(size) FROM seals")

    async def refused(match: str, *statements: str) -> None:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match=match):
            await commit(connection, statements)

    checkpoint = f"INSERT INTO checkpoints VALUES ({size + 1}, 0, ''), ({size + 2}, 0, '')"
    leaf = f"INSERT INTO leaves VALUES ({size}, {HASH}, 'floor', {size + 1}, {HASH}, 'x')"
    gap = f"INSERT INTO leaves VALUES ({size + 1}, {HASH}, 'floor', {size + 2}, {HASH}, 'x')"
    entry = f"INSERT INTO entries VALUES ({size}, 0, 1, 'ucredit', 100)"
    seal = f"INSERT INTO seals VALUES ({size + 1})"
    await refused("is sealed", "INSERT INTO entries VALUES (0, 99, 1, 'ucredit', 1), (0, 98, 1, 'ucredit', -1)")
    await refused("checkpoints_are_sealed", checkpoint, leaf)
    await refused("sum to zero", checkpoint, leaf, entry, seal)
    await refused("dense", checkpoint, seal)
    await refused("leaf that is not there", f"INSERT INTO entries VALUES ({size}, 0, 1, 'ucredit', 1)")
    await refused("account that is not there", checkpoint, leaf, entry.replace("0, 1,", "0, 999999,"), seal)
    await refused(
        "dense", f"INSERT INTO checkpoints VALUES ({size + 2}, 0, '')", gap, f"INSERT INTO seals VALUES ({size + 2})"
    )
    await connection.close()


async def test_an_old_postgresql_schema_without_the_owner_names_the_remedy(postgresql: Postgres) -> None:
    made = await postgresql.new_database()
    with pytest.raises(Refused, match="--store-owner"):
        await PostgresStore.open(made.service)
    store = await PostgresStore.open(made.service, made.owner)
    await store.close()
    again = await PostgresStore.open(made.service)
    await again.close()
    connection = await asyncpg.connect(made.owner)
    await connection.execute("COMMENT ON SCHEMA ledger IS 'version 99'")
    await connection.close()
    with pytest.raises(Refused, match="version 99"):
        await PostgresStore.open(made.service)


async def test_in_postgresql_rights_that_a_restore_lost_are_missed_at_the_start_and_given_by_the_owner(
    database: Database,
) -> None:
    role = (await _ask(database.service, "SELECT quote_ident(current_user)"))[0][0]
    before = await _ask(database.service, _ACL)
    for statement in (
        f"REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM {role}",
        f"REVOKE ALL ON SCHEMA ledger FROM {role}",
    ):
        await _ask(database.owner, statement)
        with pytest.raises(Refused, match="--store-owner") as caught:
            await PostgresStore.open(database.service)
        assert caught.value.reason == "RightsMissing"
    store = await PostgresStore.open(database.service, database.owner)
    await store.close()
    assert await _ask(database.service, _ACL) == before
    store = await PostgresStore.open(database.service)
    await store.close()


@pytest.mark.parametrize("right", ["UPDATE ON ledger.leaves", "TRUNCATE ON ledger.parts", "INSERT ON ledger.balances"])
async def test_in_postgresql_a_service_that_may_change_the_books_does_not_start(database: Database, right: str) -> None:
    role = (await _ask(database.service, "SELECT quote_ident(current_user)"))[0][0]
    await _ask(database.owner, f"GRANT {right} TO {role}")
    with pytest.raises(Refused, match=f"REVOKE {right} FROM") as caught:
        await PostgresStore.open(database.service)
    assert caught.value.reason == "RightsTooWide"
    await _ask(database.owner, f"REVOKE {right} FROM {role}")
    store = await PostgresStore.open(database.service)
    await store.close()


_ACL = """
    SELECT relname, privilege
    FROM pg_class CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS privilege
    WHERE relnamespace = 'ledger'::regnamespace AND relkind = 'r' AND has_table_privilege(pg_class.oid, privilege)
    ORDER BY 1, 2
"""


async def _ask(url: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return [*await connection.fetch(sql)]
    finally:
        await connection.close()


async def test_a_postgresql_server_that_is_not_there_is_a_failed_store(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="cannot be opened"):
        await PostgresStore.open(f"postgresql:///x?host={tmp_path}&user=nobody")


async def test_every_commit_is_flushed_and_the_journal_is_a_wal(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "ledger.db")
    found: dict[str, Any] = {}
    for pragma in ("synchronous", "journal_mode", "foreign_keys"):
        (found[pragma],) = store._writer.db.execute(f"PRAGMA {pragma}").fetchone()
    assert found == {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1}
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        store._readers[0].db.execute("DELETE FROM parts")
    await store.close()


def test_the_file_is_for_its_owner_only(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_database_of_a_newer_program_is_refused_and_can_be_opened_again(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    for _ in range(2):
        with pytest.raises(Refused, match="version 99"):
            await SqliteStore.open(path)


async def test_a_file_that_is_no_database_fails_and_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    file.write_bytes(b"not a database, " * 100)
    for _ in range(2):
        with pytest.raises(StoreFailed, match="not a database"):
            await SqliteStore.open(file)
    assert file.read_bytes() == b"not a database, " * 100


async def test_a_directory_that_does_not_exist_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="give a directory that exists"):
        await SqliteStore.open(tmp_path / "missing" / "ledger.db")


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p"])
def test_network_file_systems_are_refused(tmp_path: Path, kind: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path} {kind} rw 0 0\nserver:/y /elsewhere nfs rw 0 0\n")
    with pytest.raises(Refused, match=kind):
        refuse_network_file_system(tmp_path / "ledger.db", mounts)
    mounts.write_text(f"server:/x / nfs rw 0 0\n/dev/sdb {tmp_path} ext4 rw 0 0\n")
    refuse_network_file_system(tmp_path / "ledger.db", mounts)
