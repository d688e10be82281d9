"""One random stream of submissions into both stores: the same leaves, roots, receipts and balances, byte for byte."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from homefed.api.errors import HomefedError, Invalid
from homefed.core.ledger_reading import Submission
from homefed.core.ledger_state import Answer, Item
from homefed.ledger.store import Reader
from testbed.books import Books, PostgresPlace, SqlitePlace, items, opened, submission
from testbed.claims import Chain, SignedClaim, floor, resolution
from testbed.postgres import Postgres

BATCHES = 40
CONSUMERS = "abc"


class Stream:
    """Batches of everything that hubs send, the wrong things too; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.chains = [Chain(home=f"home-{home}", pool=pool) for home in range(3) for pool in ("day", "night")]
        self.sent: list[Item] = []
        self.pending: list[tuple[Chain, SignedClaim]] = []
        self.last: dict[int, SignedClaim] = {}
        self.floors = dict.fromkeys(CONSUMERS, 0)

    def batch(self) -> list[Item]:
        found: list[Item] = []
        for _ in range(self.random.randint(1, 12)):
            makers = [self._claim, self._claim, self._claim, self._pending, self._resolution, self._reversal]
            found += self.random.choice([*makers, self._floor, self._again, self._wrong])()
        self.sent += found
        return found

    def _claim(self, **changes: Any) -> list[Item]:
        number = self.random.randrange(len(self.chains))
        costs = {name: self.random.randrange(10**6) for name in self.random.sample(CONSUMERS, 2)}
        total = sum(costs.values())
        split = {"fee": total // 50, "held": total // 20, "dust": min(1, total - total // 50 - total // 20)}
        claim = self.chains[number].next(costs, lines_per_part=1, **split, **changes)
        self.last[number] = claim
        if changes:
            self.pending.append((self.chains[number], claim))
        return items(claim)

    def _pending(self) -> list[Item]:
        return self._claim(phase="pending")

    def _resolution(self) -> list[Item]:
        if not self.pending:
            return []
        chain, claim = self.pending.pop(self.random.randrange(len(self.pending)))
        outcome = self.random.choice(["post", "void"])
        if outcome == "post":
            chain.posted(claim)
        return [submission(resolution(claim.id, outcome))]  # type: ignore[arg-type]

    def _reversal(self) -> list[Item]:
        number = self.random.choice([*self.last, 0])
        claim = self.last.pop(number, None)
        if claim is None or claim.header["phase"] == "pending" or claim.header["reverses"]:
            return []
        chain = self.chains[number]
        return items(chain.advance(chain.reversal(claim)))

    def _floor(self) -> list[Item]:
        name = self.random.choice(CONSUMERS)
        self.floors[name] += 1
        return [submission(floor(name, self.random.choice([None, -(10**12)]), self.floors[name]))]

    def _again(self) -> list[Item]:
        return [self.random.choice(self.sent)] if self.sent else []

    def _wrong(self) -> list[Item]:
        chain = self.random.choice(self.chains)
        claim = chain.make({"c": self.random.randrange(1, 1000)})
        held = next((item for item in self.sent if isinstance(item, Submission)), None)
        other = Submission(
            "claim", held.id if held else claim.id, b"other", b"o" * 32, "", Invalid("x", reason="Other")
        )
        wrong = [
            items(chain.make({"a": 1}, sequence=chain.sequence + 2)),
            [submission(claim)],
            [submission(claim, keys={})],
            [submission(resolution(claim.id, "void"))],
            [other],
        ]
        return self.random.choice(wrong)


def comparable(answers: Sequence[Answer]) -> list[object]:
    return [(answer.reason, answer.message) if isinstance(answer, HomefedError) else answer for answer in answers]


async def dump(books: Books, reader: Reader) -> dict[str, object]:
    """Everything that readers can see."""
    size = await reader.size()
    accounts = await reader.accounts("", "", 1000)
    chains = [(pool, f"contributor:example/home-{home}") for home in range(3) for pool in ("day", "night")]
    return {
        "leaves": await reader.entries(0, size),
        "hashes": await reader.leaf_hashes(0, size),
        "nodes": await reader.nodes(1, 0, size),
        "checkpoint": await reader.checkpoint(),
        "accounts": accounts,
        "entries": [await reader.account_entries(name, 2**62, 1000) for name, _ in accounts],
        "heads": [await reader.chain_head(*chain) for chain in chains],
        "sums": [await reader.contributor_sums(account) for _, account in chains],
        "totals": await reader.totals(),
        "floors": [await reader.floor(f"consumer:example/{name}") for name in CONSUMERS],
    }


async def test_both_stores_agree_byte_for_byte_on_one_random_stream(postgresql: Postgres, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("sqlite", "postgresql")]
    for folder in folders:
        folder.mkdir()
    places = SqlitePlace(folders[0]), PostgresPlace(folders[1], await postgresql.new_database())
    stream = Stream(seed=5)
    recorded: list[str] = []
    reasons: set[str] = set()
    for part in range(4):  # opened anew in between: nothing depends on what a process remembers
        async with opened(places[0]) as one, opened(places[1]) as other:
            for _ in range(BATCHES // 4):
                batch = stream.batch()
                one.now = other.now = one.now + part * 1000
                answers = await one.commit(batch), await other.commit(batch)
                assert comparable(answers[0]) == comparable(answers[1])
                reasons |= {answer.reason for answer in answers[0] if isinstance(answer, HomefedError)}
                recorded += [answer.id for answer in answers[0] if hasattr(answer, "id") and answer.new]
            assert one.log.published == other.log.published
            async with one.store.reading() as left, other.store.reading() as right:
                assert await dump(one, left) == await dump(other, right)
            for identity in recorded[::7]:
                assert await one.receipt(identity) == await other.receipt(identity)
    assert len(recorded) > 100
    assert {"ChainBroken", "PartMissing", "UnknownKey", "UnknownClaim"} <= reasons
