"""What readers ask of every store: SQL of the common subset, and how its rows are read.

Parameters are written `?`. {type} is the store's expression for the type of accounts.name, the part before its colon.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from homefed.core.ledger import ChainHead, Sums
from homefed.core.ledger_state import FloorHead, State, claim_state
from homefed.ledger.sql_steps import Row
from homefed.ledger.store import Entry, StoredLeaf, StoredPart, Totals

T = TypeVar("T")


@dataclass(frozen=True)
class Query(Generic[T]):
    sql: str
    read: Callable[[Sequence[Row]], T]


def _first(read: Callable[[Row], T]) -> Callable[[Sequence[Row]], T | None]:
    return lambda rows: read(rows[0]) if rows else None


def _column(rows: Sequence[Row]) -> list[Any]:
    return [row[0] for row in rows]


def _joined(rows: Sequence[Row]) -> bytes:
    return b"".join([row[0] for row in rows])


def head_of(row: Row) -> ChainHead:
    """From a row of HEAD; a chain whose claims are all pending has no sums yet."""
    return ChainHead(row[2].hex(), row[3], row[4].hex(), Sums(*(amount or 0 for amount in row[5:])))


def _leaf(row: Row) -> StoredLeaf:
    identity, kind, index, size, time, hashed, envelope = row
    return StoredLeaf(kind, identity.hex(), index, size, time, hashed, envelope)


def _entries(rows: Sequence[Row]) -> list[Entry]:
    return [
        Entry(leaf, time, unit, amount, kind, claim.hex(), pool, start, end)
        for leaf, time, unit, amount, kind, claim, pool, start, end in rows
    ]


def _accounts(rows: Sequence[Row]) -> list[tuple[str, dict[str, int]]]:
    found: dict[str, dict[str, int]] = {}
    for name, unit, balance in rows:
        found.setdefault(name, {})[unit] = balance
    return [*found.items()]


def _sums(rows: Sequence[Row]) -> Sums:
    return sums_of_halves(rows[0])


def sums_of_halves(row: Row) -> Sums:
    halves = [int(half or 0) for half in row]
    return Sums(*((high << 32) + low for high, low in zip(halves[::2], halves[1::2], strict=True)))


def _totals(rows: Sequence[Row]) -> Totals:
    """Rows of TOTALS: one of the sums, whose unit is NULL, and one for each unit and type of account."""
    balances: dict[str, dict[str, int]] = {}
    size, claims, sums = 0, 0, Sums()
    for unit, kind, *rest in rows:
        if unit is None:
            size, claims, sums = int(rest[0]), int(rest[1]), sums_of_halves(rest[2:])
        else:
            balances.setdefault(unit, {})[kind] = (int(rest[0]) << 32) + int(rest[1])
    return Totals(size, claims, sums, balances)


_SUMS: Final = ("charged", "paid", "held", "released", "fee", "dust")
# SQLite's sum() of 64-bit integers fails when it overflows, so sums of many accounts are taken in two halves.
_HALVES: Final = ", ".join(f"sum({column} >> 32), sum({column} & 4294967295)" for column in _SUMS)
_LEAF: Final = (
    "SELECT leaves.id, leaves.kind, leaves.leaf_index, leaves.size, checkpoints.time, leaves.hash, leaves.envelope"
    " FROM leaves JOIN checkpoints ON checkpoints.size = leaves.size"
)
STATE: Final = (
    "claims.phase, (SELECT outcome FROM resolutions WHERE claim = claims.leaf_index),"
    " EXISTS (SELECT 1 FROM claims AS later WHERE later.reverses = claims.leaf_index)"
)
"""The arguments of `claim_state`."""
HEAD: Final = (
    "SELECT accounts.name, chains.pool, leaves.id, claims.sequence, claims.digest, chain_sums.charged, chain_sums.paid,"
    " chain_sums.held, chain_sums.released, chain_sums.fee, chain_sums.dust FROM accounts"
    " JOIN chains ON chains.account_id = accounts.id"
    " JOIN claims ON claims.chain_id = chains.id"
    " AND claims.sequence = (SELECT max(sequence) FROM claims WHERE chain_id = chains.id)"
    " JOIN leaves ON leaves.leaf_index = claims.leaf_index"
    " LEFT JOIN chain_sums ON chain_sums.chain_id = chains.id"
)

SIZE: Final = Query[int]("SELECT coalesce(max(leaf_index), -1) + 1 FROM leaves", lambda rows: int(rows[0][0]))
LEAF: Final = Query(f"{_LEAF} WHERE leaves.id = ?", _first(_leaf))
CHAIN_CLAIM: Final = Query(
    f"{_LEAF} JOIN claims ON claims.leaf_index = leaves.leaf_index JOIN chains ON chains.id = claims.chain_id"
    " JOIN accounts ON accounts.id = chains.account_id"
    " WHERE chains.pool = ? AND accounts.name = ? AND claims.sequence = ?",
    _first(_leaf),
)
CLAIM_STATE: Final = Query[State | None](
    f"SELECT {STATE} FROM leaves JOIN claims USING (leaf_index) WHERE id = ?",  # noqa: S608 - constant
    _first(lambda row: claim_state(row[0], row[1], reversed_=bool(row[2]))),
)
CHAIN_HEAD: Final = Query(f"{HEAD} WHERE chains.pool = ? AND accounts.name = ?", _first(head_of))
PART: Final = Query(
    "SELECT digest, body FROM parts WHERE claim_id = ? AND number = ?",
    _first(lambda row: StoredPart(row[0].hex(), row[1])),
)
FLOOR: Final = Query(
    "SELECT sequence, floor FROM floors JOIN accounts ON accounts.id = account_id WHERE name = ?"
    " ORDER BY sequence DESC LIMIT 1",
    _first(lambda row: FloorHead(row[0], row[1])),
)
BALANCES: Final = Query[dict[str, int]](
    "SELECT unit, balance FROM balances JOIN accounts ON id = account_id WHERE name = ? ORDER BY unit",
    lambda rows: {row[0]: row[1] for row in rows},
)
ACCOUNTS: Final = Query(
    "SELECT name, unit, balance FROM"
    " (SELECT id, name FROM accounts WHERE name > ? AND name >= ? AND name < ?"
    "  AND EXISTS (SELECT 1 FROM balances WHERE account_id = id) ORDER BY name LIMIT ?) AS page"
    " JOIN balances ON account_id = id ORDER BY name, unit",
    _accounts,
)
ACCOUNT_ENTRIES: Final = Query(
    "SELECT leaves.leaf_index, time, unit, amount, leaves.kind, named.id, pool, window_start, window_end FROM"
    " (SELECT DISTINCT account_id, leaf_index FROM entries"
    "  WHERE account_id = (SELECT id FROM accounts WHERE name = ?) AND leaf_index < ?"
    "  ORDER BY leaf_index DESC LIMIT ?) AS own"
    " JOIN entries ON entries.account_id = own.account_id AND entries.leaf_index = own.leaf_index"
    " JOIN leaves ON leaves.leaf_index = own.leaf_index JOIN checkpoints ON checkpoints.size = leaves.size"
    " LEFT JOIN resolutions ON resolutions.leaf_index = leaves.leaf_index"
    " JOIN claims ON claims.leaf_index = coalesce(resolutions.claim, leaves.leaf_index)"
    " JOIN leaves AS named ON named.leaf_index = claims.leaf_index"
    " JOIN chains ON chains.id = claims.chain_id"
    " ORDER BY leaves.leaf_index DESC, ordinal",
    _entries,
)
CONTRIBUTOR_SUMS: Final = Query(
    f"SELECT {_HALVES} FROM accounts JOIN chains ON account_id = accounts.id"  # noqa: S608 - constant
    " JOIN chain_sums ON chain_id = chains.id WHERE name = ?",
    _sums,
)
TOTALS: Final = Query(
    "SELECT NULL AS unit, NULL AS kind, (SELECT coalesce(max(leaf_index), -1) + 1 FROM leaves),"  # noqa: S608 - constant
    " (SELECT coalesce(max(leaf_index), -1) + 1 FROM leaves) - (SELECT count(*) FROM resolutions)"
    f" - (SELECT count(*) FROM floors), {_HALVES} FROM chain_sums"
    f" UNION ALL SELECT unit, {{type}}, sum(balance >> 32), sum(balance & 4294967295){', NULL' * 2 * len(_SUMS)}"
    " FROM accounts JOIN balances ON id = account_id GROUP BY unit, {type}",
    _totals,
)
ENTRIES: Final = Query[list[bytes]](
    "SELECT envelope FROM leaves WHERE leaf_index >= ? AND leaf_index < ? ORDER BY leaf_index", _column
)
LEAF_HASHES: Final = Query(
    "SELECT hash FROM leaves WHERE leaf_index >= ? AND leaf_index < ? ORDER BY leaf_index", _joined
)
NODES: Final = Query("SELECT hash FROM nodes WHERE level = ? AND number >= ? AND number < ? ORDER BY number", _joined)
CHECKPOINT: Final = Query[tuple[int, str] | None](
    "SELECT size, note FROM checkpoints ORDER BY size DESC LIMIT 1", _first(lambda row: (row[0], row[1]))
)
CHECKPOINT_AT: Final = Query[str | None]("SELECT note FROM checkpoints WHERE size = ?", _first(lambda row: str(row[0])))
SIGNED_BETWEEN: Final = Query[bool]("SELECT 1 FROM checkpoints WHERE size >= ? AND size < ? LIMIT 1", bool)
COSIGNATURES: Final = Query[list[str]]("SELECT line FROM cosignatures WHERE size = ? ORDER BY name", _column)
NEWEST_COSIGNED: Final = Query[int | None]("SELECT max(size) FROM cosignatures", lambda rows: rows[0][0])
