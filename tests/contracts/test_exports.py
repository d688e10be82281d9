"""Our exports as accountants' programs read them."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homefed.core.accounting import Beancount, Booking, Hledger, State, currency, hledger_account, written
from testbed import bookkeeping

UNITS = ("ucredit", "ucredit.pending", "used:ucore.s", "reserved:KiB.s")
ACCOUNTS = ("consumer:my.home/a-2D", "consumer:my.home/B", "contributor:my.home/0", "held:my.home/0", "fee:my.home/p")


@st.composite
def books(draw: st.DrawFn) -> list[Booking]:
    found = []
    for leaf in range(draw(st.integers(1, 6))):
        entries: list[tuple[str, str, int]] = []
        for unit in draw(st.sets(st.sampled_from(UNITS), min_size=1)):
            amounts = draw(st.lists(st.integers(-(2**60), 2**60).filter(bool), min_size=1, max_size=3))
            if rest := sum(amounts):
                amounts.append(-rest)
            entries += [(draw(st.sampled_from(ACCOUNTS)), unit, amount) for amount in amounts]
        day = f"2026-{draw(st.integers(1, 12)):02}-{draw(st.integers(1, 28)):02}"
        state: State = draw(st.sampled_from(["posted", "pending", "voided", "reversal"]))
        found.append(
            Booking(leaf, f"{leaf:064x}", "evening", f"{day}T10:00:00Z", f"{day}T11:00:00Z", state, tuple(entries))
        )
    return found


def sums(found: list[Booking]) -> Counter[tuple[str, str]]:
    counted: Counter[tuple[str, str]] = Counter()
    for one in found:
        for account, unit, amount in one.entries:
            counted[account, unit] += amount
    return counted


def saved(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


few = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@few
@given(books())
def test_hledger_accepts_the_journal_and_computes_the_ledgers_balances(tmp_path: Path, found: list[Booking]) -> None:
    journal = saved(tmp_path / "ledger.journal", list(written(Hledger(), "HomeFed ledger", found)))
    checked = bookkeeping.hledger(journal, "check", "--strict")
    assert checked.returncode == 0, checked.stderr
    theirs = {key: amount for key, amount in bookkeeping.hledger_balances(journal).items() if amount}
    assert theirs == {(hledger_account(a), unit): -amount for (a, unit), amount in sums(found).items() if amount}


@few
@given(books())
def test_bean_check_accepts_the_text(tmp_path: Path, found: list[Booking]) -> None:
    checked = bookkeeping.bean_check(
        saved(tmp_path / "ledger.beancount", list(written(Beancount(), "HomeFed ledger", found)))
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("unit", UNITS)
def test_an_amount_that_was_changed_by_hand_is_found_by_both(unit: str, tmp_path: Path) -> None:
    entries = ((ACCOUNTS[0], unit, -1000), (ACCOUNTS[2], unit, 1000))
    found = [Booking(0, "0" * 64, "evening", "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z", "posted", entries)]
    journal = [line.replace(f'  1000 "{unit}"', f'  1001 "{unit}"') for line in written(Hledger(), "t", found)]
    assert journal != list(written(Hledger(), "t", found))
    assert bookkeeping.hledger(saved(tmp_path / "ledger.journal", journal), "check").returncode != 0
    text = [
        line.replace(f"  1000 {currency(unit)}", f"  1001 {currency(unit)}")
        for line in written(Beancount(), "t", found)
    ]
    assert text != list(written(Beancount(), "t", found))
    assert bookkeeping.bean_check(saved(tmp_path / "ledger.beancount", text)).returncode != 0
