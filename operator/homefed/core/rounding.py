"""The two rounding rules of HomeFed, one function each.

Quantities are floors of the *cumulative* value: differences of such floors telescope, so that the parts of any split of
a window add up to the whole. Money is floored once per line; what is lost by it is at most 1 µcredit per line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PPM: Final = 1_000_000


def quantity(cumulative: int, per_unit: int) -> int:
    """Whole units in a cumulative value of which `per_unit` make one unit. Arguments are not negative."""
    return cumulative // per_unit


def money(units: int, micro_credits: int, units_per_price: int) -> int:
    """µcredit for `units` when `units_per_price` of them cost `micro_credits`."""
    return units * micro_credits // units_per_price


@dataclass(frozen=True)
class Split:
    """Where a charge goes, µcredit: paid + held + fee + dust = charged, always."""

    charged: int
    paid: int
    held: int
    fee: int
    dust: int


def split(charged: int, *, fee_ppm: int, held_ppm: int) -> Split:
    """Floor each share; `held_ppm` is of what is left after the fee. Dust, at most 2 µcredit, is the rest."""
    fee = charged * fee_ppm // PPM
    due = charged * (PPM - fee_ppm)
    held = due * held_ppm // PPM**2
    paid = due * (PPM - held_ppm) // PPM**2
    return Split(charged=charged, paid=paid, held=held, fee=fee, dust=charged - fee - held - paid)
