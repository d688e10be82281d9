"""The evidence bundle of one pool and window, as it is kept at home: all that its report and its claim came from.

`evidence` is fixed when the window is measured: the SHA-256 of its canonical JSON is what leaves, in the report. The
rest is added around it: the report as it was signed, and, once the hub has settled the window, what the home could see
of the hub's side then. So the file suffices to compute report and claim again on another machine.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from homefed.api.claim_document import MAX_PARTS, LinesPart, Natural
from homefed.api.meta import Document, Name, Time, Uid
from homefed.api.rate_card import Basis
from homefed.api.report_document import Reading

MAX_GUESTS = 10_000
MAX_REPORTS = 1000

Plain = dict[str, Any]
"""JSON of a type of `core`, by the names of its fields; read back by `core.evidence`."""


class Series(Document):
    """One series as Prometheus answered it; [ms on the home's clock, value as text], in order."""

    metric: Annotated[str, Field(max_length=63)]
    labels: dict[str, str]
    samples: list[tuple[int, str]]


class EvidenceDocument(Document):
    """What the meter had before it when it measured one window."""

    version: Literal[2] = 2
    federation: Annotated[str, Field(max_length=63)]
    pool: Name
    home: Uid
    window_start: Time
    window_end: Time
    meter_version: Annotated[str, Field(max_length=64)]
    asked_at: Annotated[int, Field(ge=0)]
    """Seconds, hub's clock: samples after it are refused as Future."""
    settings: Plain
    """metering.Settings."""
    guests: Annotated[list[Plain], Field(max_length=MAX_GUESTS)]
    """metering.Guest: requests in base units, life and containers' lives."""
    readings: list[Reading]
    """With which the last window closed."""
    series: list[Series]


class KnownAccount(Document):
    """What earlier claims say of one pod, resource and basis."""

    guest_pod: Uid
    resource: Annotated[str, Field(max_length=63)]
    basis: Basis
    known: dict[str, Natural | bool]
    """rewards.Account by the names of its fields; integers as decimal text."""


class ChainBefore(Document):
    """The claim's place: what the claims before it say."""

    previous: Plain | None = None
    """Envelope of the newest header before it; None where it is the first."""
    accounts: list[KnownAccount]


class SettledClaim(Document):
    """What the hub signed: the header's DSSE envelope as JSON, and the lines that it holds the digests of."""

    envelope: Plain
    parts: Annotated[list[LinesPart], Field(max_length=MAX_PARTS)]


class Settled(Document):
    """The hub's side, as the home saw it."""

    claim: SettledClaim
    terms: Plain
    """Of the Offer: rateCard, settlement and what else prices a line. Empty where the hub did not show them."""
    member_since: Time | None = None
    """What months of membership count from; None where the hub did not say."""
    guests: Annotated[list[Plain], Field(max_length=MAX_GUESTS)]
    """GuestPods of the pool: metadata.annotations, and spec without the pod."""
    before: ChainBefore
    earlier: Annotated[list[Plain], Field(max_length=MAX_REPORTS)]
    """Envelopes of the reports of earlier windows that the claim rests on as well."""


class Bundle(Document):
    version: Literal[1] = 1
    evidence: EvidenceDocument | None = None
    """None where the home measured nothing, and the hub settled without."""
    reports: Annotated[list[Plain], Field(max_length=MAX_REPORTS)]
    """Envelopes of the report's parts, in order."""
    settled: Settled | None = None
