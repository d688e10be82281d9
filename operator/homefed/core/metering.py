"""From samples to amounts, the way a utility bills: counters are read, readings stored, usage is closing − opening.

Never from increase(), rate() or resampled data: those are wrong where homes are (scrape outages, resets, short pods).
The meter is a state machine per identity: its state is a `Reading`, it advances sample by sample in order of time, and
everything that it knows is in the reading. So for any split of a stretch of time into windows the amounts add up to the
amount of the whole, exactly.

Counters: a sample adds what it exceeds the instance's highest value by. A new instance (container id, or start time)
begins at 0, whether or not the value drops; a drop within an instance is a lagging scraper, and adds nothing.
Gauges: a value holds until the next sample, at most two scrape intervals (`hold`), at most until the container ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

from homefed.api import quantities
from homefed.api.report_document import CPU, MEMORY, METERED, RECEIVE, TRANSMIT, UNITS, Metered, Reading, ReportLine
from homefed.core.rounding import PPM, quantity
from homefed.core.samples import Identity, Intake, Sample
from homefed.core.windows import Window, span_ms

METER_VERSION: Final = "homefed-meter/1"

KUBELET_MS: Final = 15_000
"""On average the kubelet reads a container so often (10 to 20 s): scraping more often brings no more samples."""
KIB_SECOND: Final = 1024 * 1000
"""byte·ms in one KiB·s."""
COVERED: Final = 950_000

PARTIAL: Final = "Partial"
NO_SAMPLES: Final = "NoSamples"
ESTIMATED: Final = "Estimated"
LAGGED: Final = "Lagged"
OVER_CAPACITY: Final = "OverCapacity"

CARRY_MS: Final = 7 * 86_400_000
"""So long readings of pods that are not given are carried on."""

HEADROOM: Final = 2
"""Guests run with limit = request; what is above twice that for the pod's whole life is no measuring error."""
LINE_RATE_BYTES_PER_MS: Final = 1_250_000
"""10 Gbit/s."""


@dataclass(frozen=True)
class Span:
    """Life of a container, or of the pod, ms on the hub's clock; None: not begun, not ended."""

    start: int | None = None
    end: int | None = None

    def running_ms(self, window: Window) -> int:
        return window.overlap_ms(self.start, self.end)


@dataclass(frozen=True)
class Guest:
    """What the meter knows of one guest pod: requests in base units, the pod's life, and its containers'."""

    uid: str
    requests: quantities.Quantities
    life: Span
    containers: Mapping[str, Span] = field(default_factory=dict)

    def span(self, container: str) -> Span:
        """Of a container; of the pod for the sandbox and for containers that the status does not name."""
        return self.containers.get(container, self.life) if container else self.life


@dataclass(frozen=True)
class State:
    """A meter between two samples; the dataclass form of a Reading."""

    instance: str = ""
    start: int = 0
    time: int = 0
    value: int = 0
    cumulative: int = 0
    ended: bool = False


@dataclass
class Tally:
    """What happened to one identity in one window, for the line's quality figures."""

    samples: int = 0
    resets: int = 0
    lagged: int = 0
    gaps: int = 0
    estimated: int = 0
    running_ms: int = 0
    covered_ms: int = 0


@dataclass(frozen=True)
class Settings:
    """`offset_ms`: hub's clock − home's clock, which start times of instances are on."""

    scrape_ms: int
    offset_ms: int = 0

    @property
    def interval_ms(self) -> int:
        """Between two samples, as expected: the scrape's interval, or the kubelet's where that is longer."""
        return max(self.scrape_ms, KUBELET_MS)

    @property
    def hold_ms(self) -> int:
        return 2 * self.interval_ms


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
    before = {Identity(one.guest_pod, one.container, one.resource): one for one in previous}
    lines: list[ReportLine] = []
    readings = [one for key, one in before.items() if key.guest_pod not in known and _is_carried(one, window)]
    for guest in sorted(known.values(), key=lambda one: one.uid):
        own = {key: one for key, one in before.items() if key.guest_pod == guest.uid}
        if is_over(guest, own.values(), window):
            continue
        for resource in METERED:
            line, states = _measure_resource(window, guest, resource, taken, own, settings)
            lines.append(line)
            readings.extend(_reading(key, state) for key, state in states.items())
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


