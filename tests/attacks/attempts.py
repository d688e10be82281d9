"""What dishonest homes try. Each is a home that alters one thing, with everything behind it honest.

The guests of an attempt are a busy one, which uses nearly the core that it requests, and a calm one, which uses a
quarter of it: what is made up of the calm one has room below its bound.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attacks.federation import Home, document_of
from attacks.work import HOUR, T0, Json, Work
from homefed.api.report_document import ReportDocument, ReportLine
from homefed.core.samples import RawSeries
from homefed.core.windows import Window

BUSY: Final = Work("00000001-1111-4000-8000-000000000000", 0.95)
CALM: Final = Work("00000002-1111-4000-8000-000000000000", 0.25)
ALIEN: Final = Work("0000000a-1111-4000-8000-000000000000", 0.9)
"""Of another home, or of none."""
OTHER_KEY: Final = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
FROM_HOUR: Final = 3
"""Attempts begin in this hour where they do not begin at once: until then the home is honest."""


def altered(series: RawSeries, change: Callable[[int, str], str]) -> RawSeries:
    """`change`: of (seconds after T0, value)."""
    return replace(series, samples=[(time, change(time // 1000 - T0, value)) for time, value in series.samples])


def times(factor: float) -> Callable[[int, str], str]:
    return lambda _, value: f"{float(value) * factor:.6f}"


def is_cpu(series: RawSeries, work: Work | None = None) -> bool:
    return series.metric == "cpu" and (work is None or work.uid in series.labels["pod"])


class InflatedTenfold(Home):
    name = "inflated CPU series, tenfold"
    how = "every value of every CPU counter times ten"

    def series(self, window: Window) -> list[RawSeries]:
        return [altered(one, times(10)) if is_cpu(one) else one for one in super().series(window)]


class InflatedAboveTheRequest(Home):
    name = "inflated CPU series, above the request"
    how = "the calm guest's counter times 6: half as much again as it could have used"

    def series(self, window: Window) -> list[RawSeries]:
        return [altered(one, times(6)) if is_cpu(one, CALM) else one for one in super().series(window)]


class InflatedLater(Home):
    name = "CPU series inflated from the third hour"
    how = "an honest past, then the calm guest's counter runs six times as fast"

    def series(self, window: Window) -> list[RawSeries]:
        begun = FROM_HOUR * HOUR

        def change(second: int, value: str) -> str:
            return f"{CALM.cores * (second + 5 * max(0, second - begun)):.6f}"

        return [altered(one, change) if is_cpu(one, CALM) else one for one in super().series(window)]


class RoomClaimedAtOnce(Home):
    name = "unused room claimed at once"
    how = "four honest hours, then the calm guest's counter jumps to all that it could have used"

    def series(self, window: Window) -> list[RawSeries]:
        def change(second: int, value: str) -> str:
            return f"{float(value) + (0.7 * 4 * HOUR if second > 4 * HOUR + 600 else 0):.6f}"

        return [altered(one, change) if is_cpu(one, CALM) else one for one in super().series(window)]


class RecordingRuleBeside(Home):
    name = "recording rule beside the scrape"
    how = "a rule records the calm guest's counter times 3 under the scrape's own name and labels"

    def series(self, window: Window) -> list[RawSeries]:
        honest = super().series(window)
        recorded = [
            replace(one, samples=[(time + 15_000, f"{float(value) * 3:.6f}") for time, value in one.samples])
            for one in honest
            if is_cpu(one, CALM)
        ]
        return honest + recorded


class RecordingRuleRate(Home):
    name = "edited recording rule, above the request"
    how = "the scrape is dropped, and a rule records ten times its rate from the third hour on"

    def series(self, window: Window) -> list[RawSeries]:
        def change(second: int, value: str) -> str:
            return f"{float(value) + 9 * CALM.cores * max(0, second - FROM_HOUR * HOUR):.6f}"

        return [altered(one, change) if is_cpu(one, CALM) else one for one in super().series(window)]


class WithinTheRequest(Home):
    name = "CPU series or rule inflated below the request"
    how = "the calm guest's counter times 3.8: what a busy guest would have used"
    held = False

    def series(self, window: Window) -> list[RawSeries]:
        return [altered(one, times(3.8)) if is_cpu(one, CALM) else one for one in super().series(window)]


class WithinTheRequestUnpaid(WithinTheRequest):
    name = "the same, in a pool that pays CPU as reserved"
    how = "the rate card's price for CPU used is 0"
    used_cpu = False
    held = True


class Replayed(Home):
    name = "replayed report"
    how = "every report is put into the mailbox three times more, under other names"

    def delivered(self, objects: list[Json], window: Window) -> list[Json]:
        return objects + [renamed(obj, f"again-{number}") for obj in objects for number in range(3)]


class ReplayedLater(Home):
    name = "old report replayed"
    how = "the report of the first hour again in every later one, under other names"

    def delivered(self, objects: list[Json], window: Window) -> list[Json]:
        return objects + [renamed(obj, f"at-{window.end}") for obj in self.mailbox[:1]]


class AnotherHomesPod(Home):
    name = "report for another home's pod"
    how = "lines of a pod that runs in another home, signed by this one"

    def documents(self, documents: list[ReportDocument]) -> list[ReportDocument]:
        return [with_lines(one, [*one.lines, *(moved(line, ALIEN) for line in of(one, BUSY))]) for one in documents]


class AnotherHomesReport(Home):
    name = "another home's report"
    how = "another home's signed report of its own guests, copied"
    last: list[ReportDocument]

    def delivered(self, objects: list[Json], window: Window) -> list[Json]:
        documents = [with_lines(document, doubled(document)) for document in self.last]
        return [*(renamed(self.posted(one, OTHER_KEY), "copied") for one in documents), *objects]

    def documents(self, documents: list[ReportDocument]) -> list[ReportDocument]:
        self.last = [one.model_copy(update={"home": ALIEN.uid}) for one in documents]
        return documents


class ForgedId(Home):
    name = "counter reset forged: container id"
    how = "the calm guest's counter goes on under a new id every hour, as if it had begun anew"

    def series(self, window: Window) -> list[RawSeries]:
        def anew(one: RawSeries) -> RawSeries:
            return replace(one, labels={**one.labels, "id": f"{one.labels['id']}-{window.end}"})

        return [anew(one) if is_of(one, CALM) else one for one in super().series(window)]


class ForgedStart(Home):
    name = "counter reset forged: id and start time"
    how = "the same, and the start time is that of the hour"

    def series(self, window: Window) -> list[RawSeries]:
        def anew(one: RawSeries) -> RawSeries:
            one = replace(one, labels={**one.labels, "id": f"{one.labels['id']}-{window.end}"})
            return altered(one, lambda _, value: str(window.start)) if one.metric == "start" else one

        return [anew(one) if is_of(one, CALM) else one for one in super().series(window)]


class ForgedByTheAgent(Home):
    name = "counter reset forged: by the agent"
    how = "an altered agent adds the whole counter again every hour, and signs it"

    def documents(self, documents: list[ReportDocument]) -> list[ReportDocument]:
        return [with_lines(one, doubled(one)) for one in documents]


class NotNumbers(Home):
    name = "NaN, infinite and negative values"
    how = "one value in three is NaN, +Inf, −Inf, −1, 1e300 or 2⁶³"

    def series(self, window: Window) -> list[RawSeries]:
        bad = ("NaN", "+Inf", "-Inf", "-1", "1e300", str(2**63))

        def change(second: int, value: str) -> str:
            return bad[second // 90 % len(bad)] if second // 30 % 3 == 0 else value

        return [altered(one, change) if is_cpu(one) else one for one in super().series(window)]


class LargeNumbers(Home):
    name = "values as large as the gates let pass"
    how = "one value in ten of every CPU counter is 4·10¹²"

    def series(self, window: Window) -> list[RawSeries]:
        def change(second: int, value: str) -> str:
            return "4e12" if second // 30 % 10 == 0 else value

        return [altered(one, change) if is_cpu(one) else one for one in super().series(window)]


class ClockAhead(Home):
    name = "clock moved ahead"
    how = "samples are stamped two hours ahead, so that hours to come are claimed now"

    def series(self, window: Window) -> list[RawSeries]:
        ahead = Window(window.start + 2 * HOUR, window.end + 2 * HOUR)
        return super().series(window) + super().series(ahead)


class ClockBack(Home):
    name = "clock moved back: start times"
    how = "every guest is said to have started an hour before it did"
    basis = "reserved"

    def started(self, work: Work) -> str:
        return super().started(replace(work, start=work.start - HOUR))

    def claimed(self) -> int:
        return sum(work.reserved(6 * HOUR) + 1_000_000 * HOUR for work in self.guests)


class FastClock(Home):
    name = "clock that runs fast"
    how = "an hour of the home's clock passes in half an hour: twice the samples, at twice the age"

    def series(self, window: Window) -> list[RawSeries]:
        def fast(one: RawSeries) -> RawSeries:
            return replace(one, samples=[(2 * time - T0 * 1000, value) for time, value in one.samples])

        return [fast(one) for one in super().series(window)]


class ClockAtTheEnd(Home):
    name = "clock moved ahead: end times"
    how = "guests that have ended are said to have ended an hour later"
    basis = "reserved"

    def __init__(self, guests: Sequence[Work]) -> None:
        super().__init__([replace(work, end=5 * HOUR + 1800) for work in guests])

    def finished(self, work: Work) -> str:
        return super().finished(replace(work, end=(work.end or 0) + HOUR))

    def claimed(self) -> int:
        return sum(work.reserved(6 * HOUR) + 1_000_000 * HOUR for work in self.guests)


class Withheld(Home):
    name = "report withheld when the number is bad"
    how = "hours in which the calm guest would earn less than reserved are not reported"

    def delivered(self, objects: list[Json], window: Window) -> list[Json]:
        return objects if (window.end - T0) // HOUR % 2 else []


class WithheldThenAll(Home):
    name = "reports withheld, then all at once"
    how = "nothing for five hours, then everything, with the last report twice as high"
    kept: tuple[Json, ...] = ()

    def delivered(self, objects: list[Json], window: Window) -> list[Json]:
        self.kept = (*self.kept, *objects)
        return list(self.kept) if window.end == T0 + 6 * HOUR else []

    def documents(self, documents: list[ReportDocument]) -> list[ReportDocument]:
        last = [one.window_end == "2026-01-01T06:00:00Z" for one in documents]
        return [with_lines(one, doubled(one)) if is_last else one for one, is_last in zip(documents, last, strict=True)]


class ReportedAnew(Home):
    name = "a window reported anew after it was settled"
    how = "the report is deleted as no home can, and made again under its name with a third more for the calm guest"

    def delivered(self, objects: list[Json], window: Window) -> list[Json]:
        anew = [with_lines(document_of(obj), grown(document_of(obj), CALM)) for obj in self.mailbox]
        other = {"evidence_digest": "1" * 64}
        self.mailbox = [self.posted(document.model_copy(update=other)) for document in anew]
        return objects


class ReportedTwice(Home):
    name = "a window reported twice"
    how = "a second report of each hour, signed too, with a third more for the calm guest"
    second: list[ReportDocument]

    def delivered(self, objects: list[Json], window: Window) -> list[Json]:
        return objects + [renamed(self.posted(document), "more") for document in self.second]

    def documents(self, documents: list[ReportDocument]) -> list[ReportDocument]:
        other = {"evidence_digest": "1" * 64}
        self.second = [with_lines(one, grown(one, CALM)).model_copy(update=other) for one in documents]
        return documents


class NeverBound(Home):
    name = "usage of a pod that the hub never bound"
    how = "a pod in the guests' namespace that looks like a guest, metered and reported"
    unbound: ClassVar[frozenset[str]] = frozenset({ALIEN.uid})

    def documents(self, documents: list[ReportDocument]) -> list[ReportDocument]:
        return [with_lines(one, [*one.lines, *(moved(line, ALIEN) for line in of(one, BUSY))]) for one in documents]

    def __init__(self, guests: Sequence[Work]) -> None:
        super().__init__([*guests, ALIEN])


def is_of(series: RawSeries, work: Work) -> bool:
    """The series of its container."""
    return work.uid in series.labels["pod"] and series.metric in ("cpu", "start")


def renamed(obj: Json, more: str) -> Json:
    """The same object under another name, as one that was created by itself."""
    found = copy.deepcopy(obj)
    found["metadata"]["name"] += f"-{more}"
    found["metadata"]["uid"] += f"-{more}"
    return found


def of(document: ReportDocument, work: Work) -> list[ReportLine]:
    return [line for line in document.lines if line.guest_pod == work.uid]


def moved(line: ReportLine, work: Work) -> ReportLine:
    return line.model_copy(update={"guest_pod": work.uid})


def with_lines(document: ReportDocument, lines: Sequence[ReportLine]) -> ReportDocument:
    return document.model_copy(update={"lines": list(lines)})


def scaled(line: ReportLine, opened: int, closed: int) -> ReportLine:
    return line.model_copy(update={"open": str(opened), "close": str(closed), "amount": str(closed - opened)})


def doubled(document: ReportDocument) -> list[ReportLine]:
    """Every CPU line as if what was read until then had been read again."""
    return [
        scaled(line, int(line.open), 2 * int(line.close)) if line.resource == "cpu" else line for line in document.lines
    ]


def grown(document: ReportDocument, work: Work) -> list[ReportLine]:
    """Its CPU lines with a third more."""
    return [
        scaled(line, int(line.open), int(line.close) + int(line.amount) // 3)
        if line.resource == "cpu" and line.guest_pod == work.uid
        else line
        for line in document.lines
    ]


ATTEMPTS: Final[tuple[type[Home], ...]] = (
    InflatedTenfold,
    InflatedAboveTheRequest,
    InflatedLater,
    RoomClaimedAtOnce,
    RecordingRuleBeside,
    RecordingRuleRate,
    WithinTheRequest,
    WithinTheRequestUnpaid,
    Replayed,
    ReplayedLater,
    AnotherHomesPod,
    AnotherHomesReport,
    ForgedId,
    ForgedStart,
    ForgedByTheAgent,
    NotNumbers,
    LargeNumbers,
    ClockAhead,
    FastClock,
    ClockBack,
    ClockAtTheEnd,
    Withheld,
    WithheldThenAll,
    ReportedTwice,
    ReportedAnew,
    NeverBound,
)
