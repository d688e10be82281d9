"""Sums of a home and of its consumers are the same claims from both sides, to the µcredit."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homefed.api.errors import Incident
from homefed.core import claim_building, earnings
from homefed.core.earnings import Delivered, Period, Posting, Row, apportion, by_consumer, by_line, summed, total
from unit.core.settled_home import T0, Federation, hub_account

ALL = Period(0, 2**40)
APP_NS, JOB_NS = hub_account("ns-1"), hub_account("ns-2")


def postings(hours: int = 3) -> list[Posting]:
    world = Federation()
    found = []
    for hour in range(1, hours + 1):
        world.measure(hour)
        claim = world.settle(hour)
        found.append(Posting(claim.header, "posted", tuple(claim.lines)))
    return found


POSTINGS = postings()


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**9), max_size=12))
@settings(max_examples=100)
def test_shares_add_up_and_are_within_one_of_their_part(amount: int, weights: list[int]) -> None:
    shares = apportion(amount, weights)
    whole = sum(weights)
    assert sum(shares) == (amount if whole else 0)
    for share, weight in zip(shares, weights, strict=True):
        assert share >= 0
        assert not whole or abs(share - amount * weight / whole) <= 1 + amount * 1e-9


def test_what_consumers_pay_is_what_the_home_gets_with_fee_held_and_dust() -> None:
    whole = total(POSTINGS, ALL)
    assert whole.charged == whole.paid + whole.held + whole.fee + whole.dust > 0
    for rows in (by_consumer(POSTINGS, ALL), by_line(POSTINGS, ALL)):
        for name in ("charged", "paid", "held", "fee", "dust"):
            assert sum(getattr(row, name) for row in rows.values()) == getattr(whole, name), name


def test_a_consumers_lines_come_to_its_charge_and_to_its_share_of_each_pot() -> None:
    rows = summed(by_line(POSTINGS, ALL), "consumer")
    assert set(rows) == {Delivered(consumer=APP_NS), Delivered(consumer=JOB_NS)}
    for key, row in by_consumer(POSTINGS, ALL).items():
        own = replace(rows[key], units=0)
        assert own == row
        assert row.charged == row.paid + row.held + row.fee + row.dust


def test_a_consumer_that_sees_its_own_lines_only_gets_the_same_rows() -> None:
    """As the ledger shows it: the other's lines are left out."""
    seen = [replace(one, lines=tuple(line for line in one.lines or () if line.consumer == JOB_NS)) for one in POSTINGS]
    whole = {key: row for key, row in by_line(POSTINGS, ALL).items() if key.consumer == JOB_NS}
    assert by_line(seen, ALL) == whole != {}


def test_a_line_that_was_altered_is_an_incident() -> None:
    lines = POSTINGS[0].lines
    assert lines is not None
    altered = replace(POSTINGS[0], lines=(lines[0].model_copy(update={"amount": "1"}), *lines[1:]))
    with pytest.raises(Incident, match="its header says"):
        by_line([altered], ALL)


def test_what_is_reversed_cancels_out_in_every_table() -> None:
    world = Federation()
    world.measure(1)
    claim = world.settle(1)
    back = claim_building.reversal(claim.header, world.chain)
    both = earnings.with_reversed_lines(
        [Posting(claim.header, "reversed", tuple(claim.lines)), Posting(back.header, "posted")]
    )
    assert total(both, ALL).earned == 0
    assert all(row == Row() for row in by_consumer(both, ALL).values())
    assert all(row == Row() for row in by_line(both, ALL).values())


def test_void_claims_count_for_nothing_and_pending_ones_apart() -> None:
    void, pending = replace(POSTINGS[0], state="void"), replace(POSTINGS[1], state="pending")
    assert total([void, pending], ALL).claims == 0
    assert total([void, pending], ALL, earnings.WAITING).claims == 1
    assert by_line([void, pending], ALL) == {}


def test_a_claim_belongs_to_the_day_and_month_in_which_its_window_begins() -> None:
    day, month = earnings.day(T0 + 5), earnings.month(T0 + 5)
    assert (day.since, day.until - day.since) == (T0, 86_400)
    assert (month.since, month.until - month.since) == (T0, 31 * 86_400)
    assert total(POSTINGS, day).claims == 3
    assert total(POSTINGS, Period(T0 + 3600, T0 + 7200)).claims == 1
    assert total(POSTINGS, earnings.month(T0 - 1)).claims == 0


@pytest.mark.parametrize(("year", "month", "days"), [(2026, 2, 28), (2028, 2, 29), (2026, 12, 31), (2026, 4, 30)])
def test_months_have_their_length(year: int, month: int, days: int) -> None:
    last = int(datetime(year, month, days, 23, 59, 59, tzinfo=UTC).timestamp())
    assert earnings.month(last).until == last + 1
    assert earnings.month(last).until - earnings.month(last).since == days * 86_400


def test_an_estimate_goes_on_as_before_and_says_so() -> None:
    steady = [replace(POSTINGS[0], header=POSTINGS[0].header)]
    earned = int(steady[0].header.paid) + int(steady[0].header.held)
    found = earnings.estimate(steady, T0 + 3600)
    assert found.micro == earned * 31 * 24
    assert found.per_hour == earned
    text = "\n".join(found.assumptions)
    assert "743.0 h" in text
    assert "held back (75 % of the newest claim)" in text
    assert "rate card stays" in text


def test_idle_hours_are_part_of_what_it_goes_on_from() -> None:
    """One hour of work a day ago and one just now: the time between them counts."""
    later = POSTINGS[0].header.model_copy(
        update={"window_start": "2026-01-01T23:00:00Z", "window_end": "2026-01-02T00:00:00Z"}
    )
    found = earnings.estimate([POSTINGS[0], replace(POSTINGS[0], header=later)], T0 + 86_400)
    assert found.micro == found.so_far * 31
    assert found.so_far == 2 * (int(later.paid) + int(later.held))


def test_pending_claims_are_in_the_estimate_and_named() -> None:
    found = earnings.estimate([replace(POSTINGS[0], state="unreceipted")], T0 + 3600)
    assert found.micro
    assert any("1 claims that are pending" in one for one in found.assumptions)


def test_without_a_claim_of_late_there_is_no_estimate() -> None:
    found = earnings.estimate(POSTINGS, T0 + 20 * 86_400)
    assert found.micro is None
    assert found.so_far == total(POSTINGS, ALL).earned
    assert "seven days" in found.assumptions[0]


def test_energy_is_taken_from_what_is_earned() -> None:
    guess = earnings.Estimate(micro=31_000_000, so_far=10_000_000, assumptions=())
    found = earnings.net(12_500, 300_000, guess, T0 + 10 * 86_400).dump()
    assert (found["costMicro"], found["netMicro"]) == (3_750_000, 6_250_000)
    assert found["estimatedCostMicro"] == 3_750_000 * 31 // 10
    assert found["estimatedNetMicro"] == 31_000_000 - 11_625_000
    assert "12.5 kWh" in found["assumptions"][0]
