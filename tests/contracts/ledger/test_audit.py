"""`homefed audit` against the running service: clean as it is, and each way of tampering with its database is found."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import json
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import homefed
from homefed.api import dsse
from homefed.api.canonical import canonical
from homefed.api.errors import HomefedError
from homefed.cli.main import cli
from homefed.core import signed_note
from homefed.core.accounting import hledger_account
from homefed.core.audit import Report
from homefed.core.signed_note import VerifierKey
from homefed.ledger_client.auditing import Auditor, Scope
from homefed.ledger_client.log_reader import LogReader
from testbed import bookkeeping, javascript
from testbed.claims import Chain, SignedClaim, floor, hub_key, public, resolution
from testbed.ledger import HUB_TOKEN, OTHER_TOKEN, Ledger, serving
from testbed.shown_log import ledger_key, rules

UNITS = 3600 * 10**6


@dataclass(frozen=True)
class Audited:
    """A running ledger with ten leaves."""

    ledger: Ledger
    directory: Path
    claims: tuple[SignedClaim, ...]

    @property
    def database(self) -> Path:
        return self.directory / "ledger.db"

    async def audit(self, **told: Any) -> Report:
        facts: dict[str, Any] = {"url": self.ledger.url, "key": self.ledger.vkey, "rules": rules(), "jobs": 1} | told
        async with LogReader(self.ledger.url, token=lambda: HUB_TOKEN) as reader:
            return await Auditor(reader, Scope(**facts)).run()

    def tamper(self, *statements: str, **values: Any) -> None:
        """As somebody with the database file can, whatever its triggers say."""
        with closing(sqlite3.connect(self.database, isolation_level=None)) as database:
            database.execute("PRAGMA foreign_keys = OFF")
            for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
                database.execute(f'DROP TRIGGER "{name}"')
            for statement in statements:
                assert database.execute(statement, values).rowcount > 0, statement

    def envelope(self, leaf: int) -> dict[str, Any]:
        with closing(sqlite3.connect(self.database)) as database:
            (stored,) = database.execute("SELECT envelope FROM leaves WHERE leaf_index = ?", (leaf,)).fetchone()
        found: dict[str, Any] = json.loads(stored)
        return found


async def send(ledger: Ledger, *documents: Any) -> None:
    for document in documents:
        if isinstance(document, SignedClaim):
            status, answer = await ledger.submit(document)
        else:
            status, answer = await ledger.put(f"/v1/{document.kind}s/{document.id}", document.body)
        assert status == 201, answer


async def fill(ledger: Ledger) -> tuple[SignedClaim, ...]:
    """Two homes, ten leaves: claims, one posted later, one voided and replaced, one taken back, a floor."""
    oak, elm = Chain("oak"), Chain("elm")
    first, other = oak.next({"ns-1": 100, "ns-2": 7}, fee=3, held=5), elm.next({"ns-1": 50})
    disputed = oak.next({"ns-2": 20}, held=2, phase="pending")
    await send(ledger, first, other, floor("ns-2", -500), disputed, resolution(disputed.id, "post"))
    oak.cumulative += 18
    voided = elm.next({"ns-2": 30}, phase="pending")
    wrong = oak.next({"ns-1": 11}, fee=1)
    back = oak.advance(oak.reversal(wrong))
    await send(ledger, voided, resolution(voided.id, "void"), wrong, back, oak.next({"ns-1": 9}, released="7"))
    return first, other, disputed, voided, wrong, back


@pytest.fixture
async def audited(tmp_path: Path) -> AsyncIterator[Audited]:
    async with serving(tmp_path) as ledger:
        yield Audited(ledger, tmp_path, await fill(ledger))


def found(report: Report, code: str) -> list[tuple[int | None, str]]:
    """Leaf and id of the findings of that code."""
    return [(one.leaf, one.id) for one in report.findings.shown if one.code == code]


async def test_the_service_as_it_is_passes_in_every_step(audited: Audited) -> None:
    report = await audited.audit(receipts=None)
    assert report.findings.shown == []
    assert report.verdict == "clean"
    assert {step.outcome for step in report.steps} == {"ok"}
    assert report.kinds == {"claim": 7, "resolution": 2, "floor": 1}


async def test_a_claim_accepted_since_is_in_the_next_audit_which_continues_the_last(audited: Audited) -> None:
    last = (await audited.audit()).signed
    await send(audited.ledger, Chain("ash").next({"ns-1": 3}))
    report = await audited.audit(last=last)
    assert report.verdict == "clean"
    assert report.kinds["claim"] == 8


async def test_a_changed_amount_in_a_leaf_is_found_by_its_signature(audited: Audited) -> None:
    envelope = audited.envelope(1)
    payload = json.loads(base64.b64decode(envelope["payload"]))
    envelope["payload"] = base64.b64encode(canonical(payload | {"paid": "40", "fee": "10"})).decode()
    audited.tamper("UPDATE leaves SET envelope = :leaf WHERE leaf_index = 1", leaf=canonical(envelope))
    report = await audited.audit()
    assert found(report, "BadSignature") == [(1, audited.claims[1].id)]
    assert found(report, "TileDiffers") == [(1, "")]
    assert found(report, "RootDiffers")


async def test_a_leaf_that_the_hub_signed_anew_is_found_by_tile_and_root(audited: Audited) -> None:
    again = dsse.sign(audited.claims[1].header | {"meterVersion": "other"}, dsse.CLAIM_TYPE, hub_key())
    audited.tamper("UPDATE leaves SET envelope = :leaf WHERE leaf_index = 1", leaf=again.canonical())
    report = await audited.audit()
    assert found(report, "TileDiffers") == [(1, "")]
    assert found(report, "RootDiffers")
    assert found(report, "ChainBroken") == [(5, audited.claims[3].id)]


async def test_a_missing_leaf_is_found_and_the_claim_behind_it_named(audited: Audited) -> None:
    audited.tamper("DELETE FROM leaves WHERE leaf_index = 0")
    report = await audited.audit()
    assert report.verdict == "findings"
    assert found(report, "LeavesMissing") == [(0, "")]
    assert found(report, "ChainBroken")[0][1] == audited.claims[2].id


async def test_a_changed_balance_is_found_and_the_account_named(audited: Audited) -> None:
    audited.tamper(
        "UPDATE balances SET balance = balance + 5 WHERE unit = 'ucredit' AND account_id ="
        " (SELECT id FROM accounts WHERE name = 'contributor:example/oak')"
    )
    report = await audited.audit()
    assert any("contributor:example/oak has 133 ucredit" in one.message for one in report.findings.shown)
    assert found(report, "BalanceDiffers") == [(None, "")]


async def test_usage_that_was_moved_to_another_consumer_is_found(audited: Audited) -> None:
    audited.tamper(
        "UPDATE balances SET balance = balance - :units WHERE unit = 'reserved:ucore.s' AND account_id ="
        " (SELECT id FROM accounts WHERE name = 'consumer:example/ns-1')",
        "UPDATE balances SET balance = balance + :units WHERE unit = 'reserved:ucore.s' AND account_id ="
        " (SELECT id FROM accounts WHERE name = 'consumer:example/ns-2')",
        units=UNITS,
    )
    report = await audited.audit()
    assert len(found(report, "BalanceDiffers")) == 2


async def test_a_forked_history_is_found_with_the_last_checkpoint(audited: Audited, tmp_path: Path) -> None:
    last = (await audited.audit()).signed
    other = tmp_path / "other"
    other.mkdir()
    (other / "ledger.key").write_bytes((tmp_path / "ledger.key").read_bytes())
    async with serving(other) as ledger:
        oak = Chain("oak")
        await send(ledger, *(oak.next({"ns-1": 1}) for _ in range(12)))
        report = await Audited(ledger, other, ()).audit(last=last)
    assert found(report, "LedgerForked") == [(None, "")]


async def test_a_ledger_that_lost_claims_is_found_with_the_last_checkpoint(audited: Audited, tmp_path: Path) -> None:
    last = (await audited.audit()).signed
    other = tmp_path / "other"
    other.mkdir()
    (other / "ledger.key").write_bytes((tmp_path / "ledger.key").read_bytes())
    async with serving(other) as ledger:
        await send(ledger, audited.claims[0])
        report = await Audited(ledger, other, ()).audit(last=last)
    assert found(report, "LedgerWentBack") == [(None, "")]


async def test_a_checkpoint_signed_with_another_key_is_not_believed(audited: Audited) -> None:
    wrong = signed_note.verifier_key(audited.ledger.vkey.name, ledger_key(5))
    report = await audited.audit(key=wrong)
    assert found(report, "Unsigned") == [(None, "")]
    assert report.kinds == {}


async def test_a_receipt_whose_checkpoint_was_resigned_is_found(audited: Audited) -> None:
    forged = signed_note.sign(
        "homefed.io/ledger/example\n1\n" + "A" * 43 + "=\n", "homefed.io/ledger/example", ledger_key()
    )
    note = signed_note.Note("homefed.io/ledger/example\n1\n" + "A" * 43 + "=\n", (forged,)).encode()
    audited.tamper("UPDATE checkpoints SET note = :note WHERE size = 1", note=note)
    report = await audited.audit()
    assert report.verdict != "clean"
    assert [step.outcome for step in report.steps if step.name == "receipts"] != ["ok"]


async def test_a_removed_line_is_found_and_its_claim_named(audited: Audited) -> None:
    assert (await audited.audit(lines=True)).kinds["claim"] == 7
    before = await audited.audit(lines=True)
    assert found(before, "PartDiffers") == []
    body = json.loads(audited.claims[0].parts[0])
    shorter = canonical(body | {"lines": body["lines"][:1]})
    audited.tamper("UPDATE parts SET body = :body WHERE claim_id = :claim", body=shorter, claim=_raw(audited.claims[0]))
    assert (0, audited.claims[0].id) in found(await audited.audit(lines=True), "PartDiffers")


async def test_removed_lines_are_found_and_their_claim_named(audited: Audited) -> None:
    audited.tamper("DELETE FROM parts WHERE claim_id = :claim", claim=_raw(audited.claims[1]))
    report = await audited.audit(lines=True)
    assert found(report, "PartMissing") == [(1, audited.claims[1].id)]
    later = await audited.audit(lines=True, lines_since="2027-01-01T00:00:00Z")
    assert found(later, "PartMissing") == []


async def test_one_who_may_not_read_lines_learns_that_they_are_unchecked(audited: Audited) -> None:
    async with LogReader(audited.ledger.url, token=lambda: OTHER_TOKEN) as reader:
        scope = Scope(url="", key=audited.ledger.vkey, rules=rules(), lines=True)
        report = await Auditor(reader, scope).run()
    assert report.verdict == "unchecked"
    assert "403" in report.steps[-1].detail


def _raw(claim: SignedClaim) -> bytes:
    return bytes.fromhex(claim.id)


async def homefed_process(*arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `homefed …` as a process."""
    env = os.environ | {"PYTHONPATH": str(Path(homefed.__file__).parents[1])}
    command = [sys.executable, "-m", "homefed", *arguments]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=env)
    async with asyncio.timeout(240):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def homefed_command(*arguments: str) -> tuple[int, str, str]:
    """The same within this process, in a thread beside the ledger's event loop: a start takes seconds."""
    done = await asyncio.to_thread(CliRunner().invoke, cli, arguments)
    if isinstance(done.exception, HomefedError):
        return 1, done.stdout, f"{done.exception.message} ({done.exception.reason})"
    return done.exit_code, done.stdout, done.stderr


