"""What the ledger answers, as types: the service writes them, clients read them, the OpenAPI document shows them.

Amounts are decimal strings of integers: µcredit (`ucredit`), or the unit that is named beside them. Times are RFC 3339.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from homefed.api.claim_document import Account
from homefed.api.meta import Digest, Document, Integer, Time

LeafKind = Literal["claim", "resolution", "floor"]
LeafIndex = Annotated[int, Field(ge=0)]
Hash = Annotated[str, Field(max_length=44, pattern=r"^[A-Za-z0-9+/]{43}=$")]
"""SHA-256 in base64, as in checkpoints and proofs."""
MAX_BATCH_ITEMS = 256


class Problem(Document):
    """RFC 9457."""

    type: Annotated[str, Field(pattern=r"^urn:homefed:problem:[A-Za-z0-9]+$")]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: Annotated[str, Field(max_length=1024)]
    """One sentence for a person."""
    reason: Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")]
    """Stable, CamelCase."""
    field: Annotated[str, Field(max_length=256)] | None = None
    """The member that is wrong, e.g. claim.sequence."""


class Accepted(Document):
    """A leaf that is durable. The same bytes sent again are answered with the same text."""

    id: Digest
    leaf_index: LeafIndex
    """Dense, in the order of commits, from 0."""
    transaction: Annotated[int, Field(ge=1)]
    time: Time
    """The ledger's clock at the commit, whole seconds."""
    receipt: str
    """c2sp.org/tlog-proof@v1: verifies offline with the ledger's verifier key."""


class PartAccepted(Document):
    claim: Digest
    part: Annotated[int, Field(ge=1)]
    digest: Digest


class StoredLeaf(Document):
    kind: LeafKind
    id: Digest
    digest: Digest
    """SHA-256 of the signed bytes: what the next claim of a chain names as previous."""
    leaf_index: LeafIndex
    transaction: Annotated[int, Field(ge=1)]
    time: Time
    envelope: dict[str, Any]
    """The DSSE envelope as it was signed; its canonical JSON is the leaf of the tree."""
    receipt: str
    state: Literal["posted", "pending", "void", "reversed"] | None = None
    """What has become of it; of claims only."""


class Chain(Document):
    """The newest claim of a contributor's account in a pool, from which a restored hub goes on."""

    claim: Digest
    sequence: Annotated[int, Field(ge=1)]
    digest: Digest
    cumulative_paid: Integer
    envelope: dict[str, Any]


class AccountBalance(Document):
    account: Account
    balance: Integer
    """µcredit, posted."""
    balances: dict[str, Integer]
    """Per unit, `ucredit` and `ucredit.pending` among them."""


class Accounts(Document):
    size: LeafIndex
    """Number of leaves that the figures are of."""
    accounts: list[AccountBalance]
    next: str | None
    """`after` of the next page; null on the last."""


class StatementEntry(Document):
    transaction: Annotated[int, Field(ge=1)]
    time: Time
    unit: str
    amount: Integer
    kind: LeafKind
    """What moved it: a claim, or the resolution of one."""
    claim: Digest
    pool: str
    window_start: Time
    window_end: Time


class Statement(Document):
    account: Account
    size: LeafIndex
    balance: Integer
    due: Integer
    """Still to be settled outside: to a contributor, or by a consumer."""
    charged: Integer
    paid: Integer
    held: Integer
    """Held back of a contributor now."""
    released: Integer
    """Σ of what was held and then paid out."""
    dust: Integer
    pending: Integer
    """Disputed: in neither balance nor due until it is resolved."""
    usage: dict[str, Integer]
    """Per usage unit, e.g. `used:ucore.s`: delivered (contributor), or used (consumer)."""
    entries: list[StatementEntry]
    """Newest first."""
    next: int | None
    """`before` of the next page; null on the last."""


class Sums(Document):
    """Over all claims that are posted and not reversed."""

    charged: Integer
    paid: Integer
    held: Integer
    released: Integer
    fee: Integer
    dust: Integer


class Totals(Document):
    size: LeafIndex
    claims: Annotated[int, Field(ge=0)]
    charged: Integer
    sums: Sums
    accounts: dict[str, Integer]
    """Type of account → Σ balances, µcredit."""
    units: dict[str, dict[str, Integer]]
    """Unit → type of account → Σ balances."""
    supply: Integer
    """µcredit that somebody is owed: Σ of what is above zero, per type of account. No money is issued."""
    conserved: bool
    """Every unit sums to zero, and each type of account holds what the claims say."""


class LedgerKey(Document):
    keyid: str
    public_key: str
    """Raw Ed25519, base64."""
    origin: str
    """Of the log: first line of every checkpoint."""
    verifier: str
    """The signed-note verifier key, for tools of C2SP logs."""


class InclusionProof(Document):
    leaf_index: LeafIndex
    tree_size: Annotated[int, Field(ge=1)]
    hashes: list[Hash]


class ConsistencyProof(Document):
    first: Annotated[int, Field(ge=1)]
    second: Annotated[int, Field(ge=1)]
    hashes: list[Hash]


class ConsumerLines(Document):
    """A lines part as a consumer sees it: own lines only, and no salt, with which the others' could be guessed."""

    claim: Digest
    part: Annotated[int, Field(ge=1)]
    digest: Digest
    """Of the whole part, as in the header."""
    lines: list[dict[str, Any]]


class LeafItem(Document):
    kind: LeafKind
    id: Digest
    envelope: dict[str, Any]


class PartItem(Document):
    kind: Literal["part"]
    claim: Digest
    part: Annotated[int, Field(ge=1, le=1000)]
    document: dict[str, Any]


Item = Annotated[LeafItem | PartItem, Field(discriminator="kind")]


class Batch(Document):
    """Taken in this order; each item is answered as if it had been sent alone."""

    items: Annotated[list[Item], Field(min_length=1, max_length=MAX_BATCH_ITEMS)]


class BatchLeaf(Accepted):
    status: Literal[200, 201]


class BatchPart(PartAccepted):
    status: Literal[200, 201]


class BatchAnswers(Document):
    items: list[BatchLeaf | BatchPart | Problem]
    """One per item, in order."""
