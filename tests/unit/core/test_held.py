"""The held-back share: what month it is, what is held, when it is released, and that nothing of it gets lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homefed.api import dsse
from homefed.api.canonical import canonical
from homefed.api.claim_document import HeldShare, Line
from homefed.api.errors import Invalid, Refused
from homefed.api.settlement_terms import HELD_BACK
from homefed.core import claim_chain, held
from homefed.core.audit_leaf import HubKey, LeafRules, read_bundle
from homefed.core.claim_building import build, reversal
from homefed.core.claim_chain import Chain, Claim, Payee
from homefed.core.ledger_checks import check_held_back
from homefed.core.ledger_reading import PartSubmission, read_part
from homefed.core.ledger_state import Holding, Recorded
from homefed.core.replay import Findings, Replay
from homefed.core.tlog_tiles import encode_bundle
from homefed.core.windows import Window, seconds
from testbed.claims import FEDERATION, hub_key, line, resolution
from testbed.memory_ledger import MemoryLedger, reading

HOME = "99999999-2222-3333-4444-555555555555"
HELD = f"held:{FEDERATION}/{HOME}"
JOINED = seconds("2026-01-15T12:00:00Z")


def test_months_of_membership_are_whole_calendar_months_from_the_day_of_joining() -> None:
    months = {
        "2026-01-15T12:00:00Z": 0,
        "2026-02-15T11:59:59Z": 0,
        "2026-02-15T12:00:00Z": 1,
        "2027-01-15T12:00:00Z": 12,
    }
    assert {text: held.month_of_membership(JOINED, seconds(text)) for text in months} == months
    assert held.month_of_membership(JOINED, JOINED - 1) == 0, "a home whose clock or backup is older"
    assert held.month_of_membership(seconds("2026-01-31T00:00:00Z"), seconds("2026-03-01T00:00:00Z")) == 1


def test_the_default_schedule_falls_from_three_quarters_to_nothing() -> None:
    shares = [
        held.held_ppm(HELD_BACK, JOINED, int(datetime(2026 + (n // 12), n % 12 + 1, 20, tzinfo=UTC).timestamp()))
        for n in range(12)
    ]
    assert shares == [750_000] * 3 + [500_000] * 3 + [250_000] * 3 + [0] * 3


def test_a_share_is_due_after_whole_calendar_months() -> None:
    assert held.due_from(seconds("2026-01-31T23:00:00Z"), 9) == "2026-11-01T00:00:00Z"
    assert held.due_from(seconds("2026-12-01T00:00:00Z"), 1) == "2027-02-01T00:00:00Z"
    assert held.due_from(seconds("2026-11-10T00:00:00Z"), 1) == "2027-01-01T00:00:00Z"


def test_what_is_due_is_released_and_what_is_not_stays() -> None:
    shares = (HeldShare(due="2026-10-01T00:00:00Z", amount="5"), HeldShare(due="2026-11-01T00:00:00Z", amount="7"))
    october = seconds("2026-10-01T00:00:00Z")
    assert held.released(shares, october - 1, "due") == (0, shares)
    assert held.released(shares, october, "due") == (5, shares[1:])
    assert held.released(shares, october, "none") == (0, shares)
    assert held.released(shares, 0, "all") == (12, ())


def test_more_than_is_held_cannot_be_taken_away() -> None:
    shares = held.add((), "2026-10-01T00:00:00Z", 5)
    with pytest.raises(Refused, match="have been released already"):
        held.add(shares, "2026-10-01T00:00:00Z", -6)
    assert held.add(shares, "2026-10-01T00:00:00Z", -5) == ()


def payee(release: held.Release = "due", ppm: int = 500_000, months: int = 1) -> Payee:
    return Payee(FEDERATION, "evening", HOME, held_ppm=ppm, hold_months=months, release=release)


def priced(amount: int) -> list[Line]:
    return [Line.model_validate(line("a", amount))] if amount else []


def month(number: int, hour: int = 0) -> Window:
    """An hour of the month, counted from January 2026."""
    start = int(datetime(2026 + number // 12, number % 12 + 1, 2, hour, tzinfo=UTC).timestamp())
    return Window(start, start + 3600)


class Books:
    """A chain, and a ledger that takes its claims."""

    def __init__(self) -> None:
        self.chain, self.ledger = Chain(), MemoryLedger()
        self.claims: dict[str, Claim] = {}

    def book(self, claim: Claim) -> Claim:
        envelope = dsse.sign(claim.header.dump(), dsse.CLAIM_TYPE, hub_key())
        for part in claim.parts:
            self.ledger.submit([claim_part(claim, part.part, canonical(part.dump()))])
        answer = self.ledger.submit([reading("claim", claim.header.id, envelope.canonical())])[0]
        assert isinstance(answer, Recorded), answer
        self.chain = self.chain.after(claim, self.claims.get(claim.header.reverses))
        self.claims[claim.header.id] = claim
        return claim

    def pay(self, number: int, amount: int, payee_: Payee | None = None, *, hour: int = 0) -> Claim:
        return self.book(build(payee_ or payee(), self.chain, month(number, hour), priced(amount), [], b"secret"))

    def post(self, pending: Claim) -> None:
        word = resolution(pending.header.id, "post")
        self.ledger.put(word)
        self.chain = self.chain.resolved(pending, "post")

    def faults(self) -> list[str]:
        """What an auditor finds, who has only the leaves."""
        findings, key = Findings(), hub_key().public_key().public_bytes_raw()
        rules = LeafRules(FEDERATION, {dsse.fingerprint(key): HubKey(key)})
        bodies = [leaf.envelope for leaf in self.ledger.leaves]
        Replay(findings).extend(read_bundle(rules, 0, len(bodies), 0, encode_bundle(bodies)))
        return [one.message for one in findings.shown]

    def held(self) -> int:
        return self.ledger.balances().get(Holding(HELD, "ucredit"), 0)


def claim_part(claim: Claim, number: int, body: bytes) -> Any:
    return PartSubmission(claim.header.id, number, read_part(body, claim.header.id, number), body)


def test_what_was_held_is_released_by_the_first_claim_after_it_is_due_also_without_lines() -> None:
    books = Books()
    first = books.pay(0, 1000)
    assert (first.header.held, first.header.released, first.header.held_until) == ("500", "0", "2026-03-01T00:00:00Z")
    assert books.pay(1, 100).header.released == "0"
    assert books.held() == 550
    later = books.pay(2, 0)
    assert (later.header.released, later.header.held, later.header.held_until) == ("500", "0", None)
    assert held.total(books.chain.held) == books.held() == 50
    last = books.pay(2, 0, payee("all"), hour=1)
    assert (last.header.released, books.held(), books.chain.held) == ("50", 0, ())
    assert last.header.held_back is None


def test_a_claim_that_misstates_what_is_held_is_refused() -> None:
    books = Books()
    books.pay(0, 1000)
    lying = build(payee(), held_more(books.chain), month(0, 1), priced(10), [], b"secret")
    with pytest.raises(AssertionError, match="506, but 505 are held of this chain"):
        books.book(lying)


def held_more(chain: Chain) -> Chain:
    return replace(chain, held=held.add(chain.held, "2026-03-01T00:00:00Z", 1))


def test_taking_a_claim_back_takes_its_held_share_back_and_what_it_released_is_due_again() -> None:
    books = Books()
    books.pay(0, 1000)
    second = books.pay(2, 600)
    assert (second.header.released, books.held()) == ("500", 300)
    books.book(reversal(second.header, books.chain))
    assert books.held() == held.total(books.chain.held) == 500
    again = books.pay(2, 400, hour=1)
    assert (again.header.released, books.held()) == ("500", 200)


def test_a_claim_whose_held_share_was_released_since_cannot_be_taken_back() -> None:
    books = Books()
    first = books.pay(0, 1000)
    books.pay(2, 0)
    with pytest.raises(Refused, match="released already") as refused:
        reversal(first.header, books.chain)
    assert refused.value.reason == "NotHeld"


def test_a_pending_claims_share_is_held_once_it_is_posted() -> None:
    books = Books()
    books.pay(0, 1000)
    pending = books.book(build(payee(), books.chain, month(0, 1), priced(100), [], b"secret", phase="pending"))
    assert pending.header.held_back == [HeldShare(due="2026-03-01T00:00:00Z", amount="500")]
    assert held.total(books.chain.resolved(pending, "post").held) == 550
    assert held.total(books.chain.resolved(pending, "void").held) == 500


def test_an_auditor_follows_what_is_held_from_the_leaves_alone() -> None:
    books = Books()
    books.pay(0, 1000)
    pending = books.book(build(payee(), books.chain, month(0, 1), priced(100), [], b"secret", phase="pending"))
    books.post(pending)
    last = books.pay(2, 700)
    books.book(reversal(last.header, books.chain))
    books.pay(2, 0, hour=1)
    assert books.faults() == []
    assert books.held() == held.total(books.chain.held) == 0


def test_what_is_outstanding_stands_in_the_newest_header_of_each_pool() -> None:
    books = Books()
    claims = [books.pay(0, 1000), books.pay(0, 10, hour=1)]
    objects = [obj for one in claims for obj in flat(claim_chain.objects(one, "homefed-home-a", hub_key()))]
    assert held.outstanding(objects) == {"evening": 505}
    assert held.outstanding([]) == {}


def flat(made: tuple[list[Any], Any]) -> list[Any]:
    return [*made[0], made[1]]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**6), st.integers(0, 750_000)), min_size=1, max_size=12))
def test_whatever_is_held_is_released_to_the_micro_credit(steps: list[tuple[int, int, int]]) -> None:
    """Months go by, pay is held in whatever shares: in the end the contributor has all that was paid and held."""
    books, now, hour, due = Books(), 0, 0, 0
    for months, amount, ppm in steps:
        now, hour = now + months, hour + 1
        claim = books.pay(now, amount, payee(ppm=ppm), hour=hour)
        due += int(claim.header.paid) + int(claim.header.held)
        assert books.held() == held.total(books.chain.held)
    books.pay(now + 3, 0)
    assert (books.held(), books.chain.held) == (0, ())
    assert books.ledger.balances().get(Holding(f"contributor:{FEDERATION}/{HOME}", "ucredit"), 0) == due


def test_a_header_that_lists_shares_out_of_order_is_refused() -> None:
    books = Books()
    header = books.pay(0, 1000).header
    shares = [HeldShare(due="2026-03-01T00:00:00Z", amount="250"), HeldShare(due="2026-02-01T00:00:00Z", amount="250")]
    with pytest.raises(Invalid, match="not sorted by due"):
        check_held_back(header.model_copy(update={"held_back": shares}), None)
