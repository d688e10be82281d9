"""What a claim means in money and usage: transfers between accounts that sum to zero in every unit.

Each unit is a commodity of its own: µcredit, µcredit that is only reserved (a pending claim), and usage per basis and
unit. The rules that a claim must pass are in `ledger_checks`, the untrusted bytes in `ledger_reading`, and what a batch
of submissions does to the ledger in `ledger_batch`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from homefed.api.claim_document import ClaimHeader, Unit
from homefed.api.ledger_documents import Outcome
from homefed.api.names import dust_account, fee_account, held_account
from homefed.api.rate_card import PPM, Per
from homefed.core.rounding import money

MICRO_CREDIT: Final = "ucredit"
PENDING: Final = "ucredit.pending"
MAX_AMOUNT: Final = 2**60
"""Of every unit: the most that one transfer can move. Balances stay within ±2^62, so that 64-bit stores cannot
overflow."""
MAX_BALANCE: Final = 2**62

UNITS_OF: Final[Mapping[Per, tuple[Unit, int]]] = {
    "core-hour": ("ucore.s", 3600 * 10**6),
    "GiB-hour": ("KiB.s", 3600 * 2**20),
    "GiB": ("byte", 2**30),
    "gpu-hour": ("ugpu.s", 3600 * 10**6),
}
"""What a price is per → the unit of the line, and how many of it make one."""


class Transfer(NamedTuple):
    """One entry of a transaction: `amount` of `unit` are added to `account` (negative: taken). Never 0."""

    account: str
    unit: str
    amount: int


@dataclass(frozen=True, slots=True)
class Sums:
    """µcredit over some claims, posted and not reversed. charged = paid + held + fee + dust."""

    charged: int = 0
    paid: int = 0
    held: int = 0
    """Held back, before anything of it was released."""
    released: int = 0
    fee: int = 0
    dust: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.charged + other.charged,
            self.paid + other.paid,
            self.held + other.held,
            self.released + other.released,
            self.fee + other.fee,
            self.dust + other.dust,
        )

    def __neg__(self) -> Sums:
        return Sums(-self.charged, -self.paid, -self.held, -self.released, -self.fee, -self.dust)


@dataclass(frozen=True, slots=True)
class PartSummary:
    """What acceptance needs to know of one lines part; computed once, when it arrives."""

    digest: str
    size: int
    """Bytes."""
    lines: int
    amounts: Mapping[str, Mapping[str, int]]
    """Consumer account → unit → Σ over its lines: of their amounts in `MICRO_CREDIT`, of what was accepted in the usage
    units. What is 0 is left out."""


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The newest claim of one (pool, contributor account), and what the whole chain comes to."""

    claim_id: str
    sequence: int
    digest: str
    sums: Sums


def usage_unit(basis: str, unit: str) -> str:
    """The commodity in which usage is kept, e.g. `used:ucore.s`."""
    return f"{basis}:{unit}"


def line_amount(accepted: int, micro_credits: int, per: Per, price_ppm: int = PPM, factor_ppm: int = PPM) -> int:
    """⌊accepted × microCredits × factors ÷ units of `per`⌋ in µcredit: the one place where a line is rounded."""
    return money(accepted * price_ppm * factor_ppm, micro_credits, UNITS_OF[per][1] * (PPM * PPM))


def sums_of(header: ClaimHeader) -> Sums:
    """What the claim's own figures say, whatever its phase."""
    amounts = (header.charged, header.paid, header.held, header.released, header.fee, header.dust)
    return Sums(*map(int, amounts))


def transfers(header: ClaimHeader) -> tuple[Transfer, ...]:
    """What the claim itself moves: posted money and usage; pending money; or, of a reversal, the negatives."""
    if header.phase == "pending":
        return _reserved(header)
    moved = _posted(header)
    return negated(moved) if header.reverses else moved


def resolved(header: ClaimHeader, outcome: Outcome) -> tuple[Transfer, ...]:
    """What the resolution of a pending claim moves: the reservation back; and, to post it, what it moves for good."""
    back = negated(_reserved(header))
    return back + _posted(header) if outcome == "post" else back


def negated(moved: Iterable[Transfer]) -> tuple[Transfer, ...]:
    return tuple(Transfer(account, unit, -amount) for account, unit, amount in moved)


def _posted(header: ClaimHeader) -> tuple[Transfer, ...]:
    return (*_money(header, MICRO_CREDIT), *_usage(header))


def _reserved(header: ClaimHeader) -> tuple[Transfer, ...]:
    return _money(header, PENDING)


def _money(header: ClaimHeader, unit: str) -> tuple[Transfer, ...]:
    """Consumers pay what they are charged; contributor, held-back share, fee and dust receive it; what is released
    goes from the held-back share to the contributor."""
    moved = [Transfer(one.account, unit, -int(one.charged)) for one in header.consumers if one.charged != "0"]
    if header.paid != "0":
        moved.append(Transfer(header.account, unit, int(header.paid)))
    if header.held != "0":
        moved.append(Transfer(_held(header), unit, int(header.held)))
    if header.fee != "0":
        moved.append(Transfer(fee_account(header.federation, header.pool), unit, int(header.fee)))
    if header.dust != "0":
        moved.append(Transfer(dust_account(header.federation, header.pool), unit, int(header.dust)))
    if header.released != "0":
        moved.append(Transfer(_held(header), unit, -int(header.released)))
        moved.append(Transfer(header.account, unit, int(header.released)))
    return tuple(moved)


def _held(header: ClaimHeader) -> str:
    return held_account(header.federation, header.account.rpartition("/")[2])


def _usage(header: ClaimHeader) -> list[Transfer]:
    """Consumers give what they used, the contributor receives it: one entry per consumer and unit, one per unit."""
    moved: list[Transfer] = []
    received: dict[str, int] = {}
    for charge in header.consumers:
        for total in charge.usage:
            unit, amount = usage_unit(total.basis, total.unit), int(total.amount)
            moved.append(Transfer(charge.account, unit, -amount))
            received[unit] = received.get(unit, 0) + amount
    return moved + [Transfer(header.account, unit, received[unit]) for unit in sorted(received)]
