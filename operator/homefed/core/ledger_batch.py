"""What a batch of submissions does to the ledger, decided purely: gather → decide → act.

    lookups(batch) ─▶ read ─▶ wanted(batch, …) ─▶ read ─▶ decide(batch, snapshot, now) ─▶ write, commit, answer

Ids come first: what is held already is answered as it was, whatever is wrong with it now. Each item sees what the items
before it in the batch do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from homefed.api.claim_document import ClaimHeader
from homefed.api.errors import Conflict, HomefedError, Invalid, Transient
from homefed.api.ledger_documents import Floor, Resolution
from homefed.api.names import held_account
from homefed.core.ledger import MAX_BALANCE, MICRO_CREDIT, PENDING, ChainHead, Sums, Transfer, resolved, sums_of
from homefed.core.ledger_checks import (
    check_chain,
    check_chain_range,
    check_held_back,
    check_parts,
    check_repeats,
    previous_revision,
)
from homefed.core.ledger_gather import chain_of
from homefed.core.ledger_reading import CheckedClaim, Content, PartSubmission, Submission
from homefed.core.ledger_state import (
    Answer,
    ChainKey,
    Decision,
    FloorHead,
    Holding,
    Item,
    KeptPart,
    NewLeaf,
    PartHeld,
    PendingParts,
    Recorded,
    Snapshot,
    StoredClaim,
    StoredEntry,
)

PART_SECONDS: Final = 24 * 3600
"""So long a part is kept that no claim names."""
MAX_PENDING_PARTS: Final = 10_000
MAX_PENDING_BYTES: Final = 512 * 2**20
PARTS_FULL_SECONDS: Final = 60.0


def decide(batch: Sequence[Item], snapshot: Snapshot, now: int) -> Decision:
    """`now`: the ledger's clock, seconds. The snapshot holds what `lookups` and `wanted` named."""
    working = _Working(snapshot, now)
    answers = tuple([working.answer(item) for item in batch])
    return Decision(
        answers=answers,
        leaves=tuple(working.leaves),
        parts=tuple(working.kept.values()),
        time=now,
        balances=working.moved,
        chains=working.advanced,
    )


