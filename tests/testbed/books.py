"""A ledger without its service: store, log and decisions, one batch per call. For tests of what stores do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from homefed.api.errors import HomefedError
from homefed.core import checkpoint
from homefed.core.ledger_batch import decide
from homefed.core.ledger_reading import PartSubmission, read_part, read_submission
from homefed.core.ledger_state import Answer, Decision, Item, PartHeld, Recorded, Snapshot
from homefed.ledger.intake import receipt_of
from homefed.ledger.log import Grown, Log
from homefed.ledger.postgres import PostgresStore
from homefed.ledger.sqlite import SqliteStore
from homefed.ledger.store import NewCheckpoint, Store
from testbed.claims import FEDERATION, SignedClaim, SignedDocument, hub_key, keyring
from testbed.postgres import Database

NOW = 1_767_225_600
ORIGIN = checkpoint.origin_of(FEDERATION)
LEDGER_KEY = hub_key(9)

Sent = SignedClaim | SignedDocument


def submission(sent: Sent, keys: Mapping[str, bytes] | None = None) -> Item:
    known = keyring(hub_key()) if keys is None else keys
    return read_submission(sent.kind, sent.id, sent.body, federation=FEDERATION, keys=lambda _: known)


def parts(claim: SignedClaim) -> list[Item]:
    return [
        PartSubmission(claim.id, number, read_part(body, claim.id, number), body)
        for number, body in enumerate(claim.parts, 1)
    ]


def items(*sent: Sent) -> list[Item]:
    """Each document, claims behind their lines parts."""
    return [item for one in sent for item in (*(parts(one) if isinstance(one, SignedClaim) else ()), submission(one))]


@dataclass
class Books:
    store: Store
    log: Log
    now: int = NOW

    async def commit(
        self, batch: Sequence[Item], change: Callable[[Decision], Decision] = lambda decision: decision
    ) -> Sequence[Answer]:
        """What the writer does with a batch; `change` makes a decision that the rules would not have made."""
        grown: Grown | None = None
        answers: Sequence[Answer] = ()

        def decided(snapshot: Snapshot) -> tuple[Decision, NewCheckpoint | None]:
            nonlocal answers, grown
            decision = change(decide(batch, snapshot, self.now))
            answers = decision.answers
            if decision.leaves:
                grown = self.log.grow([leaf.envelope for leaf in decision.leaves])
            return decision, NewCheckpoint(grown.size, grown.checkpoint, grown.tile_nodes) if grown else None

        def publish() -> None:
            if grown is not None:
                self.log.publish(grown)

        await self.store.write(batch, self.now, decided, publish)
        return answers

    async def post(self, *sent: Sent) -> list[Recorded]:
        """One batch, of which everything must be recorded."""
        answers = await self.commit(items(*sent))
        for answer in answers:
            if isinstance(answer, HomefedError):
                raise answer
        return [answer for answer in answers if not isinstance(answer, PartHeld | HomefedError)]

    async def receipt(self, identity: str) -> str:
        async with self.store.reading() as reader:
            return await receipt_of(self.log, reader, identity)


class SqlitePlace:
    """The same database each time it is opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def open(self) -> Store:
        return await SqliteStore.open(self.folder / "ledger.db")


class PostgresPlace:
    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.database = database

    async def open(self) -> Store:
        return await PostgresStore.open(self.database.service, self.database.owner)


Place = SqlitePlace | PostgresPlace


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Books]:
    store = await place.open()
    try:
        async with store.reading() as reader:
            log = await Log.open(reader, ORIGIN, LEDGER_KEY, place.folder)
        try:
            yield Books(store, log)
        finally:
            log.close()
    finally:
        await store.close()
