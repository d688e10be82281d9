"""What a home earned, and what a namespace owes: the same lines from both sides, summed over a stretch of time.

A claim belongs to the day and month in which its window begins (UTC). Claims that count are posted ones; a reversed one
and its reversal cancel out. What a claim pays, holds back and gives as a fee is shared out among its consumers, and
among their lines, in proportion to what they are charged, by floors of running sums: the shares add up to the claim's
own figures, exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

from homefed.api.claim_document import ClaimHeader, Line
from homefed.api.errors import Incident
from homefed.core.windows import Window, seconds, text

State = Literal["posted", "pending", "void", "reversed", "unreceipted"]
"""What has become of a claim by now; unreceipted: the ledger has not answered yet."""
COUNTED: Final = ("posted", "reversed")
WAITING: Final = ("pending", "unreceipted")
POTS: Final = ("paid", "held", "fee")
BASIS_SECONDS: Final = 7 * 86_400
"""An estimate goes on from what so long a time brought, at most."""


@dataclass(frozen=True)
class Posting:
    """One claim. `lines` is None where they may not be read, or are deleted; a consumer's are its own only."""

    header: ClaimHeader
    state: State
    lines: tuple[Line, ...] | None = None

    @property
    def sign(self) -> int:
        """A reversal takes away what the claim that it reverses gave."""
        return -1 if self.header.reverses else 1

    @property
    def window(self) -> Window:
        return Window(seconds(self.header.window_start), seconds(self.header.window_end))


@dataclass
class Sums:
    """µcredit. charged = paid + held + fee + dust, always; `released` comes on top, from what was held before."""

    charged: int = 0
    paid: int = 0
    held: int = 0
    fee: int = 0
    dust: int = 0
    released: int = 0
    claims: int = 0

    @property
    def earned(self) -> int:
        """Paid now, or held back to be paid later."""
        return self.paid + self.held

    def add(self, posting: Posting) -> None:
        for name in ("charged", "paid", "held", "fee", "dust", "released"):
            setattr(self, name, getattr(self, name) + posting.sign * int(getattr(posting.header, name)))
        self.claims += 1

    def dump(self) -> dict[str, int]:
        return {f"{name}Micro": value for name, value in vars(self).items() if name != "claims"} | {
            "earnedMicro": self.earned,
            "claims": self.claims,
        }


class Delivered(NamedTuple):
    """What a row of a table is about; empty members: summed over."""

    resource: str = ""
    basis: str = ""
    unit: str = ""
    consumer: str = ""
    home: str = ""


@dataclass
class Row:
    """`units` of one resource and basis, what they were charged, and where the charge went; µcredit."""

    units: int = 0
    charged: int = 0
    paid: int = 0
    held: int = 0
    fee: int = 0

    @property
    def dust(self) -> int:
        """What rounding left: the sum of all rows is the claims' own."""
        return self.charged - self.paid - self.held - self.fee

    def dump(self) -> dict[str, int]:
        shares = {f"{name}Micro": getattr(self, name) for name in ("charged", "paid", "held", "fee", "dust")}
        return {"units": self.units, "earnedMicro": self.paid + self.held, **shares}


@dataclass(frozen=True)
class Period:
    """[since, until) in seconds."""

    since: int
    until: int

    def holds(self, posting: Posting) -> bool:
        return self.since <= posting.window.start < self.until


def day(now: int) -> Period:
    """The day of `now`, UTC."""
    return Period(now - now % 86_400, now - now % 86_400 + 86_400)


def month(now: int) -> Period:
    """The month of `now`, UTC."""
    first = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (first + timedelta(days=31)).replace(day=1)
    return Period(int(first.timestamp()), int(following.timestamp()))


def total(postings: Iterable[Posting], period: Period, states: Sequence[str] = COUNTED) -> Sums:
    found = Sums()
    for posting in postings:
        if posting.state in states and period.holds(posting):
            found.add(posting)
    return found


def apportion(amount: int, weights: Sequence[int]) -> list[int]:
    """Shares of `amount` in proportion to `weights` that add up to it: differences of floors of running sums."""
    whole = sum(weights)
    if whole == 0:
        return [0] * len(weights)
    shares, before, running = [], 0, 0
    for weight in weights:
        running += weight
        upto = amount * running // whole
        shares.append(upto - before)
        before = upto
    return shares


def by_consumer(postings: Iterable[Posting], period: Period) -> dict[Delivered, Row]:
    """From the headers alone."""
    found: dict[Delivered, Row] = {}
    for posting in _counted(postings, period):
        for account, row in _shares(posting).items():
            _add(found, Delivered(consumer=account), row, posting.sign)
    return found


def by_line(postings: Iterable[Posting], period: Period) -> dict[Delivered, Row]:
    """By resource, basis, consumer and home, where the lines are there. Errors: Incident where lines are not the
    header's."""
    found: dict[Delivered, Row] = {}
    for posting in _counted(postings, period):
        for key, row in _lines(posting):
            _add(found, key, row, posting.sign)
    return found


def summed(rows: dict[Delivered, Row], *members: str) -> dict[Delivered, Row]:
    """The same, summed over all members of the key but these."""
    found: dict[Delivered, Row] = {}
    for key, row in rows.items():
        short = Delivered(**{name: getattr(key, name) for name in members})
        _add(found, short, row, 1)
    return found


def share_of(posting: Posting, account: str) -> Row:
    """What one consumer was charged by this claim, and where that went."""
    return _shares(posting).get(account, Row())


