"""What the batch decision reads and what it says: the seam between the pure ledger and its stores.

Ids and digests are hex text, amounts integers, times whole seconds since the epoch. A transaction is what one leaf
moves: its number is the leaf's index + 1, and it may be empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from homefed.api.claim_document import ClaimHeader
from homefed.api.errors import HomefedError
from homefed.api.ledger_documents import Outcome
from homefed.core.ledger import ChainHead, PartSummary, Transfer
from homefed.core.ledger_reading import Content, Kind, PartSubmission, Submission

Item = Submission | PartSubmission
State = Literal["posted", "pending", "void", "reversed"]


class ChainKey(NamedTuple):
    pool: str
    account: str
    """The contributor's."""


class Holding(NamedTuple):
    """What one account has of one unit."""

    account: str
    unit: str


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A leaf that is held under an id."""

    kind: Kind
    leaf_index: int
    leaf_hash: bytes
    time: int
    """Seconds since the epoch: of the batch that committed it."""


@dataclass(frozen=True, slots=True)
class StoredClaim:
    """A claim that is held, read from its leaf (`ledger_reading.stored_header`), and what has become of it."""

    header: ClaimHeader
    state: State


@dataclass(frozen=True, slots=True)
class FloorHead:
    """The newest floor of a consumer's account."""

    sequence: int
    floor: int | None
    """µcredit; None where none holds."""


@dataclass(frozen=True, slots=True)
class PendingParts:
    """Parts whose claim is not there yet."""

    count: int
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Lookups:
    """What to read first."""

    ids: frozenset[str]
    """Their leaves, of whatever kind."""
    claims: frozenset[str]
    """Claims to read with their state; a subset of `ids`."""
    floors: frozenset[str]
    """Accounts."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to read then."""

    chains: frozenset[ChainKey]
    parts: frozenset[str]
    """Claims whose part summaries are needed."""
    balances: frozenset[Holding]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The committed state that a batch is decided on; what is not there is left out."""

    size: int
    """Number of leaves."""
    stored: Mapping[str, StoredEntry] = field(default_factory=dict)
    claims: Mapping[str, StoredClaim] = field(default_factory=dict)
    floors: Mapping[str, FloorHead] = field(default_factory=dict)
    chains: Mapping[ChainKey, ChainHead] = field(default_factory=dict)
    parts: Mapping[str, Mapping[int, PartSummary]] = field(default_factory=dict)
    """Claim → number, from 1."""
    balances: Mapping[Holding, int] = field(default_factory=dict)
    waiting: PendingParts = PendingParts(0, 0)


@dataclass(frozen=True, slots=True)
class NewLeaf:
    """One leaf to append, and what it moves."""

    leaf_index: int
    kind: Kind
    id: str
    envelope: bytes
    leaf_hash: bytes
    digest: str
    """SHA-256 of the signed payload."""
    content: Content
    """Where the columns of its kind come from."""
    transfers: tuple[Transfer, ...]

    @property
    def transaction(self) -> int:
        return self.leaf_index + 1


@dataclass(frozen=True, slots=True)
class KeptPart:
    """A part to keep as pending, in place of an earlier one of that number. A claim that is accepted adopts its own."""

    claim: str
    number: int
    summary: PartSummary
    body: bytes


@dataclass(frozen=True, slots=True)
class Recorded:
    """The answer to a document that is held now: `new` tells 201 from 200."""

    new: bool
    kind: Kind
    id: str
    leaf_index: int
    time: int

    @property
    def transaction(self) -> int:
        return self.leaf_index + 1


@dataclass(frozen=True, slots=True)
class PartHeld:
    """The answer to a lines part."""

    new: bool
    claim: str
    number: int
    digest: str


Answer = Recorded | PartHeld | HomefedError


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write, all of it or nothing, and what to answer once it is durable."""

    answers: tuple[Answer, ...]
    """One per item of the batch, in its order."""
    leaves: tuple[NewLeaf, ...]
    """In order of their indices, which begin at `Snapshot.size`."""
    parts: tuple[KeptPart, ...]
    """At most one per claim and number."""
    time: int
    """Of all its transactions."""
    balances: Mapping[Holding, int]
    """After the batch, of every holding that a leaf moved."""
    chains: Mapping[ChainKey, ChainHead]
    """After the batch, of every chain that changed."""


def claim_state(phase: str, outcome: Outcome | None, *, reversed_: bool) -> State:
    """What has become of a claim, from what was said of it since. `outcome` is of its resolution."""
    if reversed_:
        return "reversed"
    if phase == "posted" or outcome == "post":
        return "posted"
    return "pending" if outcome is None else "void"
