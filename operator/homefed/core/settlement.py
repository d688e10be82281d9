"""Which window of which home is settled next, and with which lines: a pure decision over what the hub has.

A window is settled when its grace has passed and the home's report is there; without a report not before the lateness
limit. Windows are settled in order: a claim continues the chain of the claims before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from homefed.api.claim_document import Line, ReportSignature
from homefed.api.rate_card import RateCard
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import windows
from homefed.core.claim_chain import REPORTS_PER_PART, Chain
from homefed.core.claim_lines import lines_of, owes_reserved
from homefed.core.rates import in_force
from homefed.core.readings import Report
from homefed.core.rewards import Observation
from homefed.core.windows import Window

WAITING_FOR_DATA: Final = "WaitingForData"
RATE_CARD_NOT_VALID: Final = "RateCardNotYetValid"
MAX_WINDOWS: Final = 20_000


@dataclass(frozen=True)
class Inputs:
    """One home in one pool. `reports` are whole and verified; guests and reports are this pool's only."""

    federation: str
    home: str
    pool: SchedulingPoolSpec
    guests: Sequence[Observation]
    reports: Sequence[Report]
    chain: Chain
    scrape_interval_ms: int = 15_000


@dataclass(frozen=True)
class Settle:
    """Make the next claim of the chain from this."""

    window: Window
    lines: tuple[Line, ...]
    reports: tuple[ReportSignature, ...]
    late: bool
    """The lateness limit passed without the home's report."""
    strangers: tuple[str, ...] = ()
    """Pods that the home reported and that the hub does not know as guests of this home and pool."""
    card: RateCard | None = None
    """In force for the window; its digest is pinned in the claim."""


@dataclass(frozen=True)
class Wait:
    """Nothing to settle yet; `until` (seconds) is when it will be, at the latest."""

    reason: str
    message: str
    since: int
    """Seconds: since when it could have been settled, had everything been there."""
    until: int


Decision = Settle | Wait | None


def decide(inputs: Inputs, now: int) -> Decision:
    """The next step at `now` (seconds, hub time); None when every window that has passed is settled or was idle."""
    settings = inputs.pool.settlement
    valid_from = windows.seconds(inputs.pool.rate_card.valid_from)
    for window in _candidates(inputs, now):
        if valid_from > now:
            return Wait(
                RATE_CARD_NOT_VALID,
                f"spec.rateCard.validFrom {inputs.pool.rate_card.valid_from} lies ahead: {window.start_text} to"
                f" {window.end_text} is settled then",
                window.end,
                valid_from,
            )
        missing = _expects_report(inputs, window) and not any(one.window.end == window.end for one in inputs.reports)
        deadline = window.end + settings.lateness_seconds
        if missing and now < deadline:
            return Wait(WAITING_FOR_DATA, _missing(window, deadline), window.end + grace_of(inputs), deadline)
        step = settle_window(inputs, window, late=missing)
        if step.lines:
            return step
    return None


def grace_of(inputs: Inputs) -> int:
    """Seconds after a window's end in which nothing is decided about it."""
    return windows.grace(inputs.pool.settlement.grace_seconds, inputs.scrape_interval_ms)


def owed(inputs: Inputs, guest: Observation, until: int) -> bool:
    """Whether something that was reserved up to `until` (seconds) is in no claim of the chain yet."""
    return owes_reserved(inputs.pool, inputs.chain.accounts, guest, until)


def _candidates(inputs: Inputs, now: int) -> Iterator[Window]:
    """Closed windows after the chain's end in which something was reserved, or up to which something was reported.

    Or the first one, where the hub saw only afterwards what had run in windows that were settled by then.
    """
    settings = inputs.pool.settlement
    end = inputs.chain.end
    late = end is not None and any(owed(inputs, guest, end) for guest in inputs.guests)
    ends = [report.window.end for report in _unused(inputs)]
    closed = windows.due(
        inputs.chain.end,
        now,
        length=settings.window_seconds,
        grace_seconds=grace_of(inputs),
        spans=[(guest.running, guest.ended) for guest in inputs.guests if guest.running is not None],
        also=lambda window: late or any(end <= window.end for end in ends),
        limit=MAX_WINDOWS,
    )
    for window in closed:
        if late or any(end <= window.end for end in ends) or any(guest.reserved_in(window) for guest in inputs.guests):
            yield window


def _expects_report(inputs: Inputs, window: Window) -> bool:
    """The home reports every window in which one of its guests ran."""
    return any(window.overlap_ms(guest.running, guest.ended) > 0 for guest in inputs.guests)


def _missing(window: Window, deadline: int) -> str:
    return (
        f"the home's UsageReport of {window.start_text} to {window.end_text} is missing or incomplete; at"
        f" {windows.text(deadline)} reserved amounts are settled without it, and usage later"
    )


def _unused(inputs: Inputs) -> list[Report]:
    return [report for report in inputs.reports if report.digest not in inputs.chain.reports]


def settle_window(inputs: Inputs, window: Window, *, late: bool) -> Settle:
    """The claim of one window, whenever it is looked at. `late`: its report was not there in time."""
    reports = _quotable([report for report in _unused(inputs) if report.window.end <= window.end])
    known = {guest.uid for guest in inputs.guests}
    return Settle(
        window,
        lines_of(inputs.federation, inputs.pool, inputs.chain.accounts, inputs.guests, reports, window),
        tuple(one for report in reports for one in report.signatures),
        late,
        tuple(sorted({line.guest_pod for report in reports for line in report.lines} - known)),
        in_force(inputs.pool, window.start),
    )


def _quotable(reports: Sequence[Report]) -> list[Report]:
    """Oldest first, as many as one part of a claim can quote; the rest waits for the next claim."""
    found: list[Report] = []
    room = REPORTS_PER_PART
    for report in reports:
        room -= len(report.signatures)
        if room < 0 and found:
            break
        found.append(report)
    return found
