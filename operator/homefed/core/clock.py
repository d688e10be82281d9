"""The hub's clock rules: how far the local clock is off, seen through the Date headers of the hub's answers."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from math import ceil
from statistics import median
from typing import Final

SAMPLES: Final = 5
SKEW_LIMIT: Final = timedelta(seconds=10)
_TRUNCATED: Final = timedelta(milliseconds=500)


class ClockOffset:
    """Offset = hub's time − local time, the median of the newest five observations, in whole seconds.

    A Date header is truncated to seconds, so half a second is added to each and the result is rounded: clocks that
    agree give exactly 0. One slow answer or one wrong header moves nothing.
    """

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=SAMPLES)

    def observe(self, server: datetime, local: datetime) -> None:
        """One answer: its Date header, and the local clock when it arrived (both aware)."""
        self._seconds.append((server + _TRUNCATED - local).total_seconds())

    @property
    def offset(self) -> timedelta:
        """What to add to local time to get the hub's; zero before the first observation."""
        if not self._seconds:
            return timedelta()
        # An answer sent on the full second lies exactly between two: it belongs to the lower.
        return timedelta(seconds=ceil(median(self._seconds) - 0.5))

    @property
    def skewed(self) -> bool:
        """More than 10 s off: condition ClockSkewed."""
        return abs(self.offset) > SKEW_LIMIT

    def hub_time(self, local: datetime) -> datetime:
        return local + self.offset

    def local_time(self, hub: datetime) -> datetime:
        return hub - self.offset
