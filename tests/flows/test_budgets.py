"""Budgets of consumers on a real API server and ledger: what is charged, what is under way, and what follows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from settlement_world import RUNNING, UID, LedgerWorld, at, guest_pod, samples, settlement_world

from homefed.api import names
from homefed.api.errors import Transient
from homefed.api.ledger_answers import Statement
from homefed.cli.main import cli
from homefed.core import conditions
from homefed.hub.budgets import Budgets, Statements
from homefed.hub.settlement import Settlement
from homefed.kube.client import KubeClient
from homefed.kube.events import EventRecorder
from homefed.kube.reflector import Key
from homefed.kube.resources import (
    CONSUMERBUDGETS,
    EVENTS,
    GUESTPODS,
    HOMES,
    NAMESPACES,
    REWARDCLAIMS,
    SCHEDULINGPOOLS,
    Resource,
)
from testbed.binaries import Binaries
from testbed.claims import FEDERATION
from testbed.cluster import Cluster
from testbed.metrics import prometheus

CRDS = Path(__file__).parents[2] / "crds"
HOUR_RESERVED = 1_000_000
Json = dict[str, Any]
_numbers = iter(range(1, 1000))


@pytest.fixture(scope="module")
def address(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus(binaries, tmp_path_factory.mktemp("prometheus"), samples()) as url:
        yield url


@pytest.fixture(scope="module")
def hub_cluster(apiserver: Cluster) -> Cluster:
    apiserver.install_crds(CRDS)
    return apiserver


@dataclass
class Shop:
    """A consumer's namespace whose pod runs in the one home of the world, since T0."""

    world: LedgerWorld
    cluster: Cluster
    namespace: str
    uid: str
    hub: Settlement
    stores: Stores
    budgets: Budgets
    ledger: Statements | None = None
    """Another one than that of the world."""

    async def restart(self) -> None:
        """The hub operator starts anew."""
        self.hub = self.world.settlement()
        self.stores, self.budgets = await budgets_of(self.world)

    async def give(self, limit: int, **more: Any) -> None:
        body = {
            "metadata": {"name": "monthly", "namespace": self.namespace},
            "spec": {"limitMicroCredits": limit, **more},
        }
        await self.world.client.apply(CONSUMERBUDGETS, body, field_manager="organiser", force=True)

    async def look(self, now: datetime) -> Json:
        """One pass of the hub over all budgets; the status that it leaves."""
        await self.stores.refresh(self.world.client)
        await self.budgets.run_pass(now, self.ledger or self.world.reader, self.hub.books)
        found = await self.world.client.get(CONSUMERBUDGETS, "monthly", self.namespace)
        return dict(found["status"])

    async def hour(self, number: int) -> None:
        await self.world.hour(number, self.hub)

    async def charged(self) -> int:
        return -await self.world.reader.balance(names.consumer_account(FEDERATION, self.uid))

    async def warnings(self) -> list[str]:
        events = (await self.world.client.list(EVENTS, self.namespace)).items
        return sorted(event["reason"] for event in events if event["type"] == "Warning")


class Away:
    """A ledger that does not answer."""

    async def statement(self, account: str, *, before: int | None = None, limit: int = 100) -> Statement:
        raise Transient(f"no answer about {account}, {before}, {limit}")


class Listed(Mapping[Key, Json]):
    """A store as the hub's reflectors keep it, filled from a list."""

    def __init__(self) -> None:
        self.objects: list[Json] = []

    def __getitem__(self, key: Key) -> Json:
        return self._by_key()[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_key())

    def __len__(self) -> int:
        return len(self.objects)

    def _by_key(self) -> dict[Key, Json]:
        return {(obj["metadata"].get("namespace", ""), obj["metadata"]["name"]): obj for obj in self.objects}


