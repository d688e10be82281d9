"""What every store of the ledger does, whichever database is below it.

Another database joins in `place`; nothing else here knows which one is tested.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from homefed.api.errors import NotFound, Refused
from homefed.core.ledger import MICRO_CREDIT, PENDING, ChainHead, Sums, Transfer
from homefed.core.ledger_batch import PART_SECONDS
from homefed.core.ledger_reading import CheckedClaim, Submission
from homefed.core.ledger_state import Decision, FloorHead, NewLeaf, PartHeld
from homefed.core.merkle import Frontier, leaf_hash
from homefed.core.tlog_proof import verify
from homefed.ledger.store import Contradiction, Reader, StoredLeaf
from testbed.books import NOW, Books, Place, PostgresPlace, SqlitePlace, items, opened, parts, submission
from testbed.claims import FEDERATION, POOL, ZERO_DIGEST, Chain, SignedClaim, floor, resolution
from testbed.postgres import Postgres

FAR = 2**62
USED = "reserved:ucore.s"


class Undone(Exception):
    """Raised inside a block whose writes must vanish."""


@pytest.fixture(params=["sqlite", "postgresql"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Opens the same database each time."""
    if request.param == "sqlite":
        return SqlitePlace(tmp_path)
    server: Postgres = request.getfixturevalue("postgresql")
    return PostgresPlace(tmp_path, await server.new_database())


@pytest.fixture
async def books(place: Place) -> AsyncIterator[Books]:
    async with opened(place) as running:
        yield running


async def test_a_claim_is_read_back_byte_for_byte_after_reopening(place: Place) -> None:
    chain = Chain()
    first, second = chain.next(), chain.next({"a": 7})
    async with opened(place) as books:
        await books.post(first, second)
    async with opened(place) as books, books.store.reading() as reader:
        leaf = await reader.leaf(second.id)
        assert leaf is not None
        assert (leaf.kind, leaf.id, leaf.leaf_index, leaf.transaction, leaf.size) == ("claim", second.id, 1, 2, 2)
        assert (leaf.time, leaf.envelope, leaf.hash) == (NOW, second.body, leaf_hash(second.body))
        assert await reader.leaf(ZERO_DIGEST) is None
        part = await reader.part(second.id, 1)
        assert part is not None
        assert part.body == second.parts[0]
        assert await reader.part(second.id, 2) is None
        assert await reader.claim_state(second.id) == "posted"
        assert await reader.claim_state(ZERO_DIGEST) is None


async def test_balances_entries_sums_and_totals_agree_with_what_was_posted(books: Books) -> None:
    chain = Chain()
    await books.post(chain.next({"a": 500, "b": 300}, held=80, fee=20, dust=1))
    await books.post(chain.next({"a": 50}))
    async with books.store.reading() as reader:
        units = 3600 * 10**6
        assert await reader.balances("consumer:example/a") == {MICRO_CREDIT: -550, USED: -550 * units}
        assert (await reader.balances(chain.account))[MICRO_CREDIT] == 749
        assert await reader.balances("fee:example/nowhere") == {}
        entries = await reader.account_entries("consumer:example/a", FAR, 10)
        money = [(entry.transaction, entry.amount) for entry in entries if entry.unit == MICRO_CREDIT]
        assert money == [(2, -50), (1, -500)]
        assert {entry.unit for entry in entries} == {MICRO_CREDIT, USED}
        assert (entries[0].pool, entries[0].window_start, entries[0].kind) == (POOL, "2026-01-01T01:00:00Z", "claim")
        before = await reader.account_entries("consumer:example/a", 2, 10)
        assert {entry.transaction for entry in before} == {1}
        newest = await reader.account_entries("consumer:example/a", FAR, 1)
        assert [entry.transaction for entry in newest] == [2, 2], "a page never cuts a transaction"
        expected = Sums(charged=850, paid=749, held=80, released=0, fee=20, dust=1)
        assert await reader.contributor_sums(chain.account) == expected
        assert await reader.contributor_sums("contributor:example/nobody") == Sums()
        totals = await reader.totals()
        assert (totals.size, totals.claims, totals.sums) == (2, 2, expected)
        assert totals.balances[MICRO_CREDIT] == {"consumer": -850, "contributor": 749, "held": 80, "fee": 20, "dust": 1}
        assert totals.balances[USED] == {"consumer": -850 * units, "contributor": 850 * units}


