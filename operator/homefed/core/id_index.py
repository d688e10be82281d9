"""Which leaf holds which id, in 24 bytes per slot instead of the two hundred of a dict: an audit keeps all of them."""

from __future__ import annotations

from array import array
from typing import Final

SLOTS_AT_FIRST: Final = 1024


class IdIndex:
    """Ids (SHA-256) → whole number. Open addressing on the first 16 bytes, which no two ids share by chance."""

    def __init__(self) -> None:
        self._allocate(SLOTS_AT_FIRST)

    def __len__(self) -> int:
        return self._used

    def find(self, identity: bytes) -> int | None:
        high, low = _halves(identity)
        slot = self._slot(high, low)
        return self._values[slot] - 1 if self._values[slot] else None

    def add(self, identity: bytes, value: int) -> int | None:
        """Keep `value` (≥ 0) for a new id; for one that is there, change nothing and return what it has."""
        high, low = _halves(identity)
        slot = self._slot(high, low)
        if self._values[slot]:
            return self._values[slot] - 1
        self._put(slot, high, low, value + 1)
        if 3 * self._used > 2 * len(self._values):
            self._grow()
        return None

    def _slot(self, high: int, low: int) -> int:
        """Where the id is, or the empty slot where it belongs."""
        slot = low & self._mask
        while self._values[slot] and (self._high[slot] != high or self._low[slot] != low):
            slot = (slot + 1) & self._mask
        return slot

    def _put(self, slot: int, high: int, low: int, stored: int) -> None:
        self._high[slot], self._low[slot], self._values[slot] = high, low, stored
        self._used += 1

    def _allocate(self, slots: int) -> None:
        self._mask = slots - 1
        self._high, self._low, self._values = (array("Q", bytes(8 * slots)) for _ in range(3))
        self._used = 0

    def _grow(self) -> None:
        old = zip(self._high, self._low, self._values, strict=True)
        self._allocate(2 * len(self._values))
        for high, low, stored in old:
            if stored:
                self._put(self._slot(high, low), high, low, stored)


def _halves(identity: bytes) -> tuple[int, int]:
    return int.from_bytes(identity[:8], "big"), int.from_bytes(identity[8:16], "big")
