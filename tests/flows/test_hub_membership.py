"""Homes, Offers, virtual nodes and pools on a real control plane, the hub operator with the chart's rights."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flows.hub_support import (
    NAMESPACE,
    SERVICE_ACCOUNT,
    Agent,
    condition_of,
    eventually,
    hub_operator,
    machine,
    mailbox_of,
    make_home,
    make_pool,
    nodes_of,
    prepared,
    quiet,
)
from homefed.api import dsse, names
from homefed.api.errors import Forbidden, NotFound
from homefed.core import key_rotation
from homefed.kube.client import KubeClient
from homefed.kube.resources import (
    CONFIGMAPS,
    EVENTS,
    GUESTPODS,
    HOMES,
    LEASES,
    NAMESPACES,
    NODES,
    OFFERS,
    PODS,
    REWARDCLAIMS,
    ROLEBINDINGS,
    ROLES,
    SCHEDULINGPOOLS,
    SECRETS,
    SERVICEACCOUNTS,
    Resource,
)
from testbed.binaries import Binaries
from testbed.cluster import Cluster

FAST_LIFECYCLE = {"kube-controller-manager": ["--node-monitor-grace-period=4s", "--node-monitor-period=1s"]}
FOUR_BLOCKS = "10.244.0.0/22"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def hub(binaries: Binaries, testbed_folder: Path) -> Iterator[Cluster]:
    """A hub that has four address blocks for nodes and notices silent ones after four seconds."""
    folder = testbed_folder / "hub-membership"
    cluster = Cluster(
        "hub-membership", folder, binaries, pod_cidr=FOUR_BLOCKS, allocate_node_cidrs=True, extra=FAST_LIFECYCLE
    )
    with prepared(cluster, binaries):
        yield cluster


@pytest.fixture
async def admin(hub: Cluster) -> AsyncIterator[KubeClient]:
    async with KubeClient.from_kubeconfig(hub.kubeconfig) as client:
        yield client


@pytest.fixture
async def operator(hub: Cluster) -> AsyncIterator[None]:
    async with hub_operator(hub):
        yield


async def ready_nodes(admin: KubeClient, home: str, count: int) -> list[Json]:
    async def all_ready() -> list[Json]:
        nodes = [node for node in await nodes_of(admin, home) if condition_of(node, "Ready").get("status") == "True"]
        return nodes if len(nodes) == count else []

    found: list[Json] = await eventually(all_ready, f"{count} Ready nodes of {home}")
    return found


async def test_an_offered_machine_becomes_a_ready_virtual_node_at_once(
    hub: Cluster, admin: KubeClient, operator: None
) -> None:
    await make_pool(admin, "fast")
    await make_home(admin, "anna")
    async with Agent.joined(hub, admin, "anna") as agent:
        started = time.monotonic()
        await agent.offer("attic", "fast", [machine(1)])
        (node,) = await ready_nodes(admin, "anna", 1)
        assert time.monotonic() - started < 45  # not by the next full pass; how fast on an idle machine: `make bench`
        labels = node["metadata"]["labels"]
        assert labels["kubernetes.io/hostname"] == node["metadata"]["name"]
        assert labels["type"] == "virtual-kubelet"
        assert "kubernetes.io/os" not in labels
        assert node["status"]["allocatable"]["cpu"] == "2"
        assert "addresses" not in node["status"] or node["status"]["addresses"] == []

        async def told() -> bool:
            return (await agent.condition("attic", "Ready")).get("status") == "True"

        await eventually(told, "the agent sees its offer Ready")
        status = await agent.status("attic")
        assert status["machines"] == [{"id": machine(1)["id"], "node": node["metadata"]["name"]}]
        assert status["windowSeconds"] == 3600


async def test_an_offer_into_an_unknown_pool_waits_for_it(hub: Cluster, admin: KubeClient, operator: None) -> None:
    await make_home(admin, "bea")
    async with Agent.joined(hub, admin, "bea") as agent:
        await agent.offer("attic", "later", [machine(1)])

        async def refused() -> bool:
            return (await agent.condition("attic", "Accepted")).get("reason") == "UnknownPool"

        await eventually(refused, "refusal of the unknown pool")
        assert "later" in (await agent.condition("attic", "Accepted"))["message"]
        assert await nodes_of(admin, "bea") == []
        await make_pool(admin, "later")
        await ready_nodes(admin, "bea", 1)


async def test_a_pool_limits_machines_and_sums_up_its_ready_capacity(
    hub: Cluster, admin: KubeClient, operator: None
) -> None:
    await make_pool(admin, "bounded", machineLimits={"cpu": "1500m"})
    await make_home(admin, "cora")
    async with Agent.joined(hub, admin, "cora") as agent:
        await agent.offer("attic", "bounded", [machine(1), machine(2)])
        nodes = await ready_nodes(admin, "cora", 2)
        assert {node["status"]["allocatable"]["cpu"] for node in nodes} == {"1500m"}

        async def summed_up() -> Json:
            status: Json = (await admin.get(SCHEDULINGPOOLS, "bounded")).get("status") or {}
            return status if status.get("readyMachines") == 2 else {}

        status = await eventually(summed_up, "two ready machines in the pool's status")
        assert status["capacity"] == {"cpu": "3", "memory": "8Gi", "ephemeral-storage": "40Gi", "pods": "40"}
        assert status["homes"] == 1
        assert condition_of({"status": status}, "Ready")["status"] == "True"


async def test_a_pod_of_the_pools_class_lands_and_keeps_its_machine_from_being_removed(
    hub: Cluster, admin: KubeClient, operator: None
) -> None:
    await make_pool(admin, "landing")
    await make_home(admin, "dora")
    namespace = hub.create_namespace("consumer-dora", {names.enabled_label("landing"): "enabled"})
    async with Agent.joined(hub, admin, "dora") as agent:
        await agent.offer("attic", "landing", [machine(1)])
        (node,) = await ready_nodes(admin, "dora", 1)
        name = node["metadata"]["name"]
        await admin.create(PODS, pod("one", namespace, "homefed-landing"))

        async def bound() -> bool:
            return bool((await admin.get(PODS, "one", namespace))["spec"].get("nodeName") == name)

        await eventually(bound, "the pod to be bound to the virtual node")
        await agent.offer("attic", "landing", [])

        async def cordoned() -> bool:
            (found,) = await nodes_of(admin, "dora")
            return bool(found["spec"].get("unschedulable"))

        await eventually(cordoned, "the withdrawn machine's node to be cordoned")
        await asyncio.sleep(1.5)
        assert len(await nodes_of(admin, "dora")) == 1
        assert [accepted["node"] for accepted in (await agent.status("attic"))["machines"]] == [name]
        await admin.delete(PODS, "one", namespace, grace_seconds=0)
        await eventually(lambda: gone(admin, name), "the empty node to go")


async def test_pausing_and_suspending_cordon_and_resuming_undoes_only_that(
    hub: Cluster, admin: KubeClient, operator: None
) -> None:
    await make_pool(admin, "calm")
    await make_home(admin, "emil")
    async with Agent.joined(hub, admin, "emil") as agent:
        await agent.offer("attic", "calm", [machine(1)])
        (node,) = await ready_nodes(admin, "emil", 1)
        name = node["metadata"]["name"]

        async def unschedulable(wanted: bool) -> bool:
            return bool((await admin.get(NODES, name))["spec"].get("unschedulable", False)) == wanted

        await agent.offer("attic", "calm", [machine(1)], state="Paused")
        await eventually(lambda: unschedulable(True), "the paused machine's cordon")

        async def told() -> bool:
            return (await agent.condition("attic", "Available")).get("reason") == "Paused"

        await eventually(told, "the offer to say Paused")
        await agent.offer("attic", "calm", [machine(1)])
        await eventually(lambda: unschedulable(False), "the resumed machine")
        await admin.patch(HOMES, "emil", {"spec": {"suspended": True}})
        await eventually(lambda: unschedulable(True), "the suspended home's cordon")
        await admin.patch(HOMES, "emil", {"spec": {"suspended": False}})
        await eventually(lambda: unschedulable(False), "the home's machine again")
        await admin.patch(NODES, name, {"spec": {"unschedulable": True}})  # the organiser's own cordon
        await agent.offer("attic", "calm", [machine(1)], agentVersion="2")
        await asyncio.sleep(1)
        assert await unschedulable(True)


async def test_a_silent_home_is_marked_by_kubernetes_and_ready_again_when_its_leases_return(
    hub: Cluster, admin: KubeClient, operator: None
) -> None:
    await make_pool(admin, "flaky")
    await make_home(admin, "fritz")
    async with Agent.joined(hub, admin, "fritz") as agent:
        await agent.offer("attic", "flaky", [machine(1)])
        (node,) = await ready_nodes(admin, "fritz", 1)
        agent.renewing = False

        async def status(wanted: str) -> bool:
            return condition_of(await admin.get(NODES, node["metadata"]["name"]), "Ready").get("status") == wanted

        await eventually(lambda: status("Unknown"), "the silent node to become Unknown")

        async def offline() -> bool:
            return condition_of(await admin.get(HOMES, "fritz"), "Online").get("reason") == "NoLease"

        await eventually(offline, "the home to be shown offline")
        agent.renewing = True
        started = time.monotonic()
        await eventually(lambda: status("True"), "the node to be Ready again")
        assert time.monotonic() - started < 45  # by the renewal, not by the next full pass
        taints = (await admin.get(NODES, node["metadata"]["name"]))["spec"].get("taints", [])
        assert {"key": names.TAINT_POOL, "value": "flaky", "effect": "NoSchedule"} in taints


async def test_another_key_is_refused_until_the_organiser_trusts_it(
    hub: Cluster, admin: KubeClient, operator: None
) -> None:
    await make_pool(admin, "keyed")
    await make_home(admin, "gerd")
    async with Agent.joined(hub, admin, "gerd") as agent:
        await agent.offer("attic", "keyed", [machine(1)])
        await ready_nodes(admin, "gerd", 1)
        first = await eventually(lambda: pinned_key(admin, "gerd"), "the key that is believed")
        assert first["publicKey"] == agent.key
        agent.key = base64.b64encode(b"k" * 32).decode()
        await agent.offer("attic", "keyed", [machine(1)])

        async def mismatch() -> bool:
            return (await agent.condition("attic", "Accepted")).get("reason") == "KeyMismatch"

        await eventually(mismatch, "the refusal of another key")
        assert (await admin.get(HOMES, "gerd"))["status"]["key"] == first
        await admin.patch(HOMES, "gerd", {"spec": {"trustedFingerprint": dsse.fingerprint(b"k" * 32)}})

        async def trusted() -> bool:
            return (await agent.condition("attic", "Accepted")).get("status") == "True"

        await eventually(trusted, "the trusted key's offer")

        async def pinned() -> bool:
            return bool((await pinned_key(admin, "gerd")).get("publicKey") == agent.key)

        await eventually(pinned, "the trusted key")


async def pinned_key(admin: KubeClient, home: str) -> Json:
    found: Json = ((await admin.get(HOMES, home)).get("status") or {}).get("key") or {}
    return found


async def test_a_home_changes_its_key_by_a_statement_of_the_old_one(hub: Cluster, admin: KubeClient) -> None:
    old, new, stranger = (Ed25519PrivateKey.from_private_bytes(letter * 32) for letter in (b"o", b"n", b"s"))
    await make_pool(admin, "rekeyed")
    await make_home(admin, "greta")
    async with hub_operator(hub):
        await eventually(lambda: mailbox_of(admin, "greta"), "the mailbox")
    uid = (await admin.get(HOMES, "greta"))["metadata"]["uid"]

    async def key() -> Json:
        return await pinned_key(admin, "greta")

    async def shown() -> bool:
        return (await agent.status("attic")).get("keyFingerprint") == (await key()).get("fingerprint") is not None

    def statement(by: Ed25519PrivateKey) -> str:
        return key_rotation.statement(by, uid, public(new), datetime.now(UTC))

    async with Agent.joined(hub, admin, "greta") as agent:
        agent.key = public(old)
        async with hub_operator(hub):
            for name, number in (("attic", 1), ("cellar", 2)):
                await agent.offer(name, "rekeyed", [machine(number)])
            before = attic_node(await ready_nodes(admin, "greta", 2))
            await eventually(shown, "the key's fingerprint in the offer")
            forged = {"publicKey": public(new), "keyRotation": statement(stranger)}
            await agent.offer("cellar", "rekeyed", [machine(2)], **forged)

            async def refused() -> bool:
                return (await agent.condition("cellar", "Accepted")).get("reason") == "KeyMismatch"

            await eventually(refused, "the refusal of a stranger's statement")
            assert (await key())["publicKey"] == public(old)

        signed = {"publicKey": public(new), "keyRotation": statement(old)}
        await agent.offer("attic", "rekeyed", [machine(1)], **signed)
        await agent.offer("cellar", "rekeyed", [machine(2)])  # not republished yet: the old key
        async with hub_operator(hub):

            async def moved() -> bool:
                return (await agent.status("attic")).get("keyFingerprint") == key_rotation.fingerprint_of(public(new))

            await eventually(moved, "the new key's fingerprint in the offer")

            async def replaced() -> Json | None:
                pinned = await key()
                return pinned if [one["publicKey"] for one in pinned.get("former") or ()] == [public(old)] else None

            pinned = await eventually(replaced, "the old key among the former ones")
            for name in ("attic", "cellar"):
                await eventually(lambda: accepted(agent, name), f"{name} accepted")  # noqa: B023
            await eventually(lambda: told(admin, "greta", "KeyRotated"), "an event on the home")

            async def said() -> bool:
                return condition_of(await admin.get(HOMES, "greta"), "Key").get("reason") == "Rotated"

            await eventually(said, "the home's condition")
        async with hub_operator(hub):
            assert attic_node(await ready_nodes(admin, "greta", 2)) == before, "no node comes or goes for it"
            assert await key() == pinned, "a hub that starts again finds nothing to move"


def public(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def attic_node(nodes: list[Json]) -> str:
    """UID of the node of offer `attic`."""
    (uid,) = [n["metadata"]["uid"] for n in nodes if n["metadata"]["labels"][names.LABEL_OFFER] == "attic"]
    return str(uid)


async def accepted(agent: Agent, name: str) -> bool:
    return (await agent.condition(name, "Accepted")).get("status") == "True"


async def told(admin: KubeClient, name: str, reason: str) -> list[Json]:
    """Events on an object that is not namespaced."""
    events = await admin.list(EVENTS, "default", field_selector=f"involvedObject.name={name}")
    return [event for event in events.items if event["reason"] == reason]


async def test_a_namespace_of_somebody_else_is_refused_as_mailbox(hub: Cluster, admin: KubeClient) -> None:
    hub.create_namespace(names.mailbox("hilde"))
    async with hub_operator(hub):
        await make_home(admin, "hilde")

        async def refused() -> bool:
            return condition_of(await admin.get(HOMES, "hilde"), "Ready").get("reason") == "NamespaceTaken"

        await eventually(refused, "the refusal of the foreign namespace")
        with pytest.raises(NotFound):
            await admin.get(SERVICEACCOUNTS, names.AGENT_SERVICE_ACCOUNT, names.mailbox("hilde"))
        await admin.delete(HOMES, "hilde")
        await eventually(lambda: gone(admin, "hilde", HOMES), "the home to go")
        await admin.get(NAMESPACES, names.mailbox("hilde"))


async def test_a_node_of_somebody_else_is_never_touched(hub: Cluster, admin: KubeClient, operator: None) -> None:
    await make_pool(admin, "foreign")
    home = await make_home(admin, "ida")
    name = names.virtual_node("ida", home["metadata"]["uid"], machine(1)["id"])
    await admin.create(NODES, {"metadata": {"name": name, "labels": {"mine": "yes"}}})
    before = await admin.get(NODES, name)
    async with Agent.joined(hub, admin, "ida") as agent:
        await agent.offer("attic", "foreign", [machine(1)])

        async def told() -> bool:
            return (await agent.condition("attic", "Available")).get("reason") == "NodeProblem"

        await eventually(told, "the offer to say that its node's name is taken")
    after = await admin.get(NODES, name)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert names.LABEL_HOME_UID not in after["metadata"]["labels"]
    await admin.delete(NODES, name)


async def test_an_agent_may_renew_its_own_leases_and_nothing_else(
    hub: Cluster, admin: KubeClient, operator: None
) -> None:
    await make_pool(admin, "rights")
    await make_home(admin, "jan")
    await make_home(admin, "kim")
    async with Agent.joined(hub, admin, "jan") as jan, Agent.joined(hub, admin, "kim") as kim:
        await jan.offer("attic", "rights", [machine(1)])
        await kim.offer("attic", "rights", [machine(1)])
        await ready_nodes(admin, "jan", 1)
        (others,) = await ready_nodes(admin, "kim", 1)
        other = others["metadata"]["name"]
        for forbidden in (
            jan.client.get(LEASES, other, names.NODE_LEASE_NAMESPACE),
            jan.client.list(LEASES, names.NODE_LEASE_NAMESPACE),
            jan.client.get(NODES, other),
            jan.client.list(OFFERS, names.mailbox("kim")),
            jan.client.list(OFFERS),
            jan.client.get(SECRETS, "homefed-hub", NAMESPACE),
        ):
            with pytest.raises(Forbidden):
                await forbidden


async def test_a_deleted_home_takes_everything_with_it(hub: Cluster, admin: KubeClient, operator: None) -> None:
    await make_pool(admin, "brief")
    await make_home(admin, "lena")
    async with Agent.joined(hub, admin, "lena") as agent:
        await agent.offer("attic", "brief", [machine(1), machine(2)])
        nodes = [node["metadata"]["name"] for node in await ready_nodes(admin, "lena", 2)]
        await admin.delete(HOMES, "lena")
        await eventually(lambda: gone(admin, "lena", HOMES), "the home to go")
    await eventually(lambda: count_is(admin, "lena", 0), "its nodes to go")
    for node in nodes:
        await eventually(lambda: gone(admin, node, LEASES, names.NODE_LEASE_NAMESPACE), f"{node}'s Lease to go")  # noqa: B023
    await eventually(lambda: gone(admin, names.mailbox("lena"), ROLES, names.NODE_LEASE_NAMESPACE), "its right to go")
    await eventually(lambda: gone(admin, names.mailbox("lena"), NAMESPACES), "the mailbox to go")


async def test_a_home_leaves_only_when_its_guests_have_stopped_and_its_claims_are_receipted(
    hub: Cluster, admin: KubeClient, operator: None
) -> None:
    await make_pool(admin, "owing")
    await make_home(admin, "mara")
    mailbox = names.mailbox("mara")
    async with Agent.joined(hub, admin, "mara") as agent:
        await agent.offer("attic", "owing", [machine(1)])
        guest = await a_guest(hub, admin, "mara", "owing")
        await admin.create(REWARDCLAIMS, reward_claim(mailbox, "owing"))
        await admin.delete(HOMES, "mara")

        async def stopped() -> Json:
            stop: Json = (await admin.get(GUESTPODS, guest, mailbox))["spec"].get("stop") or {}
            return stop

        stop = await eventually(stopped, "the guest to be told to stop")
        assert stop == {"gracePeriodSeconds": 7, "reason": "HomeLeaving"}

        async def waits_for(reason: str) -> bool:
            return condition_of(await admin.get(HOMES, "mara"), "Ready").get("reason") == reason

        await eventually(lambda: waits_for("StoppingGuests"), "the wait for guests")
        await admin.patch(GUESTPODS, guest, {"status": {"phase": "Failed"}}, mailbox, subresource="status")
        await eventually(lambda: waits_for("WaitingForReceipt"), "the wait for the ledger")
        receipt = {"status": {"receipt": "c2sp.org/tlog-proof@v1"}}
        await admin.patch(REWARDCLAIMS, "claim-1", receipt, mailbox, subresource="status")
        await eventually(lambda: gone(admin, "mara", HOMES), "the home to go")
    await eventually(lambda: gone(admin, mailbox, NAMESPACES), "the mailbox to go, guests' finalizers or not")


async def test_a_forced_deletion_says_what_is_lost(hub: Cluster, admin: KubeClient, operator: None) -> None:
    await make_pool(admin, "lost")
    await make_home(admin, "nils")
    async with Agent.joined(hub, admin, "nils") as agent:
        await agent.offer("attic", "lost", [machine(1)])
        await a_guest(hub, admin, "nils", "lost")
        await admin.patch(HOMES, "nils", {"metadata": {"annotations": {names.ANNOTATION_FORCE_DELETE: "true"}}})
        await admin.delete(HOMES, "nils")
        await eventually(lambda: gone(admin, "nils", HOMES), "the home to go")

    async def told() -> list[Json]:
        events = await admin.list(EVENTS, "default", field_selector="involvedObject.name=nils")
        return [event for event in events.items if event["reason"] == "ForceDeleted"]

    (event,) = await eventually(told, "an event on the loss")
    assert "1 guests were running" in event["message"]


async def test_at_rest_the_hub_writes_nothing_but_leases(hub: Cluster, admin: KubeClient) -> None:
    async with hub_operator(hub, full_pass_seconds=2.0):
        await make_pool(admin, "quiet")
        await make_home(admin, "otto")
        async with Agent.joined(hub, admin, "otto") as agent:
            await agent.offer("attic", "quiet", [machine(1), machine(2)])
            await ready_nodes(admin, "otto", 2)

            async def passed() -> str:
                lease = await admin.get(LEASES, names.HUB_LEASE, names.mailbox("otto"))
                return str(lease["spec"]["renewTime"])

            async def pass_again() -> None:
                before = await eventually(passed, "the hub's first full pass")

                async def newer() -> bool:
                    return await passed() > before

                await eventually(newer, "another full pass")

            for _ in range(3):  # in which it may still write what the machines' arrival brings about
                await pass_again()
            offset = hub.audit_log.stat().st_size
            for _ in range(3):
                await pass_again()
    written = [
        event
        for event in hub.audit_events(offset)
        if event.user.endswith(":homefed-hub")
        and event.verb not in ("get", "list", "watch")
        and event.resource != "leases"
    ]
    assert [(event.verb, event.path) for event in written] == []


async def test_the_hubs_key_survives_restarts(hub: Cluster, admin: KubeClient) -> None:
    async def published() -> str:
        data = (await admin.get(CONFIGMAPS, "homefed-hub-key", NAMESPACE)).get("data") or {}
        return str(data.get("hub.pub", ""))

    async with hub_operator(hub):
        first = await eventually(published, "the public key")
    secret = (await admin.get(SECRETS, "homefed-hub", NAMESPACE))["data"]["ed25519"]
    async with hub_operator(hub):
        await asyncio.sleep(1)
        assert await published() == first
    assert (await admin.get(SECRETS, "homefed-hub", NAMESPACE))["data"]["ed25519"] == secret
    assert len(base64.b64decode(secret)) == 32


async def test_virtual_nodes_share_one_address_block_and_real_nodes_keep_theirs(
    hub: Cluster, admin: KubeClient, operator: None
) -> None:
    await make_pool(admin, "blocks")
    await make_home(admin, "paul")
    async with Agent.joined(hub, admin, "paul") as agent:
        await agent.offer("attic", "blocks", [machine(number) for number in range(1, 7)])
        await ready_nodes(admin, "paul", 6)
        base, used = await blocks_of(admin)
        assert used == {base}
        # Each deletion frees the block's bit, which has to be occupied again: of the first holder, and of later ones.
        oldest = min(await virtual_nodes(admin), key=lambda node: str(node["metadata"]["creationTimestamp"]))
        first_home = oldest["metadata"]["labels"][names.LABEL_HOME]
        if first_home != "paul":
            await admin.delete(HOMES, first_home)
            await eventually(lambda: gone(admin, oldest["metadata"]["name"]), "the first virtual node to go")
        for left in (5, 4):
            await agent.offer("attic", "blocks", [machine(number) for number in range(7 - left, 7)])
            await eventually(lambda: count_is(admin, "paul", left), "the withdrawn node to go")  # noqa: B023
        await quiet(hub)  # it has occupied the block again
        for number in range(4):
            await admin.create(NODES, {"metadata": {"name": f"real-{number}"}})

        async def real_blocks() -> list[str]:
            found = [(await admin.get(NODES, f"real-{number}"))["spec"].get("podCIDR", "") for number in range(4)]
            return sorted(filter(None, found))

        async def three_allocated() -> bool:
            return len(await real_blocks()) >= 3

        await eventually(three_allocated, "the real nodes' blocks")
        await asyncio.sleep(2)
        given = [block.split("/")[0] for block in await real_blocks()]
        assert len(given) == len(set(given)) == 3  # the fourth block is the virtual nodes'
        assert base not in given
        hub.restart("kube-controller-manager")
        await agent.offer("attic", "blocks", [machine(number) for number in range(1, 7)])
        await ready_nodes(admin, "paul", 6)
        assert await blocks_of(admin) == (base, {base})
    for number in range(4):
        await admin.delete(NODES, f"real-{number}")


async def test_a_silent_homes_pods_are_evicted_where_kubernetes_withholds_it(
    hub: Cluster, admin: KubeClient, operator: None
) -> None:
    await make_pool(admin, "withheld")
    await make_home(admin, "rosa")
    namespace = hub.create_namespace("consumer-rosa", {names.enabled_label("withheld"): "enabled"})
    await most_nodes_are_silent(hub, admin)
    async with Agent.joined(hub, admin, "rosa") as agent:
        await agent.offer("attic", "withheld", [machine(number) for number in range(1, 4)])
        await ready_nodes(admin, "rosa", 3)
        for attempt in range(4):
            agent.renewing = True
            await ready_nodes(admin, "rosa", 3)
            name = await a_patient_pod(admin, namespace, attempt)
            # Every node of the hub is silent then: Kubernetes takes itself for the one cut off, unless one comes first.
            await agent.fall_silent()
            reasons = await eventually(lambda: evictions(admin, namespace, name), "the eviction of the pod")  # noqa: B023
            if KUBERNETES_EVICTS not in reasons:
                return  # evicted by the hub
        pytest.fail(f"Kubernetes evicted each time: {reasons}")


KUBERNETES_EVICTS = "TaintManagerEviction"


async def a_patient_pod(admin: KubeClient, namespace: str, number: int) -> str:
    """A pod on one of the home's nodes that waits 8 s when that is out of reach; its name."""
    name = f"patient-{number}"
    body = pod(name, namespace, "homefed-withheld")
    unreachable = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    body["spec"]["tolerations"] = [unreachable | {"tolerationSeconds": 8}]
    await admin.create(PODS, body)

    async def bound() -> bool:
        return bool((await admin.get(PODS, name, namespace))["spec"].get("nodeName"))

    await eventually(bound, "the pod to be bound")
    return name


