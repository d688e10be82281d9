"""The crash list: a ledger that is killed, whose disk fails, or that is given old books, loses nothing, doubles
nothing, and signs nothing that contradicts what it has signed."""

from __future__ import annotations

import asyncio
import errno
import itertools
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiohttp
import pytest

from testbed.claims import Chain, SignedClaim
from testbed.errors import ProcessFailed
from testbed.faulty_disk import FaultyDisk
from testbed.ledger import HUB_TOKEN, LedgerProcess
from testbed.ledger_load import batch, refused
from testbed.process import Process

CLIENTS = 32
Answer = dict[str, object]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerProcess]:
    process = LedgerProcess(tmp_path)
    yield process
    process.close()


@pytest.fixture
def disk(tmp_path: Path) -> FaultyDisk:
    return FaultyDisk(tmp_path)


@pytest.fixture
def faulty(tmp_path: Path, disk: FaultyDisk) -> Iterator[LedgerProcess]:
    """A ledger on a disk that fails on order."""
    process = LedgerProcess(tmp_path, env=disk.env)
    yield process
    process.close()


class Client:
    def __init__(self, ledger: LedgerProcess, session: aiohttp.ClientSession) -> None:
        self.url = ledger.url
        self.session = session
        self.headers = {"Authorization": f"Bearer {HUB_TOKEN}", "Content-Type": "application/json"}

    async def post(self, *claims: SignedClaim) -> list[Answer]:
        """The answers to the claims, in order. Raises aiohttp.ClientError when the ledger goes away."""
        async with self.session.post(f"{self.url}/v1/batch", data=batch([*claims]), headers=self.headers) as response:
            answer = await response.json()
            if response.status != 200:
                return [answer] * len(claims)
            places = itertools.accumulate(len(claim.parts) + 1 for claim in claims)
            return [answer["items"][place - 1] for place in places]

    async def put(self, claim: SignedClaim) -> tuple[int, str]:
        async with self.session.put(
            f"{self.url}/v1/claims/{claim.id}", data=claim.body, headers=self.headers
        ) as response:
            return response.status, await response.text()


@asynccontextmanager
async def client_of(ledger: LedgerProcess) -> AsyncIterator[Client]:
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Client(ledger, session)


async def settled(client: Client, claim: SignedClaim) -> str:
    """The receipt of a claim that must be accepted."""
    (answer,) = await client.post(claim)
    assert answer.get("status") in (200, 201), answer
    return str(answer["receipt"])


async def not_acknowledged(client: Client, claim: SignedClaim) -> None:
    """The ledger fails under the claim: it says so, or goes away."""
    try:
        (answer,) = await client.post(claim)
    except (aiohttp.ClientError, ConnectionError):
        return
    assert (answer["status"], answer["reason"]) in {(503, "Stopped"), (503, "Stopping")}, answer


async def started(ledger: LedgerProcess) -> None:
    await asyncio.to_thread(ledger.start)


async def ended(process: Process) -> int:
    return await asyncio.to_thread(process.wait, 120.0)


async def test_32_clients_with_one_id_across_a_kill_get_one_claim_and_one_receipt(
    ledger: LedgerProcess, tmp_path: Path
) -> None:
    claim = Chain().make()
    await started(ledger)

    async def insist(client: Client) -> str:
        while True:
            try:
                return await settled(client, claim)
            except (aiohttp.ClientError, ConnectionError):
                await asyncio.sleep(0.05)

    async with client_of(ledger) as client:
        tasks = [asyncio.create_task(insist(client)) for _ in range(CLIENTS)]
        await asyncio.sleep(random.Random(1).uniform(0.0, 0.05))
        await asyncio.to_thread(ledger.process.kill)
        await started(ledger)
        receipts = await asyncio.gather(*tasks)
        assert len(set(receipts)) == 1
        assert await settled(client, claim) == receipts[0]
    await asyncio.to_thread(ledger.close)
    with closing(sqlite3.connect(ledger.database)) as raw:
        assert raw.execute("SELECT count(*) FROM leaves").fetchone() == (1,)


FAULTS = {
    "the disk is full": ("write", "ledger.db-wal", errno.ENOSPC),
    "writes fail": ("write", "ledger.db-wal", errno.EIO),
    "flushes fail": ("flush", "ledger.db-wal", errno.EIO),
    "the mark's disk is full": ("write", "signed-size", errno.ENOSPC),
    "the mark cannot be written": ("write", "signed-size", errno.EIO),
}
WORDS = {"ledger.db-wal": "the database failed", "signed-size": "signed-size: "}


@pytest.mark.parametrize("fault", FAULTS)
async def test_when_the_disk_fails_the_ledger_stops_and_loses_nothing(
    faulty: LedgerProcess, disk: FaultyDisk, fault: str
) -> None:
    chain = Chain()
    first, second = chain.next(), chain.next()
    await started(faulty)
    async with client_of(faulty) as client:
        receipt = await settled(client, first)
        disk.order(*FAULTS[fault])
        await not_acknowledged(client, second)
        assert await ended(faulty.process) > 0
        assert WORDS[FAULTS[fault][1]] in faulty.process.tail()
    disk.mend()
    await started(faulty)
    async with client_of(faulty) as client:
        assert await settled(client, first) == receipt
        again = await settled(client, second)
        assert await settled(client, second) == again


