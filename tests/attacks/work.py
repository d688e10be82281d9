"""Guests whose true work is known, and what an honest Prometheus would have scraped of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from homefed.api import names
from homefed.core.samples import Metric, RawSeries
from homefed.core.windows import Window, text

T0: Final = 1_767_225_600
HOUR: Final = 3600
SCRAPE_S: Final = 30
MIB: Final = 2**20
Json = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """One guest of one container that requests a core. Times in seconds after T0; `end` None: it goes on."""

    uid: str
    cores: float
    """Used all the time, at most 1."""
    start: int = 0
    end: int | None = None
    mib: int = 64
    bytes_per_s: int = 10_000
    """Received; a tenth of it is sent."""

    def ran_s(self, until: int) -> int:
        """Seconds from the start to `until`, or to the end."""
        return max(0, (until if self.end is None else min(until, self.end)) - self.start)

    def used(self, resource: str, until: int) -> int:
        """True usage up to `until` (seconds after T0): µcore·s, KiB·s, bytes."""
        ran = self.ran_s(until)
        rates = {"cpu": self.cores * 1e6, "memory": self.mib * 1024, "network-receive": self.bytes_per_s}
        return round(rates.get(resource, self.bytes_per_s // 10) * ran)

    def reserved(self, until: int) -> int:
        """µcore·s of the one core that it requests."""
        return 1_000_000 * self.ran_s(until)

    @property
    def requests(self) -> dict[str, str]:
        return {"cpu": "1", "memory": "128Mi"}

    def times(self, window: Window) -> list[int]:
        """Seconds after T0 at which it is scraped around a window."""
        begin, end = window.start - T0 - SCRAPE_S, window.end - T0 + SCRAPE_S
        last = end if self.end is None else min(end, self.end)
        return [second for second in range(begin, last + 1) if second % SCRAPE_S == 7 and second > self.start]

    def series(self, window: Window) -> Iterator[RawSeries]:
        """What Prometheus has of it."""
        app = {"pod": names.home_pod(self.uid), "container": "app", "id": f"/kubepods/{self.uid}/app"}
        sandbox = {**app, "container": "", "id": f"/kubepods/{self.uid}/sandbox", "interface": "eth0"}
        times = self.times(window)
        yield made("cpu", app, [(s, f"{self.used('cpu', s) / 1e6:.6f}") for s in times])
        yield made("memory", app, [(s, str(self.mib * MIB)) for s in times])
        yield made("network-receive", sandbox, [(s, str(self.used("network-receive", s))) for s in times])
        yield made("network-transmit", sandbox, [(s, str(self.used("network-transmit", s))) for s in times])
        yield made("start", app, [(s, str(T0 + self.start)) for s in times])


def made(metric: Metric, labels: dict[str, str], points: Sequence[tuple[float, str]]) -> RawSeries:
    """`points`: (seconds after T0, value)."""
    return RawSeries(metric, labels, [(round((T0 + second) * 1000), value) for second, value in points])


def moment(second: int) -> str:
    """RFC 3339 of so many seconds after T0."""
    return text(T0 + second)
