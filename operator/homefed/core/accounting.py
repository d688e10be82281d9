"""The ledger as plain-text accounting: an hledger journal and beancount text, one transaction per ledger transaction.

Both speak from the federation's side, as its bookkeeper would: what consumers owe is an asset, what homes have coming
(and what is held back of it) a liability, fee and rounding remainders are income. So the sign of every amount is the
opposite of the ledger's, in which a consumer's account falls. Every unit is a commodity. Names are mapped reversibly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final, Literal, Protocol

from homefed.api.errors import Invalid
from homefed.core.times import from_rfc3339

Entry = tuple[str, str, int]
"""Account, unit, and what is added to it, in the ledger's sign."""
State = Literal["posted", "pending", "voided", "reversal"]

BRANCHES: Final[Mapping[str, str]] = {
    "contributor": "Liabilities",
    "held": "Liabilities",
    "consumer": "Assets",
    "fee": "Income",
    "dust": "Income",
}
"""Kind of account → where a bookkeeper looks for it."""

_ACCOUNT: Final = re.compile(r"([a-z]+):([-A-Za-z0-9.]+)/([-A-Za-z0-9.]+)")
_UNIT: Final = re.compile(r"[a-z][A-Za-z0-9.:]{0,22}[A-Za-z0-9]")
_PLAIN: Final = re.compile(r"[-A-Za-z0-9 ._:/+]*")


@dataclass(frozen=True)
class Booking:
    """One transaction of the ledger. Its date is the day on which the claim's window began, in UTC."""

    leaf: int
    claim: str
    pool: str
    window_start: str
    window_end: str
    state: State
    entries: tuple[Entry, ...]

    @property
    def date(self) -> date:
        return from_rfc3339(self.window_start).date()


@dataclass
class Books:
    """What was written so far: balances in the ledger's sign, and the days in between."""

    balances: dict[tuple[str, str], int] = field(default_factory=dict)
    first: date | None = None
    last: date | None = None

    def add(self, booking: Booking) -> None:
        day = booking.date
        self.first = min(self.first or day, day)
        self.last = max(self.last or day, day)
        for account, unit, amount in booking.entries:
            self.balances[account, unit] = self.balances.get((account, unit), 0) + amount

    @property
    def accounts(self) -> list[str]:
        return sorted({account for account, _ in self.balances})

    @property
    def units(self) -> list[str]:
        return sorted({unit for _, unit in self.balances})


class Writer(Protocol):
    """Text of one format, transaction by transaction: `begin`, a `booking` each, `end` with asserted balances."""

    def begin(self, title: str) -> Iterator[str]: ...

    def booking(self, booking: Booking) -> Iterator[str]: ...

    def end(self) -> Iterator[str]: ...


class Hledger:
    """A journal that `hledger check --strict` accepts."""

    def __init__(self) -> None:
        self.books = Books()

    def begin(self, title: str) -> Iterator[str]:
        yield f"; {_plain(title)}"

    def booking(self, booking: Booking) -> Iterator[str]:
        self.books.add(booking)
        mark = "!" if booking.state == "pending" else "*"
        tags = ", ".join(f"{key}:{value}" for key, value in _tags(booking))
        yield ""
        yield f"{booking.date} {mark} {_description(booking)}  ; {tags}"
        for account, unit, amount in booking.entries:
            yield f'    {hledger_account(account)}  {-amount} "{_unit(unit)}"'

    def end(self) -> Iterator[str]:
        if self.books.last is None:
            return
        yield ""
        yield from (f'commodity 1000. "{unit}"' for unit in self.books.units)
        yield from (f"account {hledger_account(account)}" for account in self.books.accounts)
        yield ""
        yield f"{self.books.last + timedelta(days=1)} * closing balances"
        for (account, unit), balance in sorted(self.books.balances.items()):
            yield f'    {hledger_account(account)}  0 "{unit}" = {-balance} "{unit}"'


class Beancount:
    """Text that `bean-check` accepts. The order within it does not matter to beancount: accounts are opened at its end,
    as of the first day."""

    def __init__(self) -> None:
        self.books = Books()

    def begin(self, title: str) -> Iterator[str]:
        yield f'option "title" "{_plain(title)}"'

    def booking(self, booking: Booking) -> Iterator[str]:
        self.books.add(booking)
        flag = "!" if booking.state == "pending" else "*"
        yield ""
        yield f'{booking.date} {flag} "{_description(booking)}" #{booking.state}'
        yield from (f'  {key}: "{value}"' for key, value in _tags(booking))
        for account, unit, amount in booking.entries:
            yield f"  {beancount_account(account)}  {-amount} {currency(unit)}"

    def end(self) -> Iterator[str]:
        first, last = self.books.first, self.books.last
        if first is None or last is None:
            return
        yield ""
        for unit in self.books.units:
            yield f"{first} commodity {currency(unit)}"
            yield f'  unit: "{unit}"'
        yield from (f"{first} open {beancount_account(account)}" for account in self.books.accounts)
        yield ""
        for (account, unit), balance in sorted(self.books.balances.items()):
            yield f"{last + timedelta(days=1)} balance {beancount_account(account)}  {-balance} {currency(unit)}"


