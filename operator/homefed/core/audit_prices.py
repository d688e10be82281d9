"""Prices of the lines behind the claims: a guest's terms never change, and rates and factors are those of the cards
that the auditor has. What a line's own figures come to is checked when its part is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from homefed.api.claim_document import ClaimHeader, Line
from homefed.api.rate_card import STANDARD, Basis, RateCard
from homefed.core import rates
from homefed.core.correction import CARRIED, FORFEITED
from homefed.core.replay import Findings
from homefed.core.windows import seconds

AS_IT_STOOD: Final = frozenset({CARRIED, FORFEITED})
"""Lines of a correction that are not computed anew."""


class PriceAudit:
    """Feed it the claims in the order of the log. Memory: a pair per guest pod."""

    def __init__(self, findings: Findings, cards: Iterable[RateCard] = ()) -> None:
        self.findings = findings
        self.compared = 0
        """Lines of which the card is known."""
        self._cards = {rates.card_digest(card): card for card in cards}
        self._terms: dict[tuple[str, str, str], tuple[str, int]] = {}

    def claim(self, leaf: int, header: ClaimHeader, lines: Sequence[Line]) -> None:
        newest = {(line.guest_pod, line.resource, line.basis): index for index, line in enumerate(lines)}
        for index, line in enumerate(lines):
            key = (line.guest_pod, line.resource, line.basis)
            problems = [self._changed_terms(header, line)]
            card = self._cards.get(line.rate_card_digest or header.rate_card_digest)
            if not AS_IT_STOOD.isdisjoint(line.codes):
                card = None
            else:
                problems.append(_wrong_gap(line))
            if card is not None:
                self.compared += 1
                problems += [_wrong_rate(card, line), _wrong_factor(card, header, line, late=newest[key] != index)]
            for code, message in filter(None, problems):
                self.findings.add(code, f"{' '.join(key)}: {message}", leaf, header.id)

    def _changed_terms(self, header: ClaimHeader, line: Line) -> tuple[str, str] | None:
        terms = (line.rate.machine_class or STANDARD, line.rate.price)
        bound = self._terms.setdefault((header.pool, header.account, line.guest_pod), terms)
        if terms == bound:
            return None
        said, before = (f"class {one[0]} at {rates.percent(one[1])}" for one in (terms, bound))
        return "TermsChanged", f"{said}, but {before} in an earlier line"


def _wrong_gap(line: Line) -> tuple[str, str] | None:
    if line.gap is None or line.reading is None:
        return None
    gap = max(0, int(line.reading.close) - int(line.accepted_before) - int(line.accepted))
    return None if int(line.gap) == gap else ("GapDiffers", f"gap {line.gap}, but by the reading it is {gap}")


def _wrong_rate(card: RateCard, line: Line) -> tuple[str, str] | None:
    rate = line.rate
    price = _price(card, rate.machine_class or STANDARD, line.resource, line.basis)
    if price == (rate.micro_credits, rate.per):
        return None
    has = f"{price[0]} per {price[1]}" if price is not None else "no price"
    return "RateDiffers", f"{rate.micro_credits} µcredit per {rate.per}, but rate card {card.version} has {has}"


def _price(card: RateCard, machine_class: str, resource: str, basis: Basis) -> tuple[int, str] | None:
    for price in rates.prices(card, machine_class):
        if (price.resource, price.basis) == (resource, basis):
            return price.micro_credits, price.per
    return None


def _wrong_factor(card: RateCard, header: ClaimHeader, line: Line, *, late: bool) -> tuple[str, str] | None:
    """A line of earlier units, or of a correction, can have any factor of its card; the window's own has the window's,
    or the lowest."""
    if late or header.revision or line.rate_card_digest is not None:
        allowed = rates.factors(card)
    else:
        allowed = {rates.factor(card, seconds(header.window_start)), rates.lowest_factor(card)}
    if line.factor in allowed:
        return None
    listed = ", ".join(map(rates.percent, sorted(allowed)))
    return "FactorDiffers", f"factor {rates.percent(line.factor)}, but rate card {card.version} has {listed} there"
