"""The other documents that the ledger keeps for ever, beside claims: what becomes of a pending claim, and floors.

Signed by a hub key in a DSSE envelope, like claims. A leaf of the ledger is the canonical JSON of such an envelope.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from homefed.api.canonical import digest
from homefed.api.claim_document import Account
from homefed.api.meta import Digest, Document

MAX_LEAF: Final = 65_535
"""Bytes of a leaf: entry bundles (c2sp.org/tlog-tiles) count them in 16 bits."""

Outcome = Literal["post", "void"]


class Resolution(Document):
    """A pending claim becomes final or is given up: once, since the id follows from the claim alone."""

    version: Literal[1] = 1
    id: Digest
    federation: Annotated[str, Field(max_length=63)]
    claim: Digest
    outcome: Outcome


class Floor(Document):
    """From here on no claim takes the consumer's balance, pending charges included, below `floor`."""

    version: Literal[1] = 1
    id: Digest
    federation: Annotated[str, Field(max_length=63)]
    account: Account
    """A consumer's."""
    floor: Annotated[str, Field(max_length=20, pattern=r"^(0|-[1-9][0-9]{0,18})?$")]
    """µcredit, 0 or negative; empty: none."""
    sequence: Annotated[int, Field(ge=1, le=2**53 - 1)]
    """1, 2, 3… per account."""


def resolution_id(*, federation: str, claim: str) -> str:
    return digest({"federation": federation, "resolves": claim})


def floor_id(*, federation: str, account: str, sequence: int) -> str:
    return digest({"federation": federation, "account": account, "sequence": sequence})