def told(ledger: Ledger, key: VerifierKey | None = None) -> list[str]:
    hub = base64.b64encode(public(hub_key())).decode()
    return ["--url", ledger.url, "--key", (key or ledger.vkey).text(), "--hub-key", hub]


async def test_the_command_says_clean_keeps_the_checkpoint_and_ends_with_0(audited: Audited, tmp_path: Path) -> None:
    state = tmp_path / "audit.json"
    status, out, err = await homefed_process("audit", *told(audited.ledger), "--state", str(state))
    assert (status, err) == (0, "")
    assert "CLEAN: the ledger is what it says, all 10 leaves of it" in out
    assert json.loads(state.read_text())["checkpoint"].startswith("homefed.io/ledger/example\n10\n")
    status, out, _ = await homefed_command("audit", *told(audited.ledger), "--state", str(state), "-o", "json")
    assert status == 0
    assert "10 leaves of the audit before" in out


async def test_the_command_names_findings_ends_with_1_and_keeps_no_checkpoint(audited: Audited, tmp_path: Path) -> None:
    state = tmp_path / "audit.json"
    audited.tamper("UPDATE balances SET balance = balance + 1")
    status, out, _ = await homefed_command("audit", *told(audited.ledger), "--state", str(state), "-o", "json")
    answer = json.loads(out)
    assert (status, answer["verdict"]) == (1, "findings")
    assert answer["counted"]["BalanceDiffers"] >= 8
    assert not state.exists()


