"""What an account's balances and claims come to, in the words of a statement; and whether the whole ledger adds up.

contributor: balance = due = paid + released, held = Σ held − released
consumer:    balance = −due = −charged
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from homefed.core.ledger import MICRO_CREDIT, PENDING, Sums


@dataclass(frozen=True, slots=True)
class Figures:
    """µcredit, but `usage`. What does not apply to a type of account is 0."""

    balance: int
    due: int
    """Still to be settled outside: to a contributor, or by a consumer."""
    charged: int
    paid: int
    held: int
    """Held back of a contributor now."""
    released: int
    dust: int
    pending: int
    """Reserved by claims that are not resolved, with the owner's sign like `due`."""
    usage: Mapping[str, int]
    """Usage unit → delivered (contributor) or used (consumer)."""


def figures(account: str, balances: Mapping[str, int], held: int, sums: Sums) -> Figures:
    """Of `account`: its balance per unit, the balance of its held-back share, and the sums of its claims that count.

    `held` and `sums` are a contributor's; 0 for all others.
    """
    kind = account.partition(":")[0]
    own, sign = balances.get(MICRO_CREDIT, 0), -1 if kind == "consumer" else 1
    return Figures(
        balance=own,
        due=sign * own if kind in ("contributor", "consumer") else 0,
        charged=-own if kind == "consumer" else sums.charged,
        paid=sums.paid,
        held=held,
        released=sums.released,
        dust=sums.dust,
        pending=sign * balances.get(PENDING, 0),
        usage={unit: sign * amount for unit, amount in sorted(balances.items()) if is_usage(unit)},
    )


def is_usage(unit: str) -> bool:
    return unit not in (MICRO_CREDIT, PENDING)


def conserved(balances: Mapping[str, Mapping[str, int]], sums: Sums) -> bool:
    """`balances`: unit → type of account → Σ. Every unit sums to zero, and each type of account holds what the claims
    that count say (`sums`)."""
    money = {kind: amount for kind, amount in balances.get(MICRO_CREDIT, {}).items() if amount}
    expected = {
        "consumer": -sums.charged,
        "contributor": sums.paid + sums.released,
        "held": sums.held - sums.released,
        "fee": sums.fee,
        "dust": sums.dust,
    }
    balanced = not any(sum(amounts.values()) for amounts in balances.values())
    return balanced and money == {kind: amount for kind, amount in expected.items() if amount}
