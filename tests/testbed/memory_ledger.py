"""A ledger without a database: what a store does around `decide`, on lists and dictionaries, from the leaves alone.

It answers each round of reading with what was asked for and nothing else, so that a decision that needs more shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from homefed.api.ledger_documents import Floor, Resolution
from homefed.core.ledger import ChainHead, PartSummary, Sums
from homefed.core.ledger_batch import decide
from homefed.core.ledger_gather import lookups, wanted
from homefed.core.ledger_reading import CheckedClaim, Kind, PartSubmission, Submission, read_part, read_submission
from homefed.core.ledger_state import (
    Answer,
    ChainKey,
    FloorHead,
    Holding,
    Item,
    NewLeaf,
    PendingParts,
    Snapshot,
    StoredClaim,
    StoredEntry,
    claim_state,
)
from testbed.claims import FEDERATION, SignedClaim, SignedDocument, hub_key, keyring


def reading(kind: Kind, identity: str, body: bytes) -> Submission:
    """Of a document that was sent to the ledger of FEDERATION, which knows `hub_key()`."""
    return read_submission(kind, identity, body, federation=FEDERATION, keys=lambda _: keyring(hub_key()))


def items_of(claim: SignedClaim) -> list[Item]:
    """Lines parts first, then the header."""
    parts = [
        PartSubmission(claim.id, number, read_part(body, claim.id, number), body)
        for number, body in enumerate(claim.parts, 1)
    ]
    return [*parts, reading("claim", claim.id, claim.body)]


@dataclass
class MemoryLedger:
    now: int = 1_767_225_600
    leaves: list[NewLeaf] = field(default_factory=list)
    parts: dict[tuple[str, int], PartSummary] = field(default_factory=dict)

    def put(self, document: SignedClaim | SignedDocument) -> Answer:
        """Send one document, a claim with its parts; what the document itself is answered."""
        if isinstance(document, SignedClaim):
            return self.submit(items_of(document))[-1]
        return self.submit([reading(document.kind, document.id, document.body)])[0]

    def submit(self, batch: Sequence[Item]) -> tuple[Answer, ...]:
        """One batch: gather, decide, write, answer."""
        decision = decide(batch, self.snapshot(batch), self.now)
        self.leaves += decision.leaves
        self.parts |= {key: part.summary for key, part in ((((p.claim, p.number)), p) for p in decision.parts)}
        balances, chains = self.balances(), self.chains()
        assert decision.balances == {holding: balances.get(holding, 0) for holding in decision.balances}
        assert decision.chains == {key: chains[key] for key in decision.chains}
        return decision.answers

    def snapshot(self, batch: Sequence[Item]) -> Snapshot:
        first = lookups(batch)
        stored = {leaf.id: StoredEntry(leaf.kind, leaf.leaf_index, leaf.leaf_hash, self.now) for leaf in self.leaves}
        claims = {key: claim for key, claim in self.claims().items() if key in first.claims}
        floors = {account: head for account, head in self.floors().items() if account in first.floors}
        then = wanted(batch, claims, floors)
        parts: dict[str, dict[int, PartSummary]] = {}
        for (claim, number), summary in self.parts.items():
            if claim in then.parts:
                parts.setdefault(claim, {})[number] = summary
        waiting = [part for (claim, _), part in self.parts.items() if claim not in self.claims()]
        return Snapshot(
            size=len(self.leaves),
            stored={key: entry for key, entry in stored.items() if key in first.ids},
            claims=claims,
            floors=floors,
            chains={key: head for key, head in self.chains().items() if key in then.chains},
            parts=parts,
            balances={holding: amount for holding, amount in self.balances().items() if holding in then.balances},
            waiting=PendingParts(len(waiting), sum(part.size for part in waiting)),
        )

    def balances(self) -> dict[Holding, int]:
        found: Counter[Holding] = Counter()
        for leaf in self.leaves:
            for account, unit, amount in leaf.transfers:
                found[Holding(account, unit)] += amount
        return dict(found)

    def claims(self) -> dict[str, StoredClaim]:
        contents = [leaf.content for leaf in self.leaves]
        headers = {one.header.id: one.header for one in contents if isinstance(one, CheckedClaim)}
        outcomes = {one.claim: one.outcome for one in contents if isinstance(one, Resolution)}
        taken_back = {header.reverses for header in headers.values()}
        return {
            key: StoredClaim(header, claim_state(header.phase, outcomes.get(key), reversed_=key in taken_back))
            for key, header in headers.items()
        }

    def floors(self) -> dict[str, FloorHead]:
        floors = [leaf.content for leaf in self.leaves if isinstance(leaf.content, Floor)]
        return {one.account: FloorHead(one.sequence, int(one.floor) if one.floor else None) for one in floors}

    def chains(self) -> dict[ChainKey, ChainHead]:
        """Each chain's newest claim, with the sums of those of its claims that count."""
        heads: dict[ChainKey, ChainHead] = {}
        states = {key: one.state for key, one in self.claims().items()}
        for leaf in self.leaves:
            if isinstance(leaf.content, CheckedClaim):
                header, counts = leaf.content.header, states[leaf.id] == "posted" and not leaf.content.header.reverses
                key = ChainKey(header.pool, header.account)
                before = heads[key].sums if key in heads else Sums()
                more = leaf.content.sums if counts else Sums()
                heads[key] = ChainHead(leaf.id, header.sequence, leaf.digest, before + more)
        return heads
