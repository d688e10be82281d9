"""How well a line is founded: coverage and gaps of one meter's samples, and the flags that say so to both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from homefed.core.meter_state import Meter, Tally
from homefed.core.rounding import PPM
from homefed.core.samples import Sample
from homefed.core.windows import Window

COVERED: Final = 950_000

PARTIAL: Final = "Partial"
NO_SAMPLES: Final = "NoSamples"
ESTIMATED: Final = "Estimated"
LAGGED: Final = "Lagged"
OVER_CAPACITY: Final = "OverCapacity"


def cover(meter: Meter, samples: Sequence[Sample], window: Window) -> None:
    """To the tally of a meter that has not advanced yet: its running time in the window, gaps, and the part of the
    running time that lies at most `hold` behind a sample (or before the first one)."""
    tally, span, hold = meter.tally, meter.span, meter.settings.hold_ms
    tally.running_ms = span.running_ms(window)
    if tally.running_ms == 0:
        return
    begin, end = max(window.start_ms, span.start or 0), min(window.end_ms, span.end or window.end_ms)
    times = [one.time for one in samples if begin < one.time < end]
    if not times and begin - meter.time >= hold:
        tally.gaps += int(tally.running_ms > hold)
        return
    edges = [max(begin - hold, min(meter.time, begin)) if meter.time else begin, *times, end]
    for earlier, later in pairwise(edges):
        if later - earlier > hold:
            tally.gaps += 1
            later = earlier + hold
        tally.covered_ms += max(0, later - max(earlier, begin))


def coverage_ppm(tally: Tally) -> int:
    return tally.covered_ms * PPM // tally.running_ms if tally.running_ms else PPM


def flags(tally: Tally, rejected: Mapping[str, int], *, over_capacity: bool) -> list[str]:
    """Sorted. `rejected`: codes of samples that were refused when they were taken in."""
    raised = {
        PARTIAL: coverage_ppm(tally) < COVERED,
        NO_SAMPLES: tally.samples == 0 and tally.running_ms > 0,
        ESTIMATED: tally.estimated > 0,
        LAGGED: tally.lagged > 0,
        OVER_CAPACITY: over_capacity or tally.refused > 0,
        **dict.fromkeys(rejected, True),
    }
    return sorted(name for name, is_raised in raised.items() if is_raised)
