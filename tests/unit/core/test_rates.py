"""Which card and which factor a window has, and what a line costs: integers, rounded once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api.claim_document import Line
from homefed.api.rate_card import PPM, Per, RateCard
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import rates, windows
from homefed.core.ledger import UNITS_OF, line_amount
from homefed.core.windows import Window

MIDNIGHT = windows.seconds("2026-01-01T00:00:00Z")
HOUR = 3600
CPU = {"resource": "cpu", "basis": "reserved", "microCredits": 100, "per": "core-hour"}
USED = CPU | {"basis": "used", "microCredits": 200}
NIGHTS = [{"from": "06:00", "factorPpm": PPM}, {"from": "22:00", "factorPpm": 600_000}]
PPMS = st.integers(0, PPM)
FACTORS = st.integers(0, 10 * PPM)
PRICES = st.integers(0, 10**15)
UNITS = st.integers(0, 10**30)


def card(version: str = "1", valid_from: str = "2026-01-01T00:00:00Z", **changes: Any) -> dict[str, Any]:
    return {"version": version, "validFrom": valid_from, "prices": [CPU, USED]} | changes


def pool(*cards: dict[str, Any]) -> SchedulingPoolSpec:
    first, *others = cards or (card(),)
    return SchedulingPoolSpec.model_validate({"rateCard": first, "nextRateCards": others})


def at(text: str) -> int:
    return windows.seconds(f"2026-01-01T{text}:00Z")


@pytest.mark.parametrize(
    ("time", "factor"),
    [("00:00", 600_000), ("05:59", 600_000), ("06:00", PPM), ("21:59", PPM), ("22:00", 600_000), ("23:59", 600_000)],
)
def test_a_band_lasts_until_the_next_one_also_past_midnight(time: str, factor: int) -> None:
    shuffled = RateCard.model_validate(card(timeOfDay=NIGHTS[::-1]))
    assert rates.factor(shuffled, at(time)) == factor
    assert rates.lowest_factor(shuffled) == 600_000


def test_without_bands_the_factor_is_one() -> None:
    plain = RateCard.model_validate(card())
    assert (rates.factor(plain, at("03:00")), rates.lowest_factor(plain)) == (PPM, PPM)


def test_the_newest_card_that_is_valid_at_the_windows_start_holds() -> None:
    cards = pool(card(), card("3", "2026-03-01T00:00:00Z"), card("2", "2026-02-01T00:00:00Z"))
    for moment, version in (
        ("2025-12-31T23:59:59Z", "1"),
        ("2026-01-31T23:59:59Z", "1"),
        ("2026-02-01T00:00:00Z", "2"),
        ("2026-02-28T23:00:00Z", "2"),
        ("2030-01-01T00:00:00Z", "3"),
    ):
        assert rates.in_force(cards, windows.seconds(moment)).version == version
    assert [one.version for one in rates.to_come(cards, windows.seconds("2026-01-15T00:00:00Z"))] == ["2", "3"]


def test_a_class_has_its_own_prices_and_for_the_rest_those_of_class_standard() -> None:
    fast = USED | {"class": "fast", "microCredits": 300}
    found = RateCard.model_validate(card(prices=[fast, CPU, USED]))
    assert rates.classes(found) == ["fast", "standard"]
    assert [price.micro_credits for price in rates.prices(found, "fast")] == [100, 300]
    assert [price.micro_credits for price in rates.prices(found, "standard")] == [100, 200]
    assert rates.prices(found, "gone") == rates.prices(found, "standard")


def test_stretches_are_neighbouring_windows_of_one_tariff() -> None:
    night = pool(card(timeOfDay=NIGHTS))
    found = rates.stretches(night, at("03:30"), Window(at("07:00"), at("08:00")))
    assert [(one.window.start, one.window.end, one.tariff.factor_ppm) for one in found] == [
        (at("03:00"), at("06:00"), 600_000),
        (at("06:00"), at("08:00"), PPM),
    ]
    alone = rates.stretches(night, at("07:00"), Window(at("07:00"), at("08:00")))
    assert [one.window for one in alone] == [Window(at("07:00"), at("08:00"))]


def test_a_correction_over_several_windows_has_a_stretch_for_each_tariff() -> None:
    night = pool(card(timeOfDay=NIGHTS))
    found = rates.stretches(night, at("05:00"), Window(at("05:00"), at("08:00")))
    assert [(one.window.end, one.tariff.factor_ppm) for one in found] == [(at("06:00"), 600_000), (at("08:00"), PPM)]


def test_a_changed_card_is_a_stretch_of_its_own() -> None:
    cards = pool(card(), card("2", "2026-01-01T05:30:00Z"))
    found = rates.stretches(cards, at("04:00"), Window(at("06:00"), at("07:00")))
    assert [(one.tariff.card.version, one.window) for one in found] == [
        ("1", Window(at("04:00"), at("06:00"))),
        ("2", Window(at("06:00"), at("07:00"))),
    ]


def priced(accepted: int, micro_credits: int, per: Per, price_ppm: int, factor_ppm: int) -> Line:
    """A line as it is signed: what is usual is left out."""
    rate = {"microCredits": micro_credits, "per": per} | ({"pricePpm": price_ppm} if price_ppm != PPM else {})
    fields = {"bound": str(accepted), "reported": str(accepted), "acceptedBefore": "0", "codes": [], "rate": rate}
    amount = line_amount(accepted, micro_credits, per, price_ppm, factor_ppm)
    who = {"consumer": "consumer:fed/ns", "guestPod": "p", "resource": "cpu", "basis": "reserved"}
    given_factor = {"factorPpm": factor_ppm} if factor_ppm != PPM else {}
    unit = {"unit": UNITS_OF[per][0], "accepted": str(accepted), "amount": str(amount)}
    return Line.model_validate(fields | who | given_factor | unit)


def test_the_formula_shows_what_was_multiplied_and_divided() -> None:
    found = rates.formula(priced(360_000_000, 10_000, "core-hour", 800_000, 605_000))
    assert found.text == "⌊360000000 ucore.s × 10000 µcredit ÷ 3600000000 (core-hour) × 80% × 60.5%⌋ = 484"
    plain = rates.formula(priced(359_999_999, 10_000, "core-hour", PPM, PPM))
    assert plain.text == "⌊359999999 ucore.s × 10000 µcredit ÷ 3600000000 (core-hour)⌋ = 999"
    assert plain.remainder_ppm == 999_997


@given(UNITS, PRICES, st.sampled_from(list(UNITS_OF)), PPMS, FACTORS)
def test_the_formula_of_a_line_gives_its_amount_and_what_rounding_took(
    units: int, micro_credits: int, per: Per, price_ppm: int, factor_ppm: int
) -> None:
    found = rates.formula(priced(units, micro_credits, per, price_ppm, factor_ppm))
    divisor = UNITS_OF[per][1] * PPM**2
    exact = units * micro_credits * price_ppm * factor_ppm
    assert found.amount * divisor <= exact < (found.amount + 1) * divisor
    assert (exact - found.amount * divisor) * PPM // divisor == found.remainder_ppm


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=9), PRICES, st.sampled_from(list(UNITS_OF)), PPMS, FACTORS)
def test_n_parts_are_paid_at_most_the_whole_and_less_than_n_µcredit_less(
    parts: list[int], micro_credits: int, per: Per, price_ppm: int, factor_ppm: int
) -> None:
    whole = line_amount(sum(parts), micro_credits, per, price_ppm, factor_ppm)
    apart = sum(line_amount(part, micro_credits, per, price_ppm, factor_ppm) for part in parts)
    assert apart <= whole < apart + len(parts)


@pytest.mark.parametrize(("ppm", "text"), [(PPM, "100%"), (0, "0%"), (605_000, "60.5%"), (1_234, "0.1234%")])
def test_percentages_are_exact(ppm: int, text: str) -> None:
    assert rates.percent(ppm) == text
