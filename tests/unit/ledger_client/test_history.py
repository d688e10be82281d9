"""What a ledger has signed may grow; it may neither shrink nor change, and nothing that it says can hide that."""

from __future__ import annotations

import asyncio

import pytest

from homefed.api.errors import Incident, NotFound
from homefed.core.witness import Head
from homefed.ledger_client.history import History
from testbed.model_log import ModelLog, log_key


def leaves(first: int, last: int) -> list[bytes]:
    return [b"leaf %d" % number for number in range(first, last)]


@pytest.fixture
def log() -> ModelLog:
    return ModelLog(leaves(0, 5))


def history_of(log: ModelLog, newest: Head | None = None) -> History:
    return History(log.vkey, log.fetch, newest)


@pytest.mark.parametrize("growth", [0, 1, 3, 27, 200, 251])
async def test_a_ledger_that_grows_is_followed(log: ModelLog, growth: int) -> None:
    history = history_of(log)
    await history.refresh()
    log.grow(leaves(5, 5 + growth))
    found, _ = await history.refresh()
    assert found.size == 5 + growth
    assert history.newest == Head(found.size, log.head().root)


async def test_an_empty_ledger_is_followed_into_its_first_leaves(log: ModelLog) -> None:
    empty = ModelLog([])
    history = history_of(empty)
    await history.refresh()
    empty.grow(leaves(0, 3))
    found, _ = await history.refresh()
    assert found.size == 3


async def test_looks_at_once_that_overtake_each_other_neither_go_back_nor_raise_an_alarm(log: ModelLog) -> None:
    """A checkpoint that is on its way while a receipt brings a newer one is no sign of a ledger that went back."""
    old = log.signed().encode()
    log.grow(leaves(5, 9))

    async def overtaken(path: str) -> bytes:
        if path != "/checkpoint":
            return await log.fetch(path)
        await history.confirm(log.head(9))
        return old

    history = History(log.vkey, overtaken, Head(5, log.head(5).root))
    await history.refresh()
    assert history.newest == Head(9, log.head().root)
    await asyncio.gather(*(history.confirm(log.head(size)) for size in (9, 2, 7, 4)))
    assert history.newest == Head(9, log.head().root)


async def test_a_ledger_that_shows_fewer_leaves_went_back(log: ModelLog) -> None:
    history = history_of(log)
    await history.refresh()
    log.leaves.pop()
    with pytest.raises(Incident, match="restored from a backup") as caught:
        await history.refresh()
    assert caught.value.reason == "LedgerWentBack"
    assert history.newest == Head(5, log.grow(leaves(4, 5)).head().root)


@pytest.mark.parametrize("size", [5, 6, 40])
async def test_a_ledger_that_shows_another_history_forked(log: ModelLog, size: int) -> None:
    history = history_of(log)
    await history.refresh()
    forked = log.fork(3, [b"other %d" % number for number in range(3, size)])
    with pytest.raises(Incident) as caught:
        await History(log.vkey, forked.fetch, history.newest).refresh()
    assert caught.value.reason == "LedgerForked"


async def test_a_fork_that_lies_about_its_tiles_is_found_all_the_same(log: ModelLog) -> None:
    """It shows the honest tiles beside a checkpoint of its own."""
    forked = log.fork(3, [b"other 3", b"other 4", b"other 5"])
    honest = ModelLog(leaves(0, 6))

    async def fetch(path: str) -> bytes:
        return await (forked if path == "/checkpoint" else honest).fetch(path)

    with pytest.raises(Incident) as caught:
        await History(log.vkey, fetch, Head(5, log.head().root)).refresh()
    assert caught.value.reason == "LedgerForked"


async def test_receipts_of_earlier_checkpoints_are_of_the_same_history(log: ModelLog) -> None:
    history = history_of(log)
    await history.refresh()
    for size in (1, 4, 5):
        await history.confirm(log.head(size))
    assert history.newest is not None
    assert history.newest.size == 5
    log.fetched.clear()
    await history.confirm(log.head(4))
    assert log.fetched == [], "what was proven once is not asked again"
    with pytest.raises(Incident) as caught:
        await history.confirm(log.fork(2, [b"other 2", b"other 3"]).head())
    assert caught.value.reason == "LedgerForked"


async def test_a_kept_receipt_beyond_what_the_ledger_shows_means_that_it_went_back(log: ModelLog) -> None:
    kept = log.head(5)
    log.leaves = log.leaves[:3]
    with pytest.raises(Incident) as caught:
        await history_of(log).confirm_kept(kept)
    assert caught.value.reason == "LedgerWentBack"


async def test_a_kept_receipt_of_a_ledger_that_has_grown_over_what_it_lost_shows_the_fork(log: ModelLog) -> None:
    kept = log.head(5)
    regrown = log.fork(3, leaves(100, 110))
    with pytest.raises(Incident) as caught:
        await history_of(regrown).confirm_kept(kept)
    assert caught.value.reason == "LedgerForked"


async def test_a_checkpoint_under_another_key_is_none(log: ModelLog) -> None:
    stranger = ModelLog(log.leaves, log_key(2))
    with pytest.raises(Incident) as caught:
        await History(log.vkey, stranger.fetch).refresh()
    assert caught.value.reason == "WrongCheckpoint"


async def test_tiles_that_are_cut_short_prove_nothing_and_tiles_that_are_missing_are_no_verdict(log: ModelLog) -> None:
    seen = Head(3, log.head(3).root)

    async def short(path: str) -> bytes:
        content = await log.fetch(path)
        return content if path == "/checkpoint" else content[:-1]

    with pytest.raises(Incident) as caught:
        await History(log.vkey, short, seen).refresh()
    assert caught.value.reason == "LedgerForked"

    async def missing(path: str) -> bytes:
        if path == "/checkpoint":
            return await log.fetch(path)
        raise NotFound(path)

    with pytest.raises(NotFound):
        await History(log.vkey, missing, seen).refresh()
