"""What is read for a batch before it is decided: two rounds, since what the first finds names more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from homefed.api.claim_document import ClaimHeader
from homefed.api.ledger_documents import Floor, Resolution
from homefed.core.ledger import MICRO_CREDIT, PENDING, Transfer, resolved
from homefed.core.ledger_checks import previous_revision
from homefed.core.ledger_reading import CheckedClaim, PartSubmission, Submission
from homefed.core.ledger_state import ChainKey, FloorHead, Holding, Item, Lookups, StoredClaim, Wanted


def lookups(batch: Sequence[Item]) -> Lookups:
    """The first round: what can be named from the documents alone."""
    ids: set[str] = set()
    claims: set[str] = set()
    floors: set[str] = set()
    for item in batch:
        if isinstance(item, PartSubmission):
            claims.add(item.claim)
            continue
        ids.add(item.id)
        match item.content:
            case CheckedClaim(header):
                floors.update(charge.account for charge in header.consumers)
                claims.update({previous_revision(header)} - {""})
            case Resolution():
                claims.add(item.content.claim)
            case Floor():
                floors.add(item.content.account)
    return Lookups(frozenset(ids | claims), frozenset(claims), frozenset(floors))


def wanted(batch: Sequence[Item], claims: Mapping[str, StoredClaim], floors: Mapping[str, FloorHead]) -> Wanted:
    """The second round; `claims` and `floors` are what was found of `lookups(batch)`."""
    contents = [item.content for item in batch if isinstance(item, Submission)]
    # A pending claim and its resolution may come in one batch.
    own = {content.header.id: content.header for content in contents if isinstance(content, CheckedClaim)}
    headers = {identity: claim.header for identity, claim in claims.items()} | own
    guarded = {content.account for content in contents if isinstance(content, Floor)} | set(floors)
    chains: set[ChainKey] = set()
    moved: set[Holding] = set()
    for item in batch:
        if isinstance(item, PartSubmission):
            continue
        if isinstance(item.content, CheckedClaim):
            header = item.content.header
            chains.add(chain_of(header))
            moved.update(_holdings(item.content.transfers))
            if guarded:
                limited = guarded.intersection([charge.account for charge in header.consumers])
                moved.update(Holding(account, unit) for account in limited for unit in (MICRO_CREDIT, PENDING))
        elif isinstance(item.content, Resolution) and item.content.claim in headers:
            header = headers[item.content.claim]
            chains.add(chain_of(header))
            moved.update(_holdings(resolved(header, item.content.outcome)))
    return Wanted(frozenset(chains), parts_of(batch), frozenset(moved))


def parts_of(batch: Sequence[Item]) -> frozenset[str]:
    """Claims whose part summaries are needed."""
    found: set[str] = set()
    for item in batch:
        if isinstance(item, PartSubmission):
            found.add(item.claim)
        elif isinstance(item.content, CheckedClaim):
            found.add(item.content.header.id)
    return frozenset(found)


def chain_of(header: ClaimHeader) -> ChainKey:
    return ChainKey(header.pool, header.account)


def _holdings(transfers: Iterable[Transfer]) -> Iterable[Holding]:
    return [Holding(account, unit) for account, unit, _ in transfers]
