"""The Merkle tree of RFC 6962 (SHA-256): growing it, proving with it, checking proofs.

A tree of n leaves is made of complete subtrees, one for each bit of n. `Node` names one: height h and number i cover
the leaves [i·2^h, (i+1)·2^h). Every hash of a proof is one complete subtree, or the fold of the few at the ragged right
edge of the tree; so proofs are first named as nodes (`inclusion_nodes`, `consistency_nodes`) and then looked up,
wherever the hashes are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from homefed.api.errors import Invalid

HASH_SIZE: Final = 32
TILE_HEIGHT: Final = 8
MAX_SIZE: Final = 2**62
EMPTY_ROOT: Final = hashlib.sha256().digest()
_sha256 = hashlib.sha256


class Node(NamedTuple):
    """One complete subtree."""

    height: int
    number: int


class TileNode(NamedTuple):
    """The root of a full tile, as it is kept: hash `number` of tile level `level` ≥ 1, over 256^level leaves."""

    level: int
    number: int
    hash: bytes


HashOf = Callable[[Node], bytes]
Fold = tuple[Node, ...]
"""Neighbouring complete subtrees from left to right, folded from the right: one hash of a proof."""


def leaf_hash(entry: bytes) -> bytes:
    return _sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return _sha256(b"\x01" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over complete subtrees from left (largest) to right; of none: the empty tree's."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def subtree_root(hashes: bytes) -> bytes:
    """The root over 2^k neighbouring hashes of one height, given one behind the other."""
    while len(hashes) > HASH_SIZE:
        pairs = range(0, len(hashes), 2 * HASH_SIZE)
        hashes = b"".join([_sha256(b"\x01" + hashes[at : at + 2 * HASH_SIZE]).digest() for at in pairs])
    return hashes


def covering(low: int, high: int) -> Fold:
    """The complete subtrees that make up [low, high), where `low` is where a subtree of that range's size may begin."""
    nodes = []
    while low < high:
        height = (high - low).bit_length() - 1
        nodes.append(Node(height, low >> height))
        low += 1 << height
    return tuple(nodes)


@dataclass(frozen=True)
class Frontier:
    """What of a tree is needed to go on: its size and the roots of its complete subtrees, from left to right."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE or len(self.hashes) != self.size.bit_count():
            raise Invalid(f"{len(self.hashes)} hashes are no frontier of {self.size} leaves", reason="BadFrontier")

    @staticmethod
    def nodes(size: int) -> Fold:
        """Where the hashes of a frontier of that size are."""
        return covering(0, size)

    def root(self) -> bytes:
        return fold(self.hashes)

    def extend(self, leaf_hashes: Sequence[bytes]) -> Growth:
        """The tree with those leaves behind the present ones, level by level."""
        old = dict(zip(Frontier.nodes(self.size), self.hashes, strict=True))
        peaks: list[bytes] = []
        levels: list[Level] = []
        number, hashes = self.size, list(leaf_hashes)
        while hashes:
            if number & 1:
                number, hashes = number - 1, [old[Node(len(levels), number - 1)], *hashes]
            levels.append(Level(number, hashes))
            if len(hashes) & 1:
                peaks.append(hashes[-1])
            number >>= 1
            hashes = [_sha256(b"\x01" + hashes[at] + hashes[at + 1]).digest() for at in range(0, len(hashes) - 1, 2)]
        kept = [hashed for node, hashed in old.items() if node.height >= len(levels)]
        return Growth(self, Frontier(self.size + len(leaf_hashes), (*kept, *reversed(peaks))), levels, old)


class Level(NamedTuple):
    """Hashes of one height that an extension made, and one before them where a pair needed it."""

    number: int
    """Of the first."""
    hashes: list[bytes]


@dataclass(frozen=True)
class Growth:
    """One extension of a tree, with the hashes that it made: they prove the new leaves without reading old ones.

    A subtree to the left of a new leaf is either one of the old frontier or was made here.
    """

    old: Frontier
    frontier: Frontier
    _levels: Sequence[Level] = field(repr=False)
    _old: Mapping[Node, bytes] = field(repr=False)

    @property
    def old_size(self) -> int:
        return self.old.size

    @property
    def tiles(self) -> tuple[TileNode, ...]:
        """The tile roots that became complete, level by level."""
        found = []
        for height in range(TILE_HEIGHT, len(self._levels), TILE_HEIGHT):
            number, hashes = self._levels[height]
            level, known = height // TILE_HEIGHT, self.old_size >> height
            found += [TileNode(level, number + at, hashed) for at, hashed in enumerate(hashes) if number + at >= known]
        return tuple(found)

    def inclusion_proof(self, index: int) -> list[bytes]:
        """Of a new leaf, old_size ≤ index < frontier.size, in the extended tree. Errors: Invalid."""
        if not self.old_size <= index < self.frontier.size:
            raise Invalid(f"leaf {index} is not one of [{self.old_size}, {self.frontier.size})", reason="NotInTree")
        return hashes_of(inclusion_nodes(index, self.frontier.size), self._hash_of)

    def spelled_proofs(self, spell: Callable[[bytes], str]) -> Iterator[tuple[int, str]]:
        """All new leaves with their proofs, each the spellings of its hashes from the leaf's sibling upwards.

        Neighbours share most of their proofs: this costs a tenth of asking for them one by one.
        """
        subtrees = [(0, self.frontier.size, "")] if self.frontier.size > self.old_size else []
        while subtrees:
            low, high, above = subtrees.pop()
            if high - low == 1:
                yield low, above
                continue
            middle = low + _split(high - low)
            subtrees.append((middle, high, spell(self._root(low, middle)) + above))
            if middle > self.old_size:
                subtrees.append((low, middle, spell(self._root(middle, high)) + above))

    def _root(self, low: int, high: int) -> bytes:
        width = high - low
        if width & (width - 1):
            return fold([self._hash_of(node) for node in covering(low, high)])
        height = width.bit_length() - 1
        return self._hash_of(Node(height, low >> height))

    def _hash_of(self, node: Node) -> bytes:
        height, number = node
        if height < len(self._levels):
            first, hashes = self._levels[height]
            if first <= number:
                return hashes[number - first]
        return self._old[node]


def hashes_of(proof: Iterable[Fold], hash_of: HashOf) -> list[bytes]:
    """The hashes of a proof whose nodes are known."""
    return [fold([hash_of(node) for node in nodes]) for nodes in proof]


def inclusion_nodes(index: int, size: int) -> list[Fold]:
    """PATH(index, D[size]) of RFC 6962, from the leaf's sibling upwards. Errors: Invalid."""
    if not 0 <= index < size <= MAX_SIZE:
        raise Invalid(f"leaf {index} is not in a tree of {size}", reason="NotInTree")
    low, high = 0, size
    proof = []
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(covering(middle, high))
            high = middle
        else:
            proof.append(covering(low, middle))
            low = middle
    return proof[::-1]


