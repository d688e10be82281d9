"""The writer's side of every store, as steps: read a snapshot, append a batch.

What the one writer has read or written of accounts and chains it remembers: nobody else can change it. After a rollback
everything is forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from homefed.api.ledger_documents import Floor, Resolution
from homefed.core.ledger import ChainHead, PartSummary
from homefed.core.ledger_batch import PART_SECONDS
from homefed.core.ledger_gather import chain_of, lookups, parts_of, wanted
from homefed.core.ledger_reading import CheckedClaim, PartSubmission, stored_header
from homefed.core.ledger_state import (
    ChainKey,
    Decision,
    FloorHead,
    Holding,
    Item,
    KeptPart,
    NewLeaf,
    PendingParts,
    Snapshot,
    StoredClaim,
    StoredEntry,
    Wanted,
    claim_state,
)
from homefed.ledger.sql_queries import HEAD, STATE, head_of
from homefed.ledger.sql_steps import Append, Ask, Insert, Row, Select, Several, Steps
from homefed.ledger.store import NewCheckpoint

K = TypeVar("K")
V = TypeVar("V")
MAX_REMEMBERED: Final = 20_000
"""Of each kind; about 10 MiB together."""

_STORED: Final = "SELECT id, kind, leaf_index, hash, time FROM leaves JOIN checkpoints USING (size) WHERE id IN ({})"
_CLAIMS: Final = f"SELECT id, envelope, {STATE} FROM leaves JOIN claims USING (leaf_index) WHERE id IN ({{}})"  # noqa: S608
_FLOORS: Final = (
    "SELECT name, floors.sequence, floors.floor FROM accounts JOIN floors ON floors.account_id = accounts.id"
    " AND floors.sequence = (SELECT max(sequence) FROM floors WHERE account_id = accounts.id) WHERE name IN ({})"
)
_PARTS: Final = "SELECT claim_id, number, digest, size, summary FROM parts WHERE claim_id IN ({})"
_BALANCES: Final = "SELECT name, unit, balance FROM accounts JOIN balances ON account_id = id WHERE name IN ({})"
_ACCOUNTS: Final = "SELECT name, id FROM accounts WHERE name IN ({})"
_CHAINS: Final = "SELECT pool, name, chains.id FROM accounts JOIN chains ON account_id = accounts.id WHERE name IN ({})"


class _Memory:
    """What is known of the database; None where it is known that there is nothing."""

    def __init__(self) -> None:
        self.size: int | None = None
        self.newest: dict[str, int] = {}
        """Table → highest id."""
        self.accounts: dict[str, int] = {}
        self.chains: dict[ChainKey, int] = {}
        self.heads: dict[ChainKey, ChainHead | None] = {}
        self.balances: dict[Holding, int | None] = {}
        self.floors: dict[str, FloorHead | None] = {}

    def trim(self) -> None:
        """Before a batch: within one nothing that was read is given up."""
        for known in (self.accounts, self.chains, self.heads, self.balances, self.floors):
            if len(known) > MAX_REMEMBERED:
                known.clear()


class Writing:
    """Steps of the one writer of a store."""

    def __init__(self) -> None:
        self._memory = _Memory()

    def forget(self) -> None:
        """After a rollback."""
        self._memory = _Memory()

    def snapshot(self, batch: Sequence[Item], now: int) -> Steps[Snapshot]:
        """What is unknown is asked for in two rounds, since what the first finds names more."""
        self._memory.trim()
        waiting = yield from _waiting(batch, now)
        size = yield from self._size()
        first = lookups(batch)
        stored, found, floors, parts = yield Several(
            (
                Select(_STORED, _ids(first.ids)),
                Select(_CLAIMS, _ids(first.claims)),
                Select(_FLOORS, _unknown(first.floors, self._memory.floors)),
                Select(_PARTS, _ids(parts_of(batch))),
            )
        )
        self._memory.floors.update({row[0]: FloorHead(row[1], row[2]) for row in floors})
        claims, known = _claims(found), _known(first.floors, self._memory.floors)
        second = wanted(batch, claims, known)
        yield from self._learn_figures(second)
        return Snapshot(
            size=size,
            stored={row[0].hex(): StoredEntry(*row[1:]) for row in stored},
            claims=claims,
            floors=known,
            chains=_known(second.chains, self._memory.heads),
            parts=_parts(parts),
            balances=_known(second.balances, self._memory.balances),
            waiting=waiting,
        )

    def append(self, decision: Decision, checkpoint: NewCheckpoint | None) -> Steps[None]:
        yield from _keep(decision.parts, decision.time)
        if checkpoint is None:
            return
        leaves = decision.leaves
        accounts = yield from self._learn_accounts(leaves)
        chains = yield from self._learn_chains(leaves)
        contents = yield from self._contents(leaves)
        rows: dict[str, Sequence[Row]] = {
            "checkpoints": [(checkpoint.size, decision.time, checkpoint.note)],
            "leaves": [_leaf(leaf, checkpoint.size) for leaf in leaves],
            "accounts": accounts,
            "chains": chains,
            "entries": [row for leaf in leaves for row in self._entries(leaf)],
            "nodes": [(node.level, node.number, node.hash) for node in checkpoint.nodes],
            "seals": [(checkpoint.size,)],
        }
        yield Append(rows | contents, _adopted(leaves))
        self._remember(decision, checkpoint.size)

    def _remember(self, decision: Decision, size: int) -> None:
        memory = self._memory
        memory.size = size
        memory.balances.update(decision.balances)
        memory.heads.update(decision.chains)
        for leaf in decision.leaves:
            if isinstance(leaf.content, Floor):
                floor = leaf.content
                memory.floors[floor.account] = FloorHead(floor.sequence, int(floor.floor) if floor.floor else None)

    def _size(self) -> Steps[int]:
        if self._memory.size is None:
            ((self._memory.size,),) = yield Ask("SELECT coalesce(max(leaf_index), -1) + 1 FROM leaves")
        return self._memory.size

    def _learn_figures(self, second: Wanted) -> Steps[None]:
        heads, balances = self._memory.heads, self._memory.balances
        chains, holdings = _unknown(second.chains, heads), _unknown(second.balances, balances)
        found, held = yield Several(
            (
                Select(f"{HEAD} WHERE accounts.name IN ({{}})", {key.account for key in chains}),
                Select(_BALANCES, {holding.account for holding in holdings}),
            )
        )
        heads.update({ChainKey(row[1], row[0]): head_of(row) for row in found})
        balances.update({Holding(row[0], row[1]): row[2] for row in held})

    def _entries(self, leaf: NewLeaf) -> Iterable[Row]:
        accounts = self._memory.accounts
        return [
            (leaf.leaf_index, ordinal, accounts[account], unit, amount)
            for ordinal, (account, unit, amount) in enumerate(leaf.transfers)
        ]

    def _contents(self, leaves: Sequence[NewLeaf]) -> Steps[dict[str, Sequence[Row]]]:
        claims: list[Row] = []
        resolutions: list[Row] = []
        floors: list[Row] = []
        places = {leaf.id: leaf.leaf_index for leaf in leaves}
        places |= yield from _places({name for leaf in leaves if (name := _refers_to(leaf)) and name not in places})
        for leaf in leaves:
            content = leaf.content
            if isinstance(content, CheckedClaim):
                chain, reverses = self._memory.chains[chain_of(content.header)], places.get(content.header.reverses)
                claims.append(_claim(leaf, content, chain, reverses))
            elif isinstance(content, Resolution):
                resolutions.append((leaf.leaf_index, places[content.claim], content.outcome))
            else:
                amount = int(content.floor) if content.floor else None
                floors.append((leaf.leaf_index, self._memory.accounts[content.account], content.sequence, amount))
        return {"claims": claims, "resolutions": resolutions, "floors": floors}

    def _learn_accounts(self, leaves: Sequence[NewLeaf]) -> Steps[list[Row]]:
        """The rows of those that are new."""
        known = self._memory.accounts
        names = dict.fromkeys(name for leaf in leaves for name in _account_names(leaf))
        unknown = [name for name in names if name not in known]
        known.update({row[0]: row[1] for row in (yield Select(_ACCOUNTS, unknown))})
        new = [name for name in unknown if name not in known]
        rows = [*enumerate(new, (yield from self._first_id("accounts", len(new))))]
        known.update({name: number for number, name in rows})
        return [*rows]

    def _learn_chains(self, leaves: Sequence[NewLeaf]) -> Steps[list[Row]]:
        """The rows of those that are new."""
        known, accounts = self._memory.chains, self._memory.accounts
        keys = dict.fromkeys(chain_of(leaf.content.header) for leaf in leaves if isinstance(leaf.content, CheckedClaim))
        unknown = [key for key in keys if key not in known]
        rows = yield Select(_CHAINS, {key.account for key in unknown})
        known.update({ChainKey(pool, account): number for pool, account, number in rows})
        new = [key for key in unknown if key not in known]
        numbered = [*enumerate(new, (yield from self._first_id("chains", len(new))))]
        known.update({key: number for number, key in numbered})
        return [(number, accounts[key.account], key.pool) for number, key in numbered]

    def _first_id(self, table: str, count: int) -> Steps[int]:
        """The first of `count` ids that nothing in the table has yet."""
        if not count:
            return 0
        newest = self._memory.newest
        if table not in newest:
            ((newest[table],),) = yield Ask(f"SELECT coalesce(max(id), 0) FROM {table}")  # noqa: S608 - constants
        first = newest[table] + 1
        newest[table] += count
        return first


def _unknown(keys: Collection[K], known: dict[K, V | None]) -> list[K]:
    """Those to be asked for; what is not found then is known not to be there."""
    missing = [key for key in keys if key not in known]
    known.update(dict.fromkeys(missing))
    return missing


def _known(keys: Collection[K], known: Mapping[K, V | None]) -> dict[K, V]:
    return {key: value for key in keys if (value := known[key]) is not None}


def _ids(ids: Collection[str]) -> list[bytes]:
    return [*map(bytes.fromhex, ids)]


def _waiting(batch: Sequence[Item], now: int) -> Steps[PendingParts]:
    if not any(isinstance(item, PartSubmission) for item in batch):
        return PendingParts(0, 0)
    yield Ask("DELETE FROM parts WHERE pending = 1 AND received < ?", (now - PART_SECONDS,))
    ((count, size),) = yield Ask("SELECT count(*), coalesce(sum(size), 0) FROM parts WHERE pending = 1")
    return PendingParts(count, int(size))


def _claims(rows: Sequence[Row]) -> dict[str, StoredClaim]:
    return {
        identity.hex(): StoredClaim(stored_header(envelope), claim_state(phase, outcome, reversed_=bool(reversed_)))
        for identity, envelope, phase, outcome, reversed_ in rows
    }


def _parts(rows: Sequence[Row]) -> dict[str, dict[int, PartSummary]]:
    found: dict[str, dict[int, PartSummary]] = {}
    for claim, number, digest, size, text in rows:
        value = json.loads(text)
        summary = PartSummary(digest.hex(), size, value["lines"], value["amounts"])
        found.setdefault(claim.hex(), {})[number] = summary
    return found


def _keep(parts: Sequence[KeptPart], time: int) -> Steps[None]:
    """A part takes the place of an earlier one of its number."""
    replaced = {bytes.fromhex(part.claim) for part in parts}
    for claim, number in (yield Select("SELECT claim_id, number FROM parts WHERE claim_id IN ({})", replaced)):
        if any(part.number == number and bytes.fromhex(part.claim) == claim for part in parts):
            yield Ask("DELETE FROM parts WHERE claim_id = ? AND number = ?", (claim, number))
    yield Insert("parts", [_part(part, time) for part in parts])


def _adopted(leaves: Sequence[NewLeaf]) -> list[tuple[bytes, int]]:
    """Of claims that are held now; a part that its claim does not name is forgotten in time."""
    return [
        (bytes.fromhex(leaf.id), len(leaf.content.header.parts))
        for leaf in leaves
        if isinstance(leaf.content, CheckedClaim) and leaf.content.header.parts
    ]


def _places(claims: Collection[str]) -> Steps[Mapping[str, int]]:
    """The leaf indices of claims that earlier batches recorded."""
    sql = "SELECT id, leaf_index FROM leaves WHERE id IN ({})"
    return {row[0].hex(): row[1] for row in (yield Select(sql, _ids(claims)))}


def _refers_to(leaf: NewLeaf) -> str:
    """The claim that the leaf reverses or resolves; empty for the others."""
    if isinstance(leaf.content, CheckedClaim):
        return leaf.content.header.reverses
    return leaf.content.claim if isinstance(leaf.content, Resolution) else ""


def _account_names(leaf: NewLeaf) -> list[str]:
    """The accounts that the leaf's rows refer to."""
    names = [transfer.account for transfer in leaf.transfers]
    if isinstance(leaf.content, CheckedClaim):
        names.append(leaf.content.header.account)
    elif isinstance(leaf.content, Floor):
        names.append(leaf.content.account)
    return names


def _leaf(leaf: NewLeaf, size: int) -> Row:
    return (leaf.leaf_index, bytes.fromhex(leaf.id), leaf.kind, size, leaf.leaf_hash, leaf.envelope)


def _claim(leaf: NewLeaf, content: CheckedClaim, chain: int, reverses: int | None) -> Row:
    header, sums = content.header, content.sums
    digests = (bytes.fromhex(leaf.digest), bytes.fromhex(header.previous_digest))
    window = (header.window_start, header.window_end)
    amounts = (sums.charged, sums.paid, sums.held, sums.released, sums.fee, sums.dust)
    key = (leaf.leaf_index, chain, header.sequence)
    return (*key, *digests, *window, header.phase, reverses, int(header.cumulative_paid), *amounts)


def _part(part: KeptPart, time: int) -> Row:
    summary = part.summary
    text = json.dumps({"lines": summary.lines, "amounts": summary.amounts}, separators=(",", ":"))
    digest = bytes.fromhex(summary.digest)
    return (bytes.fromhex(part.claim), part.number, digest, text, part.body, summary.size, time, 1)
