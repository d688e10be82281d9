"""A consumer's budget: what is spent in which period, what is under way, and when something is worth saying."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from test_claim_building import FEDERATION, HOUR, POOL, guest

from homefed.api.consumer_budget import ConsumerBudgetSpec
from homefed.core import budget, conditions
from homefed.core.budget import Running, Spent
from homefed.core.rewards import Account, Key

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
MARCH = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
SPEC = ConsumerBudgetSpec(limit_micro_credits=1000)
Json = dict[str, Any]


@dataclass(frozen=True)
class Booked:
    transaction: int
    amount: str
    window_end: str
    time: str = ""
    unit: str = "ucredit"


def booked(transaction: int, amount: int, end: str, unit: str = "ucredit") -> Booked:
    return Booked(transaction, str(amount), end, end, unit)


def test_a_month_begins_in_utc_and_a_total_never() -> None:
    local = datetime(2026, 3, 1, 0, 30).replace(tzinfo=UTC).astimezone(tz=None)
    assert budget.period_start("Month", local) == datetime(2026, 3, 1, tzinfo=UTC)
    assert budget.period_start("Total", NOW) is None


def test_what_was_charged_for_windows_of_the_period_counts_and_reversals_give_it_back() -> None:
    entries = [
        booked(5, 40, "2026-03-02T00:00:00Z"),  # a reversal
        booked(4, -70, "2026-03-02T00:00:00Z"),
        booked(3, -9, "2026-03-02T00:00:00Z", "used:ucore.s"),
        booked(2, -500, "2026-03-01T00:00:00Z"),  # the last window of February
        booked(1, -500, "2026-02-01T00:00:00Z"),
    ]
    assert Spent(MARCH).with_(entries) == Spent(MARCH, 30, 5)
    assert Spent(None).with_(entries) == Spent(None, 1030, 5)


def test_an_entry_is_counted_once_however_often_it_is_read() -> None:
    first = [booked(2, -20, "2026-03-02T00:00:00Z"), booked(1, -10, "2026-03-02T00:00:00Z")]
    spent = Spent(MARCH).with_(first)
    assert spent.with_(first) == spent
    assert spent.with_([booked(3, -1, "2026-03-03T00:00:00Z"), *first]).amount == 31


def test_reading_stops_at_what_is_counted_and_at_the_beginning_of_the_period() -> None:
    spent = Spent(MARCH, 30, 7)
    assert spent.is_complete([])
    assert spent.is_complete([booked(9, -1, "2026-03-04T00:00:00Z"), booked(7, -1, "2026-03-03T00:00:00Z")])
    assert not spent.is_complete([booked(9, -1, "2026-03-04T00:00:00Z")])
    assert Spent(MARCH).is_complete([booked(3, -1, "2026-02-27T00:00:00Z")])
    assert not Spent(None).is_complete([booked(3, -1, "2026-02-27T00:00:00Z")])


def status(spent: int, estimated: int = 0, before: Json | None = None, spec: ConsumerBudgetSpec = SPEC) -> Json:
    return budget.status(spec, 1, before or {}, spent, estimated, NOW)


@pytest.mark.parametrize(
    ("spent", "estimated", "low", "exhausted"),
    [(0, 0, False, False), (799, 0, False, False), (700, 100, True, False), (999, 0, True, False),
     (900, 100, True, True), (5000, 0, True, True)],
)  # fmt: skip
def test_spent_and_under_way_together_make_a_budget_low_and_then_exhausted(
    spent: int, estimated: int, low: bool, exhausted: bool
) -> None:
    found = status(spent, estimated)
    assert found["exhausted"] is exhausted
    assert conditions.is_true(found["conditions"], "BudgetLow") is low
    assert conditions.is_true(found["conditions"], "BudgetExhausted") is exhausted
    assert int(found["remaining"]) == 1000 - spent - estimated
    assert found["periodStart"] == "2026-03-01T00:00:00Z"


def test_a_budget_of_nothing_lets_nothing_begin() -> None:
    assert status(0, spec=ConsumerBudgetSpec(limit_micro_credits=0))["exhausted"]


def test_an_estimate_that_grows_a_little_is_no_news_and_what_was_spent_always_is() -> None:
    before = status(100, 10)
    assert status(100, 15, before) == before
    assert status(100, 21, before)["estimated"] == "21"
    assert status(101, 10, before)["spent"] == "101"
    edge = status(795, 4)
    assert conditions.is_true(status(795, 5, edge)["conditions"], "BudgetLow"), "a condition that turns is news"


def test_each_condition_is_told_when_it_becomes_true() -> None:
    low = status(850)
    assert [reason for reason, _ in budget.news({}, low)] == ["BudgetLow"]
    over = status(1000, before=low)
    ((reason, message),) = budget.news(low, over)
    assert reason == "BudgetExhausted"
    assert "what runs goes on" in message
    assert budget.news(over, status(1001, before=over)) == []


def test_running_pods_are_estimated_by_what_they_have_reserved_since_their_last_claim() -> None:
    ran = guest(1)
    assert ran.running is not None
    now = datetime.fromtimestamp(HOUR.end, UTC)
    running_ms = HOUR.end_ms - ran.running
    whole = budget.reserved(FEDERATION, [Running(POOL, [ran], {})], now)
    cpu = 500 * running_ms * 1_000_001 // (3600 * 10**6)
    memory = (2**29 + 1) * running_ms // 1024_000 * 70_001 // (3600 * 2**20)
    account = f"consumer:{FEDERATION}/ns-1"
    assert whole == {account: cpu + memory}
    claimed = {Key(ran.uid, "cpu", "reserved"): Account(500 * running_ms)}
    assert budget.reserved(FEDERATION, [Running(POOL, [ran], claimed)], now) == {account: memory}
    more = budget.reserved(FEDERATION, [Running(POOL, [ran], {})], now + timedelta(hours=1))
    assert more[account] > whole[account]
