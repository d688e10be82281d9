"""Held-back shares and corrections on a real API server, Prometheus and ledger; also killed between any two writes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from settlement_world import UID, LedgerWorld, at, samples, settlement_world

from homefed.api import dsse, names
from homefed.api.canonical import parse
from homefed.cli.main import cli
from homefed.core.windows import text
from homefed.hub.settlement import Settlement
from homefed.kube.client import KubeClient
from homefed.kube.resources import GUESTPODS, HOMES, REWARDCLAIMS, SCHEDULINGPOOLS
from testbed.binaries import Binaries
from testbed.claims import FEDERATION
from testbed.cluster import Cluster
from testbed.metrics import prometheus

CRDS = Path(__file__).parents[2] / "crds"
CONSUMER = names.consumer_account(FEDERATION, "ns-uid-1")
Json = dict[str, Any]


@pytest.fixture(scope="module")
def address(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus(binaries, tmp_path_factory.mktemp("prometheus"), samples()) as url:
        yield url


@pytest.fixture(scope="module")
def hub_cluster(apiserver: Cluster) -> Cluster:
    apiserver.install_crds(CRDS)
    return apiserver


@pytest.fixture
async def world(hub_cluster: Cluster, address: str, tmp_path: Path) -> AsyncIterator[LedgerWorld]:
    async with settlement_world(hub_cluster, address, tmp_path) as made:
        yield made


def header(claim: Json) -> Json:
    return dict(parse(dsse.decode(claim["spec"]["envelope"]).payload, limit=48_000))


async def headers(world: LedgerWorld) -> list[Json]:
    return [header(claim) for claim in await world.claims()]


async def ask(world: LedgerWorld, claim: Json, how: str = "resettle", reason: str = "the price was wrong") -> None:
    """As `homefed claims correct` does."""
    annotations = {names.ANNOTATION_CORRECTION: how, names.ANNOTATION_REASON: reason}
    metadata = claim["metadata"]
    await world.client.patch(
        REWARDCLAIMS, metadata["name"], {"metadata": {"annotations": annotations}}, metadata["namespace"]
    )
    await world.client.patch(HOMES, world.name, {"metadata": {"annotations": {names.ANNOTATION_REVIEW: reason}}})


async def prices(world: LedgerWorld, factor: int) -> None:
    pool = await world.client.get(SCHEDULINGPOOLS, world.name)
    card = pool["spec"]["rateCard"]
    card |= {"prices": [one | {"microCredits": one["microCredits"] * factor} for one in card["prices"]]}
    await world.client.patch(SCHEDULINGPOOLS, world.name, {"spec": {"rateCard": card | {"version": f"x{factor}"}}})


async def hold(world: LedgerWorld, ppm: int) -> None:
    await world.client.patch(SCHEDULINGPOOLS, world.name, {"spec": {"settlement": {"heldBack": [ppm]}}})


async def held(world: LedgerWorld) -> int:
    return await world.reader.balance(names.held_account(FEDERATION, world.home_uid))


async def test_a_claim_is_taken_back_and_settled_again_at_the_new_price(world: LedgerWorld) -> None:
    hub = world.settlement()
    for hour in (1, 2):
        await world.hour(hour, hub)
    first, second = await world.claims()
    await prices(world, 2)
    await ask(world, first)
    assert (await hub.settle(world.name, at(2, 80))).status == "True"
    found = await headers(world)
    assert [one["revision"] for one in found] == [0, 0, 1, 2]
    assert found[2]["reverses"] == found[0]["id"]
    assert found[3]["windowEnd"] == found[0]["windowEnd"]
    assert 0 <= int(found[3]["charged"]) - 2 * int(found[0]["charged"]) <= found[3]["lineCount"], "lines are floored"
    charged = sum(int(one["charged"]) * (-1 if one["reverses"] else 1) for one in found if "reverses" in one)
    assert await world.reader.balance(CONSUMER) == -charged
    assert charged == int(found[3]["charged"]) + int(second["spec"]["charged"])
    home = await world.client.get(HOMES, world.name)
    assert names.ANNOTATION_REVIEW not in (home["metadata"].get("annotations") or {})
    assert all((claim["status"] or {}).get("receipt") for claim in await world.claims())


async def test_the_organiser_corrects_a_claim_by_a_command(world: LedgerWorld, hub_cluster: Cluster) -> None:
    await world.hour(1)
    (first,) = await world.claims()
    arguments = ["claims", "correct", first["spec"]["claimId"][:16], "--reason", "the price was wrong", "-o", "json"]
    cluster = ["--kubeconfig", str(hub_cluster.kubeconfig)]
    done = await asyncio.to_thread(CliRunner().invoke, cli, [*arguments, *cluster])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["home"] == world.name
    await world.settlement().settle(world.name, at(1, 80))
    assert [one["revision"] for one in await headers(world)] == [0, 1, 2]
    changed = await asyncio.to_thread(CliRunner().invoke, cli, [*arguments, "--forfeit", *cluster])
    assert "corrected already" in str(changed.exception)


async def test_correcting_twice_and_after_restarts_changes_nothing_more(world: LedgerWorld) -> None:
    await world.hour(1)
    (first,) = await world.claims()
    await ask(world, first)
    for more in (80, 90, 100):
        await world.settlement().settle(world.name, at(1, more))
    await ask(world, first)
    await world.settlement().settle(world.name, at(1, 110))
    found = await headers(world)
    assert [one["revision"] for one in found] == [0, 1, 2]
    assert found[2]["charged"] == found[0]["charged"]
    await world.hour(2)
    assert (await headers(world))[3]["revision"] == 0
    assert await world.reader.balance(CONSUMER) == -sum(
        int(one["charged"]) for one in (found[2], (await headers(world))[3])
    )


async def test_a_forfeited_claim_gives_the_consumers_their_money_back_for_good(world: LedgerWorld) -> None:
    await hold(world, 500_000)
    await world.hour(1)
    (first,) = await world.claims()
    assert await held(world) > 0
    await ask(world, first, "forfeit", "its pods did not run")
    await world.settlement().settle(world.name, at(1, 80))
    assert (await world.reader.balance(CONSUMER), await world.reader.balance(world.account), await held(world)) == (
        0,
        0,
        0,
    )
    await world.hour(2)
    last = (await headers(world))[-1]
    assert int(last["charged"]) < 2 * int(header(first)["charged"]), "the first hour is in no later claim"
    assert await world.reader.balance(CONSUMER) == -int(last["charged"])


class Killed(Exception):
    """The process is gone."""


class Mortal:
    """A client that dies when it has written n times; what was written stays."""

    def __init__(self, client: KubeClient, writes: int) -> None:
        self._client, self._left = client, writes

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name not in ("create", "delete", "patch", "apply"):
            return found

        async def write(*given: Any, **more: Any) -> Any:
            if not self._left:
                raise Killed
            done = await found(*given, **more)
            self._left -= 1
            return done

        return write


def mortal(world: LedgerWorld, writes: int) -> Settlement:
    client = world.client
    try:
        world.client = Mortal(client, writes)  # type: ignore[assignment]
        return world.settlement()
    finally:
        world.client = client


async def test_a_hub_that_is_killed_after_each_write_of_a_correction_goes_on_there(world: LedgerWorld) -> None:
    await hold(world, 250_000)
    await world.hour(1)
    (first,) = await world.claims()
    await prices(world, 3)
    await ask(world, first)
    for lives in range(20):
        try:
            await mortal(world, 1).settle(world.name, at(1, 80 + lives))
        except Killed:
            continue
        break
    else:
        pytest.fail("the correction never ends")
    assert lives > 4
    found = await headers(world)
    assert [one["revision"] for one in found] == [0, 1, 2]
    assert 0 <= int(found[2]["charged"]) - 3 * int(found[0]["charged"]) <= 2 * found[2]["lineCount"]
    assert await world.reader.balance(CONSUMER) == -int(found[2]["charged"])
    assert await held(world) == int(found[2]["held"])
    assert (await world.reader.totals()).conserved


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_hub_restored_from_a_backup_takes_a_reversal_over_and_ends_the_correction(
    world: LedgerWorld, lost: int
) -> None:
    """`lost`: the newest claims that the backup does not have; the ledger has them."""
    await world.hour(1)
    (first,) = await world.claims()
    await prices(world, 2)
    await ask(world, first)
    await world.settlement().settle(world.name, at(1, 80))
    before = [(claim["metadata"]["name"], claim["spec"]) for claim in await world.claims()]
    for obj in (await world.client.list(REWARDCLAIMS, world.mailbox)).items:
        if obj["spec"]["sequence"] > 3 - lost:
            await world.client.delete(REWARDCLAIMS, obj["metadata"]["name"], world.mailbox)
    unmarked = {names.ANNOTATION_CORRECTION: None, names.ANNOTATION_REASON: None}
    patch = {"metadata": {"annotations": unmarked}}
    await world.client.patch(REWARDCLAIMS, first["metadata"]["name"], patch, world.mailbox)
    assert (await world.settlement().settle(world.name, at(1, 90))).status == "True"
    assert [(claim["metadata"]["name"], claim["spec"]) for claim in await world.claims()] == before
    await world.hour(2)
    found = await headers(world)
    charged = sum(int(one["charged"]) * (-1 if one["reverses"] else 1) for one in found)
    assert await world.reader.balance(CONSUMER) == -charged


async def test_a_guest_that_is_gone_is_carried_over_as_it_stood(world: LedgerWorld) -> None:
    await world.hour(1)
    (first,) = await world.claims()
    await world.client.delete(GUESTPODS, UID, world.mailbox)
    await ask(world, first)
    await world.settlement().settle(world.name, at(1, 80))
    found = await headers(world)
    assert (found[2]["charged"], found[2]["paid"]) == (found[0]["charged"], found[0]["paid"])


async def test_held_back_shares_are_released_without_work_and_at_the_end_of_a_membership(world: LedgerWorld) -> None:
    """The Home's months are those of the API server's clock: it is young in all windows of this test."""
    await hold(world, 500_000)
    await world.client.patch(SCHEDULINGPOOLS, world.name, {"spec": {"settlement": {"releaseAfterMonths": 1}}})
    hub = world.settlement()
    await world.hour(1, hub)
    (first,) = await headers(world)
    assert (first["heldUntil"], await held(world)) == ("2026-03-01T00:00:00Z", int(first["held"]))
    assert int(first["held"]) > 0
    await world.observe(endedAt="2026-01-01T01:00:00Z")
    month = 24 * 31
    await hub.settle(world.name, at(month))
    assert len(await headers(world)) == 1, "nothing is due yet"
    await hub.settle(world.name, at(24 * 59, 61))
    assert await held(world) == 0
    released = (await headers(world))[-1]
    assert (released["charged"], released["released"], released["windowEnd"]) == (
        "0",
        first["held"],
        "2026-03-01T00:00:00Z",
    )
    assert await world.reader.balance(world.account) == int(first["paid"]) + int(first["held"])
    await hub.settle(world.name, at(24 * 60))
    assert (await headers(world))[-1] == released


async def test_a_home_that_leaves_in_good_order_gets_all_that_was_held(world: LedgerWorld) -> None:
    await hold(world, 750_000)
    hub = world.settlement()
    await world.hour(1, hub)
    (first,) = await headers(world)
    await world.client.patch(HOMES, world.name, {"metadata": {"finalizers": [names.FINALIZER_HOME]}})
    await world.client.delete(HOMES, world.name)
    await hub.settle(world.name, at(1, 100))
    assert len(await headers(world)) == 1, "a guest still runs"
    await world.observe(endedAt="2026-01-01T01:00:00Z")
    for more in (110, 120, 130):
        await hub.settle(world.name, at(1, more))
    last = (await headers(world))[-1]
    assert (last["released"], last["windowEnd"]) == (first["held"], text(int(at(1, 110).timestamp())))
    assert (len(await headers(world)), await held(world)) == (2, 0)
    await world.client.patch(HOMES, world.name, {"metadata": {"finalizers": []}})


async def test_by_the_organisers_word_nothing_is_released(world: LedgerWorld) -> None:
    await hold(world, 750_000)
    await world.hour(1)
    annotations = {names.ANNOTATION_WITHHOLD: "proven: challenges were answered by another machine"}
    finalizers = [names.FINALIZER_HOME]
    await world.client.patch(HOMES, world.name, {"metadata": {"annotations": annotations, "finalizers": finalizers}})
    await world.client.delete(HOMES, world.name)
    await world.observe(endedAt="2026-01-01T01:00:00Z")
    await world.settlement().settle(world.name, at(24 * 365))
    assert await held(world) > 0
    await world.client.patch(HOMES, world.name, {"metadata": {"finalizers": []}})
