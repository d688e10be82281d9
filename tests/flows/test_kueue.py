"""A pool's capacity as quota of a ClusterQueue, on a real API server that serves the kind as Kueue defines it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.hub_support import (
    SERVICE_ACCOUNT,
    Agent,
    apply_hub_chart,
    condition_of,
    eventually,
    hub_operator,
    hub_writes,
    machine,
    make_home,
    make_pool,
    prepared,
    quiet,
)
from homefed.kube.client import KubeClient
from homefed.kube.resources import CLUSTERQUEUES, SCHEDULINGPOOLS
from testbed.binaries import Binaries
from testbed.cluster import APISERVER_ONLY, Cluster

REFERENCE = {"name": "community", "flavor": "homes"}
PASS_SECONDS = 2.0
Json = dict[str, Any]


@pytest.fixture(scope="module")
def hub(binaries: Binaries, testbed_folder: Path) -> Iterator[Cluster]:
    cluster = Cluster("hub-kueue", testbed_folder / "hub-kueue", binaries, components=APISERVER_ONLY)
    with prepared(cluster, binaries):
        yield cluster


@pytest.fixture
async def admin(hub: Cluster) -> AsyncIterator[KubeClient]:
    async with KubeClient.from_kubeconfig(hub.kubeconfig) as client:
        yield client


async def test_a_pools_capacity_is_the_quota_of_its_flavor(hub: Cluster, binaries: Binaries, admin: KubeClient) -> None:
    """From a hub that knows nothing of Kueue to a written quota: at each step the condition names the next one."""
    async with hub_operator(hub, full_pass_seconds=PASS_SECONDS):
        await make_pool(admin, "garden", clusterQueue=REFERENCE)
        await said(admin, "garden", "QueueForbidden", "hub.kueue.enabled=true")
        apply_hub_chart(hub, binaries, "hub.kueue.enabled=true")
        await said(admin, "garden", "KueueNotInstalled", "install Kueue")
        hub.apply([CLUSTER_QUEUES])
        await said(admin, "garden", "QueueMissing", "create it")
        await admin.create(
            CLUSTERQUEUES, {"metadata": {"name": "community"}, "spec": {"resourceGroups": groups("own")}}
        )
        await said(admin, "garden", "FlavorMissing", "has no flavor homes")
        await admin.patch(
            CLUSTERQUEUES, "community", {"spec": {"cohort": "all", "resourceGroups": groups("own", "homes")}}
        )
        assert "does not cover" not in await said(admin, "garden", "QuotaWritten")
        assert await quota(admin, "homes") == {"cpu": "0", "memory": "0", "pods": "0"}

        await make_home(admin, "anna")
        async with Agent.joined(hub, admin, "anna") as agent:
            await agent.offer("attic", "garden", [machine(1), machine(2)])
            await eventually(lambda: quota_is(admin, {"cpu": "4", "memory": "8Gi", "pods": "40"}), "both machines")
            await said(admin, "garden", "QuotaWritten", "does not cover ephemeral-storage")
            await agent.offer("attic", "garden", [machine(1)])
            await eventually(lambda: quota_is(admin, {"cpu": "2", "memory": "4Gi", "pods": "20"}), "one machine")
            spec = (await admin.get(CLUSTERQUEUES, "community"))["spec"]
            assert spec["cohort"] == "all"
            assert await quota(admin, "own") == {"cpu": "9", "memory": "36Gi", "pods": "5"}, "what is not ours"
            assert {one["borrowingLimit"] for one in resources(spec, "homes")} == {"1"}

            offset = await quiet(hub)
            await eventually(lambda: looked(hub, offset), "each pass looks")
            await asyncio.sleep(PASS_SECONDS * 2)
            assert hub_writes(hub, offset) == []

            changed = groups("own", "homes")
            await admin.patch(CLUSTERQUEUES, "community", {"spec": {"resourceGroups": changed}})
            await eventually(lambda: quota_is(admin, {"cpu": "2", "memory": "4Gi", "pods": "20"}), "it is mended")

            await make_pool(admin, "orchard", clusterQueue=REFERENCE)
            await said(admin, "orchard", "FlavorTaken", "garden")
            await admin.patch(SCHEDULINGPOOLS, "orchard", {"spec": {"clusterQueue": None}})
            await eventually(lambda: silent(admin, "orchard"), "no word of a queue that is not asked for")


async def said(admin: KubeClient, pool: str, reason: str, words: str = "") -> str:
    """The sentence of condition ClusterQueue once it has this reason and these words; it is written after the quota."""

    async def look() -> str:
        found = condition_of(await admin.get(SCHEDULINGPOOLS, pool), "ClusterQueue")
        return str(found["message"]) if found.get("reason") == reason and words in found["message"] else ""

    return str(await eventually(look, f"{pool}: {reason} {words}"))


async def looked(hub: Cluster, offset: int) -> bool:
    """Whether the hub operator has read a ClusterQueue since then."""
    events = hub.audit_events(offset)
    return any(event.resource == "clusterqueues" for event in events if event.user.endswith(f":{SERVICE_ACCOUNT}"))


async def silent(admin: KubeClient, pool: str) -> bool:
    return not condition_of(await admin.get(SCHEDULINGPOOLS, pool), "ClusterQueue")


def resources(spec: Json, flavor: str) -> list[Json]:
    (found,) = [
        one["resources"] for group in spec["resourceGroups"] for one in group["flavors"] if one["name"] == flavor
    ]
    return list(found)


async def quota(admin: KubeClient, flavor: str) -> Json:
    spec = (await admin.get(CLUSTERQUEUES, "community"))["spec"]
    return {one["name"]: str(one["nominalQuota"]) for one in resources(spec, flavor)}


async def quota_is(admin: KubeClient, expected: Json) -> bool:
    return await quota(admin, "homes") == expected


def groups(*flavors: str) -> list[Json]:
    amounts = {"cpu": 9, "memory": "36Gi", "pods": "5"}
    each = [{"name": name, "nominalQuota": amount, "borrowingLimit": "1"} for name, amount in amounts.items()]
    return [{"coveredResources": [*amounts], "flavors": [{"name": name, "resources": each} for name in flavors]}]


def _list(items: Json, key: str | None = None) -> Json:
    if key is None:
        return {"type": "array", "maxItems": 16, "items": items, "x-kubernetes-list-type": "atomic"}
    kind: Json = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    return {"type": "array", "maxItems": 16, "items": items, **kind}


def _object(required: list[str], **properties: Json) -> Json:
    return {"type": "object", "required": required, "properties": properties}


_TEXT: Json = {"type": "string", "maxLength": 253}
_QUANTITY: Json = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": r"^(\+|-)?[0-9]+(\.[0-9]*)?([KMGTPE]i|[numkMGTPE])?$",
    "x-kubernetes-int-or-string": True,
}
_RESOURCE = _object(
    ["name", "nominalQuota"], name=_TEXT, nominalQuota=_QUANTITY, borrowingLimit=_QUANTITY, lendingLimit=_QUANTITY
)
_FLAVOR = _object(["name", "resources"], name=_TEXT, resources=_list(_RESOURCE, "name"))
_GROUP = _object(["coveredResources", "flavors"], coveredResources=_list(_TEXT), flavors=_list(_FLAVOR, "name"))
_SPEC: Json = {"type": "object", "properties": {"cohort": _TEXT, "resourceGroups": _list(_GROUP)}}
CLUSTER_QUEUES: Json = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "clusterqueues.kueue.x-k8s.io",
        "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/kueue"},
    },
    "spec": {
        "group": "kueue.x-k8s.io",
        "names": {
            "kind": "ClusterQueue",
            "listKind": "ClusterQueueList",
            "plural": "clusterqueues",
            "singular": "clusterqueue",
        },
        "scope": "Cluster",
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": _SPEC}}},
            }
        ],
    },
}
"""What of Kueue's own definition (v1beta1) concerns quotas, with its kinds of lists."""
