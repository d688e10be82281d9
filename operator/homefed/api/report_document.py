"""The report document: what a home says was used in one window, signed by the home, cut into numbered parts.

Nothing else about what ran leaves the home: raw samples stay there as evidence, only their SHA-256 travels. `readings`
are where the next window opens, on whatever machine the agent runs then.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from homefed.api.claim_document import Natural, Unit
from homefed.api.meta import Digest, Document, Name, Time, Uid

LINES_PER_PART = 1000
MAX_PARTS = 1000
MAX_READINGS = 4000

CPU: Literal["cpu"] = "cpu"
MEMORY: Literal["memory"] = "memory"
RECEIVE: Literal["network-receive"] = "network-receive"
TRANSMIT: Literal["network-transmit"] = "network-transmit"

Metered = Literal["cpu", "memory", "network-receive", "network-transmit"]
METERED: tuple[Metered, ...] = (CPU, MEMORY, RECEIVE, TRANSMIT)
UNITS: dict[Metered, Unit] = {CPU: "ucore.s", MEMORY: "KiB.s", RECEIVE: "byte", TRANSMIT: "byte"}

Millis = Annotated[int, Field(ge=0, le=2**53 - 1)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


class ReportLine(Document):
    """One guest pod and resource in one window, over all its containers."""

    guest_pod: Uid
    resource: Metered
    unit: Unit
    open: Natural
    close: Natural
    """Cumulative units since the pod's start, as read at or before the window's start and end."""
    amount: Natural
    """close − open."""
    samples: Count
    expected: Count
    """Samples seen; running time in the window ÷ interval, which is the scrape's, but at least 15 s (the kubelet's)."""
    gaps: Count
    """Times between neighbouring samples of more than two scrape intervals."""
    resets: Count
    estimated: Natural = "0"
    """Units of `amount` that were not read but estimated, from the last sample to the end of a container."""
    coverage_ppm: Annotated[int, Field(ge=0, le=1_000_000)]
    """Share of the running time in the window that lies within two scrape intervals after a sample."""
    flags: Annotated[list[Annotated[str, Field(max_length=32, pattern=r"^[A-Za-z]+$")]], Field(max_length=16)]


class Reading(Document):
    """The meter's state for one container and resource; container "" is the pod's sandbox, which has the network."""

    guest_pod: Uid
    container: Annotated[str, Field(max_length=253)]
    resource: Metered
    instance: Annotated[str, Field(max_length=16, pattern=r"^([0-9a-f]{16})?$")]
    """SHA-256, cut, of the container's id; another one means that the counter began anew."""
    instance_start: Millis
    """container_start_time_seconds of the instance, ms, on the home's clock; 0 when unknown."""
    time: Millis
    """Of the last sample, ms since the epoch, on the hub's clock."""
    value: Natural
    """µcore·s or bytes: a counter's highest value in this instance, or the last value of a gauge."""
    cumulative: Natural
    """Since the pod's start, all instances: µcore·s, byte·ms (memory), bytes."""
    ended: bool = False
    """The container has finished and its tail has been counted."""


class ReportDocument(Document):
    """Part `part` of `parts` of what one home reports for one pool and window."""

    version: Literal[1] = 1
    federation: Annotated[str, Field(max_length=63)]
    pool: Name
    home: Uid
    window_start: Time
    window_end: Time
    """(start, end] on the hub's clock."""
    part: Annotated[int, Field(ge=1, le=MAX_PARTS)]
    parts: Annotated[int, Field(ge=1, le=MAX_PARTS)]
    clock_offset_ms: Annotated[int, Field(ge=-(2**53) + 1, le=2**53 - 1)]
    """Hub's clock − home's clock, as added to every sample's time."""
    scrape_interval_ms: Annotated[int, Field(ge=1, le=3_600_000)]
    evidence_digest: Digest
    """SHA-256 of the canonical JSON of the window's raw samples, which stay at home."""
    meter_version: Annotated[str, Field(max_length=64)]
    lines: Annotated[list[ReportLine], Field(max_length=LINES_PER_PART)]
    readings: Annotated[list[Reading], Field(max_length=MAX_READINGS)]