async def test_the_command_ends_with_2_where_it_cannot_check(audited: Audited) -> None:
    arguments = told(audited.ledger)
    arguments[1] = "http://127.0.0.1:1"
    status, out, _ = await homefed_command("audit", *arguments)
    assert status == 2
    assert "NOT CHECKED" in out
    status, _, err = await homefed_command("audit", *arguments[:3], "nonsense", *arguments[4:])
    assert status == 2
    assert "error: key:" in err


async def test_the_journal_of_the_service_is_accepted_by_hledger_and_has_its_balances(
    audited: Audited, tmp_path: Path
) -> None:
    journal = tmp_path / "ledger.journal"
    options = ("--format", "hledger", "--file", str(journal))
    status, out, err = await homefed_command("export", *told(audited.ledger), *options)
    assert (status, out) == (0, ""), err
    checked = bookkeeping.hledger(journal, "check", "--strict")
    assert checked.returncode == 0, checked.stderr
    found = {key: amount for key, amount in bookkeeping.hledger_balances(journal).items() if amount}
    _, body = await audited.ledger.get("/v1/accounts?prefix=&after=&limit=1000")
    said = {
        (hledger_account(one["account"]), unit): -int(amount)
        for one in json.loads(body)["accounts"]
        for unit, amount in one["balances"].items()
        if int(amount)
    }
    assert found == said
    assert ("liabilities:contributor:example:oak", "ucredit") in found


