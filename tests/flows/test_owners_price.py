"""What an owner asks, from his Offer to the terms of a guest, on a real control plane with the hub's own rights."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.hub_support import (
    NAMESPACE,
    SERVICE_ACCOUNT,
    Agent,
    condition_of,
    eventually,
    hub_operator,
    machine,
    make_home,
    make_pool,
    nodes_of,
    prepared,
    quiet,
)
from homefed.api import names
from homefed.api.errors import HomefedError
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import rates
from homefed.kube.client import KubeClient
from homefed.kube.resources import GUESTPODS, HOMES, PODS, ROLEBINDINGS, SCHEDULINGPOOLS
from testbed.binaries import Binaries
from testbed.cluster import Cluster

POOL, HOME, OFFER = "meadow", "ida", "barn"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def hub(binaries: Binaries, testbed_folder: Path) -> Iterator[Cluster]:
    cluster = Cluster("hub-prices", testbed_folder / "hub-prices", binaries)
    with prepared(cluster, binaries):
        yield cluster


@pytest.fixture
async def admin(hub: Cluster) -> AsyncIterator[KubeClient]:
    async with KubeClient.from_kubeconfig(hub.kubeconfig) as client:
        yield client


def card(version: str, price: int) -> Json:
    prices = [{"resource": "cpu", "basis": "reserved", "microCredits": price, "per": "core-hour"}]
    return {"version": version, "validFrom": "2026-01-01T00:00:00Z", "prices": prices}


def asked(percent: int, floor: int) -> Json:
    floors = [{"resource": "cpu", "basis": "reserved", "microCredits": floor}]
    return {"percentOfCard": percent, "floors": floors}


def consumer(hub: Cluster, name: str) -> str:
    """A namespace that may use the pool."""
    hub.create_namespace(name, {names.enabled_label(POOL): "enabled"})
    subject = {"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": names.CONSUMER_ROLE}
    binding = {"metadata": {"name": "homefed", "namespace": name}, "roleRef": role, "subjects": [subject]}
    hub.apply([{"apiVersion": ROLEBINDINGS.api_version, "kind": ROLEBINDINGS.kind} | binding])
    return name


async def terms_of_a_new_guest(admin: KubeClient, namespace: str, name: str) -> tuple[str, Json]:
    """Of a pod that is created now: its UID, and what its GuestPod says."""
    requests = {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "100Mi"}
    container = {"name": "app", "image": "registry.example/app:1", "resources": {"requests": requests}}
    spec = {"runtimeClassName": names.runtime_class(POOL), "containers": [container]}
    pod = await admin.create(PODS, {"metadata": {"name": name, "namespace": namespace}, "spec": spec})
    uid = pod["metadata"]["uid"]
    guest: Json = await eventually(lambda: admin.get(GUESTPODS, uid, names.mailbox(HOME)), f"GuestPod of {name}")
    return uid, guest["spec"]["terms"]


async def test_an_owner_is_in_the_pool_when_the_card_suits_him_and_guests_keep_the_terms_they_were_bound_at(
    hub: Cluster, admin: KubeClient
) -> None:
    async def said(reason: str) -> str:
        found = await agent.condition(OFFER, "Accepted")
        return str(found["message"]) if found.get("reason") == reason else ""

    async def labelled(percent: str) -> bool:
        nodes = await nodes_of(admin, HOME)
        ready = [one for one in nodes if condition_of(one, "Ready").get("status") == "True"]
        return [one["metadata"]["labels"][names.LABEL_PRICE_PERCENT] for one in ready] == [percent]

    async with hub_operator(hub):
        await make_pool(admin, POOL, rateCard=card("1", 1000))
        await make_home(admin, HOME)
        async with Agent.joined(hub, admin, HOME) as agent:
            await agent.offer(OFFER, POOL, [machine(1)], price=asked(100, 2000))
            message = await eventually(lambda: said("PriceBelowFloor"), "the offer is refused for its floor")
            assert "spec.price.floors cpu reserved 2000" in message
            assert "gives 1000 per core-hour" in message
            assert await nodes_of(admin, HOME) == []

            await admin.patch(SCHEDULINGPOOLS, POOL, {"spec": {"rateCard": card("2", 3000)}})
            await eventually(lambda: labelled("100"), "the dearer card brings the machine into the pool")

            async def told() -> bool:
                terms = (await agent.status(OFFER)).get("terms") or {}
                return bool(terms.get("rateCard", {}).get("version") == "2")

            await eventually(told, "the home is shown the card")
            status, home = await agent.status(OFFER), await admin.get(HOMES, HOME)
            assert status["memberSince"] == home["metadata"]["creationTimestamp"]
            terms = SchedulingPoolSpec.model_validate(status["terms"])
            assert rates.card_digest(terms.rate_card) == status["rateCardDigest"]
            shop = consumer(hub, "shop-prices")
            first, bound = await terms_of_a_new_guest(admin, shop, "first")
            assert bound == {"class": "standard", "pricePpm": 1_000_000}

            await agent.offer(OFFER, POOL, [machine(1)], price=asked(70, 2000))
            await eventually(lambda: labelled("70"), "the node says what its owner asks now")
            await quiet(hub, 1.0)  # and has seen it itself
            _, bound = await terms_of_a_new_guest(admin, shop, "second")
            assert bound == {"class": "standard", "pricePpm": 700_000}
            before = await admin.get(GUESTPODS, first, names.mailbox(HOME))
            assert before["spec"]["terms"]["pricePpm"] == 1_000_000
            with pytest.raises(HomefedError, match="terms are immutable"):
                await admin.patch(GUESTPODS, first, {"spec": {"terms": {"pricePpm": 1}}}, names.mailbox(HOME))

            await agent.offer(OFFER, POOL, [machine(1)], price=asked(70, 2000), **{"class": "fast"})
            await eventually(lambda: said("UnknownClass"), "a class that the card does not know is refused")
            kept = await admin.get(GUESTPODS, first, names.mailbox(HOME))
            assert kept["spec"]["terms"]["pricePpm"] == 1_000_000, "its guests run on, at their terms"
