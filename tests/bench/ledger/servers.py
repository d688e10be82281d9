"""Figures that need a server: the ledger over HTTP, the ledger on PostgreSQL, pgledger on the same PostgreSQL."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from bench.ledger import requests
from bench.ledger.books import opened
from homefed.core.checkpoint import origin_of
from homefed.core.signed_note import verifier_key
from homefed.ledger.config import KEY_FILE
from homefed.ledger.keys import signing_key
from testbed.claims import FEDERATION, SignedClaim
from testbed.errors import ProcessFailed
from testbed.ledger import LedgerProcess
from testbed.postgres import Postgres
from testbed.process import PAGE_KIB

AUDIT_WITHIN_S = 3600
_LEDGERS = "SELECT id FROM pgledger_create_account($1, 'USD')"
_TRANSFER = "SELECT id FROM pgledger_create_transfer($1, $2, '1.00')"


def http_claims_per_s(folder: Path, claims: Sequence[SignedClaim], clients: int, at_once: int = 1) -> float:
    """`at_once` claims per request on kept-alive connections, from this process to one of the ledger's own."""
    ledger = LedgerProcess(folder)
    try:
        ledger.start()
        return asyncio.run(requests.rate(ledger.port, claims, clients, at_once))
    finally:
        ledger.close()


def rss_and_audit(folder: Path, jobs: int) -> tuple[float, float]:
    """MiB of the ledger's process after it has served a whole audit of what is in `folder`, and the audit's seconds."""
    key = signing_key(folder / KEY_FILE, create=False)
    ledger = LedgerProcess(folder)
    try:
        ledger.start()
        began = time.perf_counter()
        vkey = verifier_key(origin_of(FEDERATION), key).text()
        command = [sys.executable, "-m", "homefed", "audit", "--url", ledger.url, "--key", vkey]
        command += ["--hub-key", str(folder / "hub-keys" / "hub.pub"), "--jobs", str(jobs)]
        done = subprocess.run(
            command, env=ledger.env, capture_output=True, text=True, timeout=AUDIT_WITHIN_S, check=False
        )
        taken = time.perf_counter() - began
        if done.returncode != 0:
            raise ProcessFailed(f"audit ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return _rss_mib(ledger.process.pid), taken
    finally:
        ledger.close()


def _rss_mib(pid: int) -> float:
    """Of the ledger and its readers together; what they share is counted once for each."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pages = [int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in (pid, *children)]
    return sum(pages) * PAGE_KIB / 1024


async def postgres_claims_per_s(server: Postgres, folder: Path, claims: Sequence[SignedClaim], clients: int) -> float:
    folder.mkdir()
    async with opened(folder, await server.new_database()) as books:
        return await books.rate_of_clients(claims, clients)


async def postgres_in_batches_per_s(server: Postgres, folder: Path, claims: Sequence[SignedClaim], size: int) -> float:
    folder.mkdir()
    async with opened(folder, await server.new_database()) as books:
        return (await books.rate_in_batches(claims, size, in_flight=2))[0]


async def pgledger_transfers_per_s(server: Postgres, sql: Path, transfers: int, clients: int) -> float:
    """Each client between two accounts of its own, one transfer per transaction."""
    database = await server.new_database()
    for file in sorted(sql.glob("*.sql")) if sql.is_dir() else [sql]:
        server.psql(database.name, "-f", str(file))
    connections = [await asyncpg.connect(database.admin) for _ in range(clients)]
    pairs = [
        [await connection.fetchval(_LEDGERS, f"bench.{number}.{side}") for side in "ab"]
        for number, connection in enumerate(connections)
    ]

    async def work(connection: asyncpg.Connection, pair: Sequence[str]) -> None:
        for _ in range(transfers // clients):
            await connection.fetchval(_TRANSFER, *pair)

    began = time.perf_counter()
    await asyncio.gather(*[work(one, pair) for one, pair in zip(connections, pairs, strict=True)])
    rate = (transfers // clients * clients) / (time.perf_counter() - began)
    for connection in connections:
        await connection.close()
    return rate
