"""Prices: which card is in force, what a line costs, and why.

Integers only, and one rounding per line:

    amount = ⌊units × microCredits × pricePpm × factorPpm ÷ (units of `per` × 10¹²)⌋

Because every line is floored, a stretch of time that is settled in n claims is paid at most what it is paid in one, and
less than n µcredit less, per guest pod, resource and basis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from homefed.api.canonical import digest
from homefed.api.claim_document import Line, Rate
from homefed.api.rate_card import PPM, STANDARD, Per, Price, RateCard
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core.ledger import UNITS_OF, line_amount
from homefed.core.windows import Window, floor, following, seconds

DAY: Final = 86_400


@dataclass(frozen=True)
class Tariff:
    """What holds for one stretch of time: a card, and its factor for the time of day."""

    card: RateCard
    factor_ppm: int = PPM


@dataclass(frozen=True)
class Stretch:
    """Neighbouring windows of one tariff."""

    tariff: Tariff
    window: Window


def in_force(pool: SchedulingPoolSpec, at: int) -> RateCard:
    """The card of a window that begins `at` (seconds): the newest that is valid by then; the first where none is."""
    found, since = pool.rate_card, -1
    for card in pool.next_rate_cards:
        begins = seconds(card.valid_from)
        if since < begins <= at:
            found, since = card, begins
    return found


def to_come(pool: SchedulingPoolSpec, at: int) -> list[RateCard]:
    """Announced cards that are not valid `at` (seconds) yet, in order."""
    return sorted(
        (card for card in pool.next_rate_cards if seconds(card.valid_from) > at), key=lambda c: seconds(c.valid_from)
    )


def card_digest(card: RateCard) -> str:
    """What a claim pins: SHA-256 of the card's canonical JSON."""
    return digest(card.dump())


def factor(card: RateCard, at: int) -> int:
    """Factor (ppm) of the time of day at `at` (seconds)."""
    if not card.time_of_day:
        return PPM
    bands = sorted((_second_of_day(band.begin), band.factor_ppm) for band in card.time_of_day)
    begun = [ppm for begin, ppm in bands if begin <= at % DAY]
    return begun[-1] if begun else bands[-1][1]


def factors(card: RateCard) -> set[int]:
    """All of the day."""
    return {band.factor_ppm for band in card.time_of_day} or {PPM}


def lowest_factor(card: RateCard) -> int:
    """Of the whole day."""
    return min(factors(card))


def _second_of_day(text: str) -> int:
    return int(text[:2]) * 3600 + int(text[3:5]) * 60


def tariff(pool: SchedulingPoolSpec, at: int) -> Tariff:
    """Of a window that begins `at` (seconds). Bands begin where windows do, so that it has one factor."""
    card = in_force(pool, at)
    return Tariff(card, factor(card, at))


def is_flat(pool: SchedulingPoolSpec) -> bool:
    """Whether every window has the same tariff."""
    return not pool.next_rate_cards and not pool.rate_card.time_of_day


def stretches(pool: SchedulingPoolSpec, since: int, window: Window) -> list[Stretch]:
    """From `since` (seconds), or the window's start where that is earlier, to its end, oldest first. `window` may be
    several settlement windows."""
    if is_flat(pool):
        return [Stretch(tariff(pool, window.start), window)]
    length = pool.settlement.window_seconds
    found: list[Stretch] = []
    position = min(floor(since, length), window.start)
    while position < window.end:
        end = min(following(position, length).end, window.end)
        holds = tariff(pool, position)
        if found and found[-1].tariff == holds:
            found[-1] = replace(found[-1], window=Window(found[-1].window.start, end))
        else:
            found.append(Stretch(holds, Window(position, end)))
        position = end
    return found


def prices(card: RateCard, machine_class: str) -> tuple[Price, ...]:
    """One per resource and basis, in the card's order: the class's own, or that of class standard."""
    own = {(price.resource, price.basis): price for price in card.prices if price.machine_class == machine_class}
    standard = [price for price in card.prices if price.machine_class == STANDARD]
    return tuple(own.get((price.resource, price.basis), price) for price in standard)


def classes(card: RateCard) -> list[str]:
    """Classes of machines that the card has prices for."""
    return sorted({STANDARD, *(price.machine_class for price in card.prices)})


@dataclass(frozen=True)
class Formula:
    """How the amount of a line came about: inputs of `text`, and what it leaves over."""

    units: int
    unit: str
    micro_credits: int
    per: Per
    units_per: int
    machine_class: str
    price_ppm: int
    factor_ppm: int
    amount: int
    remainder_ppm: int
    """Millionths of a µcredit that rounding takes."""

    @property
    def text(self) -> str:
        """`⌊360000000 ucore.s × 10000 µcredit ÷ 3600000000 (core-hour) × 80% × 60%⌋ = 480`; factors of 1 left out."""
        factors = "".join(f" × {percent(ppm)}" for ppm in (self.price_ppm, self.factor_ppm) if ppm != PPM)
        price = f"{self.micro_credits} µcredit ÷ {self.units_per} ({self.per})"
        return f"⌊{self.units} {self.unit} × {price}{factors}⌋ = {self.amount}"


def formula(line: Line) -> Formula:
    """The parts of a line's amount, from the line alone."""
    rate, units_per = line.rate, UNITS_OF[line.rate.per][1]
    price_ppm, factor_ppm = rate.price, line.factor
    divisor = units_per * PPM * PPM
    product = int(line.accepted) * price_ppm * factor_ppm * rate.micro_credits
    return Formula(
        units=int(line.accepted),
        unit=line.unit,
        micro_credits=rate.micro_credits,
        per=rate.per,
        units_per=units_per,
        machine_class=rate.machine_class or STANDARD,
        price_ppm=price_ppm,
        factor_ppm=factor_ppm,
        amount=line_amount(int(line.accepted), rate.micro_credits, rate.per, price_ppm, factor_ppm),
        remainder_ppm=product % divisor * PPM // divisor,
    )


def percent(ppm: int) -> str:
    """800000 → `80%`, 1234 → `0.1234%`."""
    whole, rest = divmod(ppm, 10_000)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".") + "%"


def rate_of(price: Price, machine_class: str, price_ppm: int) -> Rate:
    """As a line states it: class and owner's price only where they are not the usual ones."""
    return _rate(machine_class, price.micro_credits, price.per, price_ppm)


@lru_cache(maxsize=1024)
def _rate(machine_class: str, micro_credits: int, per: Per, price_ppm: int) -> Rate:
    """Cached, since thousands of lines have one rate."""
    return Rate(
        machine_class=machine_class if machine_class != STANDARD else None,
        micro_credits=micro_credits,
        per=per,
        price_ppm=price_ppm if price_ppm != PPM else None,
    )
