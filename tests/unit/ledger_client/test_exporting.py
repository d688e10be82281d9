"""Exports of a ledger that can be forged at will: what is written is what the leaves say, or nothing counts."""

from __future__ import annotations

import csv
import io
import json

import pytest

from homefed.api.canonical import canonical
from homefed.api.errors import Invalid, Refused
from homefed.core.accounting import Hledger
from homefed.ledger_client.exporting import export_books, export_pay_stub
from testbed.claims import Chain, resolution
from testbed.shown_log import ShownLog, scope

OAK = "contributor:example/oak"


def sound() -> ShownLog:
    """Oak: a claim, one posted after a dispute, one voided; elm: one claim."""
    log, oak, elm = ShownLog(), Chain("oak"), Chain("elm")
    disputed = oak.next({"ns-1": 20}, phase="pending")
    log.add(disputed, resolution(disputed.id, "post"), elm.next({"ns-1": 50}))
    oak.cumulative += 20
    voided = oak.make({"ns-1": 7}, phase="pending")
    log.add(oak.advance(voided), resolution(voided.id, "void"), oak.next({"ns-1": 100}))
    return log


async def journal(log: ShownLog) -> list[str]:
    written: list[str] = []
    await export_books(log, scope(), Hledger(), written.append, lambda done, size: None)
    return "".join(written).splitlines()


async def stub(log: ShownLog, *, lines: bool = False) -> list[dict[str, str]]:
    written: list[str] = []
    await export_pay_stub(log, scope(lines=lines), OAK, "", "", written.append, lambda done, size: None)
    return list(csv.DictReader(io.StringIO("".join(written), newline="")))


async def test_each_transaction_is_written_once_in_the_order_of_the_log() -> None:
    headings = [line for line in await journal(sound()) if "claim:" in line]
    assert [line.split("leaf:")[1].split(",")[0] for line in headings] == ["0", "1", "2", "3", "4", "5"]
    assert [line.split()[2] for line in headings] == ["pending", "posted", "posted", "pending", "voided", "posted"]


async def test_the_resolution_names_the_claim_that_it_resolves() -> None:
    log = sound()
    (_, disputed), *_ = log.documents()
    headings = [line for line in await journal(log) if "claim:" in line]
    assert all(f"claim:{disputed['id']}" in line for line in headings[:2])


async def test_closing_balances_are_those_of_the_leaves() -> None:
    lines = await journal(sound())
    assert '    liabilities:contributor:example:oak  0 "ucredit" = -120 "ucredit"' in lines
    assert '    assets:consumer:example:ns-1  0 "ucredit.pending" = 0 "ucredit.pending"' in lines


async def test_a_log_that_does_not_hold_is_refused() -> None:
    log = sound()
    log.leaves[2] = log.leaves[0]
    with pytest.raises(Refused, match="run homefed audit"):
        await journal(log)
    with pytest.raises(Refused, match="run homefed audit"):
        await stub(log)


async def test_a_pay_stub_has_the_contributors_own_claims_with_what_became_of_them() -> None:
    rows = await stub(sound())
    assert [row["state"] for row in rows if row["record"] == "claim"] == ["posted", "void", "posted"]
    assert rows[-1]["paidMicroCredits"] == "120"


async def test_a_claim_whose_lines_are_deleted_shows_its_usage_instead() -> None:
    log = sound()
    (_, disputed), *_ = log.documents()
    del log.parts[disputed["id"], 1]
    records = [row["record"] for row in await stub(log, lines=True)]
    assert records == ["usage", "claim", "line", "claim", "line", "claim", "total"]


async def test_lines_that_are_not_those_of_the_claim_are_not_written() -> None:
    log = sound()
    (_, disputed), *_ = log.documents()
    body = json.loads(log.parts[disputed["id"], 1])
    body["lines"][0] |= {"codes": ["Bounded"]}
    log.parts[disputed["id"], 1] = canonical(body)
    with pytest.raises(Invalid, match="parts"):
        await stub(log, lines=True)
