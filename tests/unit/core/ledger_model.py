"""What the ledger should hold, as plain bookkeeping that knows nothing of leaves, chains, parts or batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

PER_CREDIT = 3600 * 10**6
"""µcore·s that cost 1 µcredit in the tests' claims."""


class Model:
    def __init__(self) -> None:
        self.money: Counter[tuple[str, str]] = Counter()
        self.state: dict[str, str] = {}
        self.floors: dict[str, int | None] = {}
        self._moves: dict[str, Counter[str]] = {}
        self._used: dict[str, Counter[str]] = {}

    def claim(self, key: str, home: str, costs: Mapping[str, int], cut: Mapping[str, int], *, pending: bool) -> str:
        """`cut`: held, fee, dust and released. The answer: new, or why not."""
        owed = Counter({name: -cost for name, cost in costs.items()})
        paid = sum(costs.values()) - cut["held"] - cut["fee"] - cut["dust"]
        owed.update({home: paid + cut["released"], f"held {home}": cut["held"] - cut["released"]})
        owed.update({"fee": cut["fee"], "dust": cut["dust"]})
        if not pending and self.money[f"held {home}", "posted"] + owed[f"held {home}"] < 0:
            return "NotHeld"
        for name, cost in costs.items():
            floor = self.floors.get(name)
            if cost and floor is not None and self.money[name, "posted"] + self.money[name, "pending"] - cost < floor:
                return "BelowFloor"
        used = Counter({name: -cost * PER_CREDIT for name, cost in costs.items()})
        used.update({home: sum(costs.values()) * PER_CREDIT})
        self._moves[key], self._used[key] = owed, used
        self.state[key] = "pending" if pending else "posted"
        self._apply(key, "pending" if pending else "posted", 1)
        return "new"

    def resolve(self, key: str, outcome: str) -> str:
        if self.state[key] != "pending":
            return "NotPending"
        self._apply(key, "pending", -1)
        self.state[key] = "posted" if outcome == "post" else "void"
        if outcome == "post":
            self._apply(key, "posted", 1)
        return "new"

    def reverse(self, key: str, home: str) -> str:
        if self.state[key] != "posted":
            return "NotReversible"
        if self.money[f"held {home}", "posted"] < self._moves[key][f"held {home}"]:
            return "NotHeld"
        self._apply(key, "posted", -1)
        self.state[key] = "reversed"
        return "new"

    def _apply(self, key: str, unit: str, sign: int) -> None:
        self.money.update({(name, unit): sign * amount for name, amount in self._moves[key].items()})
        if unit == "posted":
            self.money.update({(name, "used"): sign * amount for name, amount in self._used[key].items()})
