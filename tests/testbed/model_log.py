"""A log of at most 256 leaves in memory, which can lie: to go back, and to show another history under the same key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api.errors import NotFound
from homefed.core import checkpoint as checkpoints
from homefed.core import tlog_tiles
from homefed.core.checkpoint import Checkpoint, origin_of
from homefed.core.merkle import Frontier, leaf_hash
from homefed.core.signed_note import VerifierKey
from homefed.core.tlog_proof import Proof
from testbed.claims import FEDERATION
from testbed.memory_log import all_tiles


def log_key(seed: int = 1) -> Ed25519PrivateKey:
    """The same key for the same seed."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"log %d" % seed).digest())


@dataclass
class ModelLog:
    """`leaves` may be changed at will."""

    leaves: list[bytes] = field(default_factory=list)
    key: Ed25519PrivateKey = field(default_factory=log_key)
    fetched: list[str] = field(default_factory=list)

    @property
    def vkey(self) -> VerifierKey:
        return VerifierKey(origin_of(FEDERATION), self.key.public_key().public_bytes_raw())

    def grow(self, leaves: Iterable[bytes]) -> ModelLog:
        self.leaves += leaves
        return self

    def fork(self, at: int, leaves: Iterable[bytes]) -> ModelLog:
        """Another history under the same key."""
        return ModelLog([*self.leaves[:at], *leaves], self.key)

    def head(self, size: int | None = None) -> Checkpoint:
        leaves = self.leaves if size is None else self.leaves[:size]
        root = Frontier().extend([*map(leaf_hash, leaves)]).frontier.root()
        return Checkpoint(origin_of(FEDERATION), len(leaves), root)

    def signed(self, size: int | None = None) -> str:
        return checkpoints.sign(self.head(size), self.key)

    def receipt(self, index: int, size: int | None = None) -> str:
        """The proof of one leaf at a size, by default the newest."""
        size = len(self.leaves) if size is None else size
        tiles = {tile: self._tile(tile) for tile in all_tiles(size)}
        hashes = tlog_tiles.inclusion_proof(index, size, tiles)
        return Proof(index, tuple(hashes), self.signed(size)).encode()

    async def fetch(self, path: str) -> bytes:
        self.fetched.append(path)
        if path == "/checkpoint":
            return self.signed().encode()
        for tile in [tile for size in range(1, len(self.leaves) + 1) for tile in all_tiles(size)]:
            if path == f"/{tile.path()}":
                return self._tile(tile)
        raise NotFound(f"GET {path}: 404")

    def _tile(self, tile: tlog_tiles.Tile) -> bytes:
        if tile.level == 0:
            return b"".join(map(leaf_hash, self.leaves[tile.start : tile.start + tile.width]))
        return Frontier().extend([*map(leaf_hash, self.leaves[:256])]).frontier.root()
