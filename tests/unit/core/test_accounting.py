"""Exports: names that can be mapped back, text that cannot be broken out of, sums that stay sums."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api.errors import Invalid
from homefed.core import accounting
from homefed.core.accounting import Beancount, Booking, Hledger, written

CLAIM = "ab" * 32
HOME = "contributor:example/home-1"
SHOP = "consumer:example/shop"

words = st.from_regex(r"[-A-Za-z0-9.]{1,40}", fullmatch=True)
accounts = st.builds("{}:{}/{}".format, st.sampled_from(sorted(accounting.BRANCHES)), words, words)
units = st.one_of(
    st.sampled_from(["ucredit", "ucredit.pending"]),
    st.builds(
        "{}:{}".format, st.sampled_from(["used", "reserved"]), st.from_regex(r"[A-Za-z][A-Za-z.]{0,8}s", fullmatch=True)
    ),
)


def booking(**changes: Any) -> Booking:
    facts: dict[str, Any] = {
        "leaf": 7,
        "claim": CLAIM,
        "pool": "evening",
        "window_start": "2026-01-01T23:00:00Z",
        "window_end": "2026-01-02T00:00:00Z",
        "state": "posted",
        "entries": ((SHOP, "ucredit", -1000), (HOME, "ucredit", 1000)),
    }
    return Booking(**(facts | changes))


@given(accounts)
def test_every_account_comes_back_from_its_name_in_either_format(account: str) -> None:
    assert accounting.account_of_hledger(accounting.hledger_account(account)) == account
    assert accounting.account_of_beancount(accounting.beancount_account(account)) == account


@given(units)
def test_every_unit_comes_back_from_its_currency(unit: str) -> None:
    assert accounting.unit_of(accounting.currency(unit)) == unit


@given(st.lists(accounts, min_size=2, max_size=2, unique=True))
def test_two_accounts_never_share_a_name(two: list[str]) -> None:
    assert len({accounting.hledger_account(account) for account in two}) == 2
    assert len({accounting.beancount_account(account) for account in two}) == 2


def test_names_read_as_a_bookkeeper_expects() -> None:
    assert accounting.hledger_account(HOME) == "liabilities:contributor:example:home-1"
    assert accounting.beancount_account("fee:my.home/x-2D") == "Income:Fee:F-my-2Ehome:N-x-2D2D"
    assert accounting.currency("used:KiB.s") == "USED_'KI'B.S"


@pytest.mark.parametrize("name", ["", "Liabilities:Consumer:F-a:N-b", "Assets:Consumer:a:b", "Assets:Consumer:F-a"])
def test_a_name_that_no_export_writes_is_no_account_of_beancounts(name: str) -> None:
    with pytest.raises(Invalid):
        accounting.account_of_beancount(name)


@pytest.mark.parametrize(
    "name", ["", "liabilities:consumer:a:b", "assets:consumer:a", "assets:consumer:a:b:c", "x:y:a:b"]
)
def test_a_name_that_no_export_writes_is_no_account_of_hledgers(name: str) -> None:
    with pytest.raises(Invalid):
        accounting.account_of_hledger(name)


@pytest.mark.parametrize(
    "account", ["", "consumer:a", "consumer:a/b/c", "issuance:a/b", "consumer:a/b\n", "consumer:a b/c"]
)
def test_what_is_no_account_of_the_ledger_is_not_exported(account: str) -> None:
    with pytest.raises(Invalid):
        list(written(Hledger(), "t", [booking(entries=((account, "ucredit", 1),))]))


@pytest.mark.parametrize("unit", ["", "ucredit\n", 'u"x', "u;x", "U", "used ucore"])
def test_what_is_no_unit_of_the_ledger_is_not_exported(unit: str) -> None:
    with pytest.raises(Invalid):
        list(written(Beancount(), "t", [booking(entries=((HOME, unit, 1),))]))


@pytest.mark.parametrize("text", ['a"b', "a\nb", "a;b", "a,b", "#", "é"])
def test_text_that_could_break_out_is_refused(text: str) -> None:
    for format_ in (Hledger, Beancount):
        with pytest.raises(Invalid):
            list(written(format_(), "t", [booking(pool=text)]))
        with pytest.raises(Invalid):
            list(written(format_(), text, []))


def test_a_transaction_carries_its_claim_window_and_leaf() -> None:
    text = "\n".join(written(Hledger(), "t", [booking()]))
    assert f"leaf:7, claim:{CLAIM}, window-start:2026-01-01T23:00:00Z, window-end:2026-01-02T00:00:00Z" in text
    text = "\n".join(written(Beancount(), "t", [booking()]))
    assert f'claim: "{CLAIM}"' in text
    assert 'window-start: "2026-01-01T23:00:00Z"' in text


def test_the_closing_balances_are_of_the_day_after_the_last() -> None:
    later = booking(leaf=8, window_start="2026-03-31T00:00:00Z", window_end="2026-03-31T01:00:00Z")
    assert "2026-04-01 balance Assets:Consumer:F-example:N-shop  2000 UCREDIT" in list(
        written(Beancount(), "t", [later, booking()])
    )
    assert '    assets:consumer:example:shop  0 "ucredit" = 2000 "ucredit"' in list(
        written(Hledger(), "t", [later, booking()])
    )


def test_what_is_pending_is_marked() -> None:
    assert any(line.startswith("2026-01-01 !") for line in written(Hledger(), "t", [booking(state="pending")]))
    assert any(line.startswith("2026-01-01 !") for line in written(Beancount(), "t", [booking(state="pending")]))


def test_an_empty_ledger_is_an_empty_book() -> None:
    assert list(written(Hledger(), "t", [])) == ["; t"]
    assert list(written(Beancount(), "t", [])) == ['option "title" "t"']
