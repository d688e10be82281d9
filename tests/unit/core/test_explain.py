"""Each line says how it came about, checks itself, and names what would have raised it."""

from __future__ import annotations

from typing import Any

import pytest

from homefed.api.claim_document import Line, LineReading, Rate
from homefed.core import (
    correction,
    meter_quality,
    readings,
    report_gates,
    rewards,
    samples,
)
from homefed.core.explain import Explained, Hint, explain_header, explain_line, window_of
from homefed.core.rewards import Observation
from unit.core.settled_home import APP, T0, Federation

HOUR = 3_600_000


def line(units: int = 1_800_000_000, **changes: Any) -> Line:
    """Half a core for an hour, used, at 2 credits per core-hour; `changes` by the names of the fields."""
    fields: dict[str, Any] = {
        "consumer": "consumer:fed/ns-1",
        "guest_pod": APP,
        "resource": "cpu",
        "basis": "used",
        "unit": "ucore.s",
        "reported": str(units),
        "bound": "3600000000",
        "accepted": str(units),
        "accepted_before": "0",
        "rate": Rate(micro_credits=2_000_000, per="core-hour"),
        "amount": str(units * 2_000_000 // 3_600_000_000),
        "codes": [],
        "reading": LineReading(open="0", close=str(units), samples=240, expected=240, gaps=0, resets=0),
    }
    return Line(**(fields | changes))


def hint(found: Explained, code: str) -> Hint:
    return next(one for one in found.hints if one.code == code)


def explained(one: Line, guest: Observation | None = None) -> Explained:
    world = Federation()
    world.measure(1)
    return explain_line(one, window_of(world.settle(1).header), guest)


def test_every_line_and_header_of_a_settled_hour_holds() -> None:
    world = Federation()
    for hour in (1, 2):
        world.measure(hour)
        claim = world.settle(hour)
        assert explain_header(claim.header).holds
        assert claim.lines
        for one in claim.lines:
            assert explain_line(one, claim.window).holds, one


def test_formulas_carry_the_lines_own_figures() -> None:
    accepted, amount = explained(line()).steps
    assert accepted.figures == "max(0, min(1800000000 − 0, 3600000000)) ucore.s"
    assert (accepted.value, amount.value) == (1_800_000_000, 1_000_000)
    assert "1800000000 ucore.s × 2000000" in amount.figures


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        ({"amount": "1000001"}, "amount"),
        ({"accepted": "1800000001"}, "accepted"),
        ({"bound": "1799999999"}, "accepted"),
    ],
)
def test_a_line_that_does_not_follow_from_its_inputs_says_so(changes: dict[str, Any], result: str) -> None:
    found = explained(line(**changes))
    assert not found.holds
    assert result in [step.result for step in found.steps if not step.holds]


def test_a_reserved_line_whose_figures_differ_does_not_hold() -> None:
    reserved = {"basis": "reserved", "reading": None, "bound": "1800000000"}
    assert explained(line(**reserved)).holds
    assert not explained(line(**reserved | {"reported": "1"})).holds


def test_what_lies_above_the_bound_is_counted_and_priced() -> None:
    reading = LineReading(open="0", close="5400000000", samples=240, expected=240, gaps=0, resets=0)
    found = hint(explained(line(3_600_000_000, reading=reading, codes=["Bounded"])), "Bounded")
    assert found.worth == 1_000_000, "half a core-hour at 2 credits"
    assert "1800000000 ucore.s" in found.text
    assert "asks for more" in found.text


def test_without_a_report_the_bound_is_what_may_still_come() -> None:
    reading = LineReading(open="0", close="0", samples=0, expected=0, gaps=0, resets=0)
    found = hint(explained(line(0, reading=reading, codes=["NoReport"])), "NoReport")
    assert found.worth == 2_000_000
    assert "next claim" in found.text


def test_partial_coverage_names_samples_and_gaps() -> None:
    reading = LineReading(open="0", close="1800000000", samples=200, expected=240, gaps=2, resets=0)
    assert "200 of 240 samples, 2 gaps" in hint(explained(line(reading=reading, codes=["Partial"])), "Partial").text


def test_the_owners_price_and_the_time_of_day_show_what_they_took() -> None:
    cheap = Rate(micro_credits=2_000_000, per="core-hour", price_ppm=800_000)
    found = explained(line(rate=cheap, factor_ppm=500_000, amount="400000"))
    assert found.holds
    assert hint(found, "OwnPrice").worth == 100_000
    assert hint(found, "TimeOfDay").worth == 400_000
    assert "80%" in hint(found, "OwnPrice").text


def test_time_that_the_hub_did_not_see_is_counted_where_the_pod_is_known() -> None:
    blind = ((T0 * 1000 + HOUR // 4, T0 * 1000 + HOUR // 2),)
    guest = Observation(APP, "ns-1", {"cpu": 1000}, T0 * 1000, T0 * 1000, None, blind)
    reserved = line(2_700_000_000, basis="reserved", reading=None, bound="2700000000")
    found = hint(explained(reserved, guest), "UnseenTime")
    assert found.worth == 500_000
    assert "900.000 s" in found.text
    assert all(one.code != "UnseenTime" for one in explained(reserved).hints)


CODES = [
    *(rewards.BOUNDED, rewards.NO_REPORT, readings.MALFORMED_LINE),
    *(report_gates.NOT_MONOTONE, report_gates.IMPOSSIBLE),
    *(meter_quality.PARTIAL, meter_quality.NO_SAMPLES, meter_quality.ESTIMATED, meter_quality.LAGGED),
    *(meter_quality.OVER_CAPACITY, samples.NOT_FINITE, samples.NEGATIVE, samples.TOO_LARGE, samples.FUTURE),
    *(correction.CARRIED, correction.FORFEITED),
]


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_sentence(code: str) -> None:
    assert len(hint(explained(line(codes=[code])), code).text) > 40
    assert "table of codes" not in hint(explained(line(codes=[code])), code).text


def test_an_unknown_code_leads_to_the_table() -> None:
    assert "docs/settlement.md" in hint(explained(line(codes=["FromTheFuture"])), "FromTheFuture").text


def test_a_header_says_where_its_charge_went() -> None:
    world = Federation()
    world.measure(1)
    found = explain_header(world.settle(1).header)
    assert {one.code for one in found.hints} == {"Fee", "HeldBack"}
