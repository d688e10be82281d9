"""The Merkle tree against RFC 6962's definitions, written out as they stand there, and against known answers."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from homefed.api.errors import Invalid
from homefed.core import merkle, tlog_tiles
from homefed.core.merkle import EMPTY_ROOT, Frontier, check_consistency, check_inclusion, leaf_hash, node_hash
from homefed.core.tlog_tiles import Tile

VECTORS = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
"""Leaves of the reference vectors of Certificate Transparency."""
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""Of the trees over the first 1, 2, … of them."""

LEAVES = [leaf_hash(index.to_bytes(4, "big")) for index in range(70_600)]
LEAF_DATA = b"".join(LEAVES)


def mth(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return node_hash(mth(leaves[:k]), mth(leaves[k:]))


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962, 2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962, 2.1.2."""
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def _levels() -> dict[int, list[bytes]]:
    """All tile levels of the tree of LEAVES; of a smaller tree they are the beginnings."""
    levels: dict[int, list[bytes]] = {0: LEAVES}
    for tile in Frontier().extend(LEAVES).tiles:
        levels.setdefault(tile.level, []).append(tile.hash)
    return levels


class Tree:
    """The tree of the first LEAVES, read from its tiles."""

    levels = _levels()

    def __init__(self, size: int) -> None:
        self.size = size
        self.root = tlog_tiles.frontier(size, self.tiles(tlog_tiles.frontier_tiles(size))).root()

    def tile(self, tile: Tile) -> bytes:
        data = b"".join(self.levels[tile.level][tile.start : tile.start + tile.width])
        assert len(data) == 32 * tile.width, tile
        return data

    def tiles(self, wanted: set[Tile]) -> dict[Tile, bytes]:
        return {tile: self.tile(tile) for tile in wanted}

    def inclusion(self, index: int) -> list[bytes]:
        return tlog_tiles.inclusion_proof(index, self.size, self.tiles(tlog_tiles.inclusion_tiles(index, self.size)))

    def consistency(self, old: int) -> list[bytes]:
        return tlog_tiles.consistency_proof(old, self.size, self.tiles(tlog_tiles.consistency_tiles(old, self.size)))


BIG = Tree(70_600)
sizes = st.integers(0, 600)


def test_the_roots_of_the_reference_vectors() -> None:
    hashes = [leaf_hash(bytes.fromhex(vector)) for vector in VECTORS]
    frontier = Frontier()
    for hashed, root in zip(hashes, ROOTS, strict=True):
        frontier = frontier.extend([hashed]).frontier
        assert frontier.root().hex() == root
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Frontier().root() == EMPTY_ROOT


def test_the_proofs_of_the_reference_vectors() -> None:
    hashes = [leaf_hash(bytes.fromhex(vector)) for vector in VECTORS]
    inclusion = [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    consistency = [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    growth = Frontier().extend(hashes)
    assert [one.hex() for one in growth.inclusion_proof(5)] == inclusion
    made = {tlog_tiles.Tile(0, 0, 8): b"".join(hashes)}
    assert [one.hex() for one in tlog_tiles.consistency_proof(6, 8, made)] == consistency


def test_every_proof_up_to_40_is_what_the_definitions_say() -> None:
    for size in range(1, 41):
        tree, leaves = Tree(size), LEAVES[:size]
        assert tree.root == mth(leaves)
        assert [tree.inclusion(index) for index in range(size)] == [path(index, leaves) for index in range(size)]
        olds = range(1, size + 1)
        assert [tree.consistency(old) for old in olds] == [subproof(old, leaves, True) for old in olds]


def test_every_size_up_to_600_proves_itself_and_its_history() -> None:
    frontier, roots = Frontier(), [EMPTY_ROOT]
    for size in range(1, 601):
        frontier = frontier.extend([LEAVES[size - 1]]).frontier
        roots.append(frontier.root())
        tree = Tree(size)
        assert tree.root == roots[size]
        assert tlog_tiles.frontier(size, tree.tiles(tlog_tiles.frontier_tiles(size))) == frontier
        for index in {0, size * 5 // 7, size - 1}:
            check_inclusion(LEAVES[index], index, size, tree.inclusion(index), tree.root)
        for old in {0, size * 3 // 7, size - 1, size}:
            check_consistency(old, roots[old], size, tree.root, tree.consistency(old))


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(65_000, 70_600))
def test_large_trees_prove_their_leaves_and_their_history(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = tlog_tiles.inclusion_proof(index, size, BIG.tiles(tlog_tiles.inclusion_tiles(index, size)))
    root = tlog_tiles.frontier(size, BIG.tiles(tlog_tiles.frontier_tiles(size))).root()
    check_inclusion(LEAVES[index], index, size, proof, root)
    check_consistency(size, root, BIG.size, BIG.root, BIG.consistency(size))


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 70_000), st.lists(st.integers(0, 300), min_size=1, max_size=4))
@example(65_530, [10, 0, 256])
@example(0, [256, 256])
def test_what_grows_in_batches_is_the_same_tree_and_proves_its_new_leaves(size: int, batches: list[int]) -> None:
    frontier = tlog_tiles.frontier(size, BIG.tiles(tlog_tiles.frontier_tiles(size)))
    for count in (min(count, len(LEAVES) - size) for count in batches):
        growth = frontier.extend(LEAVES[frontier.size : frontier.size + count])
        frontier = growth.frontier
        for tile in growth.tiles:
            assert BIG.levels[tile.level][tile.number] == tile.hash
        proofs = {index: growth.inclusion_proof(index) for index in range(growth.old_size, frontier.size)}
        assert dict(growth.spelled_proofs(bytes.hex)) == {index: b"".join(one).hex() for index, one in proofs.items()}
        for index in [*proofs][::37]:
            check_inclusion(LEAVES[index], index, frontier.size, proofs[index], frontier.root())
    assert frontier == tlog_tiles.frontier(frontier.size, BIG.tiles(tlog_tiles.frontier_tiles(frontier.size)))


def test_a_growth_proves_new_leaves_only() -> None:
    growth = Frontier().extend(LEAVES[:5]).frontier.extend(LEAVES[5:7])
    for index in (-1, 4, 7):
        with pytest.raises(Invalid, match="is not one of"):
            growth.inclusion_proof(index)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(1, 600))
def test_a_forged_inclusion_proof_is_refused(data: st.DataObject, size: int) -> None:
    tree = Tree(size)
    index = data.draw(st.integers(0, size - 1))
    proof, leaf = tree.inclusion(index), LEAVES[index]
    wrong = data.draw(st.integers(0, size - 1).filter(lambda other: other != index)) if size > 1 else 1
    forged = [
        (leaf_hash(b"another"), index, size, proof, tree.root),
        (leaf, wrong, size, proof, tree.root),
        (leaf, index, size, [*proof, leaf], tree.root),
        (leaf, index, size, proof, flipped(tree.root, data)),
        (leaf, -1, size, proof, tree.root),
        (leaf, size, size, proof, tree.root),
    ]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        forged += [
            (leaf, index, size, [*proof[:at], flipped(proof[at], data), *proof[at + 1 :]], tree.root),
            (leaf, index, size, proof[:-1], tree.root),
            (leaf, index, size, [*proof[:at], proof[at][:-1], *proof[at + 1 :]], tree.root),
        ]
    for arguments in forged:
        with pytest.raises(Invalid):
            check_inclusion(*arguments)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(2, 600))
def test_a_forged_consistency_proof_is_refused(data: st.DataObject, size: int) -> None:
    tree = Tree(size)
    old = data.draw(st.integers(1, size - 1))
    root, proof = Tree(old).root, tree.consistency(old)
    at = data.draw(st.integers(0, len(proof) - 1))
    forged = [
        (old, flipped(root, data), size, tree.root, proof),
        (old, root, size, flipped(tree.root, data), proof),
        (old, root, size, tree.root, [*proof[:at], flipped(proof[at], data), *proof[at + 1 :]]),
        (old, root, size, tree.root, proof[:-1]),
        (old, root, size, tree.root, [*proof, root]),
        (size, tree.root, old, root, proof),
        (size, root, size, tree.root, []),
        (0, root, size, tree.root, []),
        (old, root, size, tree.root, []),
    ]
    for arguments in forged:
        with pytest.raises(Invalid):
            check_consistency(*arguments)


def flipped(hashed: bytes, data: st.DataObject) -> bytes:
    """One bit of it is another."""
    bit = data.draw(st.integers(0, 255))
    changed = bytearray(hashed)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_an_exchanged_history_is_refused() -> None:
    """A leaf that was signed is replaced: no consistency proof of the new tree fits the old root."""
    for old, new, changed in ((5, 9, 2), (256, 300, 255), (300, 300, 0)):
        leaves = [*LEAVES[:changed], leaf_hash(b"rewritten"), *LEAVES[changed + 1 : new]]
        rewritten = Frontier().extend(leaves).frontier.root()
        with pytest.raises(Invalid):
            check_consistency(old, mth(LEAVES[:old]), new, rewritten, subproof(old, leaves, True))


def test_a_frontier_has_one_hash_for_each_bit_of_its_size() -> None:
    with pytest.raises(Invalid, match="no frontier"):
        Frontier(3, (LEAVES[0],))
    with pytest.raises(Invalid, match="no frontier"):
        Frontier(merkle.MAX_SIZE + 1, (LEAVES[0], LEAVES[0]))


def test_the_tiles_of_a_random_tree_hold_every_node_that_they_should() -> None:
    generator = random.Random(6962)
    for _ in range(100):
        height, index = generator.randrange(11), generator.randrange(60)
        low, high = index << height, (index + 1) << height
        if high <= BIG.size:
            node = merkle.Node(height, index)
            tile = tlog_tiles.tile_of(node, BIG.size)
            assert tlog_tiles.Hashes(BIG.size, {tile: BIG.tile(tile)})(node) == mth(LEAVES[low:high])