async def test_an_empty_store_has_zero_of_everything(books: Books) -> None:
    async with books.store.reading() as reader:
        totals = await reader.totals()
        assert (totals.size, totals.claims, totals.sums, totals.balances) == (0, 0, Sums(), {})
        assert await reader.size() == 0
        assert await reader.chain_head(POOL, Chain().account) is None
        assert await reader.accounts("", "", 10) == []
        assert await reader.checkpoint() is None
        assert await reader.newest_cosigned() is None
        assert await reader.floor("consumer:example/a") is None


async def test_sums_beyond_64_bits_are_exact(books: Books) -> None:
    chains = [Chain(home=f"home-{number}") for number in range(40)]
    most = 2**60

    def huge(decision: Decision) -> Decision:
        leaves = []
        for leaf, chain in zip(decision.leaves, chains, strict=True):
            assert isinstance(leaf.content, CheckedClaim)
            moved = (Transfer(f"consumer:example/{chain.home}", "x", -most), Transfer(chain.account, "x", most))
            content = replace(leaf.content, sums=Sums(charged=most, paid=most))
            leaves.append(replace(leaf, transfers=moved, content=content))
        return replace(decision, leaves=tuple(leaves))

    await books.commit(items(*[chain.make() for chain in chains]), huge)
    async with books.store.reading() as reader:
        totals = await reader.totals()
    assert totals.sums == Sums(charged=40 * most, paid=40 * most)
    assert totals.balances == {"x": {"consumer": -40 * most, "contributor": 40 * most}}


async def test_accounts_are_listed_by_prefix_in_pages(books: Books) -> None:
    await books.post(Chain().next({"a": 1, "b": 2, "ba": 3}))
    async with books.store.reading() as reader:
        names = [name for name, _ in await reader.accounts("consumer:example/", "", 2)]
        assert names == ["consumer:example/a", "consumer:example/b"]
        ((name, balances),) = await reader.accounts("consumer:example/", names[-1], 2)
        assert (name, balances[MICRO_CREDIT]) == ("consumer:example/ba", -3)
        assert [name for name, _ in await reader.accounts("contributor:", "", 9)] == ["contributor:example/home-1"]
        assert await reader.accounts("%", "", 9) == []
        assert len(await reader.accounts("", "", 9)) == 4


async def test_the_chain_head_is_the_newest_claim_of_pool_and_account(books: Books) -> None:
    here, there, other = Chain(), Chain(pool="night"), Chain(home="home-2")
    claims = [here.next({"a": 10}), there.next({"a": 1}), here.next({"a": 5}), other.next({"a": 3})]
    await books.post(*claims)
    async with books.store.reading() as reader:
        head = await reader.chain_head(here.pool, here.account)
        assert head == ChainHead(claims[2].id, 2, claims[2].digest, Sums(charged=15, paid=15))
        head = await reader.chain_head("night", there.account)
        assert head is not None
        assert head.claim_id == claims[1].id
        first = await reader.chain_claim(here.pool, here.account, 1)
        assert first is not None
        assert first.id == claims[0].id
        assert await reader.chain_claim(here.pool, here.account, 3) is None


