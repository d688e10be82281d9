"""A consumer's budget: what has been spent in the period, what is under way, and what follows from both.

Spent is what the ledger has charged, so that it survives everything that the hub forgets. Under way is an estimate: the
claims that have no receipt, and what running guest pods have reserved since their last claim, at the prices of now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from homefed.api.consumer_budget import ConsumerBudgetSpec, Period
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import conditions
from homefed.core.claim_lines import lines_of
from homefed.core.ledger import MICRO_CREDIT
from homefed.core.rewards import Account, Key, Observation
from homefed.core.times import to_rfc3339
from homefed.core.windows import Window, floor, seconds

LOW: Final = "BudgetLow"
EXHAUSTED: Final = "BudgetExhausted"
WITHIN: Final = "WithinBudget"
Json = dict[str, Any]


class Entry(Protocol):
    """One entry of a ledger's statement."""

    @property
    def transaction(self) -> int: ...

    @property
    def unit(self) -> str: ...

    @property
    def amount(self) -> str: ...

    @property
    def window_end(self) -> str: ...

    @property
    def time(self) -> str: ...


@dataclass(frozen=True)
class Spent:
    """µcredit charged to one account in one period, and the newest transaction that is among them."""

    period_start: int | None
    amount: int = 0
    transaction: int = 0

    def with_(self, entries: Iterable[Entry]) -> Spent:
        """With entries that are newer than those counted. Those of earlier windows are of another period."""
        amount, newest = self.amount, self.transaction
        for entry in entries:
            if entry.transaction <= self.transaction:
                continue
            newest = max(newest, entry.transaction)
            if entry.unit == MICRO_CREDIT and self.is_of_period(entry):
                amount -= int(entry.amount)
        return replace(self, amount=amount, transaction=newest)

    def is_of_period(self, entry: Entry) -> bool:
        return self.period_start is None or seconds(entry.window_end) > self.period_start

    def is_complete(self, entries: Sequence[Entry]) -> bool:
        """Whether nothing of the period lies behind the last of these entries, newest first: nothing is booked before
        its window has ended."""
        if not entries:
            return True
        last = entries[-1]
        booked_before = self.period_start is not None and seconds(last.time) <= self.period_start
        return last.transaction <= self.transaction or booked_before


@dataclass(frozen=True)
class Running:
    """Guest pods of consumers in one home and pool, and what claims say of them so far."""

    pool: SchedulingPoolSpec
    guests: Sequence[Observation]
    accounts: Mapping[Key, Account]


def period_start(period: Period, now: datetime) -> datetime | None:
    """Of the period that `now` (aware) lies in; None for one that has no beginning."""
    return now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0) if period == "Month" else None


def reserved(federation: str, running: Iterable[Running], now: datetime) -> dict[str, int]:
    """Consumer account → µcredit that its pods have reserved and no claim has charged, up to `now`."""
    found: dict[str, int] = {}
    until = int(now.timestamp())
    for one in running:
        window = Window(floor(until, one.pool.settlement.window_seconds), until)
        for line in lines_of(federation, one.pool, one.accounts, one.guests, [], window):
            if line.basis == "reserved":
                found[line.consumer] = found.get(line.consumer, 0) + int(line.amount)
    return found


def status(
    spec: ConsumerBudgetSpec, generation: int, before: Mapping[str, Any], spent: int, estimated: int, now: datetime
) -> Json:
    """The budget's status: with `before` where nothing is to be told, so that nothing is written at rest."""
    begin = period_start(spec.period, now)
    remaining = spec.limit_micro_credits - spent - estimated
    exhausted, low = remaining <= 0, (spent + estimated) * 100 >= spec.limit_micro_credits * spec.warn_percent
    after: Json = {
        "observedGeneration": generation,
        "spent": str(spent),
        "estimated": str(estimated),
        "remaining": str(remaining),
        "exhausted": exhausted,
        "conditions": _conditions(spec, generation, before, exhausted=exhausted, low=low, now=now),
    }
    after |= {"periodStart": to_rfc3339(begin)} if begin is not None else {}
    return dict(before) if _is_the_same(before, after, spec.limit_micro_credits) else after


def _conditions(
    spec: ConsumerBudgetSpec, generation: int, before: Mapping[str, Any], *, exhausted: bool, low: bool, now: datetime
) -> list[Json]:
    limit = f"{spec.limit_micro_credits} µcredit ({'a month' if spec.period == 'Month' else 'in total'})"
    found = before.get("conditions")
    for kind, holds, message in (
        (LOW, low, f"{spec.warn_percent} % of {limit} are spent or under way"),
        (EXHAUSTED, exhausted, f"all of {limit} is spent or under way: new pods are refused, what runs goes on"),
    ):
        state = conditions.TRUE if holds else conditions.FALSE
        found = conditions.set_condition(
            found, kind, state, kind if holds else WITHIN, message if holds else "", generation, now
        )
    return found or []


def _is_the_same(before: Mapping[str, Any], after: Json, limit: int) -> bool:
    """The estimate grows with every second: less than 1 % of the limit of it is no news."""
    moving = {"estimated", "remaining"}
    if {k: v for k, v in before.items() if k not in moving} != {k: v for k, v in after.items() if k not in moving}:
        return False
    return abs(int(before.get("estimated", 0)) - int(after["estimated"])) * 100 < max(limit, 1)


def news(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Conditions that have become true: reason and sentence of an event for each."""
    return [
        (condition["reason"], condition["message"])
        for condition in after.get("conditions") or ()
        if condition["status"] == conditions.TRUE
        and not conditions.is_true(before.get("conditions"), condition["type"])
    ]


def sentence(namespace: str, budget: str) -> str:
    """Why a pod of an exhausted namespace is not run."""
    return (
        f"ConsumerBudget {namespace}/{budget} is exhausted: the organiser raises it with"
        f" `homefed budget set {namespace}`, or the next month begins; what runs goes on"
    )
