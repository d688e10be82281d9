"""The lines behind the claims, for an auditor who may read them: digests, rate × accepted, readings that join up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from homefed.api.canonical import parse as parse_json
from homefed.api.claim_document import MAX_PART, ClaimHeader, Line, LinesPart
from homefed.api.errors import Invalid
from homefed.api.meta import parse
from homefed.api.rate_card import RateCard
from homefed.core.audit_prices import PriceAudit
from homefed.core.ledger_checks import check_parts
from homefed.core.ledger_reading import read_part
from homefed.core.replay import Findings


class Position(NamedTuple):
    """Where the metering of one pod, resource and basis stands, cumulative units since the pod's start."""

    accepted: int
    close: int


Meter = tuple[str, str, str]
"""Guest pod, resource, basis."""


class LinesAudit:
    """Feed it the claims in the order of the log. Memory: what every guest pod takes."""

    def __init__(self, findings: Findings, cards: Iterable[RateCard] = ()) -> None:
        """`cards`: those that rates and factors are compared with."""
        self.findings = findings
        self.lines = 0
        self.prices = PriceAudit(findings, cards)
        self._positions: dict[tuple[str, str], dict[Meter, Position]] = {}
        """Per chain (pool, account)."""
        self._complete = True
        self._forgotten: set[tuple[str, str]] = set()
        """Chains of which lines are missing: what is seen first of a meter is taken as it is."""

    def forget(self, pool: str, account: str) -> None:
        """Lines of the chain are deleted, or do not count any more: readings need not join up across this place."""
        self._positions.pop((pool, account), None)
        self._forgotten.add((pool, account))

    def forget_all(self) -> None:
        self._positions.clear()
        self._complete = False

    def claim(self, leaf: int, header: ClaimHeader, parts: Sequence[bytes]) -> None:
        """`parts` are all of the header's, in order."""
        try:
            summaries = {number: read_part(body, header.id, number) for number, body in enumerate(parts, 1)}
            check_parts(header, summaries)
            lines = [line for body in parts for line in read_lines(body)]
        except Invalid as error:
            self.findings.add(error.reason, error.message, leaf, header.id)
            return
        self.prices.claim(leaf, header, lines)
        for line in lines:
            self._line(leaf, header, line)

    def _line(self, leaf: int, header: ClaimHeader, line: Line) -> None:
        self.lines += 1
        chain, meter = (header.pool, header.account), (line.guest_pod, line.resource, line.basis)
        positions = self._positions.setdefault(chain, {})
        before = positions.get(meter)
        if before is None:
            known = self._complete and chain not in self._forgotten
            before = Position(0, 0) if known else _as_it_is(line)
        where = f"{line.guest_pod} {line.resource} {line.basis}"
        if int(line.accepted_before) != before.accepted:
            message = f"{where}: acceptedBefore {line.accepted_before}, but earlier claims accepted {before.accepted}"
            self.findings.add("AcceptedTwice", message, leaf, header.id)
        close = before.close
        if line.reading is not None:
            if int(line.reading.open) != close:
                message = f"{where}: the reading opens at {line.reading.open}, the one before closed at {close}"
                self.findings.add("ReadingGap", message, leaf, header.id)
            if int(line.reading.close) < int(line.reading.open):
                message = f"{where}: the reading falls from {line.reading.open} to {line.reading.close}"
                self.findings.add("ReadingFalls", message, leaf, header.id)
            close = int(line.reading.close)
        positions[meter] = Position(int(line.accepted_before) + int(line.accepted), close)


def _as_it_is(line: Line) -> Position:
    return Position(int(line.accepted_before), int(line.reading.open) if line.reading is not None else 0)


def read_lines(body: bytes) -> list[Line]:
    """The lines of a part that `read_part` has accepted."""
    return parse(LinesPart, parse_json(body, limit=MAX_PART), where="lines").lines