async def test_a_pending_claim_moves_reserved_money_until_it_is_posted_or_void(books: Books) -> None:
    chain = Chain()
    posted, void = chain.next({"a": 10}, phase="pending"), chain.next({"a": 4}, phase="pending")
    await books.post(posted, void)
    async with books.store.reading() as reader:
        assert await reader.balances("consumer:example/a") == {PENDING: -14}
        assert await reader.contributor_sums(chain.account) == Sums()
        head = await reader.chain_head(POOL, chain.account)
        assert head == ChainHead(void.id, 2, void.digest, Sums())
    await books.post(resolution(posted.id, "post"))
    await books.post(resolution(void.id, "void"))
    chain.posted(posted)
    async with books.store.reading() as reader:
        balances = await reader.balances("consumer:example/a")
        assert (balances[PENDING], balances[MICRO_CREDIT]) == (0, -10)
        assert await reader.claim_state(posted.id) == "posted"
        assert await reader.claim_state(void.id) == "void"
        assert await reader.contributor_sums(chain.account) == Sums(charged=10, paid=10)
        newest = (await reader.account_entries("consumer:example/a", FAR, 2))[0]
        assert (newest.kind, newest.claim) == ("resolution", void.id)
        assert (await reader.totals()).claims == 2
    await books.post(chain.next({"a": 1}))


async def test_a_reversal_takes_the_sums_back(books: Books) -> None:
    chain = Chain()
    claim = chain.next({"a": 10}, fee=2)
    await books.post(claim)
    await books.post(chain.advance(chain.reversal(claim)))
    async with books.store.reading() as reader:
        assert set((await reader.balances("consumer:example/a")).values()) == {0}
        assert await reader.claim_state(claim.id) == "reversed"
        assert await reader.contributor_sums(chain.account) == Sums()
    await books.post(chain.advance(chain.make({"a": 8})))


async def test_the_newest_floor_of_an_account_is_kept(books: Books) -> None:
    await books.post(floor("a", -100), floor("b", 0), floor("a", None, 2))
    await books.post(floor("b", -7, 2))
    async with books.store.reading() as reader:
        assert await reader.floor("consumer:example/a") == FloorHead(2, None)
        assert await reader.floor("consumer:example/b") == FloorHead(2, -7)
        leaf = await reader.leaf(floor("a", -100).id)
        assert leaf is not None
        assert (leaf.kind, leaf.leaf_index) == ("floor", 0)
        assert (await reader.totals()).claims == 0


async def test_the_tree_is_stored_so_that_receipts_are_the_same_for_ever(place: Place) -> None:
    chain = Chain()
    claims = [chain.next({"a": 1}) for _ in range(300)]
    async with opened(place) as books:
        for start in range(0, 300, 100):
            await books.post(*claims[start : start + 100])
        receipts = {claim.id: await books.receipt(claim.id) for claim in claims[::37]}
    async with opened(place) as books:
        for claim in claims[::37]:
            receipt = await books.receipt(claim.id)
            assert receipt == receipts[claim.id]
            assert verify(receipt, claim.body, books.log.vkey).index == claims.index(claim)
        async with books.store.reading() as reader:
            hashes = await reader.leaf_hashes(0, 1000)
            assert hashes == b"".join(leaf_hash(claim.body) for claim in claims)
            assert await reader.leaf_hashes(298, 256) == hashes[-64:]
            assert await reader.entries(255, 2) == [claims[255].body, claims[256].body]
            nodes = await reader.nodes(1, 0, 256)
            assert nodes == Frontier().extend([hashes[at : at + 32] for at in range(0, 8192, 32)]).frontier.root()
            newest = await reader.checkpoint()
            assert newest is not None
            assert newest == (300, await reader.checkpoint_at(300))
            assert await reader.checkpoint_at(101) is None
            assert await reader.signed_between(101, 201)
            assert not await reader.signed_between(101, 200)