@pytest.fixture
async def shop(hub_cluster: Cluster, address: str, tmp_path: Path) -> AsyncIterator[Shop]:
    async with settlement_world(hub_cluster, address, tmp_path) as world:
        namespace = f"shop-{next(_numbers)}"
        hub_cluster.create_namespace(namespace)
        uid = str((await world.client.get(NAMESPACES, namespace))["metadata"]["uid"])
        await world.client.delete(GUESTPODS, UID, world.mailbox)
        guest = guest_pod(world.name)
        guest["spec"] |= {"podNamespace": namespace, "namespaceUid": uid}
        await world.client.create(GUESTPODS, guest)
        running = {"status": {"phase": "Running", "startedAt": "2026-01-01T00:00:00Z", "containers": [RUNNING]}}
        await world.client.patch(GUESTPODS, UID, running, world.mailbox, subresource="status")
        stores, budgets = await budgets_of(world)
        yield Shop(world, hub_cluster, namespace, uid, world.settlement(), stores, budgets)


class Stores(dict[Resource, Listed]):
    async def refresh(self, client: KubeClient) -> None:
        for kind, store in self.items():
            store.objects = (await client.list(kind)).items


async def budgets_of(world: LedgerWorld) -> tuple[Stores, Budgets]:
    """Of a hub that has just been started."""
    stores = Stores({kind: Listed() for kind in (NAMESPACES, HOMES, SCHEDULINGPOOLS, GUESTPODS)})
    made = Budgets(
        world.client,
        FEDERATION,
        EventRecorder(world.client, "homefed-hub"),
        namespaces=stores[NAMESPACES],
        homes=stores[HOMES],
        pools=stores[SCHEDULINGPOOLS],
        guests=stores[GUESTPODS],
    )
    await made.load()
    return stores, made


async def test_what_is_charged_and_what_is_under_way_are_told_apart(shop: Shop) -> None:
    await shop.give(100_000_000)
    await shop.hour(1)
    found = await shop.look(at(1, 900))
    assert int(found["spent"]) == await shop.charged() > HOUR_RESERVED
    assert int(found["estimated"]) == HOUR_RESERVED // 4, "a quarter of an hour since the claim"
    assert int(found["remaining"]) == 100_000_000 - int(found["spent"]) - int(found["estimated"])
    assert (found["exhausted"], found["periodStart"]) == (False, "2026-01-01T00:00:00Z")
    assert shop.budgets.refusal(shop.namespace) is None


async def test_a_claim_that_waits_for_its_receipt_is_under_way(shop: Shop) -> None:
    await shop.give(100_000_000)
    await shop.hour(1)
    before = await shop.charged()
    shop.world.ledger.down = True
    await shop.hour(2)
    found = await shop.look(at(2, 0))
    charged = (await shop.world.claims())[1]["spec"]["charged"]
    assert (found["spent"], found["estimated"]) == (str(before), charged)
    shop.world.ledger.down = False
    await shop.hub.settle(shop.world.name, at(2, 80))
    found = await shop.look(at(2, 0))
    assert (found["spent"], found["estimated"]) == (str(before + int(charged)), "0")


