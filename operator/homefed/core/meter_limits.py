"""What cannot have been used: bounds on a whole pod's reading, and on a single sample before it is counted."""

from __future__ import annotations

from typing import Final

from homefed.api import quantities
from homefed.api.report_document import CPU, MEMORY, RECEIVE, TRANSMIT

KIB_SECOND: Final = 1024 * 1000
"""byte·ms in one KiB·s."""
HEADROOM: Final = 2
"""Guests run with limit = request; what is above twice that for the pod's whole life is no measuring error."""
LINE_RATE_BYTES_PER_MS: Final = 1_250_000
"""10 Gbit/s."""
SLACK_MS: Final = 120_000
"""Added to an instance's age, and to the time between two samples: start times are whole seconds, the home's clock may
have moved, and what a kubelet answers lags."""
NETWORK: Final = (RECEIVE, TRANSMIT)


def over_capacity(resource: str, cumulative_units: int, requests: quantities.Quantities, age_ms: int) -> bool:
    """Whether a pod of this age cannot have used so much: above twice its request, or above the line's rate."""
    if resource in NETWORK:
        return cumulative_units > LINE_RATE_BYTES_PER_MS * age_ms
    if resource == MEMORY:
        return cumulative_units * KIB_SECOND > HEADROOM * requests.get(quantities.MEMORY, 0) * age_ms
    return cumulative_units > HEADROOM * requests.get(quantities.CPU, 0) * age_ms


def limit_of(resource: str, requests: quantities.Quantities) -> int:
    """What an instance may use at most: milli-cores (= µcore·s per ms), bytes of memory, bytes per ms of a network."""
    if resource in NETWORK:
        return LINE_RATE_BYTES_PER_MS
    return requests.get(quantities.CPU if resource == CPU else quantities.MEMORY, 0)


def impossible(resource: str, value: int, limit: int, age_ms: int) -> bool:
    """Whether an instance of this age cannot have this value; such a sample is refused, not cut."""
    if resource == MEMORY:
        return value > HEADROOM * limit
    factor = 1 if resource in NETWORK else HEADROOM
    return value > factor * limit * (max(0, age_ms) + SLACK_MS)