def over_capacity(resource: str, cumulative_units: int, requests: quantities.Quantities, age_ms: int) -> bool:
    """Whether a pod of this age cannot have used so much: above twice its request, or above the line's rate."""
    if resource in (RECEIVE, TRANSMIT):
        return cumulative_units > LINE_RATE_BYTES_PER_MS * age_ms
    if resource == MEMORY:
        return cumulative_units * KIB_SECOND > HEADROOM * requests.get(quantities.MEMORY, 0) * age_ms
    return cumulative_units > HEADROOM * requests.get(quantities.CPU, 0) * age_ms


def _measure_resource(
    window: Window,
    guest: Guest,
    resource: Metered,
    taken: Intake,
    before: Mapping[Identity, Reading],
    settings: Settings,
) -> tuple[ReportLine, dict[Identity, State]]:
    states: dict[Identity, State] = {}
    opened = Tally()
    open_cumulative = 0
    for identity in _identities(guest, resource, taken, before):
        state = _state(before.get(identity))
        open_cumulative += state.cumulative
        states[identity], tally = advance(
            state,
            taken.samples.get(identity, ()),
            resource,
            window,
            guest.span(identity.container),
            cpu_millicores=guest.requests.get(quantities.CPU, 0),
            settings=settings,
        )
        _add(opened, tally)
    close_cumulative = sum(state.cumulative for state in states.values())
    rejected = taken.rejected.get((guest.uid, resource), Counter())
    line = _line(window, guest, resource, open_cumulative, close_cumulative, opened, rejected, settings)
    return line, {key: state for key, state in states.items() if state.time}


def _identities(guest: Guest, resource: Metered, taken: Intake, before: Mapping[Identity, Reading]) -> list[Identity]:
    """Those with samples or readings, and those that should have had some."""
    expected = [""] if resource in (RECEIVE, TRANSMIT) else list(guest.containers)
    found = {Identity(guest.uid, container, resource) for container in expected}
    found |= {key for key in (*taken.samples, *before) if key.guest_pod == guest.uid and key.resource == resource}
    return sorted(found)


def advance(
    state: State,
    samples: Sequence[Sample],
    resource: Metered,
    window: Window,
    span: Span,
    *,
    cpu_millicores: int,
    settings: Settings,
) -> tuple[State, Tally]:
    """One meter over one window: `samples` sorted by time, within the window; `span` is the container's life."""
    tally = Tally(samples=len(samples), running_ms=span.running_ms(window))
    _cover(tally, state, samples, window, span, settings)
    for sample in samples:
        if resource == MEMORY:
            state = _advance_gauge(state, sample, span, settings, tally)
        else:
            state = _advance_counter(state, sample, cpu_millicores if resource == CPU else 0, settings, tally)
    if span.end is not None and span.end <= window.end_ms and state.time and not state.ended:
        state = _finish(state, resource, span, cpu_millicores, settings, tally)
    return state, tally


def _advance_counter(state: State, sample: Sample, cpu_millicores: int, settings: Settings, tally: Tally) -> State:
    if _is_past(state, sample):
        tally.lagged += 1
        return state
    reset = _is_reset(state, sample, cpu_millicores, settings)
    if reset:
        tally.resets += int(state.time > 0)
        gained, highest = sample.value, sample.value
    else:
        tally.lagged += int(sample.value < state.value)
        gained, highest = max(0, sample.value - state.value), max(state.value, sample.value)
    return replace(
        state,
        instance=sample.instance,
        start=max(sample.start, state.start) if sample.instance == state.instance else sample.start,
        time=max(state.time, sample.time),
        value=highest,
        cumulative=state.cumulative + gained,
        ended=state.ended and not reset,
    )


def _is_past(state: State, sample: Sample) -> bool:
    """A container that has been replaced is still answered for a while."""
    return sample.instance != state.instance and 0 < sample.start < state.start


def _is_reset(state: State, sample: Sample, cpu_millicores: int, settings: Settings) -> bool:
    """A new container id always; under the same id a later start time, if the value fits it.

    cAdvisor takes start times from file times, which can move without a restart: then the value neither drops nor
    could have been used since, and counting it again would bill it twice.
    """
    if state.time == 0 or sample.instance != state.instance:
        return True
    if sample.start <= state.start or state.start == 0:
        return False
    age_ms = sample.time - (sample.start + settings.offset_ms)
    return sample.value < state.value or sample.value <= cpu_millicores * max(0, age_ms)


