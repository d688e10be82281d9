"""From samples to amounts, the way a utility bills: counters are read, readings stored, usage is closing − opening.

Never from increase(), rate() or resampled data: those are wrong where homes are (scrape outages, resets, short pods).
`measure` advances one state machine per container and resource (see meter_state) over a window, and writes down where
each of them stands: the next window opens there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from homefed.api.report_document import MEMORY, METERED, RECEIVE, TRANSMIT, UNITS, Metered, Reading, ReportLine
from homefed.core.meter_inputs import Guest, Settings, Span
from homefed.core.meter_limits import KIB_SECOND, limit_of, over_capacity
from homefed.core.meter_quality import (
    COVERED,
    ESTIMATED,
    LAGGED,
    NO_SAMPLES,
    OVER_CAPACITY,
    PARTIAL,
    cover,
    coverage_ppm,
    flags,
)
from homefed.core.meter_state import Meter, Tally
from homefed.core.rounding import quantity
from homefed.core.samples import Identity, Intake
from homefed.core.windows import Window

__all__ = [
    "COVERED",
    "ESTIMATED",
    "LAGGED",
    "METER_VERSION",
    "NO_SAMPLES",
    "OVER_CAPACITY",
    "PARTIAL",
    "Guest",
    "Intake",
    "Measured",
    "Settings",
    "Span",
    "is_over",
    "measure",
    "over_capacity",
    "units",
]

METER_VERSION: Final = "homefed-meter/2"
"""Raised with every change of the arithmetic: whoever recomputes a report needs the same."""

CARRY_MS: Final = 7 * 86_400_000
"""So long readings of pods that are not given are carried on."""


@dataclass(frozen=True)
class Measured:
    """Lines sorted by guest pod and resource; readings sorted by identity."""

    lines: list[ReportLine]
    readings: list[Reading]


def measure(
    window: Window, guests: Iterable[Guest], taken: Intake, previous: Iterable[Reading], settings: Settings
) -> Measured:
    """Advance every meter over one window. `previous` are the readings with which the last window closed.

    Guests that had ended, fully read, before the window are left out, and their readings with them. Readings of guests
    that are not given at all are carried on: an empty list is no evidence that a pod is gone.
    """
    known = {guest.uid: guest for guest in guests}
    before: dict[str, dict[Identity, Reading]] = defaultdict(dict)
    for one in previous:
        before[one.guest_pod][Identity(one.guest_pod, one.container, one.resource)] = one
    sampled: dict[tuple[str, Metered], list[Identity]] = defaultdict(list)
    for identity in taken.samples:
        sampled[identity.guest_pod, identity.resource].append(identity)
    lines: list[ReportLine] = []
    readings = [
        one for uid, own in before.items() if uid not in known for one in own.values() if _is_carried(one, window)
    ]
    for guest in sorted(known.values(), key=lambda one: one.uid):
        own = before[guest.uid]
        if is_over(guest, own.values(), window):
            continue
        for resource in METERED:
            identities = _identities(guest, resource, sampled[guest.uid, resource], own)
            meters = {identity: _meter(identity, guest, own.get(identity), settings) for identity in identities}
            lines.append(_line(window, guest, resource, meters, taken, settings))
            readings += [meter.reading(identity) for identity, meter in meters.items() if meter.time]
    return Measured(lines, sorted(readings, key=lambda one: (one.guest_pod, one.container, one.resource)))


def is_over(guest: Guest, readings: Iterable[Reading], window: Window) -> bool:
    """Not begun by the window's end, or ended before it with nothing left to read."""
    if guest.life.start is None or guest.life.start >= window.end_ms:
        return True
    return guest.life.end is not None and guest.life.end <= window.start_ms and all(one.ended for one in readings)


def _is_carried(reading: Reading, window: Window) -> bool:
    return not reading.ended and window.end_ms - reading.time < CARRY_MS


def units(resource: Metered, cumulative: int) -> int:
    """Whole units (see report_document.UNITS) in a reading's cumulative value."""
    return quantity(cumulative, KIB_SECOND if resource == MEMORY else 1)


def _identities(
    guest: Guest, resource: Metered, sampled: Iterable[Identity], before: Iterable[Identity]
) -> list[Identity]:
    """Those with samples or readings, and those that should have had some."""
    expected = [""] if resource in (RECEIVE, TRANSMIT) else list(guest.containers)
    found = {Identity(guest.uid, container, resource) for container in expected}
    return sorted(found.union(sampled, (key for key in before if key.resource == resource)))


def _meter(identity: Identity, guest: Guest, reading: Reading | None, settings: Settings) -> Meter:
    """As it stood when the window before closed."""
    limit = limit_of(identity.resource, guest.requests)
    meter = Meter(identity.resource, guest.span(identity.container), guest.life.start or 0, limit, settings)
    if reading is not None:
        meter.resume(reading)
    return meter


def _line(
    window: Window,
    guest: Guest,
    resource: Metered,
    meters: Mapping[Identity, Meter],
    taken: Intake,
    settings: Settings,
) -> ReportLine:
    """Advance a pod's meters of one resource; what they count together is the line."""
    opening = units(resource, sum(meter.cumulative for meter in meters.values()))
    tally = Tally()
    for identity, meter in meters.items():
        samples = taken.samples.get(identity, ())
        cover(meter, samples, window)
        meter.advance(samples, window)
        tally.add(meter.tally)
    closing = units(resource, sum(meter.cumulative for meter in meters.values()))
    rejected = taken.rejected.get((guest.uid, resource), Counter())
    is_too_much = over_capacity(resource, closing, guest.requests, window.end_ms - (guest.life.start or 0))
    return ReportLine(
        guest_pod=guest.uid,
        resource=resource,
        unit=UNITS[resource],
        open=str(opening),
        close=str(closing),
        amount=str(closing - opening),
        samples=tally.samples,
        expected=tally.running_ms // settings.interval_ms,
        gaps=tally.gaps,
        resets=tally.resets,
        estimated=str(units(resource, tally.estimated)),
        coverage_ppm=coverage_ppm(tally),
        flags=flags(tally, rejected, over_capacity=is_too_much),
    )
