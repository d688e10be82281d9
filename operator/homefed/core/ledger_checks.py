"""The rules that a claim, a resolution or a floor must pass. Every refusal is Invalid and begins with the field.

`check_…` without state say whether a document agrees with itself; those with state whether it fits what is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise

from homefed.api.claim_document import ClaimHeader, claim_id
from homefed.api.errors import Invalid
from homefed.api.ledger_documents import Floor, Resolution, floor_id, resolution_id
from homefed.core.ledger import MAX_AMOUNT, MAX_BALANCE, MICRO_CREDIT, ChainHead, PartSummary, Sums, usage_unit
from homefed.core.times import from_rfc3339

_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")
TAKEN_BACK = ("charged", "paid", "held", "released", "fee", "dust", "consumers", "rate_card_digest")
"""What a reversal repeats of the claim that it reverses."""


def check_claim(header: ClaimHeader, *, claim: str, federation: str) -> None:
    """Whether a header agrees with itself. `claim` is the id it was sent as, `federation` the ledger's own."""
    _check_identity(header, claim, federation)
    _check_accounts(header, federation)
    _check_sums(header)
    _check_usage(header)
    _check_phase(header)


def check_resolution(resolution: Resolution, *, identity: str, federation: str) -> None:
    _check_federation("resolution", resolution.federation, federation)
    derived = resolution_id(federation=federation, claim=resolution.claim)
    _check_id("resolution", resolution.id, derived, identity)


def check_floor(floor: Floor, *, identity: str, federation: str) -> None:
    _check_federation("floor", floor.federation, federation)
    if not floor.account.startswith(f"consumer:{federation}/"):
        raise Invalid(f"floor.account: {floor.account} is no consumer of {federation}", reason="WrongAccount")
    if floor.floor and -int(floor.floor) > MAX_BALANCE:
        raise Invalid("floor.floor: balances are at least -2^62", reason="AmountRange")
    derived = floor_id(federation=federation, account=floor.account, sequence=floor.sequence)
    _check_id("floor", floor.id, derived, identity)


def previous_revision(header: ClaimHeader) -> str:
    """Id of the claim of the same window with the revision before; empty for revision 0."""
    return _derived_id(header, header.revision - 1) if header.revision else ""


def check_parts(header: ClaimHeader, parts: Mapping[int, PartSummary]) -> None:
    """Whether the lines parts that are held (number from 1) are those of the header, and add up to what it charges."""
    held: list[PartSummary] = []
    for number, expected in enumerate(header.parts, 1):
        part = parts.get(number)
        if part is None:
            raise Invalid(f"claim.parts.{number - 1}: lines part {number} is not held", reason="PartMissing")
        if part.digest != expected:
            raise Invalid(
                f"claim.parts.{number - 1}: {expected}, but the held part {number} is {part.digest}",
                reason="PartDiffers",
            )
        held.append(part)
    lines = sum(part.lines for part in held)
    if lines != header.line_count:
        raise Invalid(f"claim.lineCount: {header.line_count}, but the parts have {lines}", reason="LinesDiffer")
    _check_charges(header, held)


def check_chain(header: ClaimHeader, head: ChainHead | None) -> None:
    """Whether the claim is the next one of its chain, whose newest is `head`."""
    sequence, previous = (head.sequence, head.digest) if head else (0, "")
    paid = head.sums.paid if head else 0
    if header.sequence != sequence + 1:
        raise Invalid(f"claim.sequence: {header.sequence}, the chain is at {sequence}", reason="ChainBroken")
    if header.previous_digest != previous:
        raise Invalid(f"claim.previousDigest: not the chain's newest, {previous or 'empty'}", reason="ChainBroken")
    more = 0 if header.phase == "pending" else -int(header.paid) if header.reverses else int(header.paid)
    if int(header.cumulative_paid) != paid + more:
        raise Invalid(
            f"claim.cumulativePaid: {header.cumulative_paid}, but {paid} and {more} give {paid + more}",
            reason="ChainBroken",
        )


def check_held_back(header: ClaimHeader, head: ChainHead | None) -> None:
    """Whether what the claim says is held of its chain is what the ledger has held; not where it does not say."""
    if header.held_back is None:
        return
    amounts = [int(share.amount) for share in header.held_back]
    if not all(amounts) or not _ascending([share.due for share in header.held_back]):
        raise Invalid("claim.heldBack: not sorted by due, or what is 0 is not left out", reason="NotSorted")
    before = head.sums.held - head.sums.released if head else 0
    own = 0 if header.phase == "pending" else int(header.held) - int(header.released)
    after = before - own if header.reverses else before + own
    if sum(amounts) != after:
        raise Invalid(f"claim.heldBack: {sum(amounts)}, but {after} are held of this chain", reason="HeldBackDiffers")


def check_chain_range(field: str, head: ChainHead | None, more: Sums) -> None:
    """Whether the chain's sums stay within what 64-bit stores can hold."""
    if (head.sums.charged if head else 0) + more.charged > MAX_BALANCE:
        raise Invalid(f"{field}: the chain's sum would be more than 2^62 µcredit", reason="BalanceRange")


def check_repeats(header: ClaimHeader, reversed_one: ClaimHeader) -> None:
    """Whether a reversal says again what the claim said that it takes back."""
    for field in TAKEN_BACK:
        if getattr(header, field) != getattr(reversed_one, field):
            name = ClaimHeader.model_fields[field].alias or field
            raise Invalid(f"claim.{name}: not as in the claim that is reversed", reason="ReversalDiffers")


