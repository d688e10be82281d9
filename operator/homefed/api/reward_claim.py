"""RewardClaim (mailbox): a priced window of one home, on its way to the ledger's receipt.

The header object is named `<claim>`; its lines parts are objects of the same kind named `<claim>-l<n>`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from homefed.api.meta import (
    AGE_COLUMN,
    READY_COLUMNS,
    Column,
    Conditions,
    Digest,
    Integer,
    Kind,
    Model,
    Name,
    Rule,
    Time,
)

KIND = Kind(
    kind="RewardClaim",
    plural="rewardclaims",
    scope="Namespaced",
    short_names=("hfr", "claim"),
    columns=(
        Column("Part", ".spec.part"),
        Column("Pool", ".spec.poolName"),
        Column("Window-End", ".spec.windowEnd", "date"),
        Column("Charged", ".spec.charged"),
        Column("Paid", ".spec.paid"),
        *READY_COLUMNS,
        AGE_COLUMN,
    ),
)


Receipt = Annotated[str, Field(max_length=80_000)]


class RewardClaimSpec(Model):
    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self == oldSelf", "a claim is immutable; corrections are new claims"),
    )

    claim_id: Digest
    part: Literal["Header", "Lines"]
    number: Annotated[int, Field(ge=0, le=1000)] = 0
    """0 for the header, 1… for lines parts."""
    pool_name: Name
    window_start: Time
    window_end: Time
    sequence: Annotated[int, Field(ge=1)]
    """Of the (pool, home account) chain; the envelope says the same."""
    charged: Integer = "0"
    """µcredit, for people; the envelope is what counts."""
    paid: Integer = "0"
    envelope: Annotated[str, Field(max_length=1_000_000, pattern=r"^[A-Za-z0-9+/]+=*$")]
    """Header: DSSE envelope of the claim document. Lines: base64 of the canonical lines document."""


class RewardClaimStatus(Model):
    observed_generation: Annotated[int, Field(ge=0)] = 0
    receipt: Receipt | None = None
    """The ledger's receipt (c2sp.org/tlog-proof@v1) as it was returned, verified before it is stored."""
    leaf_index: Annotated[int, Field(ge=0)] | None = None
    """Of the claim in the ledger's tree; the receipt says the same."""
    receipted_at: Time | None = None
    previous_receipt: Receipt | None = None
    """Of a ledger that lost the claim afterwards: evidence that it had signed it."""
    conditions: Conditions


class RewardClaim(Model):
    spec: RewardClaimSpec
    status: RewardClaimStatus | None = None
