"""One meter: the state machine of one container and resource, which advances sample by sample in order of time.

Everything that it knows is in its Reading, and what happens depends on the state, the sample and the container's life
only, never on a window's edges. So for any split of a stretch of time into windows the amounts add up to the whole.

Counters: a sample adds what it exceeds the instance's highest value by. A new instance (container id, or start time)
begins at 0, whether or not the value drops; a drop within an instance is a lagging scraper, and adds nothing. Nor does
a rise that the time since the last sample has no room for.
Gauges: a value holds until the next sample, at most two scrape intervals (`hold`), at most until the container ends.
Estimated, and said so: CPU from an instance's last sample to its end, memory from its start to its first sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from homefed.api.report_document import CPU, MEMORY, Metered, Reading
from homefed.core.meter_inputs import Settings, Span
from homefed.core.meter_limits import SLACK_MS, impossible
from homefed.core.samples import Identity, Sample
from homefed.core.windows import Window

SECOND_MS: Final = 1000
"""Times of instances are whole seconds, and those of the status were put on the hub's clock at another moment."""


@dataclass(slots=True)
class Tally:
    """What happened in one window, for the line's quality figures; `estimated` in the unit of `cumulative`."""

    samples: int = 0
    resets: int = 0
    lagged: int = 0
    refused: int = 0
    estimated: int = 0
    gaps: int = 0
    running_ms: int = 0
    covered_ms: int = 0

    def add(self, other: Tally) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Meter:
    """`limit` as meter_limits.limit_of gives it; `born`: the pod's start. Times in ms on the hub's clock, `start`, the
    instance's, on the home's."""

    resource: Metered
    span: Span
    born: int
    limit: int
    settings: Settings
    instance: str = ""
    start: int = 0
    time: int = 0
    value: int = 0
    cumulative: int = 0
    ended: bool = False
    tally: Tally = field(default_factory=Tally)

    def resume(self, reading: Reading) -> None:
        """Go on where a window before closed."""
        self.instance, self.start, self.time = reading.instance, reading.instance_start, reading.time
        self.value, self.cumulative, self.ended = int(reading.value), int(reading.cumulative), reading.ended

    def reading(self, identity: Identity) -> Reading:
        return Reading(
            guest_pod=identity.guest_pod,
            container=identity.container,
            resource=identity.resource,
            instance=self.instance,
            instance_start=self.start,
            time=self.time,
            value=str(self.value),
            cumulative=str(self.cumulative),
            ended=self.ended,
        )

    def advance(self, samples: Iterable[Sample], window: Window) -> None:
        """`samples` in order of time, within the window. A container that has ended may still be answered for."""
        end = self.span.end
        for sample in samples:
            self.tally.samples += 1
            if self._is_refused(sample):
                self.tally.refused += 1
                continue
            if end is not None and sample.time > end:
                continue
            if self._is_past(sample):
                self.tally.lagged += 1
            elif self.resource == MEMORY:
                self._hold(sample)
            else:
                self._count(sample)
        if end is not None and end <= window.end_ms and self.time and not self.ended:
            self._add_tail(end)
            self.time, self.ended = max(self.time, end), True

    def _is_refused(self, sample: Sample) -> bool:
        began = sample.start + self.settings.offset_ms if sample.start else self.born
        return impossible(self.resource, sample.value, self.limit, sample.time - began)

    def _began(self, start: int) -> int | None:
        """An instance's start on the hub's clock; None when unknown."""
        return start + self.settings.offset_ms if start else None

    def _is_past(self, sample: Sample) -> bool:
        """A container that has been replaced is still answered for a while."""
        return 0 < sample.start < self.start and sample.instance != self.instance

    def _count(self, sample: Sample) -> None:
        """A counter's sample. Whatever happens, what comes next is compared with this one, but for a small drop."""
        moved = sample.instance != self.instance or sample.start != self.start or self.time == 0
        is_reset = moved and self._is_reset(sample)
        gained = sample.value if is_reset else sample.value - self.value
        if self.time and gained > self.limit * (max(0, sample.time - self.time) + SLACK_MS):
            self.tally.refused += 1
            gained = 0
        elif gained < 0:
            self.tally.lagged += 1
            if -gained <= self.limit * SLACK_MS:  # of a scraper that lags; more than that is another source
                self.time = max(self.time, sample.time)
                return
            gained = 0
        if is_reset:
            self._add_tail(self._latest_end(sample))
            self.tally.resets += int(self.time > 0)
            self.instance, self.start, self.ended = sample.instance, sample.start, False
        elif sample.start > self.start:
            self.start = sample.start
        self.cumulative += gained
        self.value, self.time = sample.value, max(self.time, sample.time)

    def _is_reset(self, sample: Sample) -> bool:
        """A new container id always; under the same id a later start time, if the value fits it.

        cAdvisor takes start times from file times, which can move without a restart: then the value neither drops nor
        could have been used since, and counting it again would bill it twice.
        """
        if self.time == 0 or sample.instance != self.instance:
            return True
        if sample.start <= self.start or self.start == 0:
            return False
        age_ms = sample.time - (sample.start + self.settings.offset_ms)
        limit = self.limit if self.resource == CPU else 0
        return sample.value < self.value or sample.value <= limit * max(0, age_ms)

    def _hold(self, sample: Sample) -> None:
        """A gauge's sample; a second one of the same moment adds nothing."""
        if sample.time <= self.time:
            return
        is_new = self.time == 0 or sample.instance != self.instance
        began = self._began(sample.start) if is_new else None
        if is_new:
            self._add_tail(self._latest_end(sample))
        elif not self.ended:
            self.cumulative += self.value * self._held_ms(self.time, sample.time)
        if began is not None:
            head = min(sample.value, self.limit) * self._held_ms(max(began, self.time), sample.time)
            self.cumulative += head
            self.tally.estimated += head
        if is_new:
            self.tally.resets += int(self.time > 0)
            self.ended = False
        self.instance, self.start, self.time, self.value = sample.instance, sample.start, sample.time, sample.value

    def _held_ms(self, since: int, until: int) -> int:
        return min(max(0, until - since), self.settings.hold_ms)

    def _latest_end(self, sample: Sample) -> int:
        """Of the instance that a sample of the next one ends: it had ended when that began."""
        began = self._began(sample.start)
        return sample.time if began is None else min(began, sample.time)

    def _add_tail(self, latest: int) -> None:
        """From the last sample of an instance to its end: memory holds, CPU goes on at its mean rate up to the limit.

        Its end is the first one that is known after the last sample. Where none is, CPU adds nothing, and memory holds
        to the latest moment that it can have ended at.
        """
        if self.time == 0 or self.ended:
            return
        known = (*self.span.ends, self.span.end)
        told = min((end for end in known if end is not None and self.time < end <= latest + SECOND_MS), default=None)
        end = latest if told is None else min(told, latest)
        if self.resource == MEMORY:
            self.cumulative += self.value * self._held_ms(self.time, end)
        elif self.resource == CPU and told is not None:
            self._estimate_cpu(end)

    def _estimate_cpu(self, end: int) -> None:
        """Mean rate of the instance × Δt, at most limit × Δt (1 mcore·ms is 1 µcore·s)."""
        began = self._began(self.start) or self.span.start
        missing, lived = end - self.time, self.time - (began or self.time)
        if missing <= 0 or lived <= 0:
            return
        tail = min(self.value * missing // lived, self.limit * missing)
        self.cumulative += tail
        self.tally.estimated += tail
