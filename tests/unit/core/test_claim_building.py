"""From what the hub saw and the home reported to a claim that the ledger accepts, of any size that fits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api import dsse
from homefed.api.canonical import canonical
from homefed.api.claim_document import (
    LINES_PER_PART,
    MAX_HEADER,
    Line,
    LineReading,
    LinesPart,
    Rate,
    ReportSignature,
)
from homefed.api.errors import Refused
from homefed.api.rate_card import Price, RateCard
from homefed.api.report_document import UNITS, ReportLine
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import claim_building
from homefed.core.claim_building import build, reversal
from homefed.core.claim_chain import Chain, Claim, Payee
from homefed.core.ledger_reading import PartSubmission, read_part
from homefed.core.ledger_state import Holding, Item, Recorded
from homefed.core.readings import Report
from homefed.core.rewards import Account, Key, Observation
from homefed.core.settlement import Inputs, Settle, decide
from homefed.core.windows import Window
from testbed.claims import FEDERATION, hub_key, line
from testbed.memory_ledger import MemoryLedger, reading

HOME = "99999999-2222-3333-4444-555555555555"
PAYEE = Payee(FEDERATION, "evening", HOME, fee_ppm=10_000, held_ppm=750_000)
HOUR = Window(1_767_225_600, 1_767_229_200)
CONTRIBUTOR = PAYEE.account
GUESTS, NAMESPACES = 2000, 40
CORE_HOUR = 3600 * 10**6

POOL = SchedulingPoolSpec(
    rate_card=RateCard(
        version="1",
        valid_from="2026-01-01T00:00:00Z",
        prices=[
            Price(resource="cpu", basis="reserved", micro_credits=1_000_001, per="core-hour"),
            Price(resource="cpu", basis="used", micro_credits=2_000_003, per="core-hour"),
            Price(resource="memory", basis="reserved", micro_credits=70_001, per="GiB-hour"),
            Price(resource="network-receive", basis="used", micro_credits=9_001, per="GiB"),
        ],
    )
)


def items_of(claim: Claim) -> list[Item]:
    """As the hub sends them."""
    envelope = dsse.sign(claim.header.dump(), dsse.CLAIM_TYPE, hub_key())
    bodies = {part.part: canonical(part.dump()) for part in claim.parts}
    parts = [
        PartSubmission(claim.header.id, number, read_part(body, claim.header.id, number), body)
        for number, body in bodies.items()
    ]
    return [*parts, reading("claim", claim.header.id, envelope.canonical())]


def accepted(ledger: MemoryLedger, claim: Claim) -> Recorded:
    answer = ledger.submit(items_of(claim))[-1]
    assert isinstance(answer, Recorded), answer
    return answer


def priced(costs: dict[str, int]) -> list[Line]:
    return [Line.model_validate(line(namespace, amount)) for namespace, amount in costs.items()]


def guest(number: int) -> Observation:
    uid, start = f"{number:08x}-2222-3333-4444-555555555555", HOUR.start_ms + 1000 * (number % 1800)
    requests = {"cpu": 500, "memory": 2**29 + number}
    return Observation(uid, f"ns-{number % NAMESPACES}", requests, HOUR.start_ms, start, None)


def used(number: int, resource: Any, amount: int) -> ReportLine:
    return ReportLine(
        guest_pod=f"{number:08x}-2222-3333-4444-555555555555",
        resource=resource,
        unit=UNITS[resource],
        open="0",
        close=str(amount),
        amount=str(amount),
        samples=100,
        expected=100,
        gaps=0,
        resets=0,
        coverage_ppm=1_000_000,
        flags=[],
    )


def test_two_thousand_guest_pods_of_one_home_are_settled_in_one_window() -> None:
    metered = [used(number, "cpu", 10**8 + number) for number in range(GUESTS)]
    metered += [used(number, "network-receive", 10**6 + number) for number in range(GUESTS)]
    signature = ReportSignature(digest="1" * 64, keyid="SHA256:00", sig="AA==")
    report = Report(HOUR, tuple(metered), (), (signature,))
    step = decide(Inputs(FEDERATION, HOME, POOL, [guest(n) for n in range(GUESTS)], [report], Chain()), HOUR.end + 1000)
    assert isinstance(step, Settle)
    assert len(step.lines) == 4 * GUESTS
    claim = build(PAYEE, Chain(), step.window, step.lines, step.reports, b"secret")
    assert len(claim.parts) >= 4 * GUESTS // LINES_PER_PART
    assert len(claim.header.consumers) == NAMESPACES

    ledger = MemoryLedger()
    assert accepted(ledger, claim).leaf_index == 0
    balances = ledger.balances()
    assert balances[Holding(CONTRIBUTOR, "used:ucore.s")] == sum(10**8 + number for number in range(GUESTS))
    assert balances[Holding(CONTRIBUTOR, "used:byte")] == sum(10**6 + number for number in range(GUESTS))
    owed = [amount for (account, unit), amount in balances.items() if account[:8] == "consumer" and unit == "ucredit"]
    assert -sum(owed) == int(claim.header.charged) == sum(int(line.amount) for line in step.lines)


costs = st.integers(0, 2**24) | st.integers(2**28, 2**53)
"""What `line` makes of them adds up to less usage than a claim can have."""


@given(
    st.dictionaries(st.sampled_from([f"ns-{n}" for n in range(9)]), costs, min_size=1),
    st.integers(0, 500_000),
    st.integers(0, 750_000),
    st.sampled_from(["posted", "pending"]),
)
def test_what_the_hub_builds_is_what_the_ledger_accepts(costs: dict[str, int], fee: int, held: int, phase: Any) -> None:
    payee = Payee(FEDERATION, "evening", HOME, fee, held)
    built = build(payee, Chain(), HOUR, priced(costs), [], b"secret", phase=phase)
    ledger = MemoryLedger()
    accepted(ledger, built)
    assert ledger.leaves[0].digest == built.digest
    back = int(built.header.charged)
    assert back == int(built.header.paid) + int(built.header.held) + int(built.header.fee) + int(built.header.dust)


def test_a_reversal_is_accepted_and_gives_everything_back() -> None:
    ledger = MemoryLedger()
    first = build(PAYEE, Chain(), HOUR, priced({"a": 1000, "b": 7}), [], b"secret")
    accepted(ledger, first)
    chain = Chain().after(first)
    taken_back = reversal(first.header, chain)
    accepted(ledger, taken_back)
    assert set(ledger.balances().values()) == {0}
    chain = chain.after(taken_back, first)
    assert (chain.sequence, chain.head, chain.cumulative_paid) == (2, taken_back.digest, 0)
    accepted(ledger, build(PAYEE, chain, HOUR, priced({"a": 900}), [], b"secret", revision=2))


def test_the_lines_of_a_reversed_claim_can_be_accepted_again_in_the_next_one() -> None:
    signature = ReportSignature(digest="1" * 64, keyid="SHA256:00", sig="AA==")
    report = Report(HOUR, (used(1, "cpu", 500),), (), (signature,))
    inputs = Inputs(FEDERATION, HOME, POOL, [guest(1)], [report], Chain())
    step = decide(inputs, HOUR.end + 1000)
    assert isinstance(step, Settle)
    claim = build(PAYEE, Chain(), step.window, step.lines, step.reports, b"secret")
    chain = Chain().after(claim)
    assert chain.accounts[Key(guest(1).uid, "cpu", "used")] == Account(500, 500, 1, (HOUR.end - 30) * 1000)
    chain = chain.after(reversal(claim.header, chain), claim)
    assert chain.accounts[Key(guest(1).uid, "cpu", "used")] == Account(0, 0, 1)
    assert (chain.reports, chain.end) == (frozenset(), HOUR.end)
    again = decide(Inputs(FEDERATION, HOME, POOL, [guest(1)], [report], chain), HOUR.end + 3600 + 1000)
    assert isinstance(again, Settle)
    assert [line.accepted for line in again.lines if line.basis == "used" and line.resource == "cpu"] == ["500"]


def test_a_pending_claim_counts_as_paid_once_it_is_posted_and_is_undone_when_it_is_voided() -> None:
    claim = build(PAYEE, Chain(), HOUR, priced({"a": 1000}), [], b"secret", phase="pending")
    chain = Chain().after(claim)
    key = Key(claim.lines[0].guest_pod, "cpu", "reserved")
    assert (chain.cumulative_paid, chain.accounts[key].accepted) == (0, 1000 * CORE_HOUR)
    posted, voided = chain.resolved(claim, "post"), chain.resolved(claim, "void")
    assert (posted.cumulative_paid, posted.accounts[key].accepted) == (int(claim.header.paid), 1000 * CORE_HOUR)
    assert (voided.cumulative_paid, voided.accounts[key].accepted) == (0, 0)


def test_a_claim_of_more_consumers_than_a_header_holds_is_refused_with_the_limit() -> None:
    with pytest.raises(Refused, match=r"251 consumers, at most 250.*windowSeconds") as refused:
        build(PAYEE, Chain(), HOUR, priced({f"ns-{n}": 1 for n in range(251)}), [], b"secret")
    assert refused.value.reason == "ClaimTooLarge"


def test_a_claim_with_a_header_longer_than_a_leaf_holds_is_refused_with_the_limit() -> None:
    namespaces = [f"{number:064}" for number in range(240)]
    lines = [Line.model_validate(line(name, 1, basis=basis)) for name in namespaces for basis in ("reserved", "used")]
    with pytest.raises(Refused, match=f"bytes of header, at most {MAX_HEADER}") as refused:
        build(PAYEE, Chain(), HOUR, lines, [], b"secret")
    assert refused.value.reason == "ClaimTooLarge"


def test_a_claim_of_more_parts_than_a_header_names_is_refused_with_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_building, "MAX_PARTS", 1)
    lines = priced({"a": 1}) * (LINES_PER_PART + 1)
    with pytest.raises(Refused, match="2 lines parts, at most 1"):
        build(PAYEE, Chain(), HOUR, lines, [], b"secret")


FULL = {
    "factor_ppm": 900_000,
    "gap": "7",
    "rate_card_digest": "1" * 64,
    "rate": Rate(machine_class="large", micro_credits=5, per="core-hour", price_ppm=5),
    "reading": LineReading(close="9", expected=3, gaps=0, open="1", read_until=5, resets=0, samples=3),
}


@given(st.lists(st.text(max_size=32), max_size=16), st.text(max_size=63), st.sampled_from([{}, FULL]))
def test_the_bytes_of_a_part_are_canonical(codes: list[str], resource: str, more: dict[str, Any]) -> None:
    """They are written in the order in which the members are declared."""
    own = priced({"ns-1": 5})[0].model_copy(update={"codes": codes, "resource": resource, **more})
    signature = ReportSignature(digest="1" * 64, keyid="SHA256:00", sig="AA==")
    part = LinesPart(claim="2" * 64, lines=[], part=1, reports=[signature], salt="3" * 64)
    part = part.model_copy(update={"lines": [own, own]})
    assert part.canonical() == canonical(part.dump())
    assert claim_building._size(own) == len(canonical(own.dump()))
