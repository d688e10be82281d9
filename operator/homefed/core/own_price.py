"""Whether a pool's card and what an owner asks for his machines fit together; if not, which field and which price."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from homefed.api.rate_card import PPM, STANDARD, Basis, Floor, OwnPrice, Price, RateCard
from homefed.core.conditions import FALSE
from homefed.core.findings import Finding
from homefed.core.rates import classes, lowest_factor, percent, prices

UNKNOWN_CLASS: Final = "UnknownClass"
CLASS_NOT_GRANTED: Final = "ClassNotGranted"
PRICE_BELOW_MINIMUM: Final = "PriceBelowMinimum"
FLOOR_ABOVE_MAXIMUM: Final = "FloorAboveMaximum"
PRICE_BELOW_FLOOR: Final = "PriceBelowFloor"


def objection(card: RateCard, machine_class: str, own: OwnPrice, granted: Sequence[str]) -> Finding | None:
    """Why machines of this class are not taken at this price: reason, and a sentence with field and price; None where
    they are. `granted`: classes beside standard that the organiser lets the home declare."""
    known = classes(card)
    if machine_class not in known:
        message = f"spec.class: rate card {card.version} has prices for {', '.join(known)}, not for {machine_class}."
        return Finding(FALSE, UNKNOWN_CLASS, message)
    if machine_class not in (STANDARD, *granted):
        message = (
            f"spec.class: the organiser has not granted class {machine_class} to this home (Home spec.classes); set"
            f" {STANDARD}, or ask him."
        )
        return Finding(FALSE, CLASS_NOT_GRANTED, message)
    offered = prices(card, machine_class)
    return next((found for found in (*_minima(card, own, offered), *_floors(card, own, offered)) if found), None)


def _minima(card: RateCard, own: OwnPrice, offered: Sequence[Price]) -> Iterator[Finding]:
    for price in offered:
        if price.micro_credits * own.percent_of_card < price.min_micro_credits * 100:
            least = -(-price.min_micro_credits * 100 // max(1, price.micro_credits))
            yield Finding(
                FALSE,
                PRICE_BELOW_MINIMUM,
                f"spec.price.percentOfCard {own.percent_of_card}: {_what(price.resource, price.basis)} may not cost"
                f" less than {price.min_micro_credits} µcredit per {price.per} (rate card {card.version}: it has"
                f" {price.micro_credits}); set {least} or more.",
            )


def _floors(card: RateCard, own: OwnPrice, offered: Sequence[Price]) -> Iterator[Finding]:
    by_key = {(price.resource, price.basis): price for price in offered}
    for wanted in own.floors:
        price = by_key.get((wanted.resource, wanted.basis))
        if wanted.micro_credits and price is None:
            yield _below(card, own, wanted, "has no price for it", "take the floor away")
        elif (
            price is not None and price.max_micro_credits is not None and wanted.micro_credits > price.max_micro_credits
        ):
            yield Finding(
                FALSE,
                FLOOR_ABOVE_MAXIMUM,
                f"spec.price.floors {_what(wanted.resource, wanted.basis)} {wanted.micro_credits} µcredit per"
                f" {price.per} lies above rate card {card.version}'s maximum {price.max_micro_credits}: lower it.",
            )
        elif price is not None and _is_below(card, own, price, wanted):
            times = _times(card, own)
            yield _below(card, own, wanted, f"gives {price.micro_credits}{times} per {price.per}", "lower the floor")


def _is_below(card: RateCard, own: OwnPrice, price: Price, wanted: Floor) -> bool:
    return price.micro_credits * own.ppm * lowest_factor(card) < wanted.micro_credits * PPM * PPM


def _times(card: RateCard, own: OwnPrice) -> str:
    parts = [f" × {own.percent_of_card}% (spec.price.percentOfCard)"] if own.percent_of_card != 100 else []
    parts += [f" × {percent(lowest_factor(card))} (lowest time of day)"] if lowest_factor(card) != PPM else []
    return "".join(parts)


def _below(card: RateCard, own: OwnPrice, wanted: Floor, gives: str, remedy: str) -> Finding:
    where = f"spec.price.floors {_what(wanted.resource, wanted.basis)} {wanted.micro_credits} µcredit"
    return Finding(
        FALSE,
        PRICE_BELOW_FLOOR,
        f"{where}: rate card {card.version} {gives}; the machines stay out of the pool: {remedy}, or wait for another"
        " card.",
    )


def _what(resource: str, basis: Basis) -> str:
    return f"{resource} {basis}"