async def test_the_beancount_text_of_the_service_is_accepted_by_bean_check(audited: Audited, tmp_path: Path) -> None:
    status, out, err = await homefed_command("export", *told(audited.ledger), "--format", "beancount")
    assert status == 0, err
    text = tmp_path / "ledger.beancount"
    text.write_text(out)
    checked = bookkeeping.bean_check(text)
    assert checked.returncode == 0, checked.stdout + checked.stderr


async def test_a_pay_stub_has_resources_and_rates_for_one_who_may_read_lines(audited: Audited, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(HUB_TOKEN)
    options = ("--format", "csv", "--account", "contributor:example/oak", "--token-file", str(token))
    status, out, err = await homefed_command("export", *told(audited.ledger), *options)
    assert status == 0, err
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert [row["state"] for row in rows if row["record"] == "claim"] == [
        *("posted", "posted", "reversed", "reversal", "posted")
    ]
    assert {row["resource"] for row in rows if row["record"] == "line"} == {"cpu"}
    assert rows[-1]["paidMicroCredits"] == "126"
    period = ("--since", "2026-01-01T01:00:00Z", "--until", "2026-01-01T02:00:00Z")
    _, out, _ = await homefed_command("export", *told(audited.ledger), *options[:4], *period)
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert [row["record"] for row in rows] == ["usage", "claim", "total"]


async def test_nothing_is_exported_of_a_ledger_that_does_not_hold(audited: Audited, tmp_path: Path) -> None:
    audited.tamper("UPDATE leaves SET envelope = :leaf WHERE leaf_index = 1", leaf=b"{}")
    path = tmp_path / "ledger.journal"
    options = ("--format", "hledger", "--file", str(path))
    status, out, err = await homefed_command("export", *told(audited.ledger), *options)
    assert (status, out) == (1, "")
    assert "run homefed audit" in err
    assert not path.exists()


async def test_a_payout_tree_of_the_service_is_what_openzeppelin_computes(audited: Audited, tmp_path: Path) -> None:
    addresses, tree = tmp_path / "addresses.csv", tmp_path / "tree.json"
    addresses.write_text(f"contributor:example/oak,0x{'11' * 20}\n")
    options = ("--addresses", str(addresses), "--scale", "1000", "--file", str(tree), "-o", "json")
    status, _, err = await homefed_command("payout", "build", *told(audited.ledger), *options)
    assert status == 1
    assert "contributor:example/elm" in err
    addresses.write_text(f"contributor:example/oak,0x{'11' * 20}\ncontributor:example/elm,0x{'22' * 20}\n")
    status, out, err = await homefed_command("payout", "build", *told(audited.ledger), *options)
    assert status == 0, err
    theirs = javascript.check_tree(tree)
    assert theirs["builtRoot"] == json.loads(out)["root"]
    assert theirs["verified"] is True
    status, out, _ = await homefed_command("payout", "verify", str(tree), "--address", f"0x{'11' * 20}", "-o", "json")
    assert status == 0
    assert json.loads(out)["amount"] == "133000"
    assert json.loads(out)["proof"] in theirs["proofs"]
    status, _, err = await homefed_command("payout", "verify", str(tree), "--root", "0x00")
    assert (status, "RootDiffers" in err) == (1, True)