async def test_cosignatures_are_kept_once_per_witness_and_size(books: Books) -> None:
    await books.post(Chain().next())
    assert await books.store.add_cosignature(1, "b", "— b x", NOW)
    assert await books.store.add_cosignature(1, "a", "— a x", NOW)
    assert not await books.store.add_cosignature(1, "a", "— a other", NOW)
    async with books.store.reading() as reader:
        assert await reader.cosignatures(1) == ["— a x", "— b x"]
        assert await reader.cosignatures(2) == []
        assert await reader.newest_cosigned() == 1


async def test_a_batch_that_raises_leaves_nothing_and_the_next_one_goes_on(books: Books) -> None:
    claim = Chain().make()

    def raising(decision: Decision) -> Decision:
        raise Undone

    with pytest.raises(Undone):
        await books.commit(items(claim), raising)
    async with books.store.reading() as reader:
        assert await reader.leaf(claim.id) is None
        assert await reader.part(claim.id, 1) is None
        assert await reader.accounts("", "", 9) == []
    await books.post(claim)


@pytest.mark.parametrize("unit", [MICRO_CREDIT, "used:byte"])
@pytest.mark.parametrize("wrong", [1, -1, 2**60])
async def test_a_transaction_that_does_not_sum_to_zero_in_every_unit_cannot_be_written(
    books: Books, unit: str, wrong: int
) -> None:
    chain = Chain()
    good = chain.next()
    await books.post(good)

    def unbalanced(decision: Decision) -> Decision:
        (leaf,) = decision.leaves
        more = Transfer("dust:example/evening", unit, wrong)
        return replace(decision, leaves=(replace(leaf, transfers=(*leaf.transfers, more)),))

    with pytest.raises(Contradiction, match="sum to zero"):
        await books.commit(items(chain.make({"a": 100})), unbalanced)
    async with books.store.reading() as reader:
        assert await reader.size() == 1
        assert "dust:example/evening" not in dict(await reader.accounts("", "", 9))
    await books.post(chain.make({"a": 100}))


async def test_two_transactions_that_only_balance_together_cannot_be_written(books: Books) -> None:
    chain = Chain()

    def shifted(decision: Decision) -> Decision:
        one, other = decision.leaves
        return replace(
            decision,
            leaves=(
                replace(one, transfers=(*one.transfers, Transfer("dust:example/x", MICRO_CREDIT, 1))),
                replace(other, transfers=(*other.transfers, Transfer("dust:example/x", MICRO_CREDIT, -1))),
            ),
        )

    with pytest.raises(Contradiction, match="sum to zero"):
        await books.commit(items(chain.next(), chain.next()), shifted)


async def test_a_claim_cannot_be_written_twice_nor_out_of_its_chain_nor_behind_a_gap(books: Books) -> None:
    chain = Chain()
    first = chain.next()
    await books.post(first)

    def as_written(claim: SignedClaim) -> Decision:
        item = submission(claim)
        assert isinstance(item, Submission)
        assert isinstance(item.content, CheckedClaim)
        leaf = NewLeaf(1, "claim", item.id, item.envelope, item.leaf_hash, item.digest, item.content, ())
        return Decision((), (leaf,), (), NOW, {}, {})

    wrong = [
        first,
        Chain(sequence=1, previous=ZERO_DIGEST).make(),
        Chain(sequence=2, previous=first.digest).make(),
    ]
    for claim in wrong:
        with pytest.raises(Contradiction):
            await books.commit([], lambda _, claim=claim: as_written(claim))  # type: ignore[misc]
    second = chain.make()
    gap = as_written(second)
    with pytest.raises(Contradiction):
        await books.commit([], lambda _: replace(gap, leaves=(replace(gap.leaves[0], leaf_index=2),)))
    async with books.store.reading() as reader:
        assert await reader.size() == 1
    await books.post(second)


