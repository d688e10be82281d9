"""What a made-up container really did: use by pieces of time, exact in integers, and its counters at any moment."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise


@dataclass(frozen=True)
class Piece:
    """From `start` (ms since the epoch) to the next piece: milli-cores, bytes held, bytes received per ms."""

    start: int
    mcores: int
    held: int
    rate: int


@dataclass(frozen=True)
class Instance:
    """One container instance, from `start` to `end` (None: runs on). Its counters begin at 0."""

    number: int
    start: int
    end: int | None
    pieces: Sequence[Piece]
    _edges: list[int] = field(init=False, repr=False)
    _sums: dict[str, list[int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        edges = [piece.start for piece in self.pieces]
        lengths = [later - earlier for earlier, later in pairwise(edges)]
        object.__setattr__(self, "_edges", edges)
        object.__setattr__(self, "_sums", {name: self._summed(name, lengths) for name in ("mcores", "held", "rate")})

    def _summed(self, name: str, lengths: Sequence[int]) -> list[int]:
        amounts = (getattr(piece, name) * ms for piece, ms in zip(self.pieces, lengths, strict=False))
        return [0, *accumulate(amounts)]

    def is_running(self, moment: int) -> bool:
        return self.start <= moment and (self.end is None or moment < self.end)

    def held(self, moment: int) -> int:
        """Bytes of memory."""
        return self._piece(moment).held

    def total(self, name: str, moment: int) -> int:
        """Since the start, to the moment or the end: µcore·s (`mcores`), byte·ms (`held`), bytes (`rate`)."""
        moment = moment if self.end is None else min(moment, self.end)
        if moment <= self.start:
            return 0
        position = bisect_right(self._edges, moment) - 1
        piece = self.pieces[position]
        return self._sums[name][position] + int(getattr(piece, name)) * (moment - piece.start)

    def _piece(self, moment: int) -> Piece:
        return self.pieces[max(0, bisect_right(self._edges, moment) - 1)]


@dataclass(frozen=True)
class Pod:
    """A guest pod of one container; limits in milli-cores and bytes."""

    uid: str
    mcores: int
    memory: int
    instances: Sequence[Instance]

    @property
    def start(self) -> int:
        return self.instances[0].start

    @property
    def end(self) -> int | None:
        return self.instances[-1].end

    def truth(self, name: str, since: int, until: int) -> int:
        """What was used between two moments: µcore·s (`mcores`), byte·ms (`held`), bytes (`rate`)."""
        return sum(one.total(name, until) - one.total(name, since) for one in self.instances)