async def evictions(admin: KubeClient, namespace: str, name: str) -> list[str]:
    """Reasons of the events that tell of an eviction; none before the pod is leaving."""
    left = (await admin.list(PODS, namespace, field_selector=f"metadata.name={name}")).items
    if any("deletionTimestamp" not in one["metadata"] for one in left):
        return []
    events = await admin.list(EVENTS, namespace, field_selector=f"involvedObject.name={name}")
    return [event["reason"] for event in events.items if event["reason"] in ("HomeSilent", KUBERNETES_EVICTS)]


async def most_nodes_are_silent(hub: Cluster, admin: KubeClient) -> None:
    """From here on Kubernetes marks no further node for eviction, as more than half are silent: a hub whose nodes all
    fall silent at once is seen as such a moment late, when the first of them may be marked, and then stays so."""
    await make_pool(admin, "crowd")
    await make_home(admin, "quirin")
    async with Agent.joined(hub, admin, "quirin") as agent:
        await agent.offer("attic", "crowd", [machine(number) for number in range(1, 7)])
        await ready_nodes(admin, "quirin", 6)

    async def unknown() -> bool:
        ready = [condition_of(node, "Ready").get("status") for node in await virtual_nodes(admin)]
        return "True" not in ready

    await eventually(unknown, "no virtual node to be Ready")