async def test_a_write_that_is_torn_by_the_end_of_the_process_is_as_if_it_had_not_begun(
    faulty: LedgerProcess, disk: FaultyDisk
) -> None:
    chain = Chain()
    first, second = chain.next(), chain.next()
    await started(faulty)
    async with client_of(faulty) as client:
        receipt = await settled(client, first)
        for suffix in ("ledger.db-wal", "signed-size"):
            disk.order("torn", suffix)
            with pytest.raises(aiohttp.ClientError):
                await settled(client, second)
            assert await ended(faulty.process) < 0
            disk.mend()
            await started(faulty)
            assert await settled(client, first) == receipt
        await settled(client, second)


def rubbish(journal: Path, _: random.Random) -> None:
    """A half-written frame of a transaction that was never committed."""
    with journal.open("ab") as file:
        file.write(b"\x00\x00\x00\x07" * 600)


def changed(journal: Path, chance: random.Random) -> None:
    """One byte within the first frames."""
    content = bytearray(journal.read_bytes())
    content[chance.randrange(32, min(len(content), 20_000))] ^= 1
    journal.write_bytes(bytes(content))


def cut(journal: Path, chance: random.Random) -> None:
    size = journal.stat().st_size
    with journal.open("r+b") as file:
        file.truncate(chance.randrange(size // 2))


@pytest.mark.parametrize(("damage", "acknowledged_is_lost"), [(rubbish, False), (changed, True), (cut, True)])
async def test_a_damaged_journal_loses_nothing_or_is_noticed(
    ledger: LedgerProcess, damage: Callable[[Path, random.Random], None], acknowledged_is_lost: bool
) -> None:
    """A disk that forgets what it had flushed cannot make the ledger sign a second history."""
    chain = Chain()
    await started(ledger)
    async with client_of(ledger) as client:
        receipts = [(claim, await settled(client, claim)) for claim in [chain.next() for _ in range(12)]]
    await asyncio.to_thread(ledger.process.kill)
    damage(ledger.database.with_name("ledger.db-wal"), random.Random(3))
    if acknowledged_is_lost:
        said = await asyncio.to_thread(refused, ledger)
        assert "were signed" in said or "have been signed" in said or "missing" in said
        return
    await started(ledger)
    async with client_of(ledger) as client:
        for claim, receipt in receipts:
            assert await settled(client, claim) == receipt


async def test_an_old_backup_is_refused_and_the_newer_one_goes_on(ledger: LedgerProcess, tmp_path: Path) -> None:
    chain = Chain()
    await started(ledger)
    async with client_of(ledger) as client:
        await settled(client, chain.next())
        await asyncio.to_thread(ledger.process.stop)
        shutil.copy(ledger.database, tmp_path / "old.db")
        await started(ledger)
        newest = chain.next()
        receipt = await settled(client, newest)
        await asyncio.to_thread(ledger.process.stop)
        shutil.copy(ledger.database, tmp_path / "new.db")
        for path in (ledger.database, *tmp_path.glob("ledger.db-*")):
            path.unlink(missing_ok=True)
        shutil.copy(tmp_path / "old.db", ledger.database)
        said = await asyncio.to_thread(refused, ledger)
        assert "restored from an older backup" in said
        assert "1 leaves, but 2" in said
        shutil.copy(tmp_path / "new.db", ledger.database)
        await started(ledger)
        assert await settled(client, newest) == receipt
        await settled(client, chain.next())


async def test_a_second_process_on_the_same_file_refuses_to_start(ledger: LedgerProcess) -> None:
    await started(ledger)
    assert "in use by another ledger process" in await asyncio.to_thread(refused, ledger)
    assert ledger.process.alive


async def test_a_drained_ledger_has_answered_everything_that_it_took(ledger: LedgerProcess, tmp_path: Path) -> None:
    chains = [Chain(home=f"home-{number}") for number in range(CLIENTS)]
    claims = [chain.next() for chain in chains]
    await started(ledger)
    async with client_of(ledger) as client:
        tasks = [asyncio.create_task(client.post(claim)) for claim in claims]
        await asyncio.sleep(0.02)
        await asyncio.to_thread(ledger.process.stop, 120.0)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert ledger.process.returncode == 0
        told = {
            claim.id: str(answer[0]["receipt"])
            for claim, answer in zip(claims, answers, strict=True)
            if not isinstance(answer, BaseException) and "receipt" in answer[0]
        }
        with closing(sqlite3.connect(ledger.database)) as raw:
            held = {row[0].hex() for row in raw.execute("SELECT id FROM leaves")}
        assert set(told) == held, "what was taken was answered, and nothing else is there"
        await started(ledger)
        for claim in claims:
            receipt = await settled(client, claim)
            assert told.get(claim.id, receipt) == receipt


def test_a_process_that_cannot_start_is_told_apart(ledger: LedgerProcess) -> None:
    ledger.database.write_bytes(b"not a database, " * 100)
    with pytest.raises(ProcessFailed):
        ledger.start()
    assert ledger.database.read_bytes() == b"not a database, " * 100
