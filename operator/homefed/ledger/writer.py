"""One writer with group commit: many submissions, one transaction, one fsync; answered only once it is durable.

    submit ─▶ queue ─▶ up to 256 items, or 5 ms ─▶ snapshot ─▶ decide ─▶ grow the tree, sign one checkpoint
           ─▶ append, COMMIT ─▶ high-water mark ─▶ answers

A database that fails ends the writer: every waiting submission is told to try again, and the process stops. The queue
is bounded by who submits (`intake`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from homefed.api.errors import HomefedError, Transient
from homefed.core.ledger_batch import decide
from homefed.core.ledger_state import Decision, Item, PartHeld, Recorded, Snapshot
from homefed.ledger.log import Grown, Log
from homefed.ledger.store import Contradiction, NewCheckpoint, Store, StoreFailed

MAX_BATCH: Final = 256
LINGER_SECONDS: Final = 0.005
RETRY_SECONDS: Final = 1.0

Observe = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class Written:
    """The durable answer. `receipt` is of a document that this batch recorded; empty for parts and what was there."""

    answer: Recorded | PartHeld
    receipt: str


@dataclass(frozen=True, slots=True)
class _Waiting:
    item: Item
    answer: asyncio.Future[Written]


class Writer:
    """`run` is the one task that writes; `submit` may be called by any number of others."""

    def __init__(self, store: Store, log: Log, *, clock: Callable[[], int], observe: Observe) -> None:
        """`clock`: seconds since the epoch. `observe` is told of each committed batch: items, new leaves, seconds."""
        self._store = store
        self._log = log
        self._clock = clock
        self._observe = observe
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._stopping = False
        self._open = True
        self._last_batch = 1

    @property
    def open(self) -> bool:
        """Whether submissions are taken."""
        return self._open and not self._stopping

    @property
    def depth(self) -> int:
        return len(self._queue)

    def submit(self, item: Item) -> asyncio.Future[Written]:
        """The answer comes after COMMIT. Errors of the future: those of the decision; Transient when it has failed.

        Errors: Transient when stopping. Items that are submitted without an await between them keep their order.
        """
        if not self.open:
            raise Transient("the ledger is stopping", reason="Stopping", retry_after=RETRY_SECONDS)
        waiting = _Waiting(item, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._arrived.set()
        return waiting.answer

    def stop(self) -> None:
        """Take nothing new; `run` ends once what is queued has been answered."""
        self._stopping = True
        self._arrived.set()

    async def run(self) -> None:
        """Until `stop`. Errors: StoreFailed, after everything that waits has been told."""
        try:
            while batch := await self._next_batch():
                try:
                    await self._write(batch)
                except BaseException:
                    self._queue.extendleft(reversed(batch))
                    raise
        except Contradiction as error:
            raise StoreFailed(f"a whole transaction was refused: {error}") from error
        finally:
            self._open = False
            for waiting in self._queue:
                _tell(waiting, Transient("the ledger has stopped", reason="Stopped", retry_after=RETRY_SECONDS))

    async def _next_batch(self) -> list[_Waiting]:
        """At least one submission; none only when stopping. Lingers only while several clients are at work."""
        while not self._queue and not self._stopping:
            self._arrived.clear()
            await self._arrived.wait()
        deadline = asyncio.get_running_loop().time() + LINGER_SECONDS
        while len(self._queue) < min(self._last_batch, MAX_BATCH) and not self._stopping:
            self._arrived.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._arrived.wait()
            except TimeoutError:
                break
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
        self._last_batch = len(batch)
        return batch

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        began = time.monotonic()
        change = _Change(self._log, [waiting.item for waiting in batch], self._clock())
        await self._store.write(change.items, change.now, change.decide, change.publish)
        self._observe(len(batch), len(change.decision.leaves), time.monotonic() - began)
        for waiting, answer in zip(batch, change.decision.answers, strict=True):
            _tell(waiting, answer if isinstance(answer, HomefedError) else _written(answer, change.grown))


class _Change:
    """What a batch does to the ledger and to its log, called by the store in the middle of its transaction and after
    it."""

    def __init__(self, log: Log, items: Sequence[Item], now: int) -> None:
        self._log = log
        self.items = items
        self.now = now
        self.decision = Decision((), (), (), now, {}, {})
        self.grown: Grown | None = None

    def decide(self, snapshot: Snapshot) -> tuple[Decision, NewCheckpoint | None]:
        self.decision = decide(self.items, snapshot, self.now)
        if self.decision.leaves:
            self.grown = self._log.grow([leaf.envelope for leaf in self.decision.leaves])
        return self.decision, _checkpoint(self.grown)

    def publish(self) -> None:
        if self.grown is not None:
            self._log.publish(self.grown)


def _checkpoint(grown: Grown | None) -> NewCheckpoint | None:
    return NewCheckpoint(grown.size, grown.checkpoint, grown.tile_nodes) if grown is not None else None


def _written(answer: Recorded | PartHeld, grown: Grown | None) -> Written:
    if grown is None or not isinstance(answer, Recorded) or answer.leaf_index < grown.old_size:
        return Written(answer, "")
    return Written(answer, grown.receipt(answer.leaf_index))


def _tell(waiting: _Waiting, answer: Written | HomefedError) -> None:
    if waiting.answer.done():
        return
    if isinstance(answer, HomefedError):
        waiting.answer.set_exception(answer)
    else:
        waiting.answer.set_result(answer)