async def virtual_nodes(admin: KubeClient) -> list[Json]:
    selector = f"{names.LABEL_VIRTUAL}={names.VIRTUAL_NODE_TYPE}"
    return (await admin.list(NODES, label_selector=selector)).items


async def count_is(admin: KubeClient, home: str, count: int) -> bool:
    return len(await nodes_of(admin, home)) == count


async def blocks_of(admin: KubeClient) -> tuple[str, set[str]]:
    """The base address of the block that virtual nodes share, and all base addresses in use by them."""
    nodes = await virtual_nodes(admin)
    bases = [node["spec"]["podCIDR"].split("/")[0] for node in nodes if node["spec"].get("podCIDR")]
    return bases[0], set(bases)


async def gone(admin: KubeClient, name: str, kind: Resource = NODES, namespace: str | None = None) -> bool:
    try:
        await admin.get(kind, name, namespace)
    except NotFound:
        return True
    return False


async def a_guest(hub: Cluster, admin: KubeClient, home: str, pool: str) -> str:
    """A consumer's pod that the scheduler has put into this home; its UID, which names the GuestPod."""
    namespace = hub.create_namespace(f"consumer-{home}", {names.enabled_label(pool): "enabled"})
    await admin.create(ROLEBINDINGS, objects_readable(namespace))
    created = await admin.create(PODS, pod("one", namespace, names.runtime_class(pool)))
    uid = str(created["metadata"]["uid"])

    async def carried() -> bool:
        return not await gone(admin, uid, GUESTPODS, names.mailbox(home))

    await eventually(carried, "the pod's GuestPod")
    return uid


def objects_readable(namespace: str) -> Json:
    """As `homefed consumer enable` makes it: the hub may read what pods name there."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": names.CONSUMER_ROLE}
    hub = {"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE}
    return {"metadata": {"name": "homefed-hub", "namespace": namespace}, "roleRef": role, "subjects": [hub]}


def pod(name: str, namespace: str, runtime_class: str) -> Json:
    requests = {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "64Mi"}
    container = {"name": "main", "image": "example", "resources": {"requests": requests}}
    spec = {"runtimeClassName": runtime_class, "containers": [container], "terminationGracePeriodSeconds": 7}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def reward_claim(mailbox: str, pool: str) -> Json:
    spec = {
        "claimId": "1" * 64,
        "part": "Header",
        "poolName": pool,
        "windowStart": "2026-01-01T00:00:00Z",
        "windowEnd": "2026-01-01T01:00:00Z",
        "sequence": 1,
        "envelope": "e30=",
    }
    return {"metadata": {"name": "claim-1", "namespace": mailbox}, "spec": spec}
