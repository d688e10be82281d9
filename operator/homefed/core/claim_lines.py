"""The lines of a window's claim: every guest, priced by its terms and by the card in force when the units came about.

A claim has one line per guest pod, resource and basis. Where units come late, from windows before that had another card
or another factor, these are a line of their own: otherwise a home could wait for a better price with its reports.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from homefed.api.claim_document import Line
from homefed.api.rate_card import Price
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import rates
from homefed.core.rates import Stretch
from homefed.core.readings import Report
from homefed.core.report_gates import Step
from homefed.core.rewards import (
    Account,
    Key,
    Observation,
    Usage,
    reserved_line,
    reserved_units,
    summarise,
    used_line,
)
from homefed.core.windows import Window

NONE: Final = Account()


@dataclass(frozen=True)
class _Section:
    """One stretch of time, and what was reported of it."""

    stretch: Stretch
    usage: Mapping[tuple[str, str], Usage]
    is_late: bool
    """It ends before the claim's window does, at another tariff."""
    card_digest: str | None
    """Where the card is not the one of the claim."""
    by_class: dict[str, tuple[Price, ...]] = field(default_factory=dict)

    def prices(self, machine_class: str) -> tuple[Price, ...]:
        found = self.by_class.get(machine_class)
        if found is None:
            found = self.by_class[machine_class] = rates.prices(self.stretch.tariff.card, machine_class)
        return found

    def factor(self, usage: Usage | None, before: Account) -> int:
        """Usage that no report places in time is paid at the lowest factor of the day."""
        factor = self.stretch.tariff.factor_ppm
        if usage is not None and usage.opened > before.close:
            return min(factor, rates.lowest_factor(self.stretch.tariff.card))
        return factor


def lines_of(
    federation: str,
    pool: SchedulingPoolSpec,
    accounts: Mapping[Key, Account],
    guests: Sequence[Observation],
    reports: Sequence[Report],
    window: Window,
) -> tuple[Line, ...]:
    """Lines of all guests, sorted by pod. `reports`: those that no claim has used, up to this window, oldest first."""
    sections = _sections(pool, accounts, guests, reports, window)
    return tuple(
        line
        for guest in sorted(guests, key=lambda one: one.uid)
        if guest.bound < window.end_ms
        for line in _of_guest(federation, pool, accounts, guest, sections)
    )


def _of_guest(
    federation: str,
    pool: SchedulingPoolSpec,
    accounts: Mapping[Key, Account],
    guest: Observation,
    sections: Sequence[_Section],
) -> Iterator[Line]:
    so_far: dict[Key, Account] = {}
    for section in sections:
        for price in section.prices(guest.terms.machine_class):
            key = Key(guest.uid, price.resource, price.basis)
            before = so_far.get(key) or accounts.get(key, NONE)
            line = _line(federation, pool, guest, price, before, section)
            if line is None:
                continue
            if section.card_digest is not None:
                line = line.model_copy(update={"rate_card_digest": section.card_digest})
            if section.is_late:
                so_far[key] = before.after(line, before.sequence)
            yield line


def _line(
    federation: str, pool: SchedulingPoolSpec, guest: Observation, price: Price, before: Account, section: _Section
) -> Line | None:
    stretch = section.stretch
    if price.basis == "reserved":
        factor = stretch.tariff.factor_ppm
        return reserved_line(guest, price, before, stretch.window, federation, factor_ppm=factor)
    usage = section.usage.get((guest.uid, price.resource))
    if usage is None and section.is_late:
        return None
    return used_line(
        guest,
        price,
        usage,
        before,
        stretch.window,
        max_bandwidth_mbps=pool.max_bandwidth_mbps,
        federation=federation,
        factor_ppm=section.factor(usage, before),
    )


def _sections(
    pool: SchedulingPoolSpec,
    accounts: Mapping[Key, Account],
    guests: Sequence[Observation],
    reports: Sequence[Report],
    window: Window,
) -> list[_Section]:
    if rates.is_flat(pool):
        return [_Section(Stretch(rates.tariff(pool, window.start), window), usage_of(reports), False, None)]
    since = min((report.window.start for report in reports), default=window.start)
    unpaid = [
        guest.running // 1000
        for guest in guests
        if guest.running is not None and owes_reserved(pool, accounts, guest, window.start)
    ]
    found = rates.stretches(pool, min([since, window.start, *unpaid]), window)
    pinned = rates.in_force(pool, window.start)
    return [
        _Section(
            stretch,
            usage_of(report for report in reports if stretch.window.start < report.window.end <= stretch.window.end),
            stretch is not found[-1],
            None if stretch.tariff.card is pinned else rates.card_digest(stretch.tariff.card),
        )
        for stretch in found
    ]


def owes_reserved(pool: SchedulingPoolSpec, accounts: Mapping[Key, Account], guest: Observation, until: int) -> bool:
    """Whether something that was reserved up to `until` (seconds) is in no claim yet."""
    return any(
        reserved_units(guest, price, accounts.get(Key(guest.uid, price.resource, price.basis), NONE), until * 1000)
        for price in pool.rate_card.prices
        if price.basis == "reserved"
    )


def usage_of(reports: Iterable[Report]) -> dict[tuple[str, str], Usage]:
    """(guest pod, resource) → what these reports, oldest first, say of it."""
    found: dict[tuple[str, str], list[Step]] = defaultdict(list)
    for report in reports:
        for line in report.lines:
            found[line.guest_pod, line.resource].append(Step(line, report.window, 2 * report.interval_ms))
    return {key: summarise(steps) for key, steps in found.items()}
