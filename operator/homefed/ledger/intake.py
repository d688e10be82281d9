"""What comes before the writer and after it: bounds, reading and checking of bodies, receipts of what was there.

    body ─▶ is there room? ─▶ read, verify, check (`reading`) ─▶ writer ─▶ receipt

What is being read, waits or is being written counts against one bound, in number and in bytes; beyond it Transient
(QueueFull): memory does not grow with the number of clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from homefed.api.errors import HomefedError, NotFound, Transient
from homefed.core.ledger_state import PartHeld, Recorded
from homefed.ledger.log import Log
from homefed.ledger.reading import Reading, Sent
from homefed.ledger.store import Reader, Store
from homefed.ledger.writer import RETRY_SECONDS, Writer, Written

MAX_WAITING: Final = 4096
MAX_WAITING_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Accepted:
    """What is durable now. `receipt`: tlog-proof text of a document, for ever the same; empty for parts."""

    answer: Recorded | PartHeld
    receipt: str

    @property
    def new(self) -> bool:
        """Tells 201 from 200."""
        return self.answer.new


class Intake:
    """The way into the ledger, for any number of callers."""

    def __init__(
        self,
        read: Reading,
        store: Store,
        log: Log,
        writer: Writer,
        *,
        most: int = MAX_WAITING,
        most_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._read = read
        self._store = store
        self._log = log
        self._writer = writer
        self._most = most
        self._most_bytes = most_bytes
        self._count = 0
        self._bytes = 0

    @property
    def open(self) -> bool:
        """Whether submissions are taken."""
        return self._writer.open

    @property
    def waiting(self) -> int:
        """Submissions that are taken and not answered."""
        return self._count

    async def submit(self, sent: Sent) -> Accepted:
        """Errors: Invalid, Conflict; Transient when full (QueueFull, PartsFull), stopping or failed."""
        (answer,) = await self.submit_all([sent])
        if isinstance(answer, HomefedError):
            raise answer
        return answer

    async def submit_all(self, sent: Sequence[Sent]) -> list[Accepted | HomefedError]:
        """Each is answered by itself, and each sees what those before it did. Errors: Transient, of all of them."""
        with self._room(len(sent), sum(len(one.body) for one in sent)):
            items = await self._read(sent)
            futures = [item if isinstance(item, HomefedError) else self._writer.submit(item) for item in items]
            return [one if isinstance(one, HomefedError) else await self._answer(one) for one in futures]

    @contextmanager
    def _room(self, count: int, size: int) -> Iterator[None]:
        if self._count + count > self._most or self._bytes + size > self._most_bytes:
            raise Transient("the ledger's queue is full", reason="QueueFull", retry_after=RETRY_SECONDS)
        self._count += count
        self._bytes += size
        try:
            yield
        finally:
            self._count -= count
            self._bytes -= size

    async def _answer(self, future: asyncio.Future[Written]) -> Accepted | HomefedError:
        try:
            written = await future
        except HomefedError as error:
            return error
        answer = written.answer
        if isinstance(answer, Recorded) and not written.receipt:
            return Accepted(answer, await self._old_receipt(answer.id))
        return Accepted(answer, written.receipt)

    async def _old_receipt(self, identity: str) -> str:
        return await self._store.read(lambda reader: receipt_of(self._log, reader, identity))


async def receipt_of(log: Log, reader: Reader, identity: str) -> str:
    """The receipt that was given for the leaf under that id. Errors: NotFound."""
    leaf = await reader.leaf(identity)
    if leaf is None:
        raise NotFound(f"nothing is held under {identity}")
    return await log.receipt(reader, leaf.leaf_index, leaf.size)
