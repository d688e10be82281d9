"""Do the home's meter and the hub's own agree? Judged from the gaps that the used lines of its claims state.

The figure of a line is the share of what the home has reported, since the pod's start, that is not accepted. An honest
meter reports what containers used within their limits, and the hub's bound is those limits × the time that it saw them
run: such a home can only be above the bound by its meter's own error, which is below 0.1 % in steady operation and
below 1 % at resets and for pods of a minute. So a window with more than 1 % is worth a look, and more than half of the
last six windows, at least three of them, are no accident: one outage, one restart, one late report disturb one window
or two. What was above the bound for a moment closes again as the bound grows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Final

from homefed.api.claim_document import Line
from homefed.api.rate_card import PPM
from homefed.core.conditions import FALSE, TRUE
from homefed.core.findings import Finding

METER_AGREES: Final = "MeterAgrees"
WINDOWS: Final = 6
"""Looked at, of each home and pool."""
AT_LEAST: Final = 3
"""Windows before anything is said."""
THRESHOLD_PPM: Final = 10_000
_NETWORK: Final = ("network-receive", "network-transmit")


@dataclass(frozen=True, order=True)
class Gap:
    """Of one window: the resource of which the largest share is not accepted."""

    ppm: int
    resource: str


def share_ppm(gap: int, accepted: int) -> int | None:
    """Of what was reported, cumulative, what is not accepted; None where nothing was reported."""
    return gap * PPM // (gap + accepted) if gap + accepted else None


def shares(lines: Iterable[Line]) -> Iterator[int]:
    """In ppm, of every used line of which something was reported."""
    for line in lines:
        if line.gap is not None:
            share = share_ppm(int(line.gap), int(line.accepted_before) + int(line.accepted))
            if share is not None:
                yield share


def worst(lines: Iterable[Line]) -> Gap | None:
    """Over all guests, the resource whose share is largest; None where nothing was reported. A pod counts by what it
    used, so that one that lived for a second does not speak for a home."""
    gaps: dict[str, tuple[int, int]] = {}
    for line in lines:
        if line.gap is not None:
            gap, accepted = gaps.get(line.resource, (0, 0))
            gaps[line.resource] = gap + int(line.gap), accepted + int(line.accepted_before) + int(line.accepted)
    found = [Gap(ppm, name) for name, both in gaps.items() if (ppm := share_ppm(*both)) is not None]
    return max(found, default=None)


def finding(recent: Sequence[Gap]) -> Finding | None:
    """What to say of a home by its last windows, the newest last; None while they are too few."""
    looked_at = recent[-WINDOWS:]
    if len(looked_at) < AT_LEAST:
        return None
    middle = median_low(looked_at)
    if middle.ppm <= THRESHOLD_PPM:
        return Finding(TRUE, "MetersAgree", "What the home reports fits what the hub itself sees run.")
    return Finding(FALSE, "MetersDisagree", _sentence(middle, len(looked_at)))


def worse(findings: Iterable[Finding | None]) -> Finding | None:
    """Of a home's pools: one that disagrees, else any."""
    known = [one for one in findings if one is not None]
    return next((one for one in known if one.status == FALSE), known[0] if known else None)


def _sentence(gap: Gap, count: int) -> str:
    remedy = (
        "where homes have a faster line than spec.maxBandwidthMbps of the pool says, raise it; else look at"
        if gap.resource in _NETWORK
        else "look at the home's clock, at its Prometheus (one source, the real scrape interval), and at"
    )
    return (
        f"In the middle of the last {count} windows {gap.ppm // 10_000} % of the {gap.resource} that the home has"
        f" reported lie above what the hub itself saw run (1 % can be the meter's error) and are not paid: {remedy}"
        " `homefed claims explain`."
    )
