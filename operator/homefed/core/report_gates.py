"""Whether what a home reported can have been: the gates before arithmetic, for lines of one guest pod and resource.

What fails one is not accepted, stays visible with its code, and is never cut down to what would pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from homefed.api.report_document import ReportLine
from homefed.core.meter_limits import LINE_RATE_BYTES_PER_MS, NETWORK
from homefed.core.metering import OVER_CAPACITY
from homefed.core.readings import line_fault
from homefed.core.windows import Window

NOT_MONOTONE: Final = "NotMonotone"
"""The home's cumulative value is below one that was accepted before, or a report begins before that."""
IMPOSSIBLE: Final = "Impossible"
"""More CPU or memory than the limit allows in the time. Nothing that is used of this pod and resource is accepted any
more: otherwise what was made up would only have to wait until there is room for it below the bound."""

SLACK_MS: Final = 120_000
"""Of limit × time: for seconds that Kubernetes cuts, offsets between clocks, and init containers before the start."""
SLACK_PERCENT: Final = 1


@dataclass(frozen=True, slots=True)
class Step:
    """One report's line. `window` and `hold_ms` (two scrape intervals) are the report's."""

    line: ReportLine
    window: Window
    hold_ms: int

    @property
    def read_until(self) -> int | None:
        """ms; up to here at least it was read: without a gap the last sample lies within two intervals of the end."""
        is_read = self.line.samples > 0 and self.line.gaps == 0
        return self.window.end_ms - self.hold_ms if is_read else None


def fault(
    steps: Sequence[Step], *, limit: int, per_ms: int, begun: int, ended: int | None, close: int, until: int
) -> str | None:
    """The code of the first gate that the lines, oldest first, do not pass; None when they pass.

    `limit` ÷ `per_ms` are the units per ms that the pod can use at most. `begun`, `ended`: ms; when the pod was bound,
    and ended. `close`, `until`: the reading that was accepted last, and the ms up to which it was read.
    """
    for step in steps:
        if (found := line_fault(step.line)) is not None:
            return found
        if int(step.line.open) < close or int(step.line.close) < close:
            return NOT_MONOTONE
        end = step.window.end_ms if ended is None else min(step.window.end_ms, ended)
        closed = int(step.line.close)
        if step.line.resource in NETWORK:
            if closed > LINE_RATE_BYTES_PER_MS * (step.window.end_ms - begun):
                return OVER_CAPACITY
        elif closed * per_ms > limit * _room_ms(end - begun) or (closed - close) * per_ms > limit * _room_ms(
            end - until
        ):
            return IMPOSSIBLE
        close, until = closed, max(until, step.read_until or 0)
    return None


def _room_ms(ms: int) -> int:
    """A stretch of time, with the slack that honest meters need."""
    return max(0, ms) * (100 + SLACK_PERCENT) // 100 + SLACK_MS
