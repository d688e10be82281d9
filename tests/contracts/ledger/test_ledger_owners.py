"""What owners make of the ledger: a home by its own signature, a consumer by his token; both sides are one sum."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import homefed
from homefed.api.errors import Forbidden, Invalid
from homefed.cli.ledger_reading import federation_of, open_reader
from homefed.core import earnings
from homefed.core.earnings import Delivered, Period
from homefed.ledger.auth import User
from homefed.ledger_client.log_reader import LogReader
from homefed.ledger_client.postings import Statement, read_postings
from testbed.claims import FEDERATION, START, Chain, hub_key, resolution
from testbed.ledger import OTHER_TOKEN, Ledger, register_home, serving

HOME_KEY = hub_key(11)
HOME, LAB = f"contributor:{FEDERATION}/home-1", f"consumer:{FEDERATION}/a"
SINCE = int(START.timestamp())
ALL = Period(0, 2**40)


class Namespaces:
    """User somebody may read the statements of namespace lab, whose UID is a."""

    async def namespace_uid(self, user: User, namespace: str) -> str:
        if (user.name, namespace) != ("somebody", "lab"):
            raise Forbidden(f"{user.name} may not read {namespace}")
        return "a"


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    """Three claims of home-1 and one of home-2; of home-1's second one part of the money is lost to rounding."""
    async with serving(tmp_path, consumers=Namespaces()) as running:
        register_home(running.home_keys, "home-1", HOME_KEY)
        first, second = Chain(), Chain(home="home-2")
        for costs, split in (
            ({"a": 1000, "b": 500}, {"held": 750, "fee": 150}),
            ({"a": 333, "b": 334, "c": 334}, {"held": 300, "fee": 100, "dust": 1}),
            ({"b": 10}, {}),
        ):
            await submitted(running, first.next(costs, lines_per_part=1, **split))
        await submitted(running, second.next({"a": 70}, fee=7))
        yield running


async def submitted(ledger: Ledger, claim: Any) -> Any:
    status, answer = await ledger.submit(claim)
    assert status == 201, answer
    return claim


def home_reader(ledger: Ledger) -> LogReader:
    return open_reader(ledger.url, None, None, HOME_KEY, FEDERATION)


async def of_home(ledger: Ledger, since: int = SINCE) -> Statement:
    async with home_reader(ledger) as reader:
        return await read_postings(reader, HOME, since)


async def of_lab(ledger: Ledger) -> Statement:
    async with LogReader(ledger.url, token=lambda: OTHER_TOKEN) as reader:
        return await read_postings(reader, LAB, SINCE, namespace="lab")


async def test_a_home_reads_its_claims_with_all_lines_by_its_own_signature(ledger: Ledger) -> None:
    found = await of_home(ledger)
    assert [one.header.sequence for one in found.postings] == [1, 2, 3]
    whole = earnings.total(found.postings, ALL)
    assert (whole.charged, whole.paid, whole.held, whole.fee, whole.dust) == (2511, 1210, 1050, 250, 1)
    assert found.due == whole.paid
    assert found.held == whole.held
    rows = earnings.by_line(found.postings, ALL)
    assert sum(row.paid + row.held for row in rows.values()) == whole.earned


async def test_a_consumers_bill_is_its_part_of_what_the_homes_got_and_fee_held_and_dust(ledger: Ledger) -> None:
    found = await of_lab(ledger)
    row = earnings.by_consumer(found.postings, ALL)[Delivered(consumer=LAB)]
    assert row.charged == found.due == 1000 + 333 + 70
    assert row.charged == row.paid + row.held + row.fee + row.dust
    homes = earnings.summed(earnings.by_line(found.postings, ALL), "home")
    assert {key.home.rpartition("/")[2]: one.charged for key, one in homes.items()} == {"home-1": 1333, "home-2": 70}
    own = await of_home(ledger)
    theirs = earnings.summed(earnings.by_line(own.postings, ALL), "consumer")[Delivered(consumer=LAB)]
    mine = homes[Delivered(home=HOME)]
    assert vars(theirs) == vars(mine), "the same lines, from the other side"


