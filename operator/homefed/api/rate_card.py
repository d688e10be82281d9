"""What a pool pays, and what an owner asks: rate cards, classes of machines, the owner's own price.

A card has a price per (resource, basis, class of machine), in whole µcredit. Factors are integers in millionths (ppm),
so that amounts are computed without fractions and rounded once per line; see `core.rates`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from homefed.api import names
from homefed.api.meta import Model, ResourceName, Rule, Time

Basis = Literal["reserved", "used"]
Per = Literal["core-hour", "GiB-hour", "GiB", "gpu-hour"]

STANDARD: Final = "standard"
"""The class of every machine of which nothing else is said."""
PPM: Final = 1_000_000
MAX_NEXT_CARDS: Final = 4

MachineClass = Annotated[str, Field(min_length=1, max_length=40, pattern=names.NAME_PATTERN)]
MicroCredits = Annotated[int, Field(ge=0, le=10**15)]
PricePpm = Annotated[int, Field(ge=0, le=PPM)]
"""Millionths of the card's price that an owner asks."""
FactorPpm = Annotated[int, Field(ge=0, le=10 * PPM)]


class Price(Model):
    """amount = ⌊units × microCredits × factors ÷ units of `per`⌋, once per line."""

    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.resource == 'cpu' ? self.per == 'core-hour' : (self.resource in ['memory', 'ephemeral-storage']"
            " ? self.per == 'GiB-hour' : (self.resource in ['network-receive', 'network-transmit']"
            " ? self.per == 'GiB' && self.basis == 'used' : self.per == 'gpu-hour'))",
            "per: cpu is priced per core-hour, memory and ephemeral-storage per GiB-hour,"
            " network per GiB used, devices per gpu-hour",
            ".per",
        ),
        Rule(
            "self.minMicroCredits <= self.microCredits",
            "minMicroCredits: at most microCredits",
            ".minMicroCredits",
        ),
        Rule(
            "!has(self.maxMicroCredits) || self.maxMicroCredits >= self.microCredits",
            "maxMicroCredits: at least microCredits",
            ".maxMicroCredits",
        ),
    )

    resource: ResourceName
    """cpu, memory, ephemeral-storage, network-receive, network-transmit, or an extended resource."""
    basis: Basis
    """reserved: requested × running time as the hub saw it; used: what the home's meter read, bounded by the hub."""
    machine_class: Annotated[MachineClass, Field(alias="class")] = STANDARD
    """Of machines. A class without a price of its own for a resource and basis has the one of class standard."""
    micro_credits: MicroCredits
    per: Per
    min_micro_credits: MicroCredits = 0
    """The least that an owner may ask (spec.price.percentOfCard of his Contribution)."""
    max_micro_credits: MicroCredits | None = None
    """The most that this price will be: an owner whose floor lies above it cannot join. None: no word on that."""


class TimeOfDay(Model):
    """A band of the day: from `from` until the next band begins; the last one of the day lasts until the first."""

    begin: Annotated[str, Field(max_length=5, pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", alias="from")]
    """HH:MM in UTC. Where a settlement window begins: spec.settlement.windowSeconds divides it."""
    factor_ppm: FactorPpm
    """Millionths of the price, of every resource: 600000 is 60 %."""


_EDGES: Final = (
    "(int(b.from.substring(0, 2)) * 3600 + int(b.from.substring(3, 5)) * 60) % self.settlement.windowSeconds"
)
_PAIR: Final = "o.resource == p.resource && o.basis == p.basis"


class RateCard(Model):
    """One version of a pool's prices."""

    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.prices.all(p, oldSelf.prices.exists(o, {_PAIR}))",
            "prices: what had no price cannot get one later, since amounts count from a guest's start;"
            " price it at 0 from the beginning, or make another pool",
            ".prices",
        ),
        Rule(
            f"self.prices.all(p, p.class == 'standard' || self.prices.exists(o, {_PAIR} && o.class == 'standard'))",
            "prices: what is priced for a class has a price for class standard too; it may be 0",
            ".prices",
        ),
        Rule(
            "self == oldSelf || self.version != oldSelf.version",
            "version: another card is another version",
            ".version",
        ),
    )

    version: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][-A-Za-z0-9._]*$")]
    valid_from: Time
    """Windows that begin then or later have these prices."""
    prices: Annotated[
        list[Price],
        Field(
            max_length=64,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["resource", "basis", "class"],
            },
        ),
    ]
    time_of_day: Annotated[
        list[TimeOfDay],
        Field(
            default_factory=list,
            max_length=8,
            json_schema_extra={
                "default": [],
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["from"],
            },
        ),
    ]
    """Factors by the hour, UTC; empty: 1 all day."""


CARD_RULES: Final = (
    Rule(
        f"self.rateCard.timeOfDay.all(b, {_EDGES} == 0)",
        "rateCard.timeOfDay.from: where a window begins; it must be a multiple of settlement.windowSeconds after 00:00",
        ".rateCard.timeOfDay",
    ),
    Rule(
        f"self.nextRateCards.all(c, c.timeOfDay.all(b, {_EDGES} == 0))",
        "nextRateCards.timeOfDay.from: where a window begins; it must be a multiple of settlement.windowSeconds after"
        " 00:00",
        ".nextRateCards",
    ),
    Rule(
        "self.nextRateCards.all(c, c.validFrom > self.rateCard.validFrom && c.version != self.rateCard.version"
        " && self.nextRateCards.exists_one(o, o.validFrom == c.validFrom))",
        "nextRateCards: each has a validFrom of its own, later than rateCard's, and a version of its own",
        ".nextRateCards",
    ),
    Rule(
        "self.nextRateCards.all(c, c.prices.all(p, self.rateCard.prices.exists(o, "
        + _PAIR
        + ")) && self.rateCard.prices.all(p, c.prices.exists(o, "
        + _PAIR
        + ")))",
        "nextRateCards.prices: price the same resources and bases as rateCard, since amounts count from a guest's"
        " start; a price may be 0",
        ".nextRateCards",
    ),
    Rule(
        "self.nextRateCards.all(c, oldSelf.nextRateCards.all(o, o.version != c.version || o == c))",
        "nextRateCards: an announced card stays as it is; take it away and announce another version",
        ".nextRateCards",
    ),
)
"""Of a SchedulingPool's spec."""


class Floor(Model):
    """The least that the owner takes for one resource and basis."""

    resource: ResourceName
    basis: Basis
    micro_credits: MicroCredits
    """Per what the card's price is per (core-hour, GiB-hour, GiB, gpu-hour)."""


class OwnPrice(Model):
    """What the owner asks: less than the card, or not below a floor."""

    percent_of_card: Annotated[int, Field(ge=0, le=100)] = 100
    """Of every price of the card. 0 gives the machines for nothing, and has to be written."""
    floors: Annotated[
        list[Floor],
        Field(
            default_factory=list,
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["resource", "basis"]},
        ),
    ]
    """Compared with percentOfCard of the card's price at its lowest time of day. While one is above it, the machines
    are not in the pool, and condition Accepted says which."""

    @property
    def ppm(self) -> int:
        return self.percent_of_card * (PPM // 100)


class Terms(Model):
    """What a guest is priced by, beside the card: fixed when it is bound."""

    machine_class: Annotated[MachineClass, Field(alias="class")] = STANDARD
    price_ppm: PricePpm = PPM
