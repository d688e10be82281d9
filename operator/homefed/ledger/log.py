"""The ledger as a transparency log: grows the tree, signs its heads, proves from what is stored.

    grown = log.grow(leaves)        pure: hashes, one signature, receipts of the new leaves
    … write it, COMMIT …
    log.publish(grown)              the mark outside the database is durable, then the new head is the one shown

Nothing signed leaves the process before `publish`: what is committed and not published is not shown either.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api.errors import Invalid, NotFound, Refused
from homefed.core import checkpoint as checkpoints
from homefed.core import tlog_tiles
from homefed.core.checkpoint import Checkpoint
from homefed.core.merkle import (
    HASH_SIZE,
    TILE_HEIGHT,
    Fold,
    Frontier,
    Growth,
    Node,
    TileNode,
    consistency_nodes,
    hashes_of,
    inclusion_nodes,
    leaf_hash,
)
from homefed.core.signed_note import VerifierKey, verifier_key
from homefed.core.tlog_proof import Proof, hash_line, spelled
from homefed.core.tlog_tiles import TILE_WIDTH, Hashes, Tile
from homefed.ledger.high_water import FILE, HighWaterMark

CACHED_TILES: Final = 256
"""Of level 1 and above, 8 KiB each: with 65 536 leaves to a tile of level 1, all of sixteen million leaves."""

CACHED_NODES: Final = 16_384
"""Roots of subtrees above those: half of the hashing that a receipt costs."""


class TreeReader(Protocol):
    """What is read of the tree, in one consistent view. Hashes are 32 bytes each, concatenated."""

    async def leaf_hashes(self, start: int, count: int) -> bytes:
        """Fewer where the tree ends."""

    async def nodes(self, level: int, start: int, count: int) -> bytes:
        """Roots of full tiles, level ≥ 1."""

    async def entries(self, start: int, count: int) -> list[bytes]:
        """The stored bytes of leaves."""

    async def checkpoint(self) -> tuple[int, str] | None:
        """Size and signed text of the newest."""

    async def checkpoint_at(self, size: int) -> str | None: ...

    async def signed_between(self, low: int, high: int) -> bool:
        """Whether a checkpoint with low ≤ size < high was signed."""


@dataclass(frozen=True)
class Head:
    """A signed tree head."""

    checkpoint: Checkpoint
    signed: str

    @property
    def size(self) -> int:
        return self.checkpoint.size


@dataclass(frozen=True)
class Grown:
    """The tree with a batch's leaves, signed, and not yet adopted."""

    head: Head
    growth: Growth = field(repr=False)
    leaf_hashes: tuple[bytes, ...] = field(repr=False)
    """Of the new leaves, in order."""

    @property
    def old_size(self) -> int:
        """Index of the first new leaf."""
        return self.growth.old_size

    @property
    def size(self) -> int:
        return self.head.size

    @property
    def checkpoint(self) -> str:
        """Signed, to be stored with the leaves."""
        return self.head.signed

    @property
    def tile_nodes(self) -> tuple[TileNode, ...]:
        """The hashes of level 1 and above that became complete."""
        return self.growth.tiles

    def receipt(self, index: int) -> str:
        """Of a new leaf, old_size ≤ index < size; `Log.receipt` makes the same text from what is stored."""
        return spelled(index, self._proofs[index], self.head.signed)

    @cached_property
    def _proofs(self) -> Mapping[int, str]:
        return dict(self.growth.spelled_proofs(hash_line))