class _Working:
    """The snapshot with what the batch has done to it so far. Nothing is changed by an item that is refused."""

    def __init__(self, snapshot: Snapshot, now: int) -> None:
        self._snapshot = snapshot
        self._now = now
        self._stored = dict(snapshot.stored)
        self._claims = dict(snapshot.claims)
        self._floors = dict(snapshot.floors)
        self._parts = {claim: dict(parts) for claim, parts in snapshot.parts.items()}
        self._waiting = snapshot.waiting
        self.leaves: list[NewLeaf] = []
        self.kept: dict[tuple[str, int], KeptPart] = {}
        self.moved: dict[Holding, int] = {}
        self.advanced: dict[ChainKey, ChainHead] = {}

    def answer(self, item: Item) -> Answer:
        try:
            return self._part(item) if isinstance(item, PartSubmission) else self._document(item)
        except HomefedError as error:
            return error

    def _document(self, item: Submission) -> Recorded:
        held = self._stored.get(item.id)
        if held is not None:
            return _again(item, held)
        match item.content:
            case CheckedClaim() as claim:
                return self._append(item, claim, self._claim(claim, item.digest))
            case Resolution() as resolution:
                return self._append(item, resolution, self._resolution(resolution))
            case Floor() as floor:
                return self._append(item, floor, self._floor(floor))
            case Invalid() as fault:
                raise fault

    def _append(self, item: Submission, content: Content, transfers: tuple[Transfer, ...]) -> Recorded:
        index = self._snapshot.size + len(self.leaves)
        self.leaves.append(
            NewLeaf(index, item.kind, item.id, item.envelope, item.leaf_hash, item.digest, content, transfers)
        )
        self._stored[item.id] = StoredEntry(item.kind, index, item.leaf_hash, self._now)
        return Recorded(True, item.kind, item.id, index, self._now)

    def _claim(self, claim: CheckedClaim, digest: str) -> tuple[Transfer, ...]:
        header, key = claim.header, chain_of(claim.header)
        self._check_revision(header)
        if not header.reverses:
            check_parts(header, self._parts.get(header.id, {}))
        head = self._chain(key)
        check_chain(header, head)
        check_held_back(header, head)
        more = Sums() if header.phase == "pending" else -claim.sums if header.reverses else claim.sums
        check_chain_range("claim.charged", head, more)
        after = self._after(claim.transfers, "claim.charged")
        _check_held(header, after)
        self._check_floors(header)
        self.moved |= after
        self.advanced[key] = ChainHead(header.id, header.sequence, digest, (head.sums if head else Sums()) + more)
        self._claims[header.id] = StoredClaim(header, header.phase)
        if header.reverses:
            self._claims[header.reverses] = replace(self._claims[header.reverses], state="reversed")
        for part in self._parts.get(header.id, {}).values():
            self._waiting = PendingParts(self._waiting.count - 1, self._waiting.size - part.size)
        return claim.transfers

    def _check_revision(self, header: ClaimHeader) -> None:
        """At most one claim of a window counts: the next revision takes it back, or comes after it was taken back."""
        before = self._claims.get(previous_revision(header))
        if header.revision and before is None:
            raise Invalid(
                f"claim.revision: {header.revision}, but the one before is not in this ledger", reason="RevisionMissing"
            )
        if before is None:
            return
        if header.reverses:
            if before.state != "posted" or before.header.reverses:
                what = "a reversal" if before.header.reverses else before.state
                raise Invalid(f"claim.reverses: that claim is {what}", reason="NotReversible")
            check_repeats(header, before.header)
        elif before.state != "void" and not before.header.reverses:
            raise Invalid(
                f"claim.revision: {header.revision}, but the one before is {before.state}; reverse or void it first",
                reason="RevisionConflict",
            )

    def _check_floors(self, header: ClaimHeader) -> None:
        for index, charge in enumerate(header.consumers):
            head = self._floors.get(charge.account)
            if head is None or head.floor is None or header.reverses or charge.charged == "0":
                continue
            owed = sum(self._balance(Holding(charge.account, unit)) for unit in (MICRO_CREDIT, PENDING))
            if owed - int(charge.charged) < head.floor:
                raise Invalid(
                    f"claim.consumers.{index}.charged: {charge.charged} on top of {owed} would take {charge.account}"
                    f" below its floor {head.floor}",
                    reason="BelowFloor",
                )

    def _resolution(self, resolution: Resolution) -> tuple[Transfer, ...]:
        one = self._claims.get(resolution.claim)
        if one is None:
            raise Invalid(f"resolution.claim: {resolution.claim} is not in this ledger", reason="UnknownClaim")
        if one.state != "pending":
            raise Invalid(f"resolution.claim: {resolution.claim} is {one.state}, not pending", reason="NotPending")
        key, post = chain_of(one.header), resolution.outcome == "post"
        head, more = self._chain(key), sums_of(one.header) if post else Sums()
        check_chain_range("resolution.claim", head, more)
        transfers = resolved(one.header, resolution.outcome)
        self.moved |= self._after(transfers, "resolution.claim")
        if head is not None and post:
            self.advanced[key] = replace(head, sums=head.sums + more)
        self._claims[resolution.claim] = replace(one, state="posted" if post else "void")
        return transfers

    def _floor(self, floor: Floor) -> tuple[Transfer, ...]:
        head = self._floors.get(floor.account)
        expected = head.sequence + 1 if head else 1
        if floor.sequence != expected:
            raise Invalid(f"floor.sequence: {floor.sequence}, the account's next is {expected}", reason="ChainBroken")
        self._floors[floor.account] = FloorHead(floor.sequence, int(floor.floor) if floor.floor else None)
        return ()

    def _part(self, part: PartSubmission) -> PartHeld:
        parts = self._parts.setdefault(part.claim, {})
        held, summary = parts.get(part.number), part.summary
        if held is not None and held.digest == summary.digest:
            return PartHeld(False, part.claim, part.number, summary.digest)
        claim = self._claims.get(part.claim)
        if claim is not None:
            return _deleted_part(claim.header, part)
        more = PendingParts(int(held is None), summary.size - (held.size if held else 0))
        waiting = PendingParts(self._waiting.count + more.count, self._waiting.size + more.size)
        if more.size > 0 and (waiting.count > MAX_PENDING_PARTS or waiting.size > MAX_PENDING_BYTES):
            raise Transient(
                f"{self._waiting.count} parts ({self._waiting.size} bytes) wait for their claims; no more are kept",
                reason="PartsFull",
                retry_after=PARTS_FULL_SECONDS,
            )
        self._waiting = waiting
        parts[part.number] = summary
        self.kept[part.claim, part.number] = KeptPart(part.claim, part.number, summary, part.body)
        return PartHeld(held is None, part.claim, part.number, summary.digest)

    def _chain(self, key: ChainKey) -> ChainHead | None:
        return self.advanced.get(key) or self._snapshot.chains.get(key)

    def _balance(self, holding: Holding) -> int:
        moved = self.moved.get(holding)
        return self._snapshot.balances.get(holding, 0) if moved is None else moved

    def _after(self, transfers: Iterable[Transfer], field: str) -> dict[Holding, int]:
        """The balances that these transfers lead to. Invalid where one would leave ±2^62."""
        after: dict[Holding, int] = {}
        for account, unit, amount in transfers:
            holding = Holding(account, unit)
            before = after.get(holding)
            after[holding] = amount + (self._balance(holding) if before is None else before)
        for holding, balance in after.items():
            if abs(balance) > MAX_BALANCE:
                raise Invalid(
                    f"{field}: {holding.account} would have {balance} {holding.unit}, more than 2^62",
                    reason="BalanceRange",
                )
        return after


def _again(item: Submission, held: StoredEntry) -> Recorded:
    """The same bytes get the original answer."""
    if (item.kind, item.leaf_hash) != (held.kind, held.leaf_hash):
        raise Conflict(
            f"{held.kind} {item.id} is held with other bytes; nothing was written",
            reason=f"{item.kind.capitalize()}Conflict",
        )
    return Recorded(False, item.kind, item.id, held.leaf_index, held.time)


def _deleted_part(header: ClaimHeader, part: PartSubmission) -> PartHeld:
    """A part of an accepted claim that is not kept any more: the same one is no news, another one is a conflict."""
    if part.number <= len(header.parts) and header.parts[part.number - 1] == part.summary.digest:
        return PartHeld(False, part.claim, part.number, part.summary.digest)
    raise Conflict(
        f"claim {part.claim} is accepted already, with another part {part.number} or without", reason="PartConflict"
    )


def _check_held(header: ClaimHeader, after: Mapping[Holding, int]) -> None:
    """What is held back is released once, and a claim of which it has been released cannot be taken back."""
    held = Holding(held_account(header.federation, header.account.rpartition("/")[2]), MICRO_CREDIT)
    if after.get(held, 0) < 0:
        field = "held" if header.reverses else "released"
        raise Invalid(f"claim.{field}: {held.account} would have {after[held]}", reason="NotHeld")