def written(writer: Writer, title: str, bookings: Iterable[Booking]) -> Iterator[str]:
    """All of it, line by line."""
    yield from writer.begin(title)
    for booking in bookings:
        yield from writer.booking(booking)
    yield from writer.end()


def hledger_account(account: str) -> str:
    """`contributor:example/home-1` → `liabilities:contributor:example:home-1`."""
    kind, federation, name = _split(account)
    return f"{BRANCHES[kind].lower()}:{kind}:{federation}:{name}"


def account_of_hledger(name: str) -> str:
    """The inverse of `hledger_account`. Invalid for any other name."""
    branch, _, rest = name.partition(":")
    return _join(rest.split(":"), branch.capitalize(), name)


def beancount_account(account: str) -> str:
    """`contributor:example/home-1` → `Liabilities:Contributor:F-example:N-home-1`.

    A part begins with a capital and has letters, digits and dashes: a dot is -2E, a dash before 2D or 2E is -2D.
    """
    kind, federation, name = _split(account)
    return f"{BRANCHES[kind]}:{kind.capitalize()}:F-{_escape(federation)}:N-{_escape(name)}"


def account_of_beancount(name: str) -> str:
    """The inverse of `beancount_account`. Invalid for any other name."""
    branch, *parts = name.split(":")
    if len(parts) != 3 or not parts[1].startswith("F-") or not parts[2].startswith("N-"):
        raise Invalid(f"{name!r} is no account of an export", reason="InvalidAccount")
    return _join([parts[0].lower(), _unescape(parts[1][2:]), _unescape(parts[2][2:])], branch, name)


def currency(unit: str) -> str:
    """`used:KiB.s` → `USED_'KI'B.S`: capitals are marked by an apostrophe, the colon is an underscore."""
    return re.sub(r"[A-Z]", r"'\g<0>", _unit(unit)).replace(":", "_").upper()


def unit_of(name: str) -> str:
    """The inverse of `currency`. Invalid for any other name."""
    unit = re.sub(r"('?)([A-Z])", lambda match: match[2] if match[1] else match[2].lower(), name).replace("_", ":")
    if currency(unit) != name:
        raise Invalid(f"{name!r} is no unit of an export", reason="InvalidUnit")
    return unit


def _split(account: str) -> tuple[str, str, str]:
    match = _ACCOUNT.fullmatch(account)
    if match is None or match[1] not in BRANCHES:
        raise Invalid(f"{account!r} is no account of this ledger", reason="InvalidAccount")
    return match[1], match[2], match[3]


def _join(parts: list[str], branch: str, name: str) -> str:
    account = f"{parts[0]}:{'/'.join(parts[1:])}"
    if _ACCOUNT.fullmatch(account) is None or BRANCHES.get(parts[0]) != branch:
        raise Invalid(f"{name!r} is no account of an export", reason="InvalidAccount")
    return account


def _escape(text: str) -> str:
    return re.sub(r"-(?=2[DE])|\.", lambda match: "-2D" if match[0] == "-" else "-2E", text)


def _unescape(text: str) -> str:
    return re.sub(r"-2([DE])", lambda match: "-" if match[1] == "D" else ".", text)


def _unit(unit: str) -> str:
    if _UNIT.fullmatch(unit) is None:
        raise Invalid(f"{unit!r} is no unit of this ledger", reason="InvalidUnit")
    return unit


def _description(booking: Booking) -> str:
    return f"{booking.state} claim of pool {_plain(booking.pool)}"


def _tags(booking: Booking) -> list[tuple[str, str]]:
    return [
        ("leaf", str(booking.leaf)),
        ("claim", _plain(booking.claim)),
        ("window-start", _plain(booking.window_start)),
        ("window-end", _plain(booking.window_end)),
    ]


def _plain(text: str) -> str:
    """Text that means nothing to either format. Invalid for anything else: it would have to be quoted differently."""
    if _PLAIN.fullmatch(text) is None:
        raise Invalid(f"{text[:80]!r} cannot stand in an export", reason="InvalidText")
    return text
