"""Signed claims for the measurements, and what they come to in rows and bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from homefed.ledger.reading import Document, Part, Sent
from testbed.claims import Chain, SignedClaim

HOMES = 50
CONSUMERS = 400


@dataclass
class Claims:
    """An endless stream, the same for the same seed: HOMES chains in turn, two consumers each, one part, a fee."""

    seed: int = 1
    _random: random.Random = field(init=False)
    _chains: list[Chain] = field(init=False)
    _next: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._chains = [Chain(home=f"home-{number}") for number in range(HOMES)]

    def take(self, count: int) -> list[SignedClaim]:
        return [self._one() for _ in range(count)]

    def _one(self) -> SignedClaim:
        chain = self._chains[self._next % HOMES]
        self._next += 1
        first, second = self._random.sample(range(CONSUMERS), 2)
        costs = {f"ns-{first}": self._random.randrange(100, 2000), f"ns-{second}": 500}
        return chain.next(costs, fee=7)  # small: the usage of a million claims stays below 2^62


def parts(claims: Sequence[SignedClaim]) -> list[Sent]:
    return [Part(claim.id, number, body) for claim in claims for number, body in enumerate(claim.parts, 1)]


def headers(claims: Sequence[SignedClaim]) -> list[Sent]:
    return [Document("claim", claim.id, claim.body) for claim in claims]


def slices(claims: Sequence[SignedClaim], size: int) -> Iterator[Sequence[SignedClaim]]:
    return (claims[start : start + size] for start in range(0, len(claims), size))