async def test_a_budget_warns_and_then_refuses_what_is_new(shop: Shop) -> None:
    await shop.hour(1)
    one = await shop.charged()
    await shop.give(one * 3 // 2, warnPercent=50)
    low = await shop.look(at(1, 0))
    assert conditions.is_true(low["conditions"], "BudgetLow")
    assert (low["exhausted"], await shop.warnings()) == (False, ["BudgetLow"])
    over = await shop.look(at(2, 600))
    assert (over["exhausted"], await shop.warnings()) == (True, ["BudgetExhausted", "BudgetLow"])
    assert "is exhausted" in (shop.budgets.refusal(shop.namespace) or "")
    _, again = await budgets_of(shop.world)
    assert "is exhausted" in (again.refusal(shop.namespace) or ""), "a hub that starts knows it before its first pass"
    await shop.hour(2)
    assert int((await shop.look(at(2, 700)))["remaining"]) < 0, "what runs goes on"
    (guest,) = await shop.world.guests()
    assert "stop" not in guest["spec"]
    await shop.give(10 * one, warnPercent=50)
    assert not (await shop.look(at(2, 700)))["exhausted"]
    assert shop.budgets.refusal(shop.namespace) is None


async def test_pods_are_kept_out_before_anybody_can_read_that_the_budget_is_exhausted(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.hour(1)
    await shop.give(await shop.charged())
    write, said = shop.world.client.apply, []

    async def noted(kind: Resource, body: Json, **options: Any) -> Json:
        if body["metadata"]["namespace"] == shop.namespace:
            said.append(shop.budgets.refusal(shop.namespace))
        return await write(kind, body, **options)

    monkeypatch.setattr(shop.world.client, "apply", noted)
    assert (await shop.look(at(1, 0)))["exhausted"]
    assert ["is exhausted" in (one or "") for one in said] == [True]


async def test_a_new_month_begins_at_nothing_and_a_total_goes_on(shop: Shop) -> None:
    await shop.hour(1)
    await shop.world.observe(endedAt="2026-01-01T01:00:00Z")
    charged = await shop.charged()
    await shop.give(charged)
    assert (await shop.look(at(1, 0)))["exhausted"]
    february = await shop.look(at(24 * 31, 1))
    assert (february["spent"], february["exhausted"], february["periodStart"]) == ("0", False, "2026-02-01T00:00:00Z")
    await shop.give(charged, period="Total")
    total = await shop.look(at(24 * 31, 1))
    assert (int(total["spent"]), total["exhausted"], total.get("periodStart")) == (charged, True, None)


async def test_what_was_spent_outlives_every_object_of_the_hub(shop: Shop) -> None:
    await shop.hour(1)
    await shop.world.observe(endedAt="2026-01-01T01:00:00Z")
    charged = await shop.charged()
    for obj in (await shop.world.client.list(REWARDCLAIMS, shop.world.mailbox)).items:
        await shop.world.client.delete(REWARDCLAIMS, obj["metadata"]["name"], shop.world.mailbox)
    await shop.world.client.delete(GUESTPODS, UID, shop.world.mailbox)
    await shop.give(charged)
    await shop.restart()
    found = await shop.look(at(1, 0))
    assert (int(found["spent"]), found["exhausted"]) == (charged, True)


async def test_at_rest_nothing_is_written(shop: Shop) -> None:
    await shop.give(1_000_000_000)
    await shop.hour(1)
    await shop.look(at(1, 0))
    before = await shop.world.client.get(CONSUMERBUDGETS, "monthly", shop.namespace)
    await shop.look(at(1, 900))
    after = await shop.world.client.get(CONSUMERBUDGETS, "monthly", shop.namespace)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_while_the_ledger_does_not_answer_what_was_said_holds(shop: Shop) -> None:
    await shop.hour(1)
    await shop.give(1)
    assert (await shop.look(at(1, 0)))["exhausted"]
    await shop.restart()
    shop.ledger = Away()
    assert (await shop.look(at(1, 10)))["exhausted"]
    assert shop.budgets.refusal(shop.namespace) is not None


async def test_commands_set_and_show_budgets(shop: Shop) -> None:
    async def run(*arguments: str) -> Any:
        given = ["budget", *arguments, "--kubeconfig", str(shop.cluster.kubeconfig)]
        invoke: Callable[..., Any] = CliRunner().invoke
        return await asyncio.to_thread(invoke, cli, given)

    done = await run("set", shop.namespace, "--limit", "2.5", "--warn", "50", "-o", "json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["limitMicro"] == 2_500_000
    assert "not known yet" in (await run("show", shop.namespace)).output
    await shop.hour(1)
    await shop.look(at(1, 0))
    (row,) = json.loads((await run("show", shop.namespace, "-o", "json")).output)
    assert row["spentMicro"] == await shop.charged()
    assert "BudgetLow: 50 % of" in (await run("list")).output
    assert "is not a consumer's" in str((await run("set", shop.world.mailbox, "--limit", "1")).exception)
