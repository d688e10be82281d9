"""Honest homes on bad days: outages of Prometheus and of the way to the hub, restarts, churn, short pods, pairs of
scrapers, clocks that are off. Seeded; everything behind the samples is the code that meters and settles.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from attacks.federation import Home, document_of
from attacks.work import MIB, T0, Json, Work, made, moment
from homefed.api import names
from homefed.core.metering import Settings
from homefed.core.samples import RawSeries
from homefed.core.windows import Window

WINDOW_S: Final = 1800
SCRAPE_S: Final = 60
RESTART_S: Final = 15
"""From a container's end to the start of the next one."""


@dataclass(frozen=True)
class Eventful(Work):
    """A guest whose container restarts at some moments; its counter begins anew each time."""

    restarts: tuple[int, ...] = ()
    """Seconds after T0 at which an instance ends."""

    def instances(self) -> list[tuple[int, int | None]]:
        """(start, end) of each, seconds after T0."""
        starts = [self.start, *(end + RESTART_S for end in self.restarts)]
        return list(zip(starts, [*self.restarts, self.end], strict=True))

    def worked_s(self, until: int) -> int:
        """Seconds in which a container ran."""
        return sum(max(0, min(until, end or until) - start) for start, end in self.instances() if start < until)

    def instance_at(self, second: int) -> tuple[int, int] | None:
        """(number, start) of the instance that runs then."""
        for number, (start, end) in enumerate(self.instances()):
            if start < second and (end is None or second <= end):
                return number, start
        return None


@dataclass
class Weather:
    """What happens to one home: stretches in seconds after T0."""

    unscraped: list[tuple[int, int]] = field(default_factory=list)
    unreported: list[tuple[int, int]] = field(default_factory=list)
    """The agent or its way to the hub is down: reports of these windows come when it is up again."""
    paired: bool = False
    """Two Prometheus servers scrape, 20 s apart, the second 15 s behind."""
    offset_ms: int = 0
    """Hub's clock − home's clock."""
    wrong_by_ms: int = 0
    """How far off the agent's estimate of that is."""


class HonestHome(Home):
    """Tells what it read, on days like these."""

    def __init__(self, guests: Sequence[Eventful], weather: Weather, seed: int) -> None:
        super().__init__(guests)
        self.eventful, self.weather = list(guests), weather
        self.settings = Settings(SCRAPE_S * 1000, weather.offset_ms + weather.wrong_by_ms)
        self.random = random.Random(seed)
        self.unsent: list[Json] = []
        self.said: dict[tuple[str, str], int] = {}
        """(guest pod, resource) → cumulative units, as the reports in the mailbox say."""

    def series(self, window: Window) -> list[RawSeries]:
        return [one for work in self.eventful for one in self._of(work, window)]

    def _of(self, work: Eventful, window: Window) -> Iterator[RawSeries]:
        """On the home's clock; labels that mean nothing change with every window."""
        churn = {"instance": f"10.0.0.{self.random.randrange(9)}:10250", "job": self.random.choice(["a", "b"])}
        for replica in range(2 if self.weather.paired else 1):
            yield from self._scraped(work, window, {**churn, "prometheus": str(replica)}, shift=20 * replica)

    def _scraped(self, work: Eventful, window: Window, labels: dict[str, str], shift: int) -> Iterator[RawSeries]:
        pod = {**labels, "pod": names.home_pod(work.uid)}
        times = [second for second in self._times(work, window, shift) if not self._is_down(second)]
        by_instance: dict[tuple[int, int], list[int]] = {}
        for second in times:
            if (found := work.instance_at(second)) is not None:
                by_instance.setdefault(found, []).append(second)
        lag = 15 if shift else 0
        for (number, start), seconds in by_instance.items():
            app = {**pod, "container": "app", "id": f"/kubepods/{work.uid}/{number}"}
            points = [(second, work.cores * max(0, second - lag - start)) for second in seconds]
            yield self._made("cpu", app, [(second, f"{value:.6f}") for second, value in points])
            yield self._made("memory", app, [(second, str(work.mib * MIB)) for second in seconds])
            yield self._made("start", app, [(second, f"{self._local(start):.3f}") for second in seconds])
        sandbox = {**pod, "container": "", "id": f"/kubepods/{work.uid}/sandbox", "interface": "eth0"}
        received = [(second, str(work.bytes_per_s * max(0, second - lag - work.start))) for second in times]
        yield self._made("network-receive", sandbox, received)

    def _made(self, metric: str, labels: dict[str, str], points: Sequence[tuple[int, str]]) -> RawSeries:
        ahead = self.weather.offset_ms / 1000
        return made(metric, labels, [(second - ahead, value) for second, value in points])  # type: ignore[arg-type]

    def _local(self, second: int) -> float:
        """The home's clock, seconds since the epoch, when the hub's says so many seconds after T0."""
        return T0 + second - self.weather.offset_ms / 1000

    def _times(self, work: Eventful, window: Window, shift: int) -> list[int]:
        begin, end = window.start - T0 - 2 * SCRAPE_S, window.end - T0 + SCRAPE_S
        last = end if work.end is None else min(end, work.end)
        return [second for second in range(begin, last + 1) if second % SCRAPE_S == 7 + shift and second > work.start]

    def read(self, work: Eventful, until: int) -> Iterator[tuple[int, int]]:
        """(start, last sample) of each instance that was scraped at all."""
        times = [one for one in self._times(work, Window(T0, T0 + until), 0) if one <= until and not self._is_down(one)]
        for start, end in work.instances():
            if own := [second for second in times if start < second and (end is None or second <= end)]:
                yield start, own[-1]

    def _is_down(self, second: int) -> bool:
        return any(begin <= second < end for begin, end in self.weather.unscraped)

    def delivered(self, objects: list[Json], window: Window) -> list[Json]:
        self.unsent += objects
        if any(begin < window.end - T0 <= end for begin, end in self.weather.unreported):
            return []
        found, self.unsent = self.unsent, []
        for line in (line for obj in found for line in document_of(obj).lines):
            self.said[line.guest_pod, line.resource] = int(line.close)
        return found

    def status(self, work: Work, now: int) -> Json:
        """With the container's newest instance; whole seconds, as Kubernetes says them, by the agent's idea of time."""
        said = super().status(work, now)
        if not isinstance(work, Eventful) or said["phase"] == "Pending":
            return said
        instance = [one for one in work.instances() if one[0] <= now][-1]
        container = said["containers"][0] | {"startedAt": self._said(instance[0]), "restartCount": len(work.restarts)}
        return said | {"containers": [container]}

    def started(self, work: Work) -> str:
        return self._said(work.start)

    def finished(self, work: Work) -> str:
        return self._said(work.end or 0)

    def _said(self, second: int) -> str:
        return moment(second + self.weather.wrong_by_ms // 1000)
