"""What is paid for: reserved units from the hub's own observation, used units from the home's meter bounded by it.

Everything is cumulative since the pod's start, and a claim takes what is new: accepted = min(R, B) − accepted before.
Readings end at the last sample, not at the window's edge; a minimum per window would dock honest homes, and a report
that comes late is made good by the next claim.

The gap of a used line is what the home has reported since the pod's start and what is not accepted: 0 where both meters
agree. It is cumulative too, so that a gap that time closes again is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from homefed.api import names, quantities
from homefed.api.claim_document import Line, LineReading, Unit
from homefed.api.rate_card import PPM, Basis, Price, Terms
from homefed.api.report_document import MEMORY, METERED, UNITS, ReportLine
from homefed.core.ledger import UNITS_OF, line_amount
from homefed.core.meter_limits import KIB_SECOND, NETWORK
from homefed.core.rates import rate_of
from homefed.core.report_gates import IMPOSSIBLE, Step, fault
from homefed.core.rounding import quantity
from homefed.core.windows import Window, millis, span_ms

BYTES_PER_MS_OF_MBPS: Final = 125
STANDARD_TERMS: Final = Terms()

BOUNDED: Final = "Bounded"
"""The home reported more than the hub's observation allows; the rest may be accepted later."""
NO_REPORT: Final = "NoReport"
"""Nothing of this window has been reported in time; it enters a later claim."""


class Key(NamedTuple):
    guest_pod: str
    resource: str
    basis: Basis


@dataclass(frozen=True)
class Account:
    """What earlier claims say of one pod, resource and basis: units accepted, and the reading that they closed with.

    `sequence` is that of the newest of these claims.
    """

    accepted: int = 0
    close: int = 0
    sequence: int = 0
    until: int = 0
    """ms; up to here at least the home has read; 0: not known."""
    refused: bool = False
    """What was reported was impossible: nothing used is accepted any more."""

    def after(self, line: Line, sequence: int) -> Account:
        """What is known once this line is in a claim."""
        accepted = int(line.accepted_before) + int(line.accepted)
        refused = IMPOSSIBLE in line.codes
        if line.reading is None:
            return Account(accepted, self.close, sequence, self.until, refused)
        return Account(accepted, int(line.reading.close), sequence, line.reading.read_until or self.until, refused)

    def without(self, line: Line, sequence: int) -> Account:
        """What is known once the claim of this sequence, which has this line, is taken back."""
        accepted, is_newest = self.accepted - int(line.accepted), self.sequence == sequence
        close = int(line.reading.open) if is_newest and line.reading is not None else self.close
        return Account(accepted, close, self.sequence, refused=self.refused and not is_newest)


@dataclass(frozen=True)
class Observation:
    """One guest pod as the hub saw it; times in ms on the hub's clock. `blind` intervals (end None: lasting) are not
    reserved time, because the node was Unknown or the hub did not look."""

    uid: str
    namespace_uid: str
    requests: quantities.Quantities
    bound: int
    running: int | None
    ended: int | None
    blind: tuple[tuple[int, int | None], ...] = ()
    settled: bool = False
    """It has ended and all of it is in receipted claims: later prices do not reach it."""
    terms: Terms = STANDARD_TERMS

    def observed_ms(self, until: int) -> int:
        """Running time up to `until`, blind intervals included: what usage reported later can have happened in."""
        return 0 if self.running is None else span_ms(self.running, self.ended, since_ms=self.bound, until_ms=until)

    def reserved_ms(self, until: int) -> int:
        """Running time up to `until` that the hub saw."""
        if self.running is None:
            return 0
        end = min(until, self.ended if self.ended is not None else until)
        unseen, position = 0, self.running
        for start, stop in sorted(self.blind, key=lambda one: one[0]):
            start, stop = max(start, position), min(end if stop is None else stop, end)
            if stop > start:
                unseen, position = unseen + stop - start, stop
        return max(0, end - self.running - unseen)

    def reserved_in(self, window: Window) -> bool:
        return self.reserved_ms(window.end_ms) > self.reserved_ms(window.start_ms)


@dataclass(frozen=True)
class Usage:
    """What the home has reported of one pod and resource since the claim before: the newest line, figures summed."""

    newest: ReportLine
    samples: int
    expected: int
    gaps: int
    resets: int
    estimated: int
    opened: int = 0
    """Cumulative units at which the oldest of these lines opens."""
    steps: tuple[Step, ...] = ()


def observation(obj: Mapping[str, Any]) -> Observation:
    """Of a GuestPod, whose spec only the hub writes."""
    spec = obj["spec"]
    observed = spec["observed"]
    return Observation(
        uid=spec["podUid"],
        namespace_uid=spec["namespaceUid"],
        requests=quantities.parse_all(spec.get("requests")),
        bound=millis(observed["boundAt"]),
        running=_optional(observed.get("runningFrom")),
        ended=_optional(observed.get("endedAt")),
        blind=tuple((millis(one["start"]), _optional(one.get("end"))) for one in observed.get("intervals") or ()),
        settled=names.ANNOTATION_SETTLED in (obj["metadata"].get("annotations") or {}),
        terms=Terms.model_validate(spec["terms"]) if spec.get("terms") else STANDARD_TERMS,
    )


def _optional(time: str | None) -> int | None:
    return None if time is None else millis(time)


def summarise(steps: Iterable[Step]) -> Usage:
    """`steps`: at least one, of one pod and resource, oldest first."""
    taken = tuple(steps)
    own = [step.line for step in taken]
    return Usage(
        newest=own[-1],
        samples=sum(line.samples for line in own),
        expected=sum(line.expected for line in own),
        gaps=sum(line.gaps for line in own),
        resets=sum(line.resets for line in own),
        estimated=sum(int(line.estimated) for line in own),
        opened=int(own[0].open),
        steps=taken,
    )


