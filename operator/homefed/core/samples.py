"""From what Prometheus answered to samples that may be counted: typed gates, identities, container instances.

A series' identity is (guest pod UID, container, resource). Not in it: instance, job, image, replica or any other label,
so that their churn, and a pair of scrapers, change nothing. A container's *instance* is its `id` and start time.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Final, Literal, NamedTuple

from homefed.api.errors import Invalid
from homefed.api.names import NODE_PREFIX
from homefed.api.report_document import CPU, Metered
from homefed.core.windows import Window

Metric = Literal["cpu", "memory", "network-receive", "network-transmit", "start"]
START: Final = "start"

NOT_FINITE: Final = "NotFinite"
NEGATIVE: Final = "Negative"
TOO_LARGE: Final = "TooLarge"
FUTURE: Final = "Future"
MAX_VALUE: Final = Decimal(2**62)
_SANDBOX: Final = ("", "POD")


class Identity(NamedTuple):
    guest_pod: str
    container: str
    resource: Metered


class Sample(NamedTuple):
    """`time` on the hub's clock, ms; `value` in µcore·s or bytes; `start` of the instance on the home's clock, ms."""

    time: int
    value: int
    instance: str
    start: int


@dataclass(frozen=True)
class RawSeries:
    """One series as Prometheus answered it; sample times in ms on the home's clock, values as text."""

    metric: Metric
    labels: Mapping[str, str]
    samples: Sequence[tuple[int, str]]


@dataclass(frozen=True)
class Intake:
    """Samples by identity, in order of time; and how many were refused, by (guest pod, resource) and code."""

    samples: dict[Identity, list[Sample]] = field(default_factory=dict)
    rejected: dict[tuple[str, Metered], Counter[str]] = field(default_factory=dict)


def intake(raw: Iterable[RawSeries], guests: Collection[str], window: Window, *, now_ms: int, offset_ms: int) -> Intake:
    """The samples of known guests in (start, end], sorted; Prometheus 2 and 3 differ at the edges, so we filter.

    `now_ms` is hub time: what lies after it is refused as Future. `offset_ms` is hub's clock − home's clock.
    """
    series = list(raw)
    starts = _starts(series)
    found: dict[Identity, list[Sample]] = {}
    merged: set[Identity] = set()
    rejected: dict[tuple[str, Metered], Counter[str]] = defaultdict(Counter)
    for one in series:
        identity = _identity(one)
        if identity is None or identity.guest_pod not in guests:
            continue
        samples = _samples(one, identity, starts, window, offset_ms, now_ms, rejected)
        if identity in found:
            found[identity] += samples
            merged.add(identity)
        elif samples:
            found[identity] = samples
    for identity in merged:  # of several scrapers, or instances
        found[identity] = list(set(found[identity]))
    for samples in found.values():
        samples.sort()
    return Intake(found, dict(rejected))


def _samples(
    series: RawSeries,
    identity: Identity,
    starts: Mapping[tuple[str, str], Sequence[int]],
    window: Window,
    offset_ms: int,
    now_ms: int,
    rejected: Mapping[tuple[str, Metered], Counter[str]],
) -> list[Sample]:
    """Those of one series that lie in the window and pass the gates."""
    resource = identity.resource
    container_id = series.labels.get("id", "")
    instance, own_starts = _cut(container_id), starts.get((identity.guest_pod, container_id), ())
    earliest, latest = window.start_ms - offset_ms, window.end_ms - offset_ms
    only = own_starts[0] if len(own_starts) == 1 and own_starts[0] <= earliest else None
    found = []
    for time, text in series.samples:
        if time + offset_ms > now_ms:
            rejected[identity.guest_pod, resource][FUTURE] += 1
        elif earliest < time <= latest:
            code, value = gate(text, resource)
            if code is None:
                start = _start_at(own_starts, time) if only is None else only
                found.append(Sample(time + offset_ms if offset_ms else time, value, instance, start))
            else:
                rejected[identity.guest_pod, resource][code] += 1
    return found


def gate(text: str, resource: Metered) -> tuple[str | None, int]:
    """(None, ⌊value × scale⌋) of a sample's text, or (code, 0). Raises Invalid where the text is no number at all."""
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise Invalid(f"Prometheus answered {text[:40]!r} where a number belongs", reason="MalformedAnswer") from error
    if not value.is_finite():
        return NOT_FINITE, 0
    if value < 0:
        return NEGATIVE, 0
    if value > MAX_VALUE:
        return TOO_LARGE, 0
    return None, int(value * 1_000_000 if resource == CPU else value)


def _identity(series: RawSeries) -> Identity | None:
    """None for series that are not counted: start times, pod-level sums, other pods."""
    pod, container = series.labels.get("pod", ""), series.labels.get("container", "")
    if series.metric == START or not pod.startswith(NODE_PREFIX):
        return None
    of_sandbox = container in _SANDBOX
    if of_sandbox != (series.metric in ("network-receive", "network-transmit")):
        return None
    return Identity(pod.removeprefix(NODE_PREFIX), "" if of_sandbox else container, series.metric)


def _starts(series: Iterable[RawSeries]) -> dict[tuple[str, str], list[int]]:
    """(guest pod, container id) → start times, ms on the home's clock, ascending."""
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for one in series:
        if one.metric == START:
            key = one.labels.get("pod", "").removeprefix(NODE_PREFIX), one.labels.get("id", "")
            for text in {text for _, text in one.samples}:
                code, value = gate(text, "memory")
                if code is None and value > 0:
                    found[key].add(value * 1000)
    return {key: sorted(values) for key, values in found.items()}


def _start_at(starts: Sequence[int], time: int) -> int:
    """The newest start that is not after the sample; 0 when none is known."""
    position = bisect_right(starts, time)
    return starts[position - 1] if position else 0


def _cut(container_id: str) -> str:
    """16 hex digits: the id itself is a path with names of the home's and stays there."""
    return hashlib.sha256(container_id.encode()).hexdigest()[:16] if container_id else ""
