"""The arithmetic of the figures: pure, so that it can be tested without a cluster."""

from __future__ import annotations

import math
from collections.abc import Sequence

MILLION = 1_000_000


def percentile(values: Sequence[float], percent: float) -> float:
    """By nearest rank: the smallest value that at least `percent` of all do not exceed. No interpolation, so that the
    result is a value that was seen. ValueError without values, or for a percentage outside (0, 100]."""
    if not values:
        raise ValueError("a percentile needs at least one value")
    if not 0 < percent <= 100:
        raise ValueError(f"percent {percent}: must lie in (0, 100]")
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def added(through: Sequence[float], directly: Sequence[float], percent: float) -> float:
    """What the longer way adds at a percentile: the difference of the two distributions' percentiles. Single pods
    cannot be compared in pairs, as none of them takes both ways."""
    return percentile(through, percent) - percentile(directly, percent)


def error_ppm(measured: float, truth: float) -> float:
    """|measured − truth| ÷ truth in millionths. ValueError where nothing was to be measured."""
    if truth <= 0:
        raise ValueError(f"truth {truth}: nothing was used, so no error can be told")
    return abs(measured - truth) / truth * MILLION


def per_minute(count: int, seconds: float) -> float:
    """Events per minute. ValueError for no time."""
    if seconds <= 0:
        raise ValueError(f"{seconds} s: no time has passed")
    return count * 60 / seconds
