"""A log's tree kept in lists: the least that a ledger's store has to do for `ledger.log` and `ledger.tiles`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from homefed.core.merkle import leaf_hash
from homefed.core.tlog_tiles import MAX_LEVEL, Tile, in_level, level_tiles
from homefed.ledger.log import Grown, Log

T = TypeVar("T")


@dataclass
class MemoryLog:
    leaves: list[bytes] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    levels: dict[int, list[bytes]] = field(default_factory=dict)
    checkpoints: dict[int, str] = field(default_factory=dict)
    lines: dict[int, dict[str, str]] = field(default_factory=dict)
    """Cosignatures: size → name → line."""

    def commit(self, leaves: Sequence[bytes], grown: Grown) -> None:
        """What a store writes of a batch."""
        self.leaves += leaves
        self.hashes += map(leaf_hash, leaves)
        for node in grown.tile_nodes:
            level = self.levels.setdefault(node.level, [])
            assert len(level) == node.number
            level.append(node.hash)
        self.checkpoints[grown.size] = grown.checkpoint

    def append(self, log: Log, leaves: Sequence[bytes]) -> Grown:
        """One batch from the leaves to the published checkpoint."""
        grown = log.grow(leaves)
        self.commit(leaves, grown)
        log.publish(grown)
        return grown

    def copy(self) -> MemoryLog:
        """What a reader sees that began now."""
        levels = {level: list(hashes) for level, hashes in self.levels.items()}
        return MemoryLog(list(self.leaves), list(self.hashes), levels, dict(self.checkpoints))

    async def read(self, work: Callable[[MemoryLog], Coroutine[Any, Any, T]]) -> T:
        return await work(self)

    async def add_cosignature(self, size: int, name: str, line: str, time: int) -> bool:
        known = self.lines.setdefault(size, {})
        return known.setdefault(name, line) is line

    async def leaf_hashes(self, start: int, count: int) -> bytes:
        return b"".join(self.hashes[start : start + count])

    async def nodes(self, level: int, start: int, count: int) -> bytes:
        return b"".join(self.levels.get(level, [])[start : start + count])

    async def entries(self, start: int, count: int) -> list[bytes]:
        return self.leaves[start : start + count]

    async def checkpoint(self) -> tuple[int, str] | None:
        return max(self.checkpoints.items()) if self.checkpoints else None

    async def checkpoint_at(self, size: int) -> str | None:
        return self.checkpoints.get(size)

    async def signed_between(self, low: int, high: int) -> bool:
        return any(low <= size < high for size in self.checkpoints)

    async def cosignatures(self, size: int) -> list[str]:
        return [line for _, line in sorted(self.lines.get(size, {}).items())]

    async def newest_cosigned(self) -> int | None:
        return max(self.lines) if self.lines else None


def all_tiles(size: int) -> list[Tile]:
    """Every tile of a tree of that size, level by level."""
    return [tile for level in range(MAX_LEVEL) for tile in level_tiles(level, in_level(size, level))]
