"""The ledger in one SQLite file: WAL, synchronous=FULL, append-only by triggers, one process at a time.

What is committed survives SIGKILL and, on a disk that keeps its promises, power loss. One thread writes, a few read;
each has a connection of its own, and what is asked of a connection runs in order.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from homefed.core.ledger_state import Item
from homefed.ledger import migrations, sqlite_rows
from homefed.ledger.places import exclusive_lock, refuse_network_file_system, wrong_identity
from homefed.ledger.sql_queries import Query
from homefed.ledger.sql_reader import SqlReader
from homefed.ledger.sql_writing import Writing
from homefed.ledger.store import Change, Contradiction, Reader, StoreFailed

READERS: Final = 2
_PRAGMAS: Final = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA recursive_triggers = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA busy_timeout = 5000",
)
P = ParamSpec("P")
T = TypeVar("T")
Work = Callable[Concatenate[sqlite3.Connection, P], T]


class _Session:
    """One connection and the thread that uses it."""

    def __init__(self, path: Path, name: str, *, read_only: bool) -> None:
        self.db = _open(path, read_only=read_only)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        def call() -> T:
            with _failing():
                return work(self.db, *args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def submit(self, sql: str) -> None:
        """Run it after what was asked before, without waiting for it."""
        self._thread.submit(self.db.execute, sql)

    def close(self) -> None:
        self._thread.shutdown()
        self.db.close()


class SqliteStore:
    """See `Store`. `open` takes the lock file beside the database; Refused when another process holds it."""

    def __init__(self, lock: int, writer: _Session, readers: Sequence[_Session]) -> None:
        self._lock = lock
        self._writer = writer
        self._writing = Writing()
        self._one_writer = asyncio.Lock()
        self._readers = tuple(readers)
        self._free: asyncio.Queue[_Session] = asyncio.Queue()
        for reader in readers:
            self._free.put_nowait(reader)

    @staticmethod
    async def open(path: Path) -> SqliteStore:
        return await asyncio.to_thread(_opened, path)

    async def bind(self, federation: str, keyid: str) -> None:
        async with self._one_writer:
            await self._writer.run(_bind, {"federation": federation, "keyid": keyid})

    async def write(self, batch: Sequence[Item], now: int, change: Change, durable: Callable[[], None]) -> None:
        async with self._one_writer:
            await self._writer.run(_write, self._writing, batch, now, change, durable)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Reader]:
        session = await self._free.get()
        session.submit("BEGIN")
        try:
            yield _SqliteReader(session)
        finally:
            session.submit("ROLLBACK")
            self._free.put_nowait(session)

    async def read(self, work: Callable[[Reader], Coroutine[Any, Any, T]]) -> T:
        session = await self._free.get()
        try:
            return await session.run(_read, work)
        finally:
            self._free.put_nowait(session)

    async def add_cosignature(self, size: int, name: str, line: str, time: int) -> bool:
        async with self._one_writer:
            return await self._writer.run(_add_cosignature, size, name, line, time)

    async def forget_lines(self, before: int, limit: int) -> int:
        async with self._one_writer:
            return await self._writer.run(_forget_lines, before, limit)

    async def close(self) -> None:
        """Waits for what the threads are at."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        for session in (*self._readers, self._writer):
            session.close()
        os.close(self._lock)


class _SqliteReader(SqlReader):
    def __init__(self, session: _Session) -> None:
        self._session = session

    async def _ask(self, query: Query[T], *parameters: Any) -> T:
        return await self._session.run(sqlite_rows.ask, query, parameters)


class _ReaderHere(SqlReader):
    """In the thread that the connection belongs to: its coroutines end without waiting."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    async def _ask(self, query: Query[T], *parameters: Any) -> T:
        return sqlite_rows.ask(self._db, query, parameters)


def _read(db: sqlite3.Connection, work: Callable[[Reader], Coroutine[Any, Any, T]]) -> T:
    coroutine = work(_ReaderHere(db))
    db.execute("BEGIN")
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        coroutine.close()
        db.execute("ROLLBACK")
    raise StoreFailed("a reader's work waited for something else than its reader")


def _opened(path: Path) -> SqliteStore:
    refuse_network_file_system(path, Path("/proc/self/mounts"))
    lock = exclusive_lock(path)
    sessions: list[_Session] = []
    try:
        with _failing(f"{path}: cannot be opened"):
            sessions.append(_Session(path, "ledger-writer", read_only=False))
            _migrate(sessions[0].db)
            sessions += [_Session(path, "ledger-reader", read_only=True) for _ in range(READERS)]
    except BaseException:
        for session in sessions:
            session.close()
        os.close(lock)
        raise
    return SqliteStore(lock, sessions[0], sessions[1:])


def _migrate(db: sqlite3.Connection) -> None:
    """PRAGMA user_version is the last script applied."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    for script in migrations.pending("sqlite", version):
        db.executescript(f"BEGIN IMMEDIATE;\n{script.sql}\nPRAGMA user_version = {script.number};\nCOMMIT;")


def _bind(db: sqlite3.Connection, identity: dict[str, str]) -> None:
    for name, value in identity.items():
        db.execute("INSERT OR IGNORE INTO identity VALUES (?, ?)", (name, value))
        (stored,) = db.execute("SELECT value FROM identity WHERE name = ?", (name,)).fetchone()
        if stored != value:
            raise wrong_identity(name, stored, value)


def _write(
    db: sqlite3.Connection,
    writing: Writing,
    batch: Sequence[Item],
    now: int,
    change: Change,
    durable: Callable[[], None],
) -> None:
    """All of it in one hand-over to this thread: each costs as much as writing a claim."""
    db.execute("BEGIN IMMEDIATE")
    try:
        decision, checkpoint = change(sqlite_rows.drive(db, writing.snapshot(batch, now)))
        sqlite_rows.drive(db, writing.append(decision, checkpoint))
        db.execute("COMMIT")
    except BaseException:
        writing.forget()
        _rollback(db)
        raise
    durable()


def _rollback(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        db.execute("ROLLBACK")


def _add_cosignature(db: sqlite3.Connection, size: int, name: str, line: str, time: int) -> bool:
    known = db.execute("SELECT 1 FROM cosignatures WHERE size = ? AND name = ?", (size, name)).fetchone()
    if known is None:
        db.execute("INSERT INTO cosignatures VALUES (?, ?, ?, ?)", (size, name, line, time))
    return known is None


def _forget_lines(db: sqlite3.Connection, before: int, limit: int) -> int:
    return db.execute(
        "DELETE FROM parts WHERE rowid IN (SELECT rowid FROM parts WHERE pending = 0 AND received < ? LIMIT ?)",
        (before, limit),
    ).rowcount


def _open(path: Path, *, read_only: bool) -> sqlite3.Connection:
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
    )
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        if not read_only:
            os.chmod(path, 0o600)
            with closing(connection.execute("PRAGMA journal_mode = WAL")) as answer:
                if answer.fetchone() != ("wal",):
                    raise sqlite3.OperationalError("the file system does not support WAL")
            connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _failing(what: str = "the database failed") -> Iterator[None]:
    """A constraint is a contradiction; every other error of the database means that it cannot be relied on."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise Contradiction(f"the database refused: {error}") from error
    except sqlite3.Error as error:
        raise StoreFailed(f"{what}: {error}") from error
