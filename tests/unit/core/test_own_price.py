"""What an owner asks for his machines, against a pool's card: which field, which price, what to do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api.rate_card import OwnPrice, RateCard
from homefed.core import rates
from homefed.core.own_price import objection

CARD = RateCard.model_validate(
    {
        "version": "7",
        "validFrom": "2026-01-01T00:00:00Z",
        "prices": [
            {"resource": "cpu", "basis": "reserved", "microCredits": 10_000, "per": "core-hour"},
            {
                "resource": "cpu",
                "basis": "used",
                "microCredits": 20_000,
                "per": "core-hour",
                "minMicroCredits": 6_000,
                "maxMicroCredits": 40_000,
            },
            {"resource": "cpu", "basis": "used", "class": "fast", "microCredits": 30_000, "per": "core-hour"},
        ],
        "timeOfDay": [{"from": "06:00", "factorPpm": 1_000_000}, {"from": "22:00", "factorPpm": 500_000}],
    }
)


def own(percent: int = 100, **floors: int) -> OwnPrice:
    """Floors by basis, of cpu."""
    listed = [{"resource": "cpu", "basis": basis, "microCredits": amount} for basis, amount in floors.items()]
    return OwnPrice.model_validate({"percentOfCard": percent, "floors": listed})


@pytest.mark.parametrize(
    ("machine_class", "price", "granted"),
    [
        ("standard", own(), []),
        ("standard", own(30), []),
        ("standard", own(reserved=5_000, used=10_000), []),
        ("fast", own(0), ["fast"]),
        ("fast", own(80, used=12_000), ["fast"]),
    ],
)
def test_what_fits_is_taken(machine_class: str, price: OwnPrice, granted: list[str]) -> None:
    assert objection(CARD, machine_class, price, granted) is None


@pytest.mark.parametrize(
    ("machine_class", "price", "granted", "reason", "words"),
    [
        ("slow", own(), ["slow"], "UnknownClass", ["spec.class", "fast, standard", "slow"]),
        ("fast", own(), ["slow"], "ClassNotGranted", ["spec.class", "Home spec.classes", "fast"]),
        ("standard", own(29), [], "PriceBelowMinimum", ["spec.price.percentOfCard 29", "cpu used", "6000", "set 30"]),
        ("standard", own(0), [], "PriceBelowMinimum", ["spec.price.percentOfCard 0", "set 30"]),
        ("standard", own(used=40_001), [], "FloorAboveMaximum", ["spec.price.floors cpu used 40001", "40000"]),
        (
            "standard",
            own(used=10_001),
            [],
            "PriceBelowFloor",
            ["spec.price.floors cpu used 10001", "20000 × 50% (lowest time of day) per core-hour"],
        ),
        ("standard", own(50, reserved=5_000), [], "PriceBelowFloor", ["10000 × 50% (spec.price.percentOfCard) × 50%"]),
    ],
)
def test_what_does_not_fit_names_field_price_and_remedy(
    machine_class: str, price: OwnPrice, granted: list[str], reason: str, words: list[str]
) -> None:
    found = objection(CARD, machine_class, price, granted)
    assert found is not None
    assert (found.status, found.reason) == ("False", reason)
    assert [word for word in words if word not in found.message] == []


def test_a_floor_for_what_has_no_price_keeps_the_machines_out_unless_it_is_0() -> None:
    def memory(floor: int) -> OwnPrice:
        return OwnPrice.model_validate({"floors": [{"resource": "memory", "basis": "used", "microCredits": floor}]})

    found = objection(CARD, "standard", memory(1), [])
    assert found is not None
    assert "has no price for it" in found.message
    assert objection(CARD, "standard", memory(0), []) is None


@given(st.integers(0, 100), st.integers(0, 40_000))
def test_who_is_taken_never_earns_less_than_his_floor(percent: int, floor: int) -> None:
    asked = own(percent, used=floor)
    if objection(CARD, "standard", asked, []) is None:
        price: Any = next(one for one in rates.prices(CARD, "standard") if one.basis == "used")
        assert price.micro_credits * asked.ppm * rates.lowest_factor(CARD) >= floor * 10**12
        assert price.micro_credits * percent >= price.min_micro_credits * 100
