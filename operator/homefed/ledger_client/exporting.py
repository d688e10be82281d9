"""Exports of a ledger's log: what is written has been verified leaf by leaf before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from homefed.api.errors import NotFound
from homefed.core.accounting import Booking, Writer
from homefed.core.audit_leaf import ClaimFacts, LeafFacts
from homefed.core.audit_lines import read_lines
from homefed.core.ledger_checks import check_parts
from homefed.core.ledger_reading import read_part, stored_header
from homefed.core.pay_stub import StubClaim, pay_stub, within
from homefed.core.replay import Movement, Replay
from homefed.ledger_client.auditing import Auditor, Ledger, Scope
from homefed.ledger_client.replaying import Progress

AT_ONCE: Final = 8
Write = Callable[[str], object]


async def export_books(ledger: Ledger, scope: Scope, writer: Writer, write: Write, progress: Progress) -> Replay:
    """All transactions in the writer's format. What was written counts only when this returns. Errors: Refused."""

    def book(_: LeafFacts, movement: Movement | None) -> None:
        if movement is not None and movement.moves:
            _write(write, writer.booking(_booking(movement)))

    _write(write, writer.begin(f"HomeFed ledger of {scope.rules.federation}"))
    replay = await Auditor(ledger, scope, progress, book).read()
    _write(write, writer.end())
    return replay


async def export_pay_stub(
    ledger: Ledger, scope: Scope, account: str, since: str, until: str, write: Write, progress: Progress
) -> Replay:
    """The claims of one contributor whose windows lie in the period; with lines where `scope.lines` says so."""
    claims: list[StubClaim] = []

    def collect(leaf: LeafFacts, _: Movement | None) -> None:
        if isinstance(leaf.body, ClaimFacts) and leaf.body.account == account:
            claims.append(StubClaim(leaf.leaf_index, stored_header(leaf.leaf), ""))

    keeping = replace(scope, rules=scope.rules._replace(keep_leaves=True))
    replay = await Auditor(ledger, keeping, progress, collect).read()
    wanted = [one for one in claims if within(one.header, since, until)]
    for row in pay_stub([await _complete(ledger, scope, replay, one) for one in wanted]):
        write(row)
    return replay


async def _complete(ledger: Ledger, scope: Scope, replay: Replay, claim: StubClaim) -> StubClaim:
    """With its state by now, and its lines. Errors: Invalid where they are not those of the header."""
    stated = replace(claim, state=replay.state_of(claim.leaf))
    if not scope.lines or not claim.header.parts:
        return stated
    gate = asyncio.Semaphore(AT_ONCE)

    async def part(number: int) -> bytes:
        async with gate:
            return await ledger.part(claim.header.id, number)

    try:
        parts = await asyncio.gather(*(part(number) for number in range(1, len(claim.header.parts) + 1)))
    except NotFound:
        return stated
    check_parts(
        claim.header, {number: read_part(body, claim.header.id, number) for number, body in enumerate(parts, 1)}
    )
    return replace(stated, lines=[line for body in parts for line in read_lines(body)])


def _booking(movement: Movement) -> Booking:
    facts = movement.facts
    return Booking(
        leaf=movement.leaf,
        claim=movement.claim,
        pool=facts.pool,
        window_start=facts.window_start,
        window_end=facts.window_end,
        state=movement.state,
        entries=movement.moves,
    )


def _write(write: Write, lines: Iterable[str]) -> None:
    for line in lines:
        write(line + "\n")
