"""What a batch does: claims in two phases, reversals, floors, lines parts, retries; each item after those before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from homefed.api.errors import Conflict, HomefedError, Transient
from homefed.core import ledger_batch
from homefed.core.ledger import MAX_BALANCE, MICRO_CREDIT, PENDING, Transfer
from homefed.core.ledger_batch import decide
from homefed.core.ledger_gather import lookups, wanted
from homefed.core.ledger_reading import PartSubmission, read_part
from homefed.core.ledger_state import Answer, Holding, PartHeld, PendingParts, Recorded, Snapshot, claim_state
from testbed.claims import ZERO_DIGEST, Chain, SignedClaim, floor, hub_key, line, part, resolution
from testbed.memory_ledger import MemoryLedger, items_of, reading

CORE_HOUR = 3600 * 10**6
CONSUMER, CONTRIBUTOR, HELD = "consumer:example/ns-1", "contributor:example/home-1", "held:example/home-1"


def refusal(answer: Answer) -> tuple[str, str]:
    """Reason, and the field that the message begins with."""
    assert isinstance(answer, HomefedError), answer
    return answer.reason, answer.message.partition(":")[0]


def index_of(answer: Answer) -> int:
    assert isinstance(answer, Recorded), answer
    assert answer.new
    return answer.leaf_index


def money(ledger: MemoryLedger) -> dict[tuple[str, str], int]:
    """What is not 0, without usage."""
    units = (MICRO_CREDIT, PENDING)
    return {holding: amount for holding, amount in ledger.balances().items() if amount and holding.unit in units}


def part_of(claim: SignedClaim, body: bytes, number: int = 1) -> PartSubmission:
    return PartSubmission(claim.id, number, read_part(body, claim.id, number), body)


# Claims.


def test_consumers_pay_and_contributor_held_fee_and_dust_receive_money_and_the_contributor_all_usage() -> None:
    ledger = MemoryLedger()
    ledger.put(Chain().make({"a": 500, "b": 300}, held=80, fee=20, dust=1))
    assert ledger.leaves[0].transfers == (
        Transfer("consumer:example/a", "ucredit", -500),
        Transfer("consumer:example/b", "ucredit", -300),
        Transfer("contributor:example/home-1", "ucredit", 699),
        Transfer("held:example/home-1", "ucredit", 80),
        Transfer("fee:example/evening", "ucredit", 20),
        Transfer("dust:example/evening", "ucredit", 1),
        Transfer("consumer:example/a", "reserved:ucore.s", -500 * CORE_HOUR),
        Transfer("consumer:example/b", "reserved:ucore.s", -300 * CORE_HOUR),
        Transfer("contributor:example/home-1", "reserved:ucore.s", 800 * CORE_HOUR),
    )


def test_a_claim_of_nothing_is_a_leaf_and_moves_nothing() -> None:
    ledger = MemoryLedger()
    assert index_of(ledger.put(Chain().make({"a": 0}))) == 0
    assert (ledger.leaves[0].transfers, ledger.leaves[0].transaction) == ((), 1)


def test_leaves_and_transactions_are_numbered_without_holes_whatever_is_refused_between_them() -> None:
    ledger, chain = MemoryLedger(), Chain()
    bad = Chain(home="c").make(sequence=7)
    answers = ledger.submit(
        [*items_of(chain.next()), *items_of(bad), *items_of(chain.next()), *items_of(Chain(home="b").next())]
    )
    kept = [answer for answer in answers if isinstance(answer, Recorded)]
    assert [(answer.leaf_index, answer.transaction) for answer in kept] == [(0, 1), (1, 2), (2, 3)]
    assert refusal(answers[3]) == ("ChainBroken", "claim.sequence")


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"sequence": 3}, "ChainBroken", "claim.sequence"),
        ({"sequence": 1}, "ChainBroken", "claim.sequence"),
        ({"previousDigest": ZERO_DIGEST}, "ChainBroken", "claim.previousDigest"),
        ({"previousDigest": ""}, "ChainBroken", "claim.previousDigest"),
        ({"cumulativePaid": "999"}, "ChainBroken", "claim.cumulativePaid"),
        ({"phase": "pending"}, None, None),
        ({"phase": "pending", "cumulativePaid": "2000"}, "ChainBroken", "claim.cumulativePaid"),
        ({"parts": []}, "LinesDiffer", "claim.lineCount"),
        ({"parts": [ZERO_DIGEST]}, "PartDiffers", "claim.parts.0"),
        ({"parts": [ZERO_DIGEST] * 2}, "PartDiffers", "claim.parts.0"),
        ({"lineCount": 2}, "LinesDiffer", "claim.lineCount"),
        (
            {"consumers": [{"account": "consumer:example/ns-2", "charged": "1000", "usage": []}]},
            "LinesDiffer",
            "claim.consumers.0.charged",
        ),
        (
            {"consumers": [{"account": CONSUMER, "charged": "1000", "usage": []}]},
            "LinesDiffer",
            "claim.consumers.0.usage",
        ),
        ({"released": "1"}, "NotHeld", "claim.released"),
    ],
)
def test_a_claim_that_does_not_fit_the_ledger_is_refused_by_field_and_changes_nothing(
    changes: dict[str, Any], reason: str | None, field: str | None
) -> None:
    ledger, chain = MemoryLedger(), Chain()
    ledger.put(chain.next({"ns-1": 1000}))
    before = ledger.balances()
    answer = ledger.put(chain.make({"ns-1": 1000}, **changes))
    if reason is None:
        assert index_of(answer) == 1
    else:
        assert refusal(answer) == (reason, field)
        assert (len(ledger.leaves), ledger.balances()) == (1, before)
        assert index_of(ledger.put(chain.make({"ns-1": 1000}))) == 1


def test_a_claim_waits_for_its_parts() -> None:
    ledger, claim = MemoryLedger(), Chain().make({"a": 1, "b": 2}, lines_per_part=1)
    *parts, header = items_of(claim)
    assert refusal(ledger.submit([header])[0]) == ("PartMissing", "claim.parts.0")
    assert refusal(ledger.submit([parts[0], header])[1]) == ("PartMissing", "claim.parts.1")
    assert index_of(ledger.submit([parts[1], header])[1]) == 0


def test_lines_of_an_account_that_the_header_does_not_charge_are_refused() -> None:
    chain = Chain()
    whole = chain.make({"a": 10, "b": 20})
    claim = chain.make({"a": 10}, parts=whole.header["parts"], lineCount=2)
    assert refusal(MemoryLedger().put(replace(claim, parts=whole.parts))) == ("LinesDiffer", "claim.consumers")


# The id comes first.


def test_the_same_bytes_get_the_first_answer_whatever_is_wrong_with_them_by_now() -> None:
    ledger, chain = MemoryLedger(), Chain()
    claim = chain.next()
    ledger.put(claim)
    ledger.put(chain.next())
    ledger.now += 60
    expired = replace(reading("claim", claim.id, claim.body), content=reading("claim", ZERO_DIGEST, b"").content)
    for again in (reading("claim", claim.id, b" " + claim.body), expired):
        (answer,) = ledger.submit([again])
        assert isinstance(answer, Recorded)
        assert (answer.new, answer.leaf_index) == (False, 0)


@pytest.mark.parametrize("body", [b"", b"{}", Chain(key=hub_key(3)).make().body, Chain().make({"ns-1": 7}).body])
def test_other_bytes_under_a_known_id_are_a_conflict_whatever_they_say(body: bytes) -> None:
    ledger, claim = MemoryLedger(), Chain().make()
    ledger.put(claim)
    (answer,) = ledger.submit([reading("claim", claim.id, body)])
    assert isinstance(answer, Conflict)
    assert (answer.reason, len(ledger.leaves)) == ("ClaimConflict", 1)


def test_an_id_belongs_to_one_kind_of_document() -> None:
    ledger, wish = MemoryLedger(), floor("a", None)
    ledger.put(wish)
    (answer,) = ledger.submit([reading("claim", wish.id, wish.body)])
    assert isinstance(answer, Conflict)


def test_thirty_two_copies_in_one_batch_are_kept_once() -> None:
    ledger, claim = MemoryLedger(), Chain().make()
    *parts, header = items_of(claim)
    answers = ledger.submit([*parts, *[header] * 32])[1:]
    assert [answer.new for answer in answers if isinstance(answer, Recorded)] == [True] + [False] * 31
    assert len(ledger.leaves) == 1


# Two phases.


def test_a_pending_claim_reserves_money_and_posting_it_moves_money_and_usage_in_one_transaction() -> None:
    ledger, chain = MemoryLedger(), Chain()
    claim = chain.next({"ns-1": 100}, held=25, phase="pending")
    ledger.put(claim)
    assert money(ledger) == {(CONSUMER, PENDING): -100, (CONTRIBUTOR, PENDING): 75, (HELD, PENDING): 25}
    assert ledger.claims()[claim.id].state == "pending"
    ledger.put(resolution(claim.id, "post"))
    assert money(ledger) == {(CONSUMER, MICRO_CREDIT): -100, (CONTRIBUTOR, MICRO_CREDIT): 75, (HELD, MICRO_CREDIT): 25}
    assert ledger.balances()[Holding(CONTRIBUTOR, "reserved:ucore.s")] == 100 * CORE_HOUR
    assert {transfer.unit for transfer in ledger.leaves[1].transfers} == {PENDING, MICRO_CREDIT, "reserved:ucore.s"}
    assert ledger.claims()[claim.id].state == "posted"


def test_a_voided_claim_leaves_nothing_behind_but_its_leaves() -> None:
    ledger, chain = MemoryLedger(), Chain()
    claim = chain.next({"ns-1": 100}, phase="pending")
    ledger.put(claim)
    ledger.put(resolution(claim.id, "void"))
    assert set(ledger.balances().values()) == {0}
    assert (len(ledger.leaves), ledger.claims()[claim.id].state) == (2, "void")
    assert index_of(ledger.put(chain.make({"ns-1": 60}, instead_of=claim))) == 2


def test_a_claim_is_resolved_once_and_only_when_it_is_pending() -> None:
    ledger, chain = MemoryLedger(), Chain()
    claim, other = chain.next(phase="pending"), Chain(home="b").next()
    ledger.put(claim)
    ledger.put(other)
    assert refusal(ledger.put(resolution(ZERO_DIGEST, "post"))) == ("UnknownClaim", "resolution.claim")
    assert refusal(ledger.put(resolution(other.id, "void"))) == ("NotPending", "resolution.claim")
    first = ledger.put(resolution(claim.id, "post"))
    assert index_of(first) == 2
    again = ledger.put(resolution(claim.id, "post"))
    assert isinstance(again, Recorded)
    assert (again.new, again.leaf_index) == (False, 2)
    assert refusal(ledger.put(resolution(claim.id, "void")))[0] == "ResolutionConflict"


def test_claim_resolution_and_the_next_claim_of_the_chain_go_through_in_one_batch() -> None:
    ledger, chain = MemoryLedger(), Chain()
    first = chain.next({"ns-1": 10}, phase="pending")
    chain.posted(first)
    second = chain.next({"ns-1": 5})
    resolved = resolution(first.id, "post")
    batch = [*items_of(first), reading("resolution", resolved.id, resolved.body), *items_of(second)]
    assert all(isinstance(answer, Recorded | PartHeld) for answer in ledger.submit(batch))
    assert money(ledger) == {(CONSUMER, MICRO_CREDIT): -15, (CONTRIBUTOR, MICRO_CREDIT): 15}


def test_a_pending_claim_that_is_posted_in_its_own_batch_adds_to_the_balances_that_there_were() -> None:
    ledger, chain = MemoryLedger(), Chain()
    ledger.put(chain.next({"ns-1": 40}))
    pending = chain.next({"ns-1": 2}, phase="pending")
    posted = resolution(pending.id, "post")
    ledger.submit([*items_of(pending), reading("resolution", posted.id, posted.body)])
    assert money(ledger) == {(CONSUMER, MICRO_CREDIT): -42, (CONTRIBUTOR, MICRO_CREDIT): 42}


def test_what_was_voided_in_a_batch_cannot_be_reversed_in_it() -> None:
    ledger, chain = MemoryLedger(), Chain()
    claim = chain.next(phase="pending")
    voided = resolution(claim.id, "void")
    reversal = chain.reversal(claim, cumulativePaid="0")
    batch = [*items_of(claim), reading("resolution", voided.id, voided.body), *items_of(reversal)]
    assert refusal(ledger.submit(batch)[-1]) == ("NotReversible", "claim.reverses")


@pytest.mark.parametrize(
    ("phase", "outcome", "taken_back", "state"),
    [
        ("posted", None, False, "posted"),
        ("pending", None, False, "pending"),
        ("pending", "post", False, "posted"),
        ("pending", "void", False, "void"),
        ("posted", None, True, "reversed"),
        ("pending", "post", True, "reversed"),
    ],
)
def test_a_claims_state_follows_from_what_was_said_of_it(
    phase: str, outcome: Any, taken_back: bool, state: str
) -> None:
    assert claim_state(phase, outcome, reversed_=taken_back) == state


# Reversals.


def test_a_reversal_moves_back_everything_and_the_chain_pays_less() -> None:
    ledger, chain = MemoryLedger(), Chain()
    claim = chain.next({"ns-1": 100}, held=30, fee=5)
    ledger.put(claim)
    reversal = chain.advance(chain.reversal(claim))
    assert index_of(ledger.put(reversal)) == 1
    assert set(ledger.balances().values()) == {0}
    assert (ledger.claims()[claim.id].state, reversal.header["cumulativePaid"]) == ("reversed", "0")
    assert index_of(ledger.put(chain.make({"ns-1": 80}, instead_of=reversal))) == 2
    assert money(ledger) == {(CONSUMER, MICRO_CREDIT): -80, (CONTRIBUTOR, MICRO_CREDIT): 80}


def test_a_pending_claim_that_was_posted_is_reversed_with_what_it_moved_for_good() -> None:
    ledger, chain = MemoryLedger(), Chain()
    claim = chain.next({"ns-1": 100}, phase="pending")
    ledger.put(claim)
    ledger.put(resolution(claim.id, "post"))
    chain.posted(claim)
    ledger.put(chain.next({"ns-1": 1}))
    assert index_of(ledger.put(chain.reversal(claim))) == 3
    assert money(ledger) == {(CONSUMER, MICRO_CREDIT): -1, (CONTRIBUTOR, MICRO_CREDIT): 1}


def test_what_was_released_is_taken_back_with_the_claim_that_released_it() -> None:
    ledger, chain = MemoryLedger(), Chain()
    first = chain.next({"ns-1": 100}, held=40)
    second = chain.next({"ns-1": 100}, released="30")
    ledger.put(first)
    ledger.put(second)
    assert (money(ledger)[CONTRIBUTOR, MICRO_CREDIT], money(ledger)[HELD, MICRO_CREDIT]) == (190, 10)
    assert refusal(ledger.put(chain.make({"ns-1": 1}, released="11"))) == ("NotHeld", "claim.released")
    assert refusal(ledger.put(chain.reversal(first))) == ("NotHeld", "claim.held")
    ledger.put(chain.advance(chain.reversal(second)))
    assert money(ledger)[HELD, MICRO_CREDIT] == 40
    assert index_of(ledger.put(chain.reversal(first))) == 3


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"charged": "999", "paid": "999"}, "NotConserved", "claim.charged"),
        ({"paid": "999", "fee": "1"}, "ReversalDiffers", "claim.paid"),
        ({"released": "1"}, "ReversalDiffers", "claim.released"),
        ({"consumers": [{"account": CONSUMER, "charged": "1000", "usage": []}]}, "ReversalDiffers", "claim.consumers"),
        ({"rateCardDigest": "1" * 64}, "ReversalDiffers", "claim.rateCardDigest"),
        ({"cumulativePaid": "1000"}, "ChainBroken", "claim.cumulativePaid"),
        ({"parts": [ZERO_DIGEST], "lineCount": 1}, "LinesDiffer", "claim.parts"),
        ({"phase": "pending"}, "WrongPhase", "claim.phase"),
        ({"reverses": ""}, "LinesDiffer", "claim.consumers.0.charged"),
        ({"reverses": ZERO_DIGEST}, "WrongRevision", "claim.reverses"),
    ],
)
def test_a_reversal_says_again_what_it_takes_back(changes: dict[str, Any], reason: str, field: str) -> None:
    ledger, chain = MemoryLedger(), Chain()
    claim = chain.next({"ns-1": 1000})
    ledger.put(claim)
    answer = ledger.put(chain.reversal(claim, **changes))
    if changes == {"reverses": ""}:
        reason, field = "RevisionConflict", "claim.revision"
    assert refusal(answer) == (reason, field)


def test_a_claim_is_reversed_once_and_a_reversal_never() -> None:
    ledger, chain = MemoryLedger(), Chain()
    claim = chain.next()
    ledger.put(claim)
    first = chain.advance(chain.reversal(claim))
    ledger.put(first)
    other = chain.sign(chain.reversal(claim).header | {"meterVersion": "other"})
    assert refusal(ledger.put(other))[0] == "ClaimConflict"
    assert refusal(ledger.put(chain.reversal(first, cumulativePaid="0"))) == ("NotReversible", "claim.reverses")


def test_a_pending_and_a_voided_claim_are_not_reversed() -> None:
    ledger, chain = MemoryLedger(), Chain()
    claim = chain.next(phase="pending")
    ledger.put(claim)
    reversal = chain.reversal(claim, cumulativePaid="0")
    assert refusal(ledger.put(reversal)) == ("NotReversible", "claim.reverses")
    ledger.put(resolution(claim.id, "void"))
    assert refusal(ledger.put(reversal)) == ("NotReversible", "claim.reverses")


def test_a_second_claim_of_a_window_needs_the_first_one_out_of_the_way() -> None:
    ledger, chain = MemoryLedger(), Chain()
    assert refusal(ledger.put(chain.make(instead_of=chain.make()))) == ("RevisionMissing", "claim.revision")
    claim = chain.next()
    ledger.put(claim)
    assert refusal(ledger.put(chain.make(instead_of=claim))) == ("RevisionConflict", "claim.revision")
    assert refusal(ledger.put(chain.reversal(chain.make(instead_of=claim)))) == ("RevisionMissing", "claim.revision")


# Floors.


def test_no_claim_takes_a_consumer_below_its_floor_and_pending_ones_count() -> None:
    ledger, chain = MemoryLedger(), Chain()
    ledger.put(floor("ns-1", -100))
    ledger.put(chain.next({"ns-1": 60}))
    ledger.put(chain.next({"ns-1": 30}, phase="pending"))
    for phase in ("posted", "pending"):
        answer = ledger.put(chain.make({"ns-1": 11, "a": 1}, phase=phase))
        assert refusal(answer) == ("BelowFloor", "claim.consumers.1.charged")
    assert index_of(ledger.put(chain.make({"ns-1": 10, "a": 1000}))) == 3


def test_a_claim_that_charges_nothing_and_a_reversal_pass_below_a_raised_floor() -> None:
    ledger, chain = MemoryLedger(), Chain()
    claim = chain.next({"ns-1": 500})
    ledger.put(claim)
    ledger.put(floor("ns-1", -100))
    assert index_of(ledger.put(chain.next({"ns-1": 0, "a": 1}))) == 2
    assert refusal(ledger.put(chain.make({"ns-1": 1}))) == ("BelowFloor", "claim.consumers.0.charged")
    assert index_of(ledger.put(chain.reversal(claim))) == 3


def test_floors_are_numbered_per_account_and_the_newest_holds() -> None:
    ledger, chain = MemoryLedger(), Chain()
    assert refusal(ledger.put(floor("ns-1", -5, 2))) == ("ChainBroken", "floor.sequence")
    ledger.put(floor("ns-1", 0))
    ledger.put(floor("a", -5))
    assert refusal(ledger.put(chain.make({"ns-1": 1})))[0] == "BelowFloor"
    ledger.put(floor("ns-1", None, 2))
    assert refusal(ledger.put(floor("ns-1", 0, 2)))[0] == "FloorConflict"
    assert index_of(ledger.put(chain.make({"ns-1": 10**6}))) == 3


def test_a_floor_holds_for_the_claims_behind_it_in_its_batch() -> None:
    ledger, chain, wish = MemoryLedger(), Chain(), floor("ns-1", -99)
    ledger.put(chain.next({"ns-1": 50}))
    batch = [reading("floor", wish.id, wish.body), *items_of(chain.make({"ns-1": 50}))]
    assert refusal(ledger.submit(batch)[-1])[0] == "BelowFloor"


# Ranges.


def test_sums_that_64_bits_cannot_hold_are_refused_before_they_are_stored() -> None:
    ledger, chain = MemoryLedger(), Chain()
    most = 2**60
    for _ in range(4):
        index_of(ledger.put(chain.next({"ns-1": most})))
    assert ledger.balances()[Holding(CONTRIBUTOR, MICRO_CREDIT)] == MAX_BALANCE
    other_home = Chain(home="b").make({"ns-1": 1})
    assert refusal(ledger.put(other_home)) == ("BalanceRange", "claim.charged")
    # The sum over the chain would be 2^62 + 1 in its header already.
    assert refusal(ledger.put(chain.make({"a": 1}))) == ("AmountRange", "claim.charged")


def test_a_pending_claim_that_would_leave_the_range_when_posted_is_refused_then_and_can_be_voided() -> None:
    ledger, chain, other = MemoryLedger(), Chain(), Chain(home="b")
    pending = chain.next({"ns-1": 5}, phase="pending")
    ledger.put(pending)
    for _ in range(4):
        ledger.put(other.next({"ns-1": 2**60}))
    assert refusal(ledger.put(resolution(pending.id, "post"))) == ("BalanceRange", "resolution.claim")
    index_of(ledger.put(resolution(pending.id, "void")))


# Lines parts.


def test_a_part_is_kept_once_and_replaced_while_no_claim_has_it() -> None:
    ledger, claim = MemoryLedger(), Chain().make({"a": 10})
    first, second = claim.parts[0], part(claim.id, 1, [line("b", 3)])
    answers = ledger.submit([part_of(claim, second), part_of(claim, second), part_of(claim, first)])
    assert [answer.new for answer in answers if isinstance(answer, PartHeld)] == [True, False, False]
    assert ledger.submit([part_of(claim, first)]) == (answers[2],)
    assert index_of(ledger.put(claim)) == 0


def test_a_part_of_an_accepted_claim_cannot_be_replaced_but_sent_again_even_after_it_was_deleted() -> None:
    ledger, claim = MemoryLedger(), Chain().make({"a": 10})
    ledger.put(claim)
    for _ in range(2):
        (again,) = ledger.submit([part_of(claim, claim.parts[0])])
        assert isinstance(again, PartHeld)
        assert not again.new
        for body, number in ((part(claim.id, 1, [line("b", 3)]), 1), (part(claim.id, 2, [line("b", 3)]), 2)):
            (other,) = ledger.submit([part_of(claim, body, number)])
            assert isinstance(other, Conflict)
            assert other.reason == "PartConflict"
        ledger.parts.clear()


def test_parts_that_no_claim_names_are_bounded_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = Chain().make({"a": 10})
    item = part_of(claim, claim.parts[0])
    full = [PendingParts(ledger_batch.MAX_PENDING_PARTS, 0), PendingParts(0, ledger_batch.MAX_PENDING_BYTES)]
    for waiting in full:
        (answer,) = decide([item], Snapshot(0, waiting=waiting), 0).answers
        assert isinstance(answer, Transient)
        assert (answer.reason, answer.retry_after) == ("PartsFull", 60)
    monkeypatch.setattr(ledger_batch, "MAX_PENDING_PARTS", 1)
    ledger, other = MemoryLedger(), Chain(home="b").make({"a": 1})
    answers = ledger.submit([item, part_of(other, other.parts[0]), *items_of(claim), part_of(other, other.parts[0])])
    assert [isinstance(answer, Transient) for answer in answers] == [False, True, False, False, False]


# What is read for it.


def test_only_what_a_batch_needs_is_read_and_known_reversals_resolutions_and_floors_lead_further() -> None:
    chain = Chain()
    claim = chain.next({"ns-1": 5})
    reversal, resolved, wish = chain.reversal(claim), resolution(claim.id, "post"), floor("ns-1", 0)
    batch = [
        *items_of(reversal),
        reading("resolution", resolved.id, resolved.body),
        reading("floor", wish.id, wish.body),
        reading("claim", "f" * 64, b"nonsense"),
    ]
    first = lookups(batch)
    assert first.ids == {reversal.id, claim.id, resolved.id, wish.id, "f" * 64}
    assert (first.claims, first.floors) == ({claim.id}, {CONSUMER})
    then = wanted(batch, {}, {})
    assert (then.parts, {key.account for key in then.chains}) == ({reversal.id}, {CONTRIBUTOR})
    assert Holding(CONSUMER, PENDING) in then.balances


def test_an_empty_batch_does_nothing() -> None:
    decision = decide([], Snapshot(7), 1)
    assert (decision.answers, decision.leaves, decision.parts, decision.balances) == ((), (), (), {})