def units_of(resource: str, amount: int, ms: int) -> tuple[Unit, int]:
    """Unit and whole units of `amount` (base units of the resource) held for `ms`.

    1 milli-core·ms is 1 µcore·s, exactly; 1 device·ms is 1000 µGPU·s.
    """
    if resource == quantities.CPU:
        return "ucore.s", amount * ms
    if resource in (quantities.MEMORY, quantities.EPHEMERAL):
        return "KiB.s", quantity(amount * ms, 1024 * 1000)
    if resource in NETWORK:
        return "byte", amount * ms
    return "ugpu.s", amount * ms * 1000


def bound(guest: Observation, resource: str, until: int, max_bandwidth_mbps: int) -> int:
    """B: the most that can have been used up to `until` (ms), in units of the resource."""
    rate = max_bandwidth_mbps * BYTES_PER_MS_OF_MBPS if resource in NETWORK else guest.requests.get(resource, 0)
    return units_of(resource, rate, guest.observed_ms(until))[1]


def reserved_units(guest: Observation, price: Price, before: Account, until: int) -> int:
    """What is reserved up to `until` (ms) and in no claim yet, in units of the resource; 0 for a settled pod."""
    requested = guest.requests.get(price.resource, 0)
    if guest.settled or not requested:
        return 0
    unit, cumulative = units_of(price.resource, requested, guest.reserved_ms(until))
    return max(0, cumulative - before.accepted) if unit == UNITS_OF[price.per][0] else 0


def reserved_line(
    guest: Observation, price: Price, before: Account, window: Window, federation: str, *, factor_ppm: int = PPM
) -> Line | None:
    """`factor_ppm`: of the time of day. None where the pod requests none of the resource, nothing new is reserved, or
    the pod is settled."""
    new = reserved_units(guest, price, before, window.end_ms)
    if not new:
        return None
    return _line(guest, price, federation, factor_ppm, UNITS_OF[price.per][0], new, new, new, before.accepted)


def used_line(
    guest: Observation,
    price: Price,
    usage: Usage | None,
    before: Account,
    window: Window,
    *,
    max_bandwidth_mbps: int,
    federation: str,
    factor_ppm: int = PPM,
) -> Line | None:
    """None where the resource is not metered, or there is nothing to say: no time reserved and nothing new reported."""
    if price.resource not in METERED or UNITS_OF[price.per][0] != UNITS[price.resource]:
        return None
    allowed = max(0, bound(guest, price.resource, window.end_ms, max_bandwidth_mbps) - before.accepted)
    reported, close, codes = 0, before.close, [NO_REPORT]
    reading: LineReading | None
    if usage is None:
        reading = _reading(before.close, before.close, None)
    else:
        reported, codes = max(0, int(usage.newest.close) - before.close), list(usage.newest.flags)
        found = _fault(guest, usage, before)
        close = int(usage.newest.close) if found is None else before.accepted
        codes = [found] if found is not None else codes
        reading = _reading(before.close, close, usage) if found is None else None
    if before.refused:
        close, codes, reading = before.accepted, [IMPOSSIBLE], None
    # What was reported earlier and lay above the bound becomes payable as the bound grows.
    accepted = max(0, min(close - before.accepted, allowed))
    if not (accepted or reported or guest.reserved_in(window)):
        return None
    if close - before.accepted > allowed:
        codes.append(BOUNDED)
    gap = max(0, (before.close if usage is None else int(usage.newest.close)) - before.accepted - accepted)
    unit = UNITS[price.resource]
    return _line(
        guest, price, federation, factor_ppm, unit, reported, allowed, accepted, before.accepted, codes, reading, gap
    )


def _fault(guest: Observation, usage: Usage, before: Account) -> str | None:
    """Why nothing of this usage is accepted, as a code."""
    resource = usage.newest.resource
    return fault(
        usage.steps,
        limit=guest.requests.get(resource, 0),
        per_ms=KIB_SECOND if resource == MEMORY else 1,
        begun=guest.bound,
        ended=guest.ended,
        close=before.close,
        until=before.until or guest.bound,
    )


def _reading(opened: int, closed: int, usage: Usage | None) -> LineReading:
    if usage is None:
        return LineReading(open=str(opened), close=str(closed), samples=0, expected=0, gaps=0, resets=0)
    return LineReading(
        open=str(opened),
        close=str(closed),
        samples=usage.samples,
        expected=usage.expected,
        gaps=usage.gaps,
        resets=usage.resets,
        estimated=str(usage.estimated),
        read_until=usage.steps[-1].read_until,
    )


def _line(
    guest: Observation,
    price: Price,
    federation: str,
    factor_ppm: int,
    unit: Unit,
    reported: int,
    bound: int,
    accepted: int,
    before: int,
    codes: Sequence[str] = (),
    reading: LineReading | None = None,
    gap: int | None = None,
) -> Line:
    price_ppm = guest.terms.price_ppm
    return Line(
        accepted=str(accepted),
        accepted_before=str(before),
        amount=str(line_amount(accepted, price.micro_credits, price.per, price_ppm, factor_ppm)),
        basis=price.basis,
        bound=str(bound),
        codes=sorted(set(codes))[:16] if codes else [],
        consumer=names.consumer_account(federation, guest.namespace_uid),
        factor_ppm=None if factor_ppm == PPM else factor_ppm,
        gap=None if gap is None else str(gap),
        guest_pod=guest.uid,
        rate=rate_of(price, guest.terms.machine_class, price_ppm),
        reading=reading,
        reported=str(reported),
        resource=price.resource,
        unit=unit,
    )