class Log:
    """One ledger's log. `grow` and `publish` are the writer's; reading is everybody's, from any thread."""

    def __init__(self, origin: str, key: Ed25519PrivateKey, frontier: Frontier, mark: HighWaterMark) -> None:
        """For `open`, which checks what it is given."""
        self._key = key
        self._frontier = frontier
        self._mark = mark
        self._tiles = _Tiles()
        self._nodes: OrderedDict[Node, bytes] = OrderedDict()
        self._remembering = threading.Lock()
        self.origin = origin
        self.vkey: VerifierKey = verifier_key(origin, key)
        self.published: Head = self._sign(frontier)
        """The newest head that may be shown."""

    @classmethod
    async def open(cls, reader: TreeReader, origin: str, key: Ed25519PrivateKey, state: Path) -> Log:
        """The log as the database has it, checked against its newest checkpoint and against the mark in `state`.

        Errors: Refused with a remedy: TreeDiffers, LedgerWentBack, LedgerForked, MarkMissing, MarkUnreadable.
        """
        frontier = await _stored_frontier(reader, verifier_key(origin, key))
        mark = _mark(state / FILE, origin, key, frontier.size)
        try:
            await _check_mark(reader, frontier, mark.head)
            log = cls(origin, key, frontier, mark)
            mark.raise_to(log.published.signed, log.published.checkpoint)
        except BaseException:
            mark.close()
            raise
        return log

    def grow(self, leaves: Sequence[bytes]) -> Grown:
        """Pure: the same leaves on the same tree give the same bytes."""
        hashes = tuple(map(leaf_hash, leaves))
        growth = self._frontier.extend(hashes)
        return Grown(self._sign(growth.frontier), growth, hashes)

    def publish(self, grown: Grown) -> None:
        """After COMMIT, before any answer. Blocks for one disk write. Errors: StoreFailed."""
        if grown.old_size != self._frontier.size:
            raise Invalid(f"the tree has {self._frontier.size} leaves, not {grown.old_size}", reason="BadFrontier")
        self._mark.raise_to(grown.checkpoint, grown.head.checkpoint)
        self._frontier = grown.growth.frontier
        self.published = grown.head

    def close(self) -> None:
        self._mark.close()

    async def receipt(self, reader: TreeReader, index: int, size: int) -> str:
        """Of leaf `index` at the checkpoint of that size: for ever the same text.

        Errors: NotFound (NotPublished) for what is not published, or not yet; NotFound where no checkpoint of that
        size was signed; Invalid for a leaf that the tree has not.
        """
        signed = await self.signed_at(reader, size)
        return Proof(index, tuple(await self.inclusion(reader, index, size)), signed).encode()

    async def signed_at(self, reader: TreeReader, size: int) -> str:
        """The checkpoint of that size. Errors: as `receipt`."""
        if size == self.published.size:
            return self.published.signed
        self._check_published(size)
        signed = await reader.checkpoint_at(size)
        if signed is None:
            raise NotFound(f"no checkpoint of {size} leaves was signed")
        return signed

    async def inclusion(self, reader: TreeReader, index: int, size: int) -> list[bytes]:
        """Proof of a leaf in the tree of any size that is published. Errors: Invalid, NotFound."""
        self._check_published(size)
        return await self._prove(reader, inclusion_nodes(index, size), size)

    async def consistency(self, reader: TreeReader, old: int, new: int) -> list[bytes]:
        """Proof that the tree of `new` leaves begins with that of `old`. Errors: Invalid, NotFound."""
        self._check_published(new)
        return await self._prove(reader, consistency_nodes(old, new), new)

    def _check_published(self, size: int) -> None:
        if size > self.published.size:
            raise NotFound(f"{size} leaves are not published, {self.published.size} are", reason="NotPublished")

    async def _prove(self, reader: TreeReader, proof: Sequence[Fold], size: int) -> list[bytes]:
        wanted = {node for nodes in proof for node in nodes}
        found = {node: hashed for node in wanted if (hashed := self._nodes.get(node)) is not None}
        missing = tuple(wanted - found.keys())
        tiles = tlog_tiles.tiles_of([missing], size)
        hash_of = Hashes(size, {tile: await self._tiles.read(reader, tile, self.published.size) for tile in tiles})
        found |= {node: hash_of(node) for node in missing}
        self._remember({node: found[node] for node in missing if node.height > TILE_HEIGHT})
        return hashes_of(proof, found.__getitem__)

    def _remember(self, nodes: Mapping[Node, bytes]) -> None:
        with self._remembering:
            self._nodes |= nodes
            while len(self._nodes) > CACHED_NODES:
                self._nodes.popitem(last=False)

    def _sign(self, frontier: Frontier) -> Head:
        checkpoint = Checkpoint(self.origin, frontier.size, frontier.root())
        return Head(checkpoint, checkpoints.sign(checkpoint, self._key))