async def test_what_is_reversed_or_void_is_in_neither(ledger: Ledger) -> None:
    chain = Chain(pool="night")
    claim = await submitted(ledger, chain.next({"a": 5000}))
    await submitted(ledger, chain.advance(chain.reversal(claim)))
    pending = await submitted(ledger, chain.next({"a": 900}, phase="pending"))
    void = resolution(pending.id, "void")
    assert (await ledger.put(f"/v1/resolutions/{void.id}", void.body))[0] == 201
    for found, charged in ((await of_home(ledger), 2511), (await of_lab(ledger), 1403)):
        rows = earnings.by_line(found.postings, ALL)
        states = {one.state for one in found.postings if one.header.pool == "night"}
        assert states == {"reversed", "posted", "void"}
        assert sum(row.charged for row in rows.values()) == charged


async def test_only_what_was_asked_for_is_read(ledger: Ledger) -> None:
    assert [one.header.sequence for one in (await of_home(ledger, SINCE + 2 * 3600)).postings] == [3]
    assert (await of_home(ledger, SINCE + 90 * 86_400)).postings == ()


async def test_of_very_many_claims_the_newest_come_with_lines(ledger: Ledger) -> None:
    async with home_reader(ledger) as reader:
        found = await read_postings(reader, HOME, SINCE, most_lines=1)
    assert [one.lines is None for one in found.postings] == [True, True, False]
    assert found.without_lines == 2
    assert earnings.total(found.postings, ALL).charged == 2511


async def test_nobody_reads_anothers_account(ledger: Ledger) -> None:
    async with home_reader(ledger) as reader:
        with pytest.raises(Forbidden):
            await read_postings(reader, f"contributor:{FEDERATION}/home-2", SINCE)
    async with LogReader(ledger.url, token=lambda: OTHER_TOKEN) as reader:
        with pytest.raises(Forbidden):
            await read_postings(reader, HOME, SINCE)


async def test_the_ledger_names_its_federation(ledger: Ledger) -> None:
    async with LogReader(ledger.url) as reader:
        assert await federation_of(reader) == FEDERATION


def test_without_token_and_key_nothing_is_asked() -> None:
    with pytest.raises(Invalid, match="--token-file"):
        open_reader("http://ledger.example", None, None)


async def run(*arguments: str) -> Any:
    """The command in a process of its own, beside the ledger in this one."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "homefed", *arguments),
        env={"PATH": os.defpath, "PYTHONPATH": str(Path(homefed.__file__).parents[1])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_the_bill_of_a_namespace(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(OTHER_TOKEN, encoding="utf-8")
    options = ["--url", ledger.url, "--token-file", str(tmp_path / "token"), "--namespace-uid", "a"]
    options += ["--at", "2026-01-20T00:00:00Z"]
    status, out, err = await run("bill", "lab", *options, "-o", "json")
    assert status == 0, err
    answer = json.loads(out)
    assert answer["chargedMicro"] == answer["linesMicro"] == answer["owedMicro"] == 1403
    assert sum(answer[f"{pot}Micro"] for pot in ("paid", "held", "fee", "dust")) == 1403
    assert sum(row["chargedMicro"] for row in answer["byHome"]) == 1403
    assert [row["resource"] for row in answer["byResource"]] == ["cpu"]
    status, out, _ = await run("bill", "lab", *options)
    assert "charged 0.001403 = paid" in out
    status, _, err = await run("bill", "other", *options)
    assert status == 1
    assert "error:" in err


async def test_a_bill_of_another_month_is_empty(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(OTHER_TOKEN, encoding="utf-8")
    options = ["--url", ledger.url, "--token-file", str(tmp_path / "token"), "--namespace-uid", "a"]
    status, out, _ = await run("bill", "lab", *options, "--at", "2026-03-20T00:00:00Z", "-o", "json")
    answer = json.loads(out)
    assert (status, answer["chargedMicro"], answer["byResource"]) == (0, 0, [])
