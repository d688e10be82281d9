"""A ledger that is killed at random moments under many clients, on both stores: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from testbed.books import PostgresPlace, SqlitePlace
from testbed.claims import Chain
from testbed.ledger import HUB_TOKEN, LedgerProcess
from testbed.ledger_load import Plan, batch, refused, run, same_receipts, verdict
from testbed.postgres import Database, Postgres, postgres

CLIENTS = 32


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerProcess]:
    process = LedgerProcess(tmp_path)
    yield process
    process.close()


def on_postgres(folder: Path, database: Database) -> LedgerProcess:
    options = ("--store", database.service, "--store-owner", database.owner, "--state", str(folder))
    return LedgerProcess(folder, store=options)


async def test_kills_at_random_moments_under_32_clients_lose_nothing_and_double_nothing(
    ledger: LedgerProcess, tmp_path: Path
) -> None:
    seen = await run(ledger, tmp_path, Plan(CLIENTS, claims=200, kills=5, at_once=2))
    assert await same_receipts(ledger, seen) > 0
    await asyncio.to_thread(ledger.close)
    assert await verdict(SqlitePlace(tmp_path), seen) >= 200


async def test_kills_of_a_ledger_on_postgresql_lose_nothing_either(postgresql: Postgres, tmp_path: Path) -> None:
    database = await postgresql.new_database()
    ledger = on_postgres(tmp_path, database)
    try:
        seen = await run(ledger, tmp_path, Plan(8, claims=60, kills=2, at_once=3))
        said = await asyncio.to_thread(refused, ledger)
        assert "in use by another ledger process" in said
        assert await same_receipts(ledger, seen) > 0
    finally:
        await asyncio.to_thread(ledger.close)
    assert await verdict(PostgresPlace(tmp_path, database), seen) >= 60


async def posted(ledger: LedgerProcess, body: bytes) -> int:
    """Status of the last item of a batch; 0 when the ledger went away."""
    headers = {"Authorization": f"Bearer {HUB_TOKEN}", "Content-Type": "application/json"}
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=60)) as session,
            session.post(f"{ledger.url}/v1/batch", data=body) as response,
        ):
            answer = await response.json()
            return int(answer["items"][-1]["status"] if response.status == 200 else response.status)
    except (aiohttp.ClientError, ConnectionError):
        return 0


async def test_a_postgresql_server_that_ends_ends_the_ledger_and_both_go_on_later(tmp_path: Path) -> None:
    chain = Chain()
    first, second = (batch([chain.next()]) for _ in range(2))
    with postgres() as server:
        ledger = on_postgres(tmp_path, await server.new_database())
        try:
            await asyncio.to_thread(ledger.start)
            assert await posted(ledger, first) == 201
            await asyncio.to_thread(server.process.kill)
            assert await posted(ledger, second) in (0, 503)
            assert await asyncio.to_thread(ledger.process.wait, 120.0) > 0
            await asyncio.to_thread(server.start)
            await asyncio.to_thread(ledger.start)
            assert [await posted(ledger, first), await posted(ledger, second)] == [200, 201]
        finally:
            await asyncio.to_thread(ledger.close)