class _Tiles:
    """Tiles from the store. Those above the leaves are kept, at the widest that is published: what a narrower one
    holds is the beginning of it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Tile, bytes] = OrderedDict()
        self._keeping = threading.Lock()

    async def read(self, reader: TreeReader, tile: Tile, published: int) -> bytes:
        if tile.level == 0:
            return await read_tile(reader, tile)
        width = min(TILE_WIDTH, tlog_tiles.in_level(published, tile.level) - tile.start)
        whole = Tile(tile.level, tile.number, width)
        data = self._kept.get(whole)
        if data is None:
            data = await read_tile(reader, whole)
            if len(data) < width * HASH_SIZE:  # the view is older than what is published
                return data[: tile.width * HASH_SIZE]
        self._keep(whole, data)
        return data[: tile.width * HASH_SIZE]

    def _keep(self, tile: Tile, data: bytes) -> None:
        with self._keeping:
            self._kept[tile] = data
            self._kept.move_to_end(tile)
            while len(self._kept) > CACHED_TILES:
                self._kept.popitem(last=False)


async def read_tile(reader: TreeReader, tile: Tile) -> bytes:
    """A tile's bytes as they are served."""
    if tile.level == 0:
        return await reader.leaf_hashes(tile.start, tile.width)
    return await reader.nodes(tile.level, tile.start, tile.width)


async def _frontier(reader: TreeReader, size: int) -> Frontier:
    wanted = tlog_tiles.frontier_tiles(size)
    return tlog_tiles.frontier(size, {tile: await read_tile(reader, tile) for tile in wanted})


async def _stored_frontier(reader: TreeReader, key: VerifierKey) -> Frontier:
    """Of the newest checkpoint; empty before the first. Errors: Refused (TreeDiffers)."""
    stored = await reader.checkpoint()
    size, signed = stored or (0, "")
    try:
        frontier = await _frontier(reader, size)
        head = checkpoints.verify(signed, key) if stored else None
    except Invalid as error:
        raise _tree_differs(error.message) from error
    if head is not None and (head.size, head.root) != (size, frontier.root()):
        raise _tree_differs(f"the tree of {size} leaves has another root than its checkpoint")
    if await reader.leaf_hashes(size, 1):
        raise _tree_differs(f"there are leaves after the newest checkpoint, which has {size}")
    return frontier


def _mark(path: Path, origin: str, key: Ed25519PrivateKey, size: int) -> HighWaterMark:
    """The mark; made where there is nothing yet that it could have marked."""
    vkey = verifier_key(origin, key)
    if path.exists():
        return HighWaterMark(path, vkey)
    if size:
        raise Refused(
            f"{path} is missing, but {size} leaves have been signed: restore it from the state directory, or write"
            " into it the newest checkpoint that a member holds",
            reason="MarkMissing",
        )
    os.makedirs(path.parent, exist_ok=True)
    return HighWaterMark.create(path, checkpoints.sign(Checkpoint(origin, 0, Frontier().root()), key), vkey)


async def _check_mark(reader: TreeReader, frontier: Frontier, mark: Checkpoint) -> None:
    if mark.size > frontier.size:
        raise Refused(
            f"the database has {frontier.size} leaves, but {mark.size} have been signed: it was restored from an older"
            " backup. Restore a newer one; signing on from here would contradict receipts that were given",
            reason="LedgerWentBack",
        )
    if (await _frontier(reader, mark.size)).root() != mark.root:
        raise Refused(
            f"the database's first {mark.size} leaves are not those that were signed: it belongs to another history."
            " Restore the database that belongs to this state directory",
            reason="LedgerForked",
        )


def _tree_differs(message: str) -> Refused:
    return Refused(
        f"the database's tree is damaged: {message}. Restore it from a backup that holds all that was signed",
        reason="TreeDiffers",
    )
