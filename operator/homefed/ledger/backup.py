"""Backup while the ledger runs, restore while it does not, and the check that both end with.

A backup is the SQLite file alone. Signing key and high-water mark are kept outside of it on purpose: a backup that is
restored must not bring back an older mark, or the ledger would sign a second history.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from homefed.api.errors import Invalid, Refused
from homefed.core import checkpoint as checkpoints
from homefed.core.signed_note import VerifierKey
from homefed.ledger import durable
from homefed.ledger.app import opened
from homefed.ledger.books_check import Summary, check_books, origin_in
from homefed.ledger.config import SQLITE, Place
from homefed.ledger.high_water import FILE, HighWaterMark
from homefed.ledger.keys import signing_key
from homefed.ledger.places import exclusive_lock
from homefed.ledger.sqlite import SqliteStore

MAX_CHECKPOINT: Final = 65_536
_POSTGRESQL: Final = (
    "a PostgreSQL ledger is backed up by pg_dump and restored by psql: see docs/ledger.md; then run"
    " `homefed ledger check`"
)


async def back_up(place: Place, target: Path) -> Summary:
    """A complete, checked copy under `target` (`-`: standard output). The ledger may run, and writes on meanwhile.

    Errors: Refused for PostgreSQL, a target that exists, or books that are damaged.
    """
    database, public_key = _sqlite(place), _public_key(place)
    to_stdout = str(target) == "-"
    _refuse_existing(target, "name a new file")
    copy = place.state / "backup.new" if to_stdout else target.with_name(target.name + ".new")
    with _temporary(copy):
        await asyncio.to_thread(_copy_online, database, copy)
        summary = await _checked_file(copy, public_key)
        await asyncio.to_thread(_write_out, copy, None if to_stdout else target)
    return summary


async def bring_back(place: Place, source: Path, checkpoint: Path | None) -> Summary:
    """The books of `source` in place; `checkpoint`: file with the newest that a member holds, if the mark is lost.

    Errors: Refused where a database, no key or no mark is in place, the backup is damaged, or more was signed than it
    holds (LedgerWentBack, LedgerForked): then no database is put in place.
    """
    database, public_key = _sqlite(place), _public_key(place)
    _refuse_existing(database, "stop the ledger and move it away first")
    lock = exclusive_lock(database)
    copy = database.with_name(database.name + ".new")
    try:
        with _temporary(copy):
            await asyncio.to_thread(shutil.copyfile, source, copy)
            summary = await _checked_file(copy, public_key)
            _require_mark(place, summary, public_key, checkpoint)
            async with opened(Place(f"{SQLITE}{copy}", place.state)):
                """Opened: neither mark nor tree contradicts it."""
            await asyncio.to_thread(_fold, copy)
            await asyncio.to_thread(_write_out, copy, database)
    finally:
        os.close(lock)
    return summary


async def check_place(place: Place) -> Summary:
    """The books where they are, against checkpoint and mark; of any store. The ledger must not run.

    Errors: Refused, saying what does not agree.
    """
    if place.database is not None:
        _require(place.database)
    async with opened(place) as (store, log), store.reading() as reader:
        return await check_books(reader, log.vkey.public)


def _sqlite(place: Place) -> Path:
    if place.database is None:
        raise Refused(_POSTGRESQL, reason="NotSQLite")
    return place.database


def _refuse_existing(path: Path, remedy: str) -> None:
    if path.exists():
        raise Refused(f"{path} exists: {remedy}", reason="TargetExists")


def _require(path: Path) -> None:
    if not path.is_file():
        raise Refused(f"{path}: there is no such file", reason="NoBooks")


def _copy_online(database: Path, copy: Path) -> None:
    """One step, so one moment: a copy in several steps would begin anew with each commit in between."""
    _require(database)
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    running = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
    with closing(running) as source, closing(sqlite3.connect(copy)) as target, _damaged(database):
        source.backup(target, pages=-1)


async def _checked_file(path: Path, public_key: bytes) -> Summary:
    """Errors: Refused (BooksDamaged). The file is one file again afterwards, without a log beside it."""
    await asyncio.to_thread(_check_pages, path)
    store = await SqliteStore.open(path)
    try:
        async with store.reading() as reader:
            summary = await check_books(reader, public_key)
    finally:
        await store.close()
    await asyncio.to_thread(_fold, path)
    return summary


def _check_pages(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw, _damaged(path):
        found = raw.execute("PRAGMA integrity_check(5)").fetchall() + raw.execute("PRAGMA foreign_key_check").fetchall()
    if found != [("ok",)]:
        raise Refused(f"{path}: SQLite finds it damaged: {found[0]}", reason="BooksDamaged")


def _fold(path: Path) -> None:
    """Everything into the one file, and no lock beside it."""
    with closing(sqlite3.connect(path)) as raw, _damaged(path):
        raw.execute("PRAGMA journal_mode = DELETE")
    path.with_name(path.name + ".lock").unlink(missing_ok=True)


def _write_out(copy: Path, target: Path | None) -> None:
    """Durable under its name, or on standard output."""
    if target is None:
        with copy.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    with copy.open("rb+") as file:
        os.fsync(file.fileno())
    durable.rename(copy, target)


def _require_mark(place: Place, backup: Summary, public_key: bytes, checkpoint: Path | None) -> None:
    """The mark that is there, raised to the checkpoint that is given; made of it where there is none."""
    path = place.state / FILE
    if checkpoint is None:
        if not path.exists():
            raise Refused(
                f"{path} is missing, so nothing says how much was signed: give --checkpoint FILE with the newest"
                " checkpoint that a member holds (an auditor, a receipt, a home that cosigns)",
                reason="MarkMissing",
            )
        return
    signed, vkey = _newest_text(checkpoint), VerifierKey(origin_in(backup.signed), public_key)
    try:
        head = checkpoints.verify(signed, vkey)
    except Invalid as error:
        raise Refused(f"{checkpoint}: {error.message}", reason="WrongCheckpoint") from error
    mark = HighWaterMark(path, vkey) if path.exists() else HighWaterMark.create(path, signed, vkey)
    try:
        if head.size > mark.head.size:
            mark.raise_to(signed, head)
    finally:
        mark.close()


def _newest_text(path: Path) -> str:
    """The checkpoint in a file, also at the end of a receipt. Errors: Refused."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CHECKPOINT).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path}: {error}", reason="WrongCheckpoint") from error
    return text.partition("\n\n")[2] if text.startswith("c2sp.org/") else text


def _public_key(place: Place) -> bytes:
    """Raw, of the key in place. Errors: Refused where there is none."""
    return signing_key(place.key, create=False).public_key().public_bytes_raw()


@contextmanager
def _temporary(path: Path) -> Iterator[None]:
    """Nothing of it is left, whatever happens, unless it was renamed."""
    leftovers = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal", ".lock")]
    for one in leftovers:
        one.unlink(missing_ok=True)
    try:
        yield
    finally:
        for one in leftovers:
            one.unlink(missing_ok=True)


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise Refused(f"{path}: {error}", reason="BooksDamaged") from error
