"""The hub's own meter: when a guest was bound, ran and ended, and when nobody could see it; by the hub's clock.

Invariant: boundAt ≤ runningFrom ≤ endedAt ≤ the time of writing, and what is set once is never changed. Of intervals
only the last can be open, and none is when endedAt is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from homefed.api.errors import Invalid
from homefed.api.guest_pod import TERMINAL, GuestPodStatus, Interval, Observed
from homefed.core import conditions
from homefed.core.guest_status import clamp
from homefed.core.times import from_rfc3339, to_rfc3339

MAX_INTERVALS: Final = 256
BLIND_AFTER: Final = timedelta(seconds=120)
"""A gap in the hub operator's own work that is longer than this is an interval of its own: two full passes."""


@dataclass(frozen=True)
class Blind:
    """From the last full pass before a stop or an outage of the hub operator to the first one after it."""

    start: datetime
    end: datetime

    @property
    def counts(self) -> bool:
        return self.end - self.start > BLIND_AFTER


def observe(
    observed: Observed,
    status: GuestPodStatus | None,
    node: Mapping[str, Any] | None,
    blind: Blind | None,
    now: datetime,
    *,
    gone: bool,
) -> Observed:
    """`observed`, brought up to `now`. `gone`: the hub holds the pod no more, or has ended it itself."""
    if observed.ended_at is not None:
        return observed
    running_from = observed.running_from or _running_from(observed, status, now)
    ended_at = _ended_at(observed, running_from, status, now, gone=gone)
    intervals = [*observed.intervals]
    if running_from is not None:
        intervals = _with_node(_with_blind(intervals, blind, running_from), node, running_from, ended_at)
    return Observed(bound_at=observed.bound_at, running_from=running_from, ended_at=ended_at, intervals=intervals)


def _running_from(observed: Observed, status: GuestPodStatus | None, now: datetime) -> str | None:
    if status is None or status.phase is None or status.phase == "Pending":
        return None
    if status.phase in TERMINAL and status.started_at is None:
        return None
    return to_rfc3339(clamp(status.started_at, from_rfc3339(observed.bound_at), now))


def _ended_at(
    observed: Observed, running_from: str | None, status: GuestPodStatus | None, now: datetime, *, gone: bool
) -> str | None:
    earliest = from_rfc3339(running_from or observed.bound_at)
    if status is not None and status.phase in TERMINAL:
        return to_rfc3339(clamp(status.finished_at, earliest, max(earliest, now)))
    return to_rfc3339(max(earliest, now)) if gone else None


def _with_blind(intervals: list[Interval], blind: Blind | None, running_from: str) -> list[Interval]:
    if blind is None or not blind.counts or blind.end <= from_rfc3339(running_from):
        return intervals
    end = to_rfc3339(blind.end)
    if any(interval.end == end for interval in intervals):
        return intervals
    start = to_rfc3339(max(blind.start, from_rfc3339(running_from)))
    closed = Interval(start=start, end=end)
    opened = [interval for interval in intervals if interval.end is None]
    return _bounded([*(i for i in intervals if i.end is not None), closed, *opened])


def _with_node(
    intervals: list[Interval], node: Mapping[str, Any] | None, running_from: str, ended_at: str | None
) -> list[Interval]:
    """Open an interval while the node is Unknown; close it when the node is Ready, or the guest has ended."""
    is_open = bool(intervals) and intervals[-1].end is None
    ready = conditions.get(((node or {}).get("status") or {}).get("conditions"), conditions.READY)
    since = _transition(ready)
    if is_open and ended_at is not None:
        return _closed(intervals, from_rfc3339(ended_at))
    if ready is None or since is None or ended_at is not None:
        return intervals
    if is_open and ready.get("status") == conditions.TRUE:
        return _closed(intervals, since)
    if not is_open and ready.get("status") == conditions.UNKNOWN:
        start = max(since, from_rfc3339(running_from))
        return _bounded([*intervals, Interval(start=to_rfc3339(start))])
    return intervals


def _transition(condition: Mapping[str, Any] | None) -> datetime | None:
    try:
        return from_rfc3339((condition or {}).get("lastTransitionTime", ""))
    except Invalid:
        return None


def _closed(intervals: list[Interval], end: datetime) -> list[Interval]:
    last = intervals[-1]
    closed = Interval(start=last.start, end=to_rfc3339(max(end, from_rfc3339(last.start))))
    return [*intervals[:-1], closed]


def _bounded(intervals: list[Interval]) -> list[Interval]:
    """At most 256: beyond that the two oldest become one, which counts the time between them as not reserved."""
    while len(intervals) > MAX_INTERVALS:
        first, second = intervals[:2]
        intervals = [Interval(start=first.start, end=max(first.end or "", second.end or "")), *intervals[2:]]
    return intervals
