"""A contributor's pay-stub as CSV: per claim the window, what was delivered at which rate, and where the money went.

What a spreadsheet would take for a formula is disarmed: resources are named by pods, and so by strangers.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from homefed.api.claim_document import ClaimHeader, Line
from homefed.api.rate_card import STANDARD
from homefed.core.times import from_rfc3339

MONEY: Final = ("charged", "fee", "held", "released", "paid", "dust")
COLUMNS: Final = (
    *("record", "windowStart", "windowEnd", "pool", "claim", "leaf", "state"),
    *("resource", "basis", "unit", "accepted", "rateMicroCredits", "ratePer"),
    *("class", "pricePpm", "factorPpm", "amountMicroCredits"),
    *(f"{name}MicroCredits" for name in MONEY),
)
HEAD: Final = 7
DELIVERED: Final = len(COLUMNS) - HEAD - len(MONEY)
"""Columns that say which claim it is, and what was delivered at which rate; the rest is money."""
LINE_END: Final = "\r\n"
"""Also decides which characters are quoted inside of a cell."""
COUNTED: Final = frozenset({"posted", "reversed", "reversal"})
"""States whose money is in the totals: a reversed claim stays, and its reversal takes it away again."""

_NUMBER: Final = re.compile(r"-?[0-9]+")
_FORMULA: Final = ("=", "+", "-", "@")


@dataclass(frozen=True)
class StubClaim:
    """One claim of the contributor. `lines` is None where they may not be read, or are deleted."""

    leaf: int
    header: ClaimHeader
    state: str
    """posted, pending, void, reversed or reversal: what has become of it by now."""
    lines: Sequence[Line] | None = None

    @property
    def sign(self) -> int:
        return -1 if self.state == "reversal" else 1


class _Rated(NamedTuple):
    resource: str
    basis: str
    unit: str
    micro_credits: int
    per: str
    machine_class: str
    price_ppm: int
    factor_ppm: int


def within(header: ClaimHeader, since: str, until: str) -> bool:
    """Whether the window lies in the period (RFC 3339 times or empty for no bound)."""
    starts, ends = from_rfc3339(header.window_start), from_rfc3339(header.window_end)
    return (not since or starts >= from_rfc3339(since)) and (not until or ends <= from_rfc3339(until))


def pay_stub(claims: Iterable[StubClaim]) -> Iterator[str]:
    """CSV (RFC 4180), row by row with its line end: `line` rows of a claim, its `claim` row, at the end one `total`."""
    yield _row(COLUMNS)
    totals: Counter[str] = Counter()
    for claim in claims:
        yield from (_row(row) for row in (_lines(claim) if claim.lines is not None else _usage(claim)))
        money = {name: claim.sign * int(getattr(claim.header, name)) for name in MONEY}
        yield _row((*_head("claim", claim), *[""] * DELIVERED, *(money[name] for name in MONEY)))
        if claim.state in COUNTED:
            totals.update(money)
    yield _row(("total", *[""] * (HEAD - 1 + DELIVERED), *(totals[name] for name in MONEY)))


def _head(record: str, claim: StubClaim) -> tuple[str | int, ...]:
    header = claim.header
    return (record, header.window_start, header.window_end, header.pool, header.id, claim.leaf, claim.state)


def _lines(claim: StubClaim) -> Iterator[tuple[str | int, ...]]:
    """One row per resource, basis, rate and factors: whose pods they were is not the contributor's to know."""
    accepted: Counter[_Rated] = Counter()
    amounts: Counter[_Rated] = Counter()
    for line in claim.lines or ():
        rate = line.rate
        priced = (rate.micro_credits, rate.per, rate.machine_class or STANDARD, rate.price, line.factor)
        key = _Rated(line.resource, line.basis, line.unit, *priced)
        accepted[key] += int(line.accepted)
        amounts[key] += int(line.amount)
    for rated in sorted(accepted):
        delivered = (*rated[:3], accepted[rated], *rated[3:], amounts[rated])
        yield (*_head("line", claim), *delivered, *[""] * len(MONEY))


def _usage(claim: StubClaim) -> Iterator[tuple[str | int, ...]]:
    """Without the lines: what the public header says was delivered, per basis and unit."""
    sums: Counter[tuple[str, str]] = Counter()
    for charge in claim.header.consumers:
        for total in charge.usage:
            sums[total.basis, total.unit] += claim.sign * int(total.amount)
    for (basis, unit), amount in sorted(sums.items()):
        yield (*_head("usage", claim), "", basis, unit, amount, *[""] * (DELIVERED - 4), *[""] * len(MONEY))


def _row(cells: Iterable[str | int]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator=LINE_END).writerow([_cell(cell) for cell in cells])
    return text.getvalue()


def _cell(value: str | int) -> str:
    text = str(value)
    return "'" + text if text.lstrip().startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
