"""Backups of a ledger that runs, and what restoring refuses: damage, lost keys, and signing a second history."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from homefed.api.errors import Refused
from homefed.cli.main import cli
from homefed.core import checkpoint as checkpoints
from homefed.core import tlog_proof
from homefed.ledger.backup import back_up, bring_back, check_place
from homefed.ledger.config import KEY_FILE, Place
from homefed.ledger.high_water import FILE
from homefed.ledger.postgres import PostgresStore
from testbed.claims import Chain
from testbed.ledger import HUB_TOKEN, Ledger, serving
from testbed.postgres import Postgres

RECEIPT = "receipt.txt"


def place(directory: Path) -> Place:
    return Place(f"sqlite:{directory / 'ledger.db'}")


async def books(directory: Path, *, before: int = 3, after: int = 2) -> dict[str, bytes]:
    """A ledger that was backed up to `backup.db` after `before` claims and took `after` more; answers by claim id."""
    directory.mkdir(exist_ok=True)
    chain, answers = Chain(), {}
    async with serving(directory) as ledger:
        for number in range(before + after):
            if number == before:
                await back_up(place(directory), directory / "backup.db")
            claim = chain.next({"a": number + 1})
            _, answers[claim.id] = await ledger.submit(claim)
        if not after:
            await back_up(place(directory), directory / "backup.db")
    (directory / RECEIPT).write_text(json.loads(answers[claim.id])["receipt"])
    return answers


def lose(directory: Path, *files: str) -> None:
    for file in files:
        (directory / file).unlink()
    for rest in ("-wal", "-shm", ".lock"):
        (directory / f"ledger.db{rest}").unlink(missing_ok=True)


async def reason(call: Callable[[], object]) -> str:
    with pytest.raises(Refused) as caught:
        await call()  # type: ignore[misc]
    return caught.value.reason


async def test_a_backup_is_one_whole_file_though_claims_flow_meanwhile(tmp_path: Path) -> None:
    async with serving(tmp_path) as ledger:
        assert (await ledger.submit(Chain(home="first").next()))[0] == 201
        flowing = asyncio.create_task(flow(ledger))
        for number in range(5):
            summary = await back_up(place(tmp_path), tmp_path / f"backup-{number}.db")
            assert checkpoints.verify(summary.signed, ledger.vkey).size == summary.size
        flowing.cancel()
        await asyncio.wait([flowing])
    found = sorted(path.name for path in tmp_path.glob("backup-*"))
    assert found == [f"backup-{number}.db" for number in range(5)]
    assert (tmp_path / "backup-0.db").stat().st_mode & 0o777 == 0o600


async def flow(ledger: Ledger) -> None:
    chain = Chain()
    while True:
        assert (await ledger.submit(chain.next()))[0] == 201


async def test_what_is_restored_answers_as_before_byte_for_byte(tmp_path: Path) -> None:
    answers = await books(tmp_path, after=0)
    lose(tmp_path, "ledger.db")
    summary = await bring_back(place(tmp_path), tmp_path / "backup.db", None)
    assert (summary.size, summary.claims) == (3, 3)
    (tmp_path / "hub-keys" / "hub.pub").unlink()
    (tmp_path / "hub-keys").rmdir()
    chain = Chain()
    async with serving(tmp_path) as ledger:
        for number in range(3):
            claim = chain.next({"a": number + 1})
            assert await ledger.submit(claim) == (200, answers[claim.id])
        assert (await ledger.submit(chain.next()))[0] == 201


async def test_a_backup_older_than_what_was_signed_is_refused(tmp_path: Path) -> None:
    await books(tmp_path)
    lose(tmp_path, "ledger.db")
    assert await reason(lambda: bring_back(place(tmp_path), tmp_path / "backup.db", None)) == "LedgerWentBack"
    assert not (tmp_path / "ledger.db").exists()


async def test_without_the_mark_a_members_checkpoint_says_how_much_was_signed(tmp_path: Path) -> None:
    await books(tmp_path)
    lose(tmp_path, "ledger.db", FILE)
    backup, receipt = tmp_path / "backup.db", tmp_path / RECEIPT
    assert await reason(lambda: bring_back(place(tmp_path), backup, None)) == "MarkMissing"
    assert await reason(lambda: bring_back(place(tmp_path), backup, receipt)) == "LedgerWentBack"


async def test_with_a_checkpoint_that_the_backup_holds_the_mark_is_made_anew(tmp_path: Path) -> None:
    await books(tmp_path, after=0)
    lose(tmp_path, "ledger.db", FILE)
    await bring_back(place(tmp_path), tmp_path / "backup.db", tmp_path / RECEIPT)
    assert (await check_place(place(tmp_path))).size == 3


async def test_a_checkpoint_of_another_ledger_marks_nothing(tmp_path: Path) -> None:
    await books(tmp_path / "a", after=0)
    await books(tmp_path / "b", after=0)
    lose(tmp_path / "a", "ledger.db", FILE)
    foreign, backup = tmp_path / "b" / RECEIPT, tmp_path / "a" / "backup.db"
    assert await reason(lambda: bring_back(place(tmp_path / "a"), backup, foreign)) == "WrongCheckpoint"
    (tmp_path / "a" / "nonsense").write_bytes(b"\xff\xfe")
    assert await reason(lambda: bring_back(place(tmp_path / "a"), backup, tmp_path / "a" / "nonsense")) == (
        "WrongCheckpoint"
    )
    assert not (tmp_path / "a" / FILE).exists()


async def test_a_backup_of_another_ledger_is_refused_by_its_signature(tmp_path: Path) -> None:
    await books(tmp_path / "a", after=0)
    await books(tmp_path / "b", after=0)
    lose(tmp_path / "a", "ledger.db")
    assert await reason(lambda: bring_back(place(tmp_path / "a"), tmp_path / "b" / "backup.db", None)) == "BooksDamaged"


async def test_nothing_is_restored_over_a_database_or_without_the_key(tmp_path: Path) -> None:
    await books(tmp_path, after=0)
    backup = tmp_path / "backup.db"
    assert await reason(lambda: bring_back(place(tmp_path), backup, None)) == "TargetExists"
    assert await reason(lambda: back_up(place(tmp_path), backup)) == "TargetExists"
    lose(tmp_path, "ledger.db", KEY_FILE)
    assert await reason(lambda: bring_back(place(tmp_path), backup, None)) == "KeyMissing"
    assert await reason(lambda: back_up(place(tmp_path), tmp_path / "other.db")) == "KeyMissing"


DAMAGE = {
    "a leaf": "UPDATE leaves SET envelope = CAST(replace(CAST(envelope AS TEXT), 'a', 'b') AS BLOB)",
    "a hash": "UPDATE leaves SET hash = zeroblob(32) WHERE leaf_index = 1",
    "a balance": "UPDATE balances SET balance = balance + 1",
    "a checkpoint": "DELETE FROM checkpoints WHERE size = 3",
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_backup_is_refused_and_says_so(tmp_path: Path, damage: str) -> None:
    await books(tmp_path, after=0)
    with closing(sqlite3.connect(tmp_path / "backup.db")) as raw:
        triggers = raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute(DAMAGE[damage])
        raw.commit()
    lose(tmp_path, "ledger.db")
    assert await reason(lambda: bring_back(place(tmp_path), tmp_path / "backup.db", None)) == "BooksDamaged"
    left = {path.name for path in tmp_path.iterdir()}
    assert not {name for name in left if name.startswith("ledger.db") and name != "ledger.db.lock"}


async def test_half_a_file_is_no_backup(tmp_path: Path) -> None:
    await books(tmp_path, after=0)
    whole = (tmp_path / "backup.db").read_bytes()
    (tmp_path / "half.db").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.db").write_text("not a database at all")
    lose(tmp_path, "ledger.db")
    for file in ("half.db", "text.db"):
        assert await reason(lambda file=file: bring_back(place(tmp_path), tmp_path / file, None)) == "BooksDamaged"  # type: ignore[misc]


async def test_the_check_finds_what_no_backup_was_made_of(tmp_path: Path) -> None:
    await books(tmp_path, after=0)
    assert (await check_place(place(tmp_path))).claims == 3
    (tmp_path / "ledger.db").unlink()
    assert await reason(lambda: check_place(place(tmp_path))) == "NoBooks"
    remote = Place("postgresql://hub@db.example/ledger", tmp_path)
    assert await reason(lambda: back_up(remote, tmp_path / "x")) == "NotSQLite"
    assert await reason(lambda: bring_back(remote, tmp_path / "backup.db", None)) == "NotSQLite"


async def test_a_postgresql_ledger_comes_back_by_its_own_tools_and_the_check(
    postgresql: Postgres, tmp_path: Path
) -> None:
    chain, old = Chain(), await postgresql.new_database()
    async with serving(tmp_path, await PostgresStore.open(old.service, old.owner)) as ledger:
        claim = chain.next({"a": 5})
        _, answer = await ledger.submit(claim)
        postgresql.dump(old, tmp_path / "backup.dump")
    new = await postgresql.new_database()
    postgresql.restore(new, tmp_path / "backup.dump")
    assert (await check_place(Place(new.service, tmp_path, owner=new.owner))).size == 1
    store = await PostgresStore.open(new.service, new.owner)
    (tmp_path / "hub-keys" / "hub.pub").unlink()
    (tmp_path / "hub-keys").rmdir()
    async with serving(tmp_path, store) as ledger:
        assert await ledger.submit(claim) == (200, answer)
        later = chain.next({"a": 6})
        assert (await ledger.submit(later))[0] == 201
    again = await postgresql.new_database()
    postgresql.restore(again, tmp_path / "backup.dump")
    older = Place(again.service, tmp_path, owner=again.owner)
    assert await reason(lambda: check_place(older)) == "LedgerWentBack"


async def test_a_postgresql_dump_without_access_rights_needs_the_owner_once(
    postgresql: Postgres, tmp_path: Path
) -> None:
    old, new = await postgresql.new_database(), await postgresql.new_database()
    async with serving(tmp_path, await PostgresStore.open(old.service, old.owner)) as ledger:
        await ledger.submit(Chain().next({"a": 5}))
        postgresql.dump(old, tmp_path / "backup.dump", "--no-acl")
    postgresql.restore(new, tmp_path / "backup.dump")
    alone = Place(new.service, tmp_path)
    assert await reason(lambda: check_place(alone)) == "RightsMissing"
    assert (await check_place(Place(new.service, tmp_path, owner=new.owner))).size == 1
    assert (await check_place(alone)).size == 1


async def test_a_ledger_that_never_served_has_no_books(tmp_path: Path) -> None:
    async with serving(tmp_path):
        pass
    assert await reason(lambda: check_place(place(tmp_path))) == "NoBooks"


async def test_the_drill_of_the_document_by_the_command_line(tmp_path: Path) -> None:
    """docs/ledger.md, "Backup and restore": the commands, on a ledger that runs, is lost, and comes back."""
    live, safe = tmp_path / "live", tmp_path / "safe"
    live.mkdir()
    safe.mkdir()
    chain = Chain()

    def homefed(*arguments: str) -> bytes:
        outcome = CliRunner().invoke(cli, ["ledger", *arguments], catch_exceptions=False)
        assert outcome.exit_code == 0, outcome.output
        return outcome.stdout_bytes

    async with serving(live) as ledger:
        claim = chain.next({"a": 5})
        _, answer = await ledger.submit(claim)
        shutil.copy(live / KEY_FILE, safe / KEY_FILE)
        copied = await asyncio.to_thread(homefed, "backup", "-", f"--database={live / 'ledger.db'}")
        (safe / "backup.db").write_bytes(copied)
        (safe / "checkpoint").write_bytes((await ledger.get("/checkpoint"))[1])
    shutil.rmtree(live)

    new = tmp_path / "new"
    new.mkdir()
    shutil.copy(safe / KEY_FILE, new / KEY_FILE)
    restore = ("restore", str(safe / "backup.db"), f"--database={new / 'ledger.db'}")
    said = await asyncio.to_thread(homefed, *restore, f"--checkpoint={safe / 'checkpoint'}", "-o", "json")
    assert json.loads(said)["size"] == 1
    assert b"1 leaves, 1 claims" in await asyncio.to_thread(homefed, "check", f"--database={new / 'ledger.db'}")
    async with serving(new) as ledger:
        assert await ledger.submit(claim) == (200, answer)
        receipt = json.loads(answer)["receipt"]
        assert tlog_proof.verify(receipt, claim.body, ledger.vkey).index == 0
        status, body = await ledger.get("/v1/totals", HUB_TOKEN)
        assert (status, json.loads(body)["conserved"]) == (200, True)
