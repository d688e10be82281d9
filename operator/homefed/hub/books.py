"""What the mailbox's claims of a home say, in memory: read from RewardClaim objects, dropped after every error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from homefed.api import dsse
from homefed.api.errors import Incident
from homefed.core import claim_chain, windows
from homefed.core.claim_chain import Chain
from homefed.core.retention import Kept
from homefed.hub.claims import Pending, Receipted, stopped_by

Json = dict[str, Any]


@dataclass
class Book:
    """What the claims of one home in one pool say."""

    chain: Chain = field(default_factory=Chain)
    kept: list[Kept] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)
    """Without receipt, in order of sequence."""
    digests: dict[str, int] = field(default_factory=dict)
    """Header digest → sequence."""
    verified: bool = False
    """The ledger's chain has been compared since the start, or since the last answer that stopped."""
    last: claim_chain.Claim | None = None
    """The newest claim, with receipt or without."""
    newest: Receipted | None = None
    """The newest claim with a receipt."""
    broken: Incident | None = None
    """The claims are not what this hub signed."""

    @property
    def stopped(self) -> Incident | None:
        """Why nothing is sent before a person says so, as the claims' own conditions tell."""
        return next(filter(None, (stopped_by(one.header) for one in self.pending)), None)

    def enter(self, claim: claim_chain.Claim, pending: Pending, taken_back: claim_chain.Claim | None = None) -> None:
        """Add the next claim; one without receipt is pending. Errors: Incident where it does not follow.

        `taken_back`: the claim that it reverses, where it is still kept."""
        status = pending.header.get("status") or {}
        receipted = windows.seconds(status["receiptedAt"]) if status.get("receipt") else None
        self.chain = self.chain.after(claim, taken_back)
        self.last = claim
        self.kept.append(Kept(claim.name, claim.header.sequence, len(claim.parts), receipted))
        self.digests[claim.digest] = claim.header.sequence
        if receipted is None:
            self.pending.append(Pending(pending.parts[: len(claim.parts)], pending.header))
        else:
            envelope = dsse.decode(pending.header["spec"]["envelope"])
            self.newest = Receipted(claim.header.sequence, status["receipt"], envelope)


def read_book(objects: Sequence[Json], keys: Mapping[str, bytes]) -> Book:
    """The RewardClaims of one home in one pool. Errors: Incident where they are not what this hub signed."""
    parts = [obj for obj in objects if obj["spec"]["part"] == "Lines"]
    headers = [obj for obj in objects if obj["spec"]["part"] == "Header"]
    book, read = Book(), dict[str, claim_chain.Claim]()
    for header in sorted(headers, key=lambda obj: int(obj["spec"]["sequence"])):
        claim = claim_chain.read(header, parts, keys)
        read[claim.header.id] = claim
        book.enter(claim, Pending(tuple(_parts_of(header, parts)), header), read.get(claim.header.reverses))
    return book


def _parts_of(header: Json, parts: Sequence[Json]) -> list[Json]:
    own = [obj for obj in parts if obj["spec"]["claimId"] == header["spec"]["claimId"]]
    return sorted(own, key=lambda obj: int(obj["spec"]["number"]))
