"""The ledger as a log: what is signed, when it is shown, and when the ledger must not start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api.errors import Invalid, NotFound, Refused
from homefed.core import checkpoint as checkpoints
from homefed.core import merkle, signed_note, tlog_proof
from homefed.ledger.high_water import FILE, HighWaterMark
from homefed.ledger.log import Log
from homefed.ledger.store import StoreFailed
from testbed.memory_log import MemoryLog

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ORIGIN = checkpoints.origin_of("example")


def entries(first: int, count: int) -> list[bytes]:
    return [b'{"leaf":%d}' % number for number in range(first, first + count)]


@pytest.fixture
def opened() -> Iterator[list[Log]]:
    """Logs to be closed at the end."""
    logs: list[Log] = []
    yield logs
    for log in logs:
        log.close()


async def start(store: MemoryLog, state: Path, opened: list[Log], key: Ed25519PrivateKey = KEY) -> Log:
    log = await Log.open(store, ORIGIN, key, state)
    opened.append(log)
    return log


async def refusal(store: MemoryLog, state: Path, key: Ed25519PrivateKey = KEY) -> str:
    """Why a ledger with that database and that state does not start."""
    with pytest.raises(Refused) as refused:
        await Log.open(store, ORIGIN, key, state)
    return refused.value.reason


async def test_the_receipt_of_a_new_leaf_is_the_one_that_is_read_later_for_ever(
    tmp_path: Path, opened: list[Log]
) -> None:
    store = MemoryLog()
    log = await start(store, tmp_path, opened)
    given: list[tuple[int, int, str]] = []
    for count in (1, 3, 252, 1, 300, 7):
        grown = store.append(log, entries(len(store.leaves), count))
        given += [(index, grown.size, grown.receipt(index)) for index in range(grown.old_size, grown.size)]
    restarted = await start(store, tmp_path, opened)
    for index, size, receipt in [*given[:5], *given[5::29], *given[-8:]]:
        assert await log.receipt(store, index, size) == receipt
        assert await restarted.receipt(store, index, size) == receipt
        verified = tlog_proof.verify(receipt, store.leaves[index], log.vkey)
        assert (verified.index, verified.checkpoint.size) == (index, size)


async def test_the_same_leaves_on_the_same_tree_are_signed_to_the_same_bytes(tmp_path: Path, opened: list[Log]) -> None:
    store = MemoryLog()
    log = await start(store, tmp_path, opened)
    store.append(log, entries(0, 5))
    assert log.grow(entries(5, 9)).checkpoint == log.grow(entries(5, 9)).checkpoint
    assert log.published.size == 5


async def test_what_is_committed_and_not_published_is_not_shown(tmp_path: Path, opened: list[Log]) -> None:
    store = MemoryLog()
    log = await start(store, tmp_path, opened)
    store.append(log, entries(0, 2))
    shown = log.published
    grown = log.grow(entries(2, 2))
    store.commit(entries(2, 2), grown)
    assert log.published == shown
    for reading in (log.receipt(store, 3, 4), log.inclusion(store, 0, 4), log.consistency(store, 2, 4)):
        with pytest.raises(NotFound, match="not published"):
            await reading
    log.publish(grown)
    assert await log.receipt(store, 3, 4) == grown.receipt(3)


async def test_a_batch_of_another_tree_is_not_published(tmp_path: Path, opened: list[Log]) -> None:
    store = MemoryLog()
    log = await start(store, tmp_path, opened)
    first, second = log.grow(entries(0, 2)), log.grow(entries(0, 3))
    log.publish(first)
    with pytest.raises(Invalid, match="has 2 leaves"):
        log.publish(second)


async def test_an_empty_ledger_shows_the_signed_empty_tree(tmp_path: Path, opened: list[Log]) -> None:
    log = await start(MemoryLog(), tmp_path, opened)
    checkpoint = checkpoints.verify(log.published.signed, log.vkey)
    assert (checkpoint.origin, checkpoint.size, checkpoint.root) == (ORIGIN, 0, merkle.EMPTY_ROOT)


async def test_proofs_are_given_for_every_published_size(tmp_path: Path, opened: list[Log]) -> None:
    store = MemoryLog()
    log = await start(store, tmp_path, opened)
    store.append(log, entries(0, 600))
    roots = [merkle.Frontier().extend(store.hashes[:size]).frontier.root() for size in range(601)]
    for old, new in ((0, 600), (1, 600), (256, 257), (255, 512), (300, 600), (600, 600)):
        proof = await log.consistency(store, old, new)
        merkle.check_consistency(old, roots[old], new, roots[new], proof)
    for index, size in ((0, 1), (255, 256), (256, 600), (599, 600), (0, 511)):
        merkle.check_inclusion(store.hashes[index], index, size, await log.inclusion(store, index, size), roots[size])
    for index, size in ((5, 5), (600, 600)):
        with pytest.raises(Invalid, match="not in a tree"):
            await log.inclusion(store, index, size)
    with pytest.raises(Invalid, match="cannot follow"):
        await log.consistency(store, 7, 6)
    with pytest.raises(NotFound, match="no checkpoint of 599"):
        await log.receipt(store, 5, 599)


async def test_a_view_from_before_the_newest_batch_leaves_nothing_wrong_behind(
    tmp_path: Path, opened: list[Log]
) -> None:
    store = MemoryLog()
    log = await start(store, tmp_path, opened)
    first = store.append(log, entries(0, 300))
    before = store.copy()
    second = store.append(log, entries(300, 300))
    assert await log.receipt(before, 280, 300) == first.receipt(280)
    assert await log.receipt(store, 560, 600) == second.receipt(560)
    assert await log.receipt(before, 7, 300) == first.receipt(7)


async def test_a_database_behind_the_mark_does_not_start(tmp_path: Path, opened: list[Log]) -> None:
    store, backup = MemoryLog(), MemoryLog()
    log = await start(store, tmp_path, opened)
    backup.commit(entries(0, 3), store.append(log, entries(0, 3)))
    store.append(log, entries(3, 4))
    assert await refusal(backup, tmp_path) == "LedgerWentBack"
    assert await refusal(MemoryLog(), tmp_path) == "LedgerWentBack"
    assert (await start(store, tmp_path, opened)).published.size == 7


async def test_a_crash_between_commit_and_mark_goes_on_from_the_commit(tmp_path: Path, opened: list[Log]) -> None:
    store = MemoryLog()
    log = await start(store, tmp_path, opened)
    store.append(log, entries(0, 3))
    grown = log.grow(entries(3, 2))
    store.commit(entries(3, 2), grown)
    restarted = await start(store, tmp_path, opened)
    assert restarted.published.signed == grown.checkpoint
    older = MemoryLog()
    older.commit(entries(0, 3), MemoryLog().append(await start(MemoryLog(), tmp_path / "other", opened), entries(0, 3)))
    assert await refusal(older, tmp_path) == "LedgerWentBack"


async def test_another_history_of_the_same_length_or_longer_does_not_start(tmp_path: Path, opened: list[Log]) -> None:
    store, forked = MemoryLog(), MemoryLog()
    store.append(await start(store, tmp_path / "a", opened), entries(0, 300))
    forked.append(await start(forked, tmp_path / "b", opened), [*entries(0, 299), b"another"])
    assert await refusal(forked, tmp_path / "a") == "LedgerForked"
    forked.append(opened[-1], entries(300, 10))
    assert await refusal(forked, tmp_path / "a") == "LedgerForked"


async def test_a_damaged_tree_does_not_start(tmp_path: Path, opened: list[Log]) -> None:
    store = MemoryLog()
    store.append(await start(store, tmp_path, opened), entries(0, 600))
    leaf, node, missing, extra, note = (store.copy() for _ in range(5))
    leaf.hashes[599] = merkle.leaf_hash(b"another")
    node.levels[1][1] = merkle.leaf_hash(b"another")
    missing.hashes.pop()
    extra.hashes.append(merkle.leaf_hash(b"unsigned"))
    note.checkpoints[600] = note.checkpoints[600].replace("600", "601")
    for broken in (leaf, node, missing, extra, note):
        assert await refusal(broken, tmp_path) == "TreeDiffers"


async def test_a_ledger_with_leaves_needs_its_key_and_its_mark(tmp_path: Path, opened: list[Log]) -> None:
    store = MemoryLog()
    store.append(await start(store, tmp_path, opened), entries(0, 3))
    assert await refusal(store, tmp_path, Ed25519PrivateKey.generate()) == "TreeDiffers"
    assert await refusal(store, tmp_path / "elsewhere") == "MarkMissing"
    assert not (tmp_path / "elsewhere").exists()


async def test_a_lost_mark_is_made_again_from_the_end_of_any_receipt(tmp_path: Path, opened: list[Log]) -> None:
    store, backup = MemoryLog(), MemoryLog()
    log = await start(store, tmp_path, opened)
    backup.commit(entries(0, 3), store.append(log, entries(0, 3)))
    receipt = store.append(log, entries(3, 4)).receipt(4)
    (tmp_path / FILE).write_text(receipt.partition("\n\n")[2])
    assert await refusal(backup, tmp_path) == "LedgerWentBack"
    again = await start(store, tmp_path, opened)
    store.append(again, entries(7, 1))
    assert (await start(store, tmp_path, opened)).published.size == 8


async def test_a_checkpoint_with_more_cosignatures_than_fit_is_a_mark_too(tmp_path: Path, opened: list[Log]) -> None:
    store = MemoryLog()
    log = await start(store, tmp_path, opened)
    store.append(log, entries(0, 3))
    text = log.published.checkpoint.text()
    cosigned = log.published.signed + "".join(
        signed_note.cosign(text, f"homefed.io/home/{number}", KEY, 7).line() for number in range(90)
    )
    assert len(cosigned) > 8192
    (tmp_path / FILE).write_text(cosigned)
    again = await start(store, tmp_path, opened)
    store.append(again, entries(3, 1))
    assert (await start(store, tmp_path, opened)).published.size == 4


@pytest.mark.parametrize("content", [b"", b"nothing", b"\xff" * 40, bytes(8192), b"\xff" * 8192])
async def test_a_mark_that_says_nothing_is_refused(tmp_path: Path, opened: list[Log], content: bytes) -> None:
    store = MemoryLog()
    store.append(await start(store, tmp_path, opened), entries(0, 3))
    (tmp_path / FILE).write_bytes(content)
    assert await refusal(store, tmp_path) == "MarkUnreadable"
    assert (tmp_path / FILE).read_bytes() == content


async def test_the_mark_outlives_a_write_that_was_cut_off(tmp_path: Path, opened: list[Log]) -> None:
    store = MemoryLog()
    log = await start(store, tmp_path, opened)
    for number in range(4):
        store.append(log, entries(number, 1))
    before = (tmp_path / FILE).read_bytes()
    store.append(log, entries(4, 1))
    after = (tmp_path / FILE).read_bytes()
    changed = [place for place in range(len(after)) if before[place] != after[place]]
    assert changed
    assert changed[-1] // 4096 == changed[0] // 4096, "one slot is written, the other one left"
    for kept in (changed[0] + 1, changed[len(changed) // 2]):
        (tmp_path / FILE).write_bytes(after[:kept] + before[kept:])
        mark = HighWaterMark(tmp_path / FILE, log.vkey)
        assert mark.head.size in (4, 5)
        mark.close()


async def test_the_mark_never_falls(tmp_path: Path, opened: list[Log]) -> None:
    store = MemoryLog()
    log = await start(store, tmp_path, opened)
    old = store.append(log, entries(0, 2))
    store.append(log, entries(2, 2))
    mark = HighWaterMark(tmp_path / FILE, log.vkey)
    with pytest.raises(StoreFailed, match="2 leaves would be signed after 4"):
        mark.raise_to(old.checkpoint, old.head.checkpoint)
    mark.close()


async def test_a_mark_that_cannot_be_written_stops_the_ledger_before_it_answers(
    tmp_path: Path, opened: list[Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryLog()
    log = await start(store, tmp_path, opened)
    grown = log.grow(entries(0, 1))
    store.commit(entries(0, 1), grown)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreFailed, match="No space left"):
        log.publish(grown)
    monkeypatch.setattr(os, "pwrite", lambda *_: 17)
    with pytest.raises(StoreFailed, match="17 of 4096"):
        log.publish(grown)
    assert log.published.size == 0
