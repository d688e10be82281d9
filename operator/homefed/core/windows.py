"""Settlement windows: (start, end], hub time, aligned to UTC, so that homes and hub cut time at the same places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from homefed.core.times import from_rfc3339, to_rfc3339

MIN_GRACE_SECONDS: Final = 30


@dataclass(frozen=True, order=True)
class Window:
    """(start, end] in seconds since the epoch."""

    start: int
    end: int

    @property
    def start_ms(self) -> int:
        return self.start * 1000

    @property
    def end_ms(self) -> int:
        return self.end * 1000

    @property
    def start_text(self) -> str:
        return text(self.start)

    @property
    def end_text(self) -> str:
        return text(self.end)

    def overlap_ms(self, start_ms: int | None, end_ms: int | None) -> int:
        """Milliseconds that (start, end) shares with the window; None: not begun (0), or not ended."""
        return 0 if start_ms is None else span_ms(start_ms, end_ms, since_ms=self.start_ms, until_ms=self.end_ms)


def span_ms(start_ms: int, end_ms: int | None, *, since_ms: int, until_ms: int) -> int:
    """Milliseconds of (start, end) between `since` and `until`."""
    end = until_ms if end_ms is None else min(end_ms, until_ms)
    return max(0, end - max(start_ms, since_ms))


def text(seconds: int) -> str:
    """RFC 3339 of seconds since the epoch."""
    return to_rfc3339(datetime.fromtimestamp(seconds, UTC))


def seconds(time: str) -> int:
    """Whole seconds since the epoch, rounded down; Invalid for what is no time."""
    return int(from_rfc3339(time).timestamp() // 1)


def millis(time: str) -> int:
    """Milliseconds since the epoch, rounded down; Invalid for what is no time."""
    moment = from_rfc3339(time)
    return int(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000


def floor(moment: int, length: int) -> int:
    """The last window edge at or before the moment."""
    return moment - moment % length


def following(after: int, length: int) -> Window:
    """The window that opens at `after` and ends at the next edge: shorter than `length` when the length was changed."""
    return Window(after, floor(after, length) + length)


def grace(configured_seconds: int, scrape_interval_ms: int) -> int:
    """Seconds to wait after a window's end for its last samples; max(30 s, 2 scrapes) where the pool says 0."""
    return configured_seconds or max(MIN_GRACE_SECONDS, -(-2 * scrape_interval_ms // 1000))


def closed(after: int, now: int, *, length: int, grace_seconds: int) -> Iterator[Window]:
    """Windows after `after` whose end and grace have passed, oldest first."""
    window = following(after, length)
    while window.end + grace_seconds <= now:
        yield window
        window = following(window.end, length)


def due(
    after: int | None,
    now: int,
    *,
    length: int,
    grace_seconds: int,
    spans: Iterable[tuple[int, int | None]],
    limit: int,
    also: Callable[[Window], bool] = lambda _window: False,
) -> list[Window]:
    """At most `limit` windows to work on, oldest first: closed, after `after`, and not idle.

    A window is idle when none of `spans` (ms, end None while it lasts) touches it and `also` does not ask for it.
    """
    lives = list(spans)
    earliest = floor(min((start for start, _ in lives), default=now * 1000) // 1000, length)
    begin = earliest if after is None else after
    found: list[Window] = []
    for window in closed(begin, now, length=length, grace_seconds=grace_seconds):
        if len(found) == limit:
            break
        if also(window) or any(window.overlap_ms(*life) > 0 for life in lives):
            found.append(window)
    return found
