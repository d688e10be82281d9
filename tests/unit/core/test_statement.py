"""Statements in the owner's words, and whether the whole adds up."""

from __future__ import annotations

from typing import Any

import pytest

from homefed.core.ledger import Sums
from homefed.core.statement import conserved, figures

SUMS = Sums(charged=1000, paid=700, held=200, released=50, fee=90, dust=10)
BALANCES = {
    "ucredit": {"consumer": -1000, "contributor": 750, "held": 150, "fee": 90, "dust": 10},
    "ucredit.pending": {"consumer": -30, "contributor": 30},
    "used:ucore.s": {"consumer": -5, "contributor": 5},
}


def test_a_contributors_statement_says_what_it_has_to_get() -> None:
    own = {"ucredit": 750, "ucredit.pending": 30, "used:ucore.s": 5, "reserved:byte": 7}
    found = figures("contributor:example/oak", own, 150, SUMS)
    assert (found.balance, found.due, found.pending) == (750, 750, 30)
    assert (found.charged, found.paid, found.held, found.released, found.dust) == (1000, 700, 150, 50, 10)
    assert list(found.usage.items()) == [("reserved:byte", 7), ("used:ucore.s", 5)]


def test_a_consumers_statement_says_what_it_owes_and_used() -> None:
    found = figures("consumer:example/ns", {"ucredit": -9, "ucredit.pending": -4, "used:ucore.s": -5}, 0, Sums())
    assert (found.balance, found.due, found.charged, found.pending) == (-9, 9, 9, 4)
    assert (found.paid, found.held, found.released, found.dust, found.usage) == (0, 0, 0, 0, {"used:ucore.s": 5})


@pytest.mark.parametrize("account", ["fee:example/evening", "dust:example/evening", "held:example/oak"])
def test_nothing_is_due_to_accounts_that_nobody_draws_on(account: str) -> None:
    found = figures(account, {"ucredit": 9}, 0, Sums())
    assert (found.balance, found.due, found.charged, found.usage) == (9, 0, 0, {})


def test_an_account_that_nothing_ever_moved_has_nothing() -> None:
    found = figures("consumer:example/ns", {}, 0, Sums())
    assert (found.balance, found.due, found.pending, found.usage) == (0, 0, 0, {})


def test_the_whole_is_conserved_whether_zeroes_are_named_or_left_out() -> None:
    assert conserved(BALANCES, SUMS)
    assert conserved({}, Sums())
    assert conserved({"ucredit": {"consumer": 0, "fee": 0}}, Sums())


@pytest.mark.parametrize(
    ("unit", "changes"),
    [
        ("ucredit", {"contributor": 751}),
        ("ucredit", {"contributor": 751, "consumer": -1001}),
        ("ucredit", {"held": 200, "contributor": 700}),
        ("ucredit", {"fee": 91, "dust": 9}),
        ("ucredit", {"issuance": 1, "dust": 9}),
        ("ucredit.pending", {"contributor": 31}),
        ("used:ucore.s", {"contributor": 4}),
    ],
)
def test_money_or_usage_that_came_from_nowhere_shows(unit: str, changes: dict[str, Any]) -> None:
    assert not conserved(BALANCES | {unit: BALANCES[unit] | changes}, SUMS)
