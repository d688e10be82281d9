"""The documents of a claim, as they are signed, stored for ever and read by anyone: the header, and its lines parts.

Amounts are decimal strings of integers in µcredit; units are µcore·s, KiB·s, byte, µGPU·s.
Header: at most 48 000 bytes, so that its envelope in base64 fits a leaf of the ledger (`ledger_documents.MAX_LEAF`).
Lines part: at most 1000 lines, trusted through the header's salted digest of it.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

from pydantic import Field

from homefed.api.canonical import quoted
from homefed.api.meta import Digest, Document, Name, Time, Uid
from homefed.api.rate_card import PPM, Basis, FactorPpm, MachineClass, Per, PricePpm

MAX_HEADER = 48_000
MAX_CONSUMERS = 250
MAX_SHARES = 122
"""Held-back shares: two at most per month of the longest time that one can be held."""
MAX_PARTS = 100
MAX_PART = 900_000
LINES_PER_PART = 1000

Account = Annotated[
    str,
    Field(max_length=200, pattern=r"^(contributor|held|consumer|fee|dust):[-A-Za-z0-9.]{1,63}/[-A-Za-z0-9.]{1,64}$"),
]
Natural = Annotated[str, Field(max_length=39, pattern=r"^(0|[1-9][0-9]{0,38})$")]
Unit = Literal["ucore.s", "KiB.s", "byte", "ugpu.s"]


Phase = Literal["posted", "pending"]


class UnitTotal(Document):
    """Σ accepted of one consumer's lines of one basis and unit."""

    basis: Basis
    unit: Unit
    amount: Natural
    """At least 1."""


class Charge(Document):
    account: Account
    charged: Natural
    usage: Annotated[list[UnitTotal], Field(max_length=8)]
    """Sorted by basis and unit."""


class HeldShare(Document):
    """Held back of earlier pay, and not released yet."""

    due: Time
    """A claim of a window that ends then or later releases it."""
    amount: Natural
    """At least 1."""


class ClaimHeader(Document):
    """One priced window of one home in one pool."""

    version: Literal[1] = 1
    id: Digest
    federation: Annotated[str, Field(max_length=63)]
    pool: Name
    account: Account
    """The contributor's."""
    window_start: Time
    window_end: Time
    revision: Annotated[int, Field(ge=0, le=1000)] = 0
    """0; the next one of a window reverses the one before, or takes the place of one that was reversed or voided."""
    phase: Phase = "posted"
    """pending: reserved on the accounts until a Resolution posts or voids it."""
    reverses: Annotated[str, Field(max_length=64, pattern=r"^([0-9a-f]{64})?$")] = ""
    """The claim that this one takes back: equal amounts, no lines, and transfers that are its negatives. Else empty."""
    sequence: Annotated[int, Field(ge=1, le=2**53 - 1)]
    previous_digest: Annotated[str, Field(max_length=64, pattern=r"^([0-9a-f]{64})?$")]
    """SHA-256 of the previous header's canonical bytes; empty for sequence 1."""
    rate_card_digest: Digest
    consumers: Annotated[list[Charge], Field(max_length=MAX_CONSUMERS)]
    """Sorted by account; their sum is `charged`."""
    charged: Natural
    paid: Natural
    held: Natural
    released: Natural
    """Of what was held back before: from held to contributor."""
    fee: Natural
    dust: Natural
    held_until: Time | None = None
    """From when `held` is due; left out where nothing is held."""
    held_back: Annotated[list[HeldShare], Field(max_length=MAX_SHARES)] | None = None
    """All that is held of this chain once this claim is booked, sorted by `due`; left out where nothing is. A pending
    claim's own share is not among them."""
    cumulative_paid: Natural
    """Σ paid of the chain's claims that are posted and not reversed, this one included (a reversal takes away)."""
    line_count: Annotated[int, Field(ge=0, le=1_000_000)]
    parts: Annotated[list[Digest], Field(max_length=MAX_PARTS)]
    """Digest of each lines part, in order."""
    evidence_digest: Annotated[str, Field(max_length=64, pattern=r"^([0-9a-f]{64})?$")]
    """SHA-256 over the digests of the home's reports that were used; empty when none was."""
    meter_version: Annotated[str, Field(max_length=64)]


