"""What the disk and SQLite themselves can do, in the folder where the ledger is measured."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

FLUSHES = 300


def flushes_per_s(folder: Path) -> float:
    """4 KiB written and fdatasync, one after the other."""
    path = folder / "flushes"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        began = time.perf_counter()
        for number in range(FLUSHES):
            os.pwrite(descriptor, b"x" * 4096, 4096 * number)
            os.fdatasync(descriptor)
        return FLUSHES / (time.perf_counter() - began)
    finally:
        os.close(descriptor)
        path.unlink()


def raw_sqlite_per_s(folder: Path, *, claims: int, batch: int, body: int, rows: int) -> float:
    """Two plain tables without index or constraint, WAL, synchronous=FULL: per claim one row with `body` bytes and
    `rows` small ones, `batch` claims to a transaction."""
    path = folder / "raw.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE bodies (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        db.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, account INTEGER NOT NULL, amount INTEGER NOT NULL)")
        content = os.urandom(body)
        began = time.perf_counter()
        for start in range(0, claims, batch):
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO bodies VALUES (?, ?)", [(start + one, content) for one in range(batch)])
            small = [(start * rows + one, one % 50, 1000) for one in range(batch * rows)]
            db.executemany("INSERT INTO entries VALUES (?, ?, ?)", small)
            db.execute("COMMIT")
        rate = claims / (time.perf_counter() - began)
    for left in folder.glob("raw.db*"):
        left.unlink()
    return rate
