"""The ledger in this process, without HTTP: bodies in, receipts out."""

from __future__ import annotations

import asyncio
import base64
import random
import resource
import sqlite3
import statistics
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.ledger.inputs import headers, parts, slices
from homefed.api.dsse import fingerprint
from homefed.api.errors import HomefedError
from homefed.core.checkpoint import origin_of
from homefed.ledger.app import SWITCH_SECONDS, now
from homefed.ledger.config import KEY_FILE
from homefed.ledger.intake import Intake, receipt_of
from homefed.ledger.keys import signing_key
from homefed.ledger.log import Log
from homefed.ledger.postgres import PostgresStore
from homefed.ledger.reading import Sent, spare_cores, workers
from homefed.ledger.sqlite import SqliteStore
from homefed.ledger.store import Store
from homefed.ledger.writer import Writer
from testbed.claims import FEDERATION, SignedClaim, hub_key, public
from testbed.postgres import Database

BATCH = 100
RECEIPTS = 1000


@dataclass
class Books:
    store: Store
    log: Log
    intake: Intake
    folder: Path

    async def send(self, sent: Sequence[Sent]) -> None:
        """Raises the first refusal."""
        for answer in await self.intake.submit_all(sent):
            if isinstance(answer, HomefedError):
                raise answer

    async def send_parts(self, claims: Sequence[SignedClaim]) -> None:
        for some in slices(claims, BATCH):
            await self.send(parts(some))

    async def rate_in_batches(
        self, claims: Sequence[SignedClaim], size: int, in_flight: int = 1
    ) -> tuple[float, float]:
        """Claims per second from body to receipt, and processor microseconds per claim; parts are there before.

        `in_flight` batches at once: while one is written, the next is read. A batch is sent in its turn, so that its
        claims come behind those that they follow.
        """
        await self.send_parts(claims)
        began, spent = time.perf_counter(), _processor_s()
        sent: deque[asyncio.Task[None]] = deque()
        for some in slices(claims, size):
            if len(sent) == in_flight:
                await sent.popleft()
            sent.append(asyncio.create_task(self.send(headers(some))))
            await asyncio.sleep(0)  # it is with the reader before the next one is
        await asyncio.gather(*sent)
        taken = time.perf_counter() - began
        return len(claims) / taken, (_processor_s() - spent) / len(claims) * 1e6

    async def rate_of_clients(self, claims: Sequence[SignedClaim], clients: int) -> float:
        """Claims per second of `clients` that each send one at a time; a home's claims are one client's."""
        await self.send_parts(claims)
        lanes: dict[str, list[SignedClaim]] = {}
        for claim in claims:
            lanes.setdefault(claim.header["account"], []).append(claim)
        of_client: list[list[SignedClaim]] = [[] for _ in range(clients)]
        for number, lane in enumerate(lanes.values()):
            of_client[number % clients] += lane

        async def work(own: Sequence[SignedClaim]) -> None:
            for claim in own:
                await self.send(headers([claim]))

        began = time.perf_counter()
        await asyncio.gather(*[work(own) for own in of_client])
        return len(claims) / (time.perf_counter() - began)

    async def receipt_ms(self, seed: int = 1) -> float:
        """Median time of a stored claim's receipt, from its id to the text."""
        async with self.store.reading() as reader:
            size = await reader.size()
            chosen = random.Random(seed).sample(range(size), min(RECEIPTS, size))
            ids = await _ids(self.folder, chosen)
        times = []
        for identity in ids:
            began = time.perf_counter()
            await self.store.read(partial(receipt_of, self.log, identity=identity))
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1000


async def _ids(folder: Path, indices: Sequence[int]) -> list[str]:
    with closing(sqlite3.connect(folder / "ledger.db")) as db:
        sql = "SELECT id FROM leaves WHERE leaf_index = ?"
        return [db.execute(sql, (index,)).fetchone()[0].hex() for index in indices]


@asynccontextmanager
async def opened(folder: Path, database: Database | None = None) -> AsyncIterator[Books]:
    """On SQLite in `folder`, or on PostgreSQL with its state there; as `homefed ledger` would open it."""
    import sys

    sys.setswitchinterval(SWITCH_SECONDS)
    keys = folder / "hub-keys"
    keys.mkdir(exist_ok=True)
    (keys / "hub.pub").write_bytes(base64.b64encode(public(hub_key())))
    store: Store = (
        await SqliteStore.open(folder / "ledger.db")
        if database is None
        else await PostgresStore.open(database.service, database.owner)
    )
    async with store.reading() as reader:
        empty = await reader.size() == 0
        key = signing_key(folder / KEY_FILE, create=empty)
        log = await Log.open(reader, origin_of(FEDERATION), key, folder)
    await store.bind(FEDERATION, fingerprint(public(key)))
    writer = Writer(store, log, clock=now, observe=lambda *_: None)
    running = asyncio.create_task(writer.run())
    try:
        async with workers(FEDERATION, [keys], spare_cores()) as read:
            yield Books(store, log, Intake(read, store, log, writer), folder)
        writer.stop()
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()
        log.close()


def rows_per_claim(folder: Path) -> tuple[int, int]:
    """Small rows beside the one with the body, and bytes of a body, of a database that was filled."""
    with closing(sqlite3.connect(folder / "ledger.db")) as db:
        (leaves, size) = db.execute("SELECT count(*), sum(length(envelope)) FROM leaves").fetchone()
        small = sum(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("claims", "entries"))  # noqa: S608
    return round(small / leaves), size // leaves


def _processor_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