def consistency_nodes(old: int, new: int) -> list[Fold]:
    """PROOF(old, D[new]) of RFC 6962; of an empty or an equal tree nothing has to be proved. Errors: Invalid."""
    if not 0 <= old <= new <= MAX_SIZE:
        raise Invalid(f"a tree of {new} cannot follow one of {old}", reason="NotInTree")
    if old in (0, new):
        return []
    low, high, whole = 0, new, True
    proof = []
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            proof.append(covering(middle, high))
            high = middle
        else:
            proof.append(covering(low, middle))
            low, whole = middle, False
    return [*([] if whole else [covering(low, high)]), *proof[::-1]]


def _split(width: int) -> int:
    """The largest power of two below `width`."""
    return 1 << ((width - 1).bit_length() - 1)


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that the proof leads to (RFC 9162, 2.1.3.2). Errors: Invalid when it has not the right length."""
    nodes = inclusion_nodes(index, size)
    _check_shape(nodes, proof)
    root = leaf
    for sibling, (first, *_) in zip(proof, nodes, strict=True):
        to_the_left = first.number << first.height <= index
        root = node_hash(sibling, root) if to_the_left else node_hash(root, sibling)
    return root


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Errors: Invalid (WrongProof) unless the leaf hash is at `index` in the tree of that size and root."""
    if root_from_inclusion(leaf, index, size, proof) != root:
        raise _wrong(f"the proof does not lead from leaf {index} to the root of {size} leaves")


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Errors: Invalid (WrongProof) unless the tree of `new` leaves begins with the one of `old` (RFC 9162, 2.1.4.2)."""
    nodes = consistency_nodes(old, new)
    _check_shape(nodes, proof)
    if old == 0 and old_root != EMPTY_ROOT:
        raise _wrong("the empty tree has one root only")
    if old == new and old_root != new_root:
        raise _wrong(f"two roots for one size {new}")
    if not nodes:
        return
    found_old, found_new = _consistent_roots(old, old_root, nodes, list(proof))
    if (found_old, found_new) != (old_root, new_root):
        raise _wrong(f"the tree of {new} leaves does not begin with the one of {old}")


def _consistent_roots(old: int, old_root: bytes, nodes: list[Fold], proof: list[bytes]) -> tuple[bytes, bytes]:
    """Both roots, from the subtree upwards that ends where the old tree ends; that one is the old tree itself where
    the proof does not name it."""
    known = _end(nodes[0]) == old
    start = proof.pop(0) if known else old_root
    older = newer = start
    for hashed, place in zip(proof, nodes[1:] if known else nodes, strict=True):
        if place[0].number << place[0].height >= old:
            newer = node_hash(newer, hashed)
        else:
            older, newer = node_hash(hashed, older), node_hash(hashed, newer)
    return older, newer


def _end(nodes: Fold) -> int:
    return (nodes[-1].number + 1) << nodes[-1].height


def _check_shape(nodes: Sequence[Fold], proof: Sequence[bytes]) -> None:
    if len(proof) != len(nodes):
        raise _wrong(f"{len(proof)} hashes instead of {len(nodes)}")
    if any(len(hashed) != HASH_SIZE for hashed in proof):
        raise _wrong("a hash has 32 bytes")


def _wrong(message: str) -> Invalid:
    return Invalid(message, reason="WrongProof")