def _advance_gauge(state: State, sample: Sample, span: Span, settings: Settings, tally: Tally) -> State:
    if sample.time <= state.time or _is_past(state, sample) or (span.end is not None and sample.time > span.end):
        tally.lagged += int(_is_past(state, sample))
        return state
    moved = state.time > 0 and sample.instance != state.instance
    tally.resets += int(moved)
    until = min(sample.time, sample.start + settings.offset_ms) if moved and sample.start else sample.time
    held = 0 if state.ended else _held_ms(state.time, until, settings)
    return replace(
        state,
        instance=sample.instance,
        start=sample.start,
        time=sample.time,
        value=sample.value,
        cumulative=state.cumulative + state.value * held,
        ended=state.ended and not moved,
    )


def _held_ms(since: int, until: int, settings: Settings) -> int:
    return min(max(0, until - since), settings.hold_ms) if since else 0


def _finish(
    state: State, resource: Metered, span: Span, cpu_millicores: int, settings: Settings, tally: Tally
) -> State:
    """From the last sample to the container's end: memory holds, CPU goes on at its mean rate up to the limit."""
    end = span.end or 0
    if resource == MEMORY:
        tail = state.value * _held_ms(state.time, end, settings)
    elif resource == CPU:
        tail = _cpu_tail(state, span, end, cpu_millicores)
    else:
        tail = 0
    tally.estimated += tail if resource == CPU else 0
    return replace(state, time=max(state.time, end), cumulative=state.cumulative + tail, ended=True)


def _cpu_tail(state: State, span: Span, end: int, cpu_millicores: int) -> int:
    """µcore·s: mean rate of the instance × Δt, at most limit × Δt (1 mcore·ms is 1 µcore·s)."""
    missing = max(0, end - state.time)
    lived = state.time - (span.start or 0)
    if missing == 0 or span.start is None or lived <= 0:
        return 0
    return min(state.value * missing // lived, cpu_millicores * missing)


def _cover(
    tally: Tally, state: State, samples: Sequence[Sample], window: Window, span: Span, settings: Settings
) -> None:
    """Gaps, and the part of the running time that lies at most `hold` behind a sample (or before the first one)."""
    if tally.running_ms == 0:
        return
    begin, end = max(window.start_ms, span.start or 0), min(window.end_ms, span.end or window.end_ms)
    times = [one.time for one in samples if begin < one.time < end]
    if not times and begin - state.time >= settings.hold_ms:
        tally.gaps += int(tally.running_ms > settings.hold_ms)
        return
    edges = [max(begin - settings.hold_ms, min(state.time, begin)) if state.time else begin, *times, end]
    for earlier, later in pairwise(edges):
        tally.gaps += int(later - earlier > settings.hold_ms)
        tally.covered_ms += span_ms(earlier, min(later, earlier + settings.hold_ms), since_ms=begin, until_ms=end)


def _line(
    window: Window,
    guest: Guest,
    resource: Metered,
    opened: int,
    closed: int,
    tally: Tally,
    rejected: Mapping[str, int],
    settings: Settings,
) -> ReportLine:
    opening, closing = units(resource, opened), units(resource, closed)
    coverage = tally.covered_ms * PPM // tally.running_ms if tally.running_ms else PPM
    age_ms = window.end_ms - (guest.life.start or 0)
    flags = {
        PARTIAL: coverage < COVERED,
        NO_SAMPLES: tally.samples == 0 and tally.running_ms > 0,
        ESTIMATED: tally.estimated > 0,
        LAGGED: tally.lagged > 0,
        OVER_CAPACITY: over_capacity(resource, closing, guest.requests, age_ms),
        **dict.fromkeys(rejected, True),
    }
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
        estimated=str(tally.estimated),
        coverage_ppm=coverage,
        flags=sorted(name for name, raised in flags.items() if raised),
    )


def _add(total: Tally, one: Tally) -> None:
    for name, value in vars(one).items():
        setattr(total, name, getattr(total, name) + value)


def _state(reading: Reading | None) -> State:
    if reading is None:
        return State()
    return State(
        instance=reading.instance,
        start=reading.instance_start,
        time=reading.time,
        value=int(reading.value),
        cumulative=int(reading.cumulative),
        ended=reading.ended,
    )


def _reading(identity: Identity, state: State) -> Reading:
    return Reading(
        guest_pod=identity.guest_pod,
        container=identity.container,
        resource=identity.resource,
        instance=state.instance,
        instance_start=state.start,
        time=state.time,
        value=str(state.value),
        cumulative=str(state.cumulative),
        ended=state.ended,
    )
