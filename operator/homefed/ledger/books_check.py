"""Whether books are in order: every leaf hashed anew, the tree above them, its newest checkpoint, and the totals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from homefed.api.errors import Invalid, Refused
from homefed.core import checkpoint as checkpoints
from homefed.core.merkle import Frontier, leaf_hash
from homefed.core.signed_note import VerifierKey
from homefed.core.statement import conserved
from homefed.ledger.store import Reader

_AT_ONCE: Final = 256
"""Leaves; at most 16 MiB."""


@dataclass(frozen=True)
class Summary:
    """What was found in order."""

    size: int
    """Leaves."""
    root: str
    """Of the tree, hex."""
    claims: int
    signed: str
    """The newest checkpoint; empty before the first."""

    def to_json(self) -> dict[str, Any]:
        return {"size": self.size, "root": self.root, "claims": self.claims, "checkpoint": self.signed}

    def said(self) -> str:
        return f"{self.size} leaves, {self.claims} claims, root {self.root}"


async def check_books(reader: Reader, public_key: bytes) -> Summary:
    """`public_key` (raw) is the ledger's. Errors: Refused (BooksDamaged), saying what does not agree."""
    size, signed = await reader.checkpoint() or (0, "")
    if await reader.size() != size:
        raise _damaged(f"{await reader.size()} leaves, but the newest checkpoint has {size}")
    frontier = Frontier()
    for start in range(0, size, _AT_ONCE):
        frontier = await _extended(reader, frontier, start, min(_AT_ONCE, size - start))
    if signed:
        _check_signed(signed, public_key, size, frontier.root())
    totals = await reader.totals()
    if not conserved(totals.balances, totals.sums):
        raise _damaged("the balances are not what the claims say")
    return Summary(size, frontier.root().hex(), totals.claims, signed)


async def _extended(reader: Reader, frontier: Frontier, start: int, count: int) -> Frontier:
    """The tree with `count` more leaves, their stored hashes and the tiles that they complete compared."""
    hashes = tuple(map(leaf_hash, await reader.entries(start, count)))
    if b"".join(hashes) != await reader.leaf_hashes(start, count):
        raise _damaged(f"a leaf of {start} to {start + count - 1} does not have the hash that is kept of it")
    growth = frontier.extend(hashes)
    for node in growth.tiles:
        if await reader.nodes(node.level, node.number, 1) != node.hash:
            raise _damaged(f"node {node.number} of level {node.level} is not what its leaves give")
    return growth.frontier


def origin_in(signed: str) -> str:
    """Of which log a stored checkpoint says to be: its first line."""
    return signed.partition("\n")[0]


def _check_signed(signed: str, public_key: bytes, size: int, root: bytes) -> None:
    try:
        head = checkpoints.verify(signed, VerifierKey(origin_in(signed), public_key))
    except Invalid as error:
        raise _damaged(f"the newest checkpoint is not signed by this ledger's key: {error.message}") from error
    if (head.size, head.root) != (size, root):
        raise _damaged("the leaves give another root than the newest checkpoint says")


def _damaged(message: str) -> Refused:
    return Refused(f"the books are damaged: {message}. Take another backup", reason="BooksDamaged")