def _counted(postings: Iterable[Posting], period: Period) -> Iterator[Posting]:
    return (one for one in postings if one.state in COUNTED and period.holds(one))


def _shares(posting: Posting) -> dict[str, Row]:
    header = posting.header
    weights = [int(one.charged) for one in header.consumers]
    pots = {name: apportion(int(getattr(header, name)), weights) for name in POTS}
    return {
        one.account: Row(charged=weights[n], **{name: pots[name][n] for name in POTS})
        for n, one in enumerate(header.consumers)
    }


def _lines(posting: Posting) -> Iterator[tuple[Delivered, Row]]:
    """Each consumer's share, shared out among its lines. Lines come from the claim that a reversal takes back, too."""
    home = posting.header.account
    if posting.lines is None:
        return
    for account, share in _shares(posting).items():
        own = [line for line in posting.lines if line.consumer == account]
        if not own:
            continue
        weights = [int(line.amount) for line in own]
        if sum(weights) != share.charged:
            raise Incident(
                f"claim {posting.header.id}: the lines of {account} come to {sum(weights)} µcredit, its header says"
                f" {share.charged}",
                reason="LinesDiffer",
            )
        pots = {name: apportion(getattr(share, name), weights) for name in POTS}
        for n, line in enumerate(own):
            row = Row(int(line.accepted), weights[n], **{name: pots[name][n] for name in POTS})
            yield Delivered(line.resource, line.basis, line.unit, account, home), row


def _add(rows: dict[Delivered, Row], key: Delivered, row: Row, sign: int) -> None:
    whole = rows.setdefault(key, Row())
    for name, value in vars(row).items():
        setattr(whole, name, getattr(whole, name) + sign * value)


def with_reversed_lines(postings: Sequence[Posting]) -> list[Posting]:
    """Reversals have no lines of their own: they take back those of the claim that they name."""
    lines = {one.header.id: one.lines for one in postings}
    return [
        Posting(one.header, one.state, lines.get(one.header.reverses)) if one.header.reverses else one
        for one in postings
    ]


@dataclass(frozen=True)
class Estimate:
    """Of a whole month. `micro` is None where nothing says how it will go on."""

    micro: int | None
    so_far: int
    per_hour: int = 0
    assumptions: tuple[str, ...] = ()


def estimate(postings: Sequence[Posting], now: int) -> Estimate:
    """What the month of `now` will have earned (paid and held), if it goes on as before; it says what that means."""
    whole = month(now)
    known = [one for one in postings if one.state in (*COUNTED, *WAITING)]
    so_far = total(known, whole, (*COUNTED, *WAITING)).earned
    recent = [one for one in known if one.window.start >= now - BASIS_SECONDS]
    if not recent:
        return Estimate(None, so_far, assumptions=("no claim of the last seven days says how it will go on",))
    begun, settled = min(one.window.start for one in recent), max(one.window.end for one in recent)
    earned = sum(one.sign * (int(one.header.paid) + int(one.header.held)) for one in recent)
    length = max(settled - begun, 1)
    left = max(0, whole.until - max(settled, whole.since))
    return Estimate(
        so_far + earned * left // length,
        so_far,
        earned * 3600 // length,
        tuple(_assumptions(recent, begun, settled, left)),
    )


def _assumptions(recent: Sequence[Posting], begun: int, settled: int, left: int) -> Iterator[str]:
    newest = max(recent, key=lambda one: one.window.end)
    yield (
        f"the {left / 3600:.1f} h from {text(settled)} to the end of the month (UTC) bring as much per hour as the"
        f" {(settled - begun) / 3600:.1f} h from {text(begun)} on, idle hours included"
    )
    yield "the same guests, machines and owner's prices"
    if len({one.header.rate_card_digest for one in recent if one.header.pool == newest.header.pool}) > 1:
        yield "the newest rate card changed in that time, and part of the basis is at the one before"
    else:
        yield f"the rate card stays ({newest.header.rate_card_digest[:12]}…), and the fee"
    waiting = sum(one.state in WAITING for one in recent)
    if waiting:
        yield f"{waiting} claims that are pending or without receipt are posted as they are"
    held, due = int(newest.header.held), int(newest.header.paid) + int(newest.header.held)
    if held:
        yield f"what is held back ({held * 100 // due} % of the newest claim) counts as earned; it is paid out later"


@dataclass(frozen=True)
class Net:
    """µcredit."""

    cost: int
    earned: int
    estimated_cost: int | None = None
    estimated: int | None = None
    assumptions: tuple[str, ...] = field(default=())

    def dump(self) -> dict[str, Any]:
        return {
            "costMicro": self.cost,
            "netMicro": self.earned - self.cost,
            "estimatedCostMicro": self.estimated_cost,
            "estimatedNetMicro": None
            if self.estimated is None or self.estimated_cost is None
            else self.estimated - self.estimated_cost,
            "assumptions": [*self.assumptions],
        }


def net(milli_kwh: int, tariff_micro: int, found: Estimate, now: int) -> Net:
    """`milli_kwh`: thousandths of a kWh used in the month of `now` so far; `tariff_micro`: µcredit for one kWh."""
    cost = milli_kwh * tariff_micro // 1000
    whole = month(now)
    gone = max(now - whole.since, 1)
    later = cost * (whole.until - whole.since) // gone
    said = (
        f"{milli_kwh / 1000:g} kWh are what this month has taken so far; the rest of it takes as much per hour",
        f"a kWh costs {tariff_micro / 1_000_000:g} credits",
    )
    return Net(cost, found.so_far, later, found.micro, said)
