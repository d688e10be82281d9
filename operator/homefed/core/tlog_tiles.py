"""The log as static files (C2SP tlog-tiles): which tile holds what, how it is named, and proofs from tiles.

A tile is 256 neighbouring hashes of one tile level: level 0 are the leaves' hashes, each hash of level L is the root of
a full tile of level L−1. The tile at the right edge is partial; its width is part of its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from homefed.api.errors import Invalid
from homefed.core.merkle import (
    HASH_SIZE,
    TILE_HEIGHT,
    Fold,
    Frontier,
    Node,
    consistency_nodes,
    hashes_of,
    inclusion_nodes,
    subtree_root,
)

TILE_WIDTH: Final = 1 << TILE_HEIGHT
MAX_ENTRY: Final = 2**16 - 1
"""Bytes: entry bundles give lengths in 16 bits."""
MAX_LEVEL: Final = 7
"""Of trees below 2^63."""
_INDEX: Final = re.compile(r"(?:x[0-9]{3}/){0,6}[0-9]{3}")
_SUFFIX: Final = re.compile(r"(.*)\.p/([1-9][0-9]{0,2})")


class Tile(NamedTuple):
    """Hashes [number·256, number·256 + width) of a tile level."""

    level: int
    number: int
    width: int = TILE_WIDTH

    @property
    def start(self) -> int:
        """Its first hash, counted within the level."""
        return self.number << TILE_HEIGHT

    def path(self) -> str:
        """Relative to the log's prefix."""
        return f"tile/{self.level}/{index_path(self.number, self.width)}"


def bundle_path(index: int, width: int = TILE_WIDTH) -> str:
    """Of the entries whose hashes are in the tile of level 0 with that index and width."""
    return f"tile/entries/{index_path(index, width)}"


def index_path(index: int, width: int = TILE_WIDTH) -> str:
    """1234067 → x001/x234/067, with .p/<width> where partial."""
    digits = f"{index:d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    *leading, last = [digits[place : place + 3] for place in range(0, len(digits), 3)]
    suffix = "" if width == TILE_WIDTH else f".p/{width}"
    return "".join(f"x{part}/" for part in leading) + last + suffix


def parse_index(path: str) -> tuple[int, int]:
    """Index and width of `<N>[.p/<W>]`; there is one name for each. Errors: Invalid."""
    partial = _SUFFIX.fullmatch(path)
    number, width = (partial[1], int(partial[2])) if partial else (path, TILE_WIDTH)
    if _INDEX.fullmatch(number) and (partial is None or width < TILE_WIDTH):
        index = int(number.replace("x", "").replace("/", ""))
        if index_path(index, width) == path:
            return index, width
    raise Invalid(f"{path[:64]!r} does not name a tile", reason="NoSuchTile")


def in_level(size: int, level: int) -> int:
    """How many hashes a tile level of a tree of that size has."""
    return size >> (TILE_HEIGHT * level)


def tile_of(node: Node, size: int) -> Tile:
    """The tile, in a tree of that size, that holds the hash of a node, or those that it is made of."""
    level, below = divmod(node.height, TILE_HEIGHT)
    index = node.number << below >> TILE_HEIGHT
    return Tile(level, index, min(TILE_WIDTH, in_level(size, level) - (index << TILE_HEIGHT)))


def tiles_of(proof: Iterable[Fold], size: int) -> set[Tile]:
    """What has to be read for a proof in a tree of that size, or for its frontier."""
    return {tile_of(node, size) for nodes in proof for node in nodes}


class Hashes:
    """Hashes of nodes from tiles that were read. Errors: Invalid for a tile that is missing or has another length."""

    def __init__(self, size: int, tiles: Mapping[Tile, bytes]) -> None:
        self._size = size
        self._tiles = tiles

    def __call__(self, node: Node) -> bytes:
        tile = tile_of(node, self._size)
        below = node.height % TILE_HEIGHT
        first = ((node.number << below) - tile.start) * HASH_SIZE
        data = self._tiles.get(tile, b"")
        if len(data) != tile.width * HASH_SIZE:
            raise Invalid(f"{tile.path()}: {len(data)} bytes instead of {tile.width * HASH_SIZE}", reason="WrongTile")
        return subtree_root(data[first : first + (HASH_SIZE << below)])


def inclusion_tiles(index: int, size: int) -> set[Tile]:
    return tiles_of(inclusion_nodes(index, size), size)


def inclusion_proof(index: int, size: int, tiles: Mapping[Tile, bytes]) -> list[bytes]:
    """From the tiles of `inclusion_tiles`, which are not verified here: check the proof against a signed root."""
    return hashes_of(inclusion_nodes(index, size), Hashes(size, tiles))


def consistency_tiles(old: int, new: int) -> set[Tile]:
    return tiles_of(consistency_nodes(old, new), new)


def consistency_proof(old: int, new: int, tiles: Mapping[Tile, bytes]) -> list[bytes]:
    """From the tiles of `consistency_tiles`, not verified here."""
    return hashes_of(consistency_nodes(old, new), Hashes(new, tiles))


def frontier_tiles(size: int) -> set[Tile]:
    return tiles_of([Frontier.nodes(size)], size)


def frontier(size: int, tiles: Mapping[Tile, bytes]) -> Frontier:
    """From the tiles of `frontier_tiles`; its root is what a checkpoint has to say."""
    hash_of = Hashes(size, tiles)
    return Frontier(size, tuple(hash_of(node) for node in Frontier.nodes(size)))


def level_tiles(level: int, count: int) -> Iterator[Tile]:
    """The tiles of the first `count` hashes of a level."""
    for index in range(-(-count // TILE_WIDTH)):
        yield Tile(level, index, min(TILE_WIDTH, count - (index << TILE_HEIGHT)))


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Errors: Invalid for an entry above 65535 bytes."""
    chunks = []
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise Invalid(f"an entry of {len(entry)} bytes is longer than {MAX_ENTRY}", reason="TooLarge")
        chunks += [len(entry).to_bytes(2, "big"), entry]
    return b"".join(chunks)


def decode_bundle(data: bytes) -> list[bytes]:
    """Errors: Invalid where the bytes end inside an entry."""
    entries, place = [], 0
    while place < len(data):
        end = place + 2 + int.from_bytes(data[place : place + 2], "big")
        if place + 2 > len(data) or end > len(data):
            raise Invalid("the bundle ends inside an entry", reason="WrongBundle")
        entries.append(data[place + 2 : end])
        place = end
    return entries