async def test_parts_wait_for_their_claim_and_are_adopted_replaced_or_forgotten(books: Books) -> None:
    claim = Chain().make({"a": 1, "b": 2}, lines_per_part=1)
    other = Chain(home="home-2").make()
    renamed = Chain().make({"a": 5, "b": 2}, lines_per_part=1)
    assert renamed.id == claim.id
    assert await books.commit([*parts(renamed)[:1], *parts(other)])
    (answer,) = await books.commit(parts(claim)[:1])
    assert isinstance(answer, PartHeld)
    assert not answer.new, "it takes the place of the earlier one"
    await books.post(claim)
    books.now += PART_SECONDS + 1
    third = Chain(home="home-3").make()
    await books.commit(parts(third))
    async with books.store.reading() as reader:
        assert await reader.part(other.id, 1) is None
        kept = await reader.part(claim.id, 1)
        assert kept is not None
        assert kept.body == claim.parts[0]
        assert await reader.part(claim.id, 2) is not None


async def test_lines_are_forgotten_after_their_retention_and_the_tree_stays(books: Books) -> None:
    claim = Chain().make({"a": 1, "b": 2}, lines_per_part=1)
    await books.post(claim)
    waiting = Chain(home="home-2").make()
    await books.commit(parts(waiting))
    receipt = await books.receipt(claim.id)
    assert await books.store.forget_lines(NOW, 10) == 0
    assert await books.store.forget_lines(NOW + 1, 1) == 1
    assert await books.store.forget_lines(NOW + 1, 10) == 1
    async with books.store.reading() as reader:
        assert await reader.part(claim.id, 1) is None
        assert await reader.part(waiting.id, 1) is not None, "it is not a claim's yet"
    assert await books.receipt(claim.id) == receipt
    (answer,) = await books.commit(parts(claim)[:1])
    assert isinstance(answer, PartHeld)
    assert not answer.new


async def test_a_second_store_on_the_same_database_is_refused_until_the_first_is_closed(place: Place) -> None:
    first = await place.open()
    with pytest.raises(Refused, match="another ledger process"):
        await place.open()
    await first.close()
    await (await place.open()).close()


async def test_a_database_stays_bound_to_its_federation_and_key(place: Place) -> None:
    store = await place.open()
    await store.bind(FEDERATION, "SHA256:a")
    await store.bind(FEDERATION, "SHA256:a")
    for federation, keyid in (("other", "SHA256:a"), (FEDERATION, "SHA256:b")):
        with pytest.raises(Refused, match="bound to"):
            await store.bind(federation, keyid)
    await store.close()


async def test_readers_see_one_committed_state_and_do_not_wait_for_the_writer(books: Books) -> None:
    claim = Chain().make()
    seen: list[bool] = []

    async def read() -> None:
        async with books.store.reading() as reader:
            seen.append(await reader.leaf(claim.id) is not None)

    inside, go_on = threading.Event(), threading.Event()

    def held_back(decision: Decision) -> Decision:
        inside.set()
        assert go_on.wait(30)
        return decision

    writing = asyncio.create_task(books.commit(items(claim), held_back))
    assert await asyncio.to_thread(inside.wait, 30)
    async with books.store.reading() as early:
        assert await early.size() == 0
        await asyncio.wait_for(read(), 120)
        go_on.set()
        await writing
        assert await early.size() == 0, "a reader's view does not move"
    await read()
    assert seen == [False, True]


async def test_a_readers_work_is_of_one_view_and_fails_as_it_does(books: Books) -> None:
    claim = Chain().make()
    await books.post(claim)

    async def both(reader: Reader) -> tuple[int, StoredLeaf | None]:
        return await reader.size(), await reader.leaf(claim.id)

    async def failing(reader: Reader) -> int:
        raise NotFound(f"not in {await reader.size()} leaves")

    size, leaf = await books.store.read(both)
    assert (size, leaf and leaf.id) == (1, claim.id)
    for _ in range(10):  # more often than there are readers
        with pytest.raises(NotFound, match="not in 1 leaves"):
            await books.store.read(failing)
    assert await books.store.read(both) == (size, leaf)
