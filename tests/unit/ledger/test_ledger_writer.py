"""Group commit: many answers per transaction, none before it is durable, and an end without lost answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from homefed.api.errors import Conflict, Invalid, Transient
from homefed.core.ledger_reading import Submission
from homefed.core.ledger_state import Item, Recorded, Snapshot, StoredEntry
from homefed.core.merkle import Frontier
from homefed.core.tlog_proof import parse
from homefed.ledger.intake import Intake
from homefed.ledger.keys import HubKeys
from homefed.ledger.log import Log
from homefed.ledger.reading import Document, Here, Sent
from homefed.ledger.store import Change, Contradiction, Store, StoreFailed
from homefed.ledger.writer import MAX_BATCH, Writer, Written
from testbed.books import LEDGER_KEY, NOW, ORIGIN, submission
from testbed.claims import FEDERATION, floor


class FakeStore:
    """Remembers leaves; `gate` closed holds a commit back, `failure` breaks it."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.stored: dict[str, StoredEntry] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.failure: Exception | None = None

    async def write(self, batch: Sequence[Item], now: int, change: Change, durable: Callable[[], None]) -> None:
        decision, checkpoint = change(Snapshot(size=len(self.stored), stored=dict(self.stored)))
        assert (checkpoint is None) == (not decision.leaves)
        self.entered.set()
        await asyncio.wait_for(self.gate.wait(), 30)
        if self.failure is not None:
            raise self.failure
        self.batches.append([item.id for item in batch if isinstance(item, Submission)])
        for leaf in decision.leaves:
            self.stored[leaf.id] = StoredEntry(leaf.kind, leaf.leaf_index, leaf.leaf_hash, decision.time)
        durable()


class EmptyTree:
    async def leaf_hashes(self, start: int, count: int) -> bytes:
        return b""

    async def nodes(self, level: int, start: int, count: int) -> bytes:
        return b""

    async def entries(self, start: int, count: int) -> list[bytes]:
        return []

    async def checkpoint(self) -> tuple[int, str] | None:
        return None

    async def checkpoint_at(self, size: int) -> str | None:
        return None

    async def signed_between(self, low: int, high: int) -> bool:
        return False


class Running:
    def __init__(self, store: FakeStore, log: Log) -> None:
        self.sizes: list[tuple[int, int]] = []
        real: Store = store  # type: ignore[assignment]
        self.log = log
        self.writer = Writer(
            real, log, clock=lambda: NOW, observe=lambda items, leaves, _: self.sizes.append((items, leaves))
        )
        self.task = asyncio.create_task(self.writer.run())

    def submit(self, number: int, sequence: int = 1) -> asyncio.Future[Written]:
        return self.writer.submit(submission(floor(f"ns-{number}", -1, sequence)))

    def intake(self, store: FakeStore, **limits: int) -> Intake:
        real: Store = store  # type: ignore[assignment]
        return Intake(Here(FEDERATION, HubKeys([])), real, self.log, self.writer, **limits)

    async def stop(self) -> None:
        self.writer.stop()
        await self.task


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
async def running(store: FakeStore, tmp_path: Path) -> AsyncIterator[Running]:
    log = await Log.open(EmptyTree(), ORIGIN, LEDGER_KEY, tmp_path)
    made = Running(store, log)
    yield made
    made.writer.stop()
    store.gate.set()
    await asyncio.gather(made.task, return_exceptions=True)
    log.close()


async def entered(store: FakeStore) -> None:
    await asyncio.wait_for(store.entered.wait(), 30)


def index(written: Written) -> int:
    assert isinstance(written.answer, Recorded)
    return written.answer.leaf_index


async def test_what_arrives_during_a_commit_shares_the_next_one(store: FakeStore, running: Running) -> None:
    store.gate.clear()
    first = running.submit(0)
    await entered(store)
    others = [running.submit(number) for number in range(1, 41)]
    store.gate.set()
    answers = await asyncio.gather(first, *others)
    assert [index(answer) for answer in answers] == [*range(41)]
    assert [len(batch) for batch in store.batches] == [1, 40]
    assert running.sizes == [(1, 1), (40, 40)]


async def test_nothing_is_answered_or_shown_before_it_is_durable(store: FakeStore, running: Running) -> None:
    store.gate.clear()
    answer = running.submit(0)
    await entered(store)
    await asyncio.sleep(0.05)
    assert not answer.done()
    assert running.log.published.size == 0
    store.gate.set()
    written = await answer
    assert running.log.published.size == 1
    assert parse(written.receipt).checkpoint == running.log.published.signed