class Rate(Document):
    """The price that was applied. What is left out is the usual: class standard, all of the card's price."""

    machine_class: Annotated[MachineClass | None, Field(alias="class")] = None
    micro_credits: Annotated[int, Field(ge=0, le=10**15)]
    per: Per
    price_ppm: PricePpm | None = None
    """Millionths of the card's price that the owner asked when the guest was bound."""

    @property
    def price(self) -> int:
        """`price_ppm`, or what it is when left out."""
        return PPM if self.price_ppm is None else self.price_ppm


class LineReading(Document):
    """How the used amount came about, from the home's report."""

    close: Natural
    """`open` and `close`: cumulative units since the pod's start at both ends of the window."""
    estimated: Natural = "0"
    expected: Annotated[int, Field(ge=0)]
    gaps: Annotated[int, Field(ge=0)]
    open: Natural
    read_until: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None
    """ms, hub's clock; up to here at least the home had read. Absent where that is not known."""
    resets: Annotated[int, Field(ge=0)]
    samples: Annotated[int, Field(ge=0)]


class Line(Document):
    accepted: Natural
    accepted_before: Natural
    """Cumulative units accepted by earlier lines of this pod, resource and basis."""
    amount: Natural
    """⌊accepted × rate.microCredits × rate.pricePpm × factorPpm ÷ (units of rate.per × 10¹²)⌋."""
    basis: Basis
    bound: Natural
    """What the hub's own observation allows, cumulative less what was accepted before."""
    codes: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=16)]
    consumer: Account
    factor_ppm: FactorPpm | None = None
    """Of the time of day; left out where it is 1."""
    gap: Natural | None = None
    """Of used lines: what the home has reported since the pod's start and what is not accepted, by this line's end."""
    guest_pod: Uid
    rate: Rate
    rate_card_digest: Digest | None = None
    """Where it is not the header's: of a line for time before that card was in force, which was accepted late."""
    reading: LineReading | None = None
    reported: Natural
    """Of this window. Reserved lines: equal to bound."""
    resource: Annotated[str, Field(max_length=63)]
    unit: Unit

    @property
    def factor(self) -> int:
        """`factor_ppm`, or what it is when left out."""
        return PPM if self.factor_ppm is None else self.factor_ppm


class ReportSignature(Document):
    """The home's word: its signature over the report that the used lines rest on."""

    digest: Digest
    keyid: Annotated[str, Field(max_length=80)]
    sig: Annotated[str, Field(max_length=100)]


class LinesPart(Document):
    claim: Digest
    lines: Annotated[list[Line], Field(max_length=LINES_PER_PART)]
    part: Annotated[int, Field(ge=1, le=MAX_PARTS)]
    reports: Annotated[list[ReportSignature], Field(max_length=100)]
    salt: Digest
    """HMAC-SHA-256(hub key, claim id ‖ part): a killed hub makes the same bytes again; lines cannot be guessed."""

    def canonical(self) -> bytes:
        """Its RFC 8785 bytes. Members of a part and all within it are declared in the order in which they are written:
        that is ten times as fast as sorting them, and a hub writes tens of thousands of lines."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


def claim_id(*, federation: str, pool: str, account: str, window_start: str, window_end: str, revision: int) -> str:
    """Derived from the claim's key and not from its content: equal id and unequal bytes is what a conflict means."""
    key = (quoted(account), quoted(federation), quoted(pool), revision, quoted(window_end), quoted(window_start))
    return hashlib.sha256((_KEY % key).encode()).hexdigest()


_KEY: Final = '{"account":%s,"federation":%s,"pool":%s,"revision":%d,"windowEnd":%s,"windowStart":%s}'
"""The canonical JSON of a claim's key."""
