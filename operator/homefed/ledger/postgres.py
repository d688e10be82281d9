"""The ledger in PostgreSQL, for when one file and one volume are outgrown. The rules are the same: one writer (an
advisory lock of the database), one transaction per batch, append-only by triggers and by rights.

Two roles: the owner makes the tables and is needed for a new version only; the service's role may read and insert.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar

import asyncpg

from homefed.api.errors import Refused
from homefed.core.ledger_reading import PartSubmission
from homefed.core.ledger_state import Item
from homefed.ledger import migrations, postgres_rights, postgres_rows
from homefed.ledger.places import wrong_identity
from homefed.ledger.postgres_rights import SCHEMA
from homefed.ledger.sql_queries import Query
from homefed.ledger.sql_reader import SqlReader
from homefed.ledger.sql_writing import Writing
from homefed.ledger.store import Change, Contradiction, Reader, StoreFailed

READERS: Final = 4
COMMAND_SECONDS: Final = 60.0
LOCK_SECONDS: Final = 5.0
"""So long a writer that was killed may go on holding the lock, until the server has noticed."""
_LOCK: Final = 0x686F6D65666564  # "homefed"
T = TypeVar("T")
_log = logging.getLogger(__name__)


class PostgresStore:
    """See `Store`. `open` takes the database's advisory lock; Refused when another process holds it."""

    def __init__(self, writer: asyncpg.Connection, readers: asyncpg.Pool) -> None:
        self._writer = writer
        self._readers = readers
        self._writing = Writing()
        self._one_writer = asyncio.Lock()

    @staticmethod
    async def open(url: str, owner_url: str | None = None) -> PostgresStore:
        """`url` connects as the service's role. `owner_url` as the owner of the tables, who brings them up to date
        first; without it `url` does, if it may. Errors: Refused with the remedy, StoreFailed."""
        with _failing("the database cannot be opened"):
            writer = await _connect(url)
            try:
                await _lock(writer)
                await _migrate(writer, owner_url or url)
                await postgres_rights.check(writer)
                await _check(writer)
                await _by_key(writer)
                pool = await asyncpg.create_pool(url, min_size=1, max_size=READERS, **_SETTINGS)
            except BaseException:
                await writer.close()
                raise
        return PostgresStore(writer, pool)

    async def bind(self, federation: str, keyid: str) -> None:
        async with self._one_writer:
            with _failing():
                for name, value in (("federation", federation), ("keyid", keyid)):
                    await self._writer.execute(
                        "INSERT INTO identity VALUES ($1, $2) ON CONFLICT (name) DO NOTHING", name, value
                    )
                    stored = await self._writer.fetchval("SELECT value FROM identity WHERE name = $1", name)
                    if stored != value:
                        raise wrong_identity(name, stored, value)

    async def write(self, batch: Sequence[Item], now: int, change: Change, durable: Callable[[], None]) -> None:
        async with self._one_writer:
            with _failing():
                try:
                    await self._write(batch, now, change)
                except BaseException:
                    self._writing.forget()
                    raise
            await asyncio.to_thread(durable)

    async def _write(self, batch: Sequence[Item], now: int, change: Change) -> None:
        """Parts take several statements; all of a batch's leaves are one, which is a transaction by itself."""
        if any(isinstance(item, PartSubmission) for item in batch):
            async with self._writer.transaction():
                await self._steps(batch, now, change)
        else:
            await self._steps(batch, now, change)

    async def _steps(self, batch: Sequence[Item], now: int, change: Change) -> None:
        snapshot = await postgres_rows.drive(self._writer, self._writing.snapshot(batch, now))
        decision, checkpoint = await asyncio.to_thread(change, snapshot)
        await postgres_rows.drive(self._writer, self._writing.append(decision, checkpoint))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Reader]:
        with _failing():
            async with (
                self._readers.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                yield _PostgresReader(connection)

    async def read(self, work: Callable[[Reader], Coroutine[Any, Any, T]]) -> T:
        async with self.reading() as reader:
            return await work(reader)

    async def add_cosignature(self, size: int, name: str, line: str, time: int) -> bool:
        sql = "INSERT INTO cosignatures VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING true"
        async with self._one_writer:
            with _failing():
                return bool(await self._writer.fetchval(sql, size, name, line, time))

    async def forget_lines(self, before: int, limit: int) -> int:
        sql = (
            "WITH gone AS (DELETE FROM parts WHERE ctid IN"
            " (SELECT ctid FROM parts WHERE pending = 0 AND received < $1 LIMIT $2) RETURNING 1)"
            " SELECT count(*) FROM gone"
        )
        async with self._one_writer:
            with _failing():
                return int(await self._writer.fetchval(sql, before, limit))

    async def close(self) -> None:
        await self._readers.close()
        await self._writer.close()


class _PostgresReader(SqlReader):
    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def _ask(self, query: Query[T], *parameters: Any) -> T:
        with _failing():
            return query.read(await postgres_rows.fetch(self._connection, postgres_rows.native(query.sql), *parameters))


_SETTINGS: Final[dict[str, Any]] = {
    "command_timeout": COMMAND_SECONDS,
    "server_settings": {"search_path": SCHEMA, "application_name": "homefed-ledger", "jit": "off"},
}


async def _connect(url: str) -> asyncpg.Connection:
    return await asyncpg.connect(url, **_SETTINGS)


async def _by_key(writer: asyncpg.Connection) -> None:
    """All that the writer asks for, it asks for by key: plans made while the tables are small, or before they are
    analysed, must not read them from end to end later on."""
    for method in ("seqscan", "hashjoin", "mergejoin"):
        await writer.execute(f"SET enable_{method} = off")


async def _lock(connection: asyncpg.Connection) -> None:
    deadline = asyncio.get_running_loop().time() + LOCK_SECONDS
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
        if asyncio.get_running_loop().time() > deadline:
            raise Refused(
                "the database is in use by another ledger process: run exactly one per database",
                reason="AlreadyRunning",
            )
        await asyncio.sleep(0.2)


async def _migrate(writer: asyncpg.Connection, url: str) -> None:
    """Bring the tables up to date and give the service's role its rights. The advisory lock is held by `writer`."""
    version = await _version(writer)
    scripts = migrations.pending("postgres", version)
    if not scripts and not await postgres_rights.missing(writer):
        return
    service = await writer.fetchval("SELECT current_user")
    owner = await _connect(url)
    try:
        if not scripts and await owner.fetchval("SELECT current_user") == service:
            return  # who has no rights cannot give them
        async with owner.transaction():
            for script in scripts:
                await owner.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
                await owner.execute(script.sql)
                await owner.execute(f"COMMENT ON SCHEMA {SCHEMA} IS 'version {script.number}'")
            await postgres_rights.grant(owner, service)
    except asyncpg.InsufficientPrivilegeError as error:
        raise Refused(
            f"the tables have version {version} and {service} may not change them ({error}): name the owner's role with"
            " --store-owner",
            reason="OldDatabase",
        ) from error
    finally:
        await owner.close()


async def _version(connection: asyncpg.Connection) -> int:
    """The last script applied, kept as the schema's comment."""
    text = await connection.fetchval("SELECT obj_description(to_regnamespace($1), 'pg_namespace')", SCHEMA)
    return int(text.removeprefix("version ")) if text else 0


async def _check(connection: asyncpg.Connection) -> None:
    """What the server must not be told otherwise: an answer is given after the commit is on the disk."""
    await connection.execute("SET synchronous_commit = on")
    if await connection.fetchval("SHOW fsync") != "on":
        _log.warning("the server runs with fsync = off: what was acknowledged can be lost with its machine")


@contextmanager
def _failing(what: str = "the database failed") -> Iterator[None]:
    """A constraint is a contradiction; every other error of the database means that it cannot be relied on."""
    try:
        yield
    except asyncpg.IntegrityConstraintViolationError as error:
        raise Contradiction(f"the database refused: {error}") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise StoreFailed(f"{what}: {error}") from error