async def test_a_batch_has_at_most_256_items(running: Running) -> None:
    await asyncio.gather(*[running.submit(number) for number in range(600)])
    sizes = [items for items, _ in running.sizes]
    assert sum(sizes) == 600
    assert max(sizes) == MAX_BATCH


async def test_a_refused_item_does_not_disturb_its_neighbours(running: Running) -> None:
    good, bad, last = running.submit(0), running.submit(1, sequence=7), running.submit(2)
    with pytest.raises(Invalid):
        await bad
    assert [index(await good), index(await last)] == [0, 1]
    assert running.sizes == [(3, 2)]


async def test_the_same_id_twice_in_one_batch_is_recorded_once(running: Running) -> None:
    answers = await asyncio.gather(running.submit(0), running.submit(0))
    assert [answer.answer.new for answer in answers] == [True, False]
    assert answers[0].receipt == answers[1].receipt != ""


async def test_stopping_answers_what_is_queued_and_takes_nothing_new(store: FakeStore, running: Running) -> None:
    store.gate.clear()
    waiting = [running.submit(0)]
    await entered(store)
    waiting += [running.submit(1), running.submit(2)]
    running.writer.stop()
    assert not running.writer.open
    with pytest.raises(Transient, match="stopping"):
        running.submit(3)
    store.gate.set()
    await running.task
    assert [index(await answer) for answer in waiting] == [0, 1, 2]


@pytest.mark.parametrize("failure", [StoreFailed("disk I/O error"), Contradiction("deferred")])
async def test_a_failed_disk_stops_the_writer_and_sends_everybody_away(
    store: FakeStore, running: Running, failure: Exception
) -> None:
    store.failure = failure
    store.gate.clear()
    waiting = [running.submit(0)]
    await entered(store)
    waiting += [running.submit(1), running.submit(2)]
    store.gate.set()
    with pytest.raises(StoreFailed):
        await running.task
    for answer in waiting:
        with pytest.raises(Transient):
            await answer
    assert not running.writer.open
    assert store.batches == []
    assert running.log.published.size == 0
    with pytest.raises(Transient):
        running.submit(3)


async def test_a_mark_that_cannot_be_written_stops_the_writer_without_an_answer(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise StoreFailed("signed-size: No space left on device")

    monkeypatch.setattr(running.log, "publish", failing)
    answer = running.submit(0)
    with pytest.raises(StoreFailed, match="signed-size"):
        await running.task
    with pytest.raises(Transient):
        await answer
    assert running.log.published.checkpoint.root == Frontier().root()


async def test_a_client_that_went_away_is_no_obstacle(store: FakeStore, running: Running) -> None:
    store.gate.clear()
    gone, stays = running.submit(0), running.submit(1)
    await entered(store)
    gone.cancel()
    store.gate.set()
    assert index(await stays) == 1


def body(number: int) -> Document:
    sent = floor(f"ns-{number}", -1)
    return Document("floor", sent.id, sent.body)


async def refused(submit: Callable[[Sent], object], sent: Sent) -> Transient:
    with pytest.raises(Transient) as caught:
        await submit(sent)  # type: ignore[misc]
    return caught.value


async def test_the_intake_is_bounded_in_number_and_says_when_to_come_back(store: FakeStore, running: Running) -> None:
    intake = running.intake(store, most=3)
    store.gate.clear()
    waiting = [asyncio.create_task(intake.submit(body(number))) for number in range(3)]
    await entered(store)
    assert intake.waiting == 3
    error = await refused(intake.submit, body(3))
    assert (error.reason, error.retry_after) == ("QueueFull", 1.0)
    store.gate.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [getattr(answer, "reason", "") for answer in answers] == ["UnknownKey"] * 3
    assert intake.waiting == 0
    with pytest.raises(Invalid):
        await intake.submit(body(3))


async def test_the_intake_is_bounded_in_bytes_too(store: FakeStore, running: Running) -> None:
    intake = running.intake(store, most_bytes=len(body(0).body) + 10)
    store.gate.clear()
    waiting = asyncio.create_task(intake.submit(body(0)))
    await entered(store)
    assert (await refused(intake.submit, body(1))).reason == "QueueFull"
    store.gate.set()
    with pytest.raises(Invalid):
        await waiting


async def test_an_unreadable_body_under_a_known_id_is_a_conflict(store: FakeStore, running: Running) -> None:
    known = floor("ns-0", -1)
    await running.writer.submit(submission(known))
    intake = running.intake(store)
    for other in (b"", b"null", b"[" * 9999):
        with pytest.raises(Conflict):
            await intake.submit(Document("floor", known.id, other))