def _check_federation(where: str, named: str, own: str) -> None:
    if named != own:
        raise Invalid(f"{where}.federation: {named!r}, this ledger is of {own!r}", reason="WrongFederation")


def _check_id(where: str, named: str, derived: str, sent_as: str) -> None:
    if named != derived:
        raise Invalid(f"{where}.id: {named}, but its key gives {derived}", reason="WrongId")
    if sent_as != named:
        raise Invalid(f"{where}.id: {named} was sent as {sent_as}", reason="WrongId")


def _check_identity(header: ClaimHeader, claim: str, federation: str) -> None:
    _check_federation("claim", header.federation, federation)
    if _instant("windowStart", header.window_start) >= _instant("windowEnd", header.window_end):
        raise Invalid("claim.windowEnd: not after windowStart", reason="EmptyWindow")
    _check_id("claim", header.id, _derived_id(header, header.revision), claim)


def _derived_id(header: ClaimHeader, revision: int) -> str:
    return claim_id(
        federation=header.federation,
        pool=header.pool,
        account=header.account,
        window_start=header.window_start,
        window_end=header.window_end,
        revision=revision,
    )


def _instant(field: str, text: str) -> datetime:
    try:
        moment = from_rfc3339(text)
    except Invalid as error:
        raise Invalid(f"claim.{field}: {error.message}", reason=error.reason) from error
    if not _UTC.fullmatch(text):
        raise Invalid(f"claim.{field}: {text!r} is not in UTC as …Z", reason="InvalidTime")
    return moment


def _check_accounts(header: ClaimHeader, federation: str) -> None:
    if not header.account.startswith(f"contributor:{federation}/"):
        raise Invalid(f"claim.account: {header.account} is no contributor of {federation}", reason="WrongAccount")
    accounts = [charge.account for charge in header.consumers]
    for index, account in enumerate(accounts):
        if not account.startswith(f"consumer:{federation}/"):
            raise Invalid(
                f"claim.consumers.{index}.account: {account} is no consumer of {federation}", reason="WrongAccount"
            )
    if not _ascending(accounts):
        raise Invalid("claim.consumers: not sorted by account, or one account twice", reason="NotSorted")


def _check_sums(header: ClaimHeader) -> None:
    charged = int(header.charged)
    if charged > MAX_AMOUNT or int(header.cumulative_paid) > MAX_BALANCE:
        raise Invalid("claim.charged: amounts of a claim are at most 2^60 µcredit", reason="AmountRange")
    if int(header.released) > MAX_AMOUNT:
        raise Invalid("claim.released: at most 2^60 µcredit", reason="AmountRange")
    split = int(header.paid) + int(header.held) + int(header.fee) + int(header.dust)
    if split != charged:
        raise Invalid(f"claim.charged: {charged}, but paid + held + fee + dust is {split}", reason="NotConserved")
    consumers = sum([int(charge.charged) for charge in header.consumers])
    if consumers != charged:
        raise Invalid(f"claim.charged: {charged}, but the consumers' sum is {consumers}", reason="NotConserved")


def _check_usage(header: ClaimHeader) -> None:
    sums: dict[str, int] = {}
    for index, charge in enumerate(header.consumers):
        where = f"claim.consumers.{index}.usage"
        if not _ascending([usage_unit(total.basis, total.unit) for total in charge.usage]):
            raise Invalid(f"{where}: not sorted by basis and unit, or one of them twice", reason="NotSorted")
        for total in charge.usage:
            unit, amount = usage_unit(total.basis, total.unit), int(total.amount)
            sums[unit] = sums.get(unit, 0) + amount
            if not amount:
                raise Invalid(f"{where}: what is 0 is left out", reason="EmptyUsage")
            if sums[unit] > MAX_AMOUNT:
                raise Invalid(f"{where}: a claim's sum of a unit is at most 2^60", reason="AmountRange")


def _check_phase(header: ClaimHeader) -> None:
    if header.phase == "pending" and int(header.released):
        raise Invalid("claim.released: a pending claim releases nothing", reason="NotReleasable")
    if not header.reverses:
        return
    if header.phase == "pending":
        raise Invalid("claim.phase: a reversal is posted", reason="WrongPhase")
    if header.reverses != previous_revision(header):
        raise Invalid("claim.reverses: not the revision before of the same window", reason="WrongRevision")
    if header.parts or header.line_count:
        raise Invalid("claim.parts: a reversal has no lines", reason="LinesDiffer")


def _check_charges(header: ClaimHeader, parts: Iterable[PartSummary]) -> None:
    owed: dict[str, dict[str, int]] = {}
    for part in parts:
        for account, amounts in part.amounts.items():
            own = owed.setdefault(account, {})
            for unit, amount in amounts.items():
                own[unit] = own.get(unit, 0) + amount
    for index, charge in enumerate(header.consumers):
        own = owed.pop(charge.account, {})
        charged = own.pop(MICRO_CREDIT, 0)
        if int(charge.charged) != charged:
            raise Invalid(
                f"claim.consumers.{index}.charged: {charge.charged}, but the lines' sum is {charged}",
                reason="LinesDiffer",
            )
        if own != {usage_unit(total.basis, total.unit): int(total.amount) for total in charge.usage}:
            raise Invalid(f"claim.consumers.{index}.usage: not the sums of the lines, {own}", reason="LinesDiffer")
    if owed:
        raise Invalid(f"claim.consumers: {min(owed)} has lines and is not charged", reason="LinesDiffer")


def _ascending(values: Sequence[str]) -> bool:
    """Each greater than the one before."""
    return all(one < two for one, two in pairwise(values))
