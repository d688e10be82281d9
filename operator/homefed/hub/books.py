"""What the mailbox's claims of a home say, in memory: read from RewardClaim objects, dropped after every error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from homefed.api import dsse, names
from homefed.api.errors import Incident
from homefed.core import claim_chain, correction, meter_agreement, windows
from homefed.core.claim_chain import Chain, Claim
from homefed.core.meter_agreement import Gap
from homefed.core.retention import Kept
from homefed.hub.claims import Pending, Receipted, stopped_by

Json = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A claim that the organiser wants to be taken back, and what then: see core.correction."""

    claim: Claim
    how: str
    reason: str


@dataclass(frozen=True)
class Reopened:
    """A reversal in whose place no claim stands yet."""

    reversal: Claim
    taken_back: Claim
    how: str


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
    last: Claim | None = None
    """The newest claim, with receipt or without."""
    newest: Receipted | None = None
    """The newest claim with a receipt."""
    broken: Incident | None = None
    """The claims are not what this hub signed."""
    asked: list[Asked] = field(default_factory=list)
    """Oldest first."""
    reopened: list[Reopened] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    """Between the home's meter and ours, of the last windows; see core.meter_agreement."""

    @property
    def reports_taken_back(self) -> frozenset[str]:
        """Digests of the reports that are open again, or will be once the claims that are asked for are taken back."""
        claims = [one.claim for one in self.asked] + [one.taken_back for one in self.reopened]
        return frozenset().union(*(claim.reports for claim in claims))

    @property
    def stopped(self) -> Incident | None:
        """Why nothing is sent before a person says so, as the claims' own conditions tell."""
        return next(filter(None, (stopped_by(one.header) for one in self.pending)), None)

    def enter(self, claim: Claim, pending: Pending, taken_back: Claim | None = None) -> None:
        """Add the next claim; one without receipt is pending. Errors: Incident where it does not follow.

        `taken_back`: the claim that it reverses, where it is still kept."""
        status = pending.header.get("status") or {}
        receipted = windows.seconds(status["receiptedAt"]) if status.get("receipt") else None
        self.chain = self.chain.after(claim, taken_back)
        self.last = claim
        self.kept.append(Kept(claim.name, claim.header.sequence, len(claim.parts), receipted))
        self.digests[claim.digest] = claim.header.sequence
        if (gap := meter_agreement.worst(claim.lines)) is not None:
            self.gaps = [*self.gaps, gap][-meter_agreement.WINDOWS :]
        if receipted is None:
            self.pending.append(Pending(pending.parts[: len(claim.parts)], pending.header))
        else:
            envelope = dsse.decode(pending.header["spec"]["envelope"])
            self.newest = Receipted(claim.header.sequence, status["receipt"], envelope)


def open_book(objects: Sequence[Json], pool: str, keys: Mapping[str, bytes]) -> Book:
    """Of one pool, from all RewardClaims of the home. One that cannot be read is broken: it is not what this hub
    signed."""
    try:
        return read_book([obj for obj in objects if obj["spec"]["poolName"] == pool], keys)
    except Incident as error:
        return Book(broken=error)


def read_book(objects: Sequence[Json], keys: Mapping[str, bytes]) -> Book:
    """The RewardClaims of one home in one pool. Errors: Incident where they are not what this hub signed."""
    parts = [obj for obj in objects if obj["spec"]["part"] == "Lines"]
    headers = [obj for obj in objects if obj["spec"]["part"] == "Header"]
    book, read, wanted = Book(), dict[str, Claim](), dict[str, Asked]()
    for header in sorted(headers, key=lambda obj: int(obj["spec"]["sequence"])):
        claim = claim_chain.read(header, parts, keys)
        read[claim.header.id] = claim
        if (asked := _asked(claim, header)) is not None:
            wanted[claim.header.id] = asked
        book.enter(claim, Pending(tuple(_parts_of(header, parts)), header), read.get(claim.header.reverses))
    reversals = [claim for claim in read.values() if claim.header.reverses]
    reversed_ones = {claim.header.reverses for claim in reversals}
    book.asked = [asked for identity, asked in wanted.items() if identity not in reversed_ones]
    book.reopened = list(_reopened(reversals, read, wanted))
    return book


def _asked(claim: Claim, header: Json) -> Asked | None:
    annotations = header["metadata"].get("annotations") or {}
    how = annotations.get(names.ANNOTATION_CORRECTION)
    return Asked(claim, how, annotations.get(names.ANNOTATION_REASON, "")) if how in correction.HOWS else None


def _reopened(reversals: Sequence[Claim], read: Mapping[str, Claim], asked: Mapping[str, Asked]) -> Iterator[Reopened]:
    """Reversals that no next revision follows, as far as what they took back is still kept."""
    there = {(claim.window, claim.header.revision) for claim in read.values()}
    for reversal in reversals:
        before = read.get(reversal.header.reverses)
        if before is not None and (reversal.window, reversal.header.revision + 1) not in there:
            word = asked.get(before.header.id)
            yield Reopened(reversal, before, word.how if word is not None else correction.RESETTLE)


def _parts_of(header: Json, parts: Sequence[Json]) -> list[Json]:
    own = [obj for obj in parts if obj["spec"]["claimId"] == header["spec"]["claimId"]]
    return sorted(own, key=lambda obj: int(obj["spec"]["number"]))
