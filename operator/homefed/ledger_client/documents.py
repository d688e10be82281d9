"""What the client gives back beside the ledger's own answers (`homefed.api.ledger_answers`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homefed.api.dsse import Envelope
from homefed.api.errors import HomefedError


@dataclass(frozen=True)
class Receipt:
    """The ledger's word that a claim is durable, verified under the ledger's key."""

    claim_id: str
    leaf_index: int
    transaction: int
    time: str
    text: str
    """c2sp.org/tlog-proof@v1 over the canonical JSON of the claim's envelope."""


@dataclass(frozen=True)
class Claim:
    """A stored claim: the header's envelope as it was submitted (not verified here) and its verified receipt."""

    envelope: Envelope
    receipt: Receipt
    state: str | None
    """posted, pending, void or reversed."""


@dataclass(frozen=True)
class Chain:
    """The newest claim of one (pool, contributor account)."""

    claim_id: str
    sequence: int
    digest: str
    """SHA-256 of the header's canonical bytes: the next claim's previousDigest."""
    cumulative_paid: int
    """µcredit, as the next claim has to continue it: resolutions and reversals are in it."""
    envelope: Envelope
    """As it was submitted; verify it under the hub's own key before adopting it."""


@dataclass(frozen=True)
class Submission:
    """A claim on its way: its lines parts as canonical bytes, numbered from 1, and its signed header."""

    claim_id: str
    parts: Sequence[bytes]
    envelope: Envelope


@dataclass(frozen=True)
class Submitted:
    """What became of submissions, in order: receipts of the first ones, and why the next one has none."""

    receipts: Sequence[Receipt]
    trouble: HomefedError | None = None
