"""The hub as the kubelet of its virtual nodes, on a real control plane; a scripted agent plays the home."""

from __future__ import annotations

import asyncio
import base64
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
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
    make_home,
    make_pool,
    nodes_of,
    prepared,
    quiet,
)
from homefed.api import names
from homefed.api.canonical import digest
from homefed.api.errors import Forbidden, HomefedError, NotFound
from homefed.core.field_rules import Stage
from homefed.core.pod_fields import check
from homefed.core.refusals import FIRST_DELAY
from homefed.core.times import from_rfc3339
from homefed.kube.client import KubeClient
from homefed.kube.resources import CONFIGMAPS, CONSUMERBUDGETS, EVENTS, GUESTPODS, PODS, ROLEBINDINGS, SECRETS
from testbed.binaries import Binaries
from testbed.cluster import Cluster

POOL, HOME, OFFER = "attic", "anna", "loft"
IMAGE = "registry.example/app:1"
KEY = base64.b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
"""One home, one key: the hub pins it at first use."""
AT_HOME: Stage = "home"
Json = dict[str, Any]
LARGE = {"cpu": "64", "memory": "64Gi", "ephemeral-storage": "200Gi", "pods": "500"}
MACHINES = [machine(1, allocatable=LARGE), machine(2, allocatable=LARGE)]


@pytest.fixture(scope="module")
def hub(binaries: Binaries, testbed_folder: Path) -> Iterator[Cluster]:
    cluster = Cluster("hub-guests", testbed_folder / "hub-guests", binaries)
    with prepared(cluster, binaries):
        yield cluster


@pytest.fixture
async def admin(hub: Cluster) -> AsyncIterator[KubeClient]:
    async with KubeClient.from_kubeconfig(hub.kubeconfig) as client:
        yield client


@pytest.fixture
async def home(hub: Cluster, admin: KubeClient) -> AsyncIterator[Home]:
    """A running operator and one home with two machines, Ready."""
    async with hub_operator(hub):
        with suppress(HomefedError):  # the module's cluster has them from the test before
            await make_pool(admin, POOL)
            await make_home(admin, HOME)
        async with Agent.joined(hub, admin, HOME) as agent:
            agent.key = KEY
            await agent.offer(OFFER, POOL, MACHINES)
            await eventually(lambda: both_ready(admin), "two Ready virtual nodes")
            yield Home(agent, admin)


async def both_ready(admin: KubeClient) -> bool:
    nodes = await nodes_of(admin, HOME)
    return len(nodes) == 2 and all(condition_of(node, "Ready").get("status") == "True" for node in nodes)


class Home:
    """What a home's agent does with GuestPods, step by step, with the agent's own rights."""

    def __init__(self, agent: Agent, admin: KubeClient) -> None:
        self.agent, self.admin, self.mailbox = agent, admin, names.mailbox(HOME)

    async def guest(self, uid: str) -> Json:
        found: Json = await eventually(lambda: self.agent.client.get(GUESTPODS, uid, self.mailbox), f"GuestPod {uid}")
        return found

    async def guests(self) -> list[Json]:
        return (await self.agent.client.list(GUESTPODS, self.mailbox)).items

    async def report(self, uid: str, phase: str, **status: Any) -> None:
        body = {"metadata": {"name": uid, "namespace": self.mailbox}, "status": {"phase": phase} | status}
        manager = names.AGENT_MANAGER
        await self.agent.client.apply(GUESTPODS, body, field_manager=manager, force=True, subresource="status")

    async def run(self, uid: str) -> None:
        now = text_now()
        ready = [condition(kind) for kind in ("Initialized", "ContainersReady", "Ready")]
        state = {"name": "app", "state": "running", "ready": True, "started": True, "startedAt": now}
        await self.report(uid, "Running", startedAt=now, containers=[state], conditions=ready)

    async def end(self, uid: str, phase: str = "Succeeded", code: int = 0) -> None:
        now = text_now()
        times = {"startedAt": now, "finishedAt": now}
        state = {"name": "app", "state": "terminated", "exitCode": code, "reason": "Completed", **times}
        await self.report(uid, phase, containers=[state], **times)

    @asynccontextmanager
    async def obliging(self) -> AsyncIterator[None]:
        """Every guest runs as soon as it is seen, and ends as soon as it is to stop."""
        task = asyncio.create_task(self._oblige())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _oblige(self) -> None:
        listed = await self.agent.client.list(GUESTPODS, self.mailbox)
        for guest in listed.items:
            await self._answer(guest)
        async for type_, guest in self.agent.client.watch(GUESTPODS, self.mailbox, listed.resource_version):
            if type_ in ("ADDED", "MODIFIED"):
                with suppress(NotFound):
                    await self._answer(guest)

    async def _answer(self, guest: Json) -> None:
        phase, uid = (guest.get("status") or {}).get("phase"), guest["metadata"]["name"]
        if phase is None and not guest["spec"].get("stop"):
            await self.run(uid)
        elif phase not in ("Succeeded", "Failed") and guest["spec"].get("stop"):
            await self.end(uid)


def text_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(type_: str, status: str = "True") -> Json:
    return {"type": type_, "status": status, "lastTransitionTime": text_now(), "reason": "Reported", "message": ""}


@pytest.fixture
def consumer(hub: Cluster, request: pytest.FixtureRequest) -> str:
    """A fresh namespace that may use the pool."""
    return enable(hub, f"c-{abs(hash(request.node.name)) % 10**8}")


def enable(hub: Cluster, name: str) -> str:
    hub.create_namespace(name, {names.enabled_label(POOL): "enabled"})
    subject = {"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": names.CONSUMER_ROLE}
    binding = {"metadata": {"name": "homefed", "namespace": name}, "roleRef": role, "subjects": [subject]}
    types = {"apiVersion": ROLEBINDINGS.api_version, "kind": ROLEBINDINGS.kind}
    hub.apply([types | binding])
    return name


def pod(name: str, namespace: str, **spec: Any) -> Json:
    requests = {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "100Mi"}
    container = {"name": "app", "image": IMAGE, "resources": {"requests": requests}}
    given = {"runtimeClassName": names.runtime_class(POOL), "containers": [container]}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": given | spec}


async def get(admin: KubeClient, obj: Json) -> Json:
    return await admin.get(PODS, obj["metadata"]["name"], obj["metadata"]["namespace"])


async def phase(admin: KubeClient, obj: Json, wanted: str) -> Json:
    async def reached() -> Json | None:
        found = await get(admin, obj)
        return found if found["status"].get("phase") == wanted else None

    found: Json = await eventually(reached, f"{obj['metadata']['name']} {wanted}")
    return found


async def reason(admin: KubeClient, obj: Json, wanted: str) -> Json:
    async def said() -> Json | None:
        found = await get(admin, obj)
        return found if found["status"].get("reason") == wanted else None

    found: Json = await eventually(said, f"{obj['metadata']['name']}: {wanted}")
    return found


async def gone(admin: KubeClient, obj: Json) -> bool:
    with suppress(NotFound):
        return bool((await get(admin, obj))["metadata"]["uid"] != obj["metadata"]["uid"])
    return True


async def test_an_ordinary_pod_becomes_a_guest_and_its_life_is_mirrored(
    admin: KubeClient, home: Home, consumer: str
) -> None:
    created = await admin.create(PODS, pod("web", consumer))
    uid = created["metadata"]["uid"]
    guest = await home.guest(uid)
    spec = guest["spec"]
    assert check(spec["pod"]["spec"], stage=AT_HOME) == []
    assert digest(spec["pod"]) == spec["podDigest"]
    assert spec["requests"] == {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "100Mi"}
    assert [copy["name"] for copy in spec["copies"]] == ["kube-root-ca.crt"]
    await home.run(uid)
    running = await phase(admin, created, "Running")
    assert condition_of(running, "Ready")["status"] == "True"
    assert "podIP" not in running["status"]
    await home.end(uid)
    over = await phase(admin, created, "Succeeded")
    assert over["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    await home.run(uid)  # a home that takes its word back is not believed
    await asyncio.sleep(0.5)
    assert (await get(admin, created))["status"]["phase"] == "Succeeded"

    async def ended() -> Json | None:
        found: Json = (await home.guest(uid))["spec"]["observed"]
        return found if found.get("endedAt") else None

    observed = await eventually(ended, "the hub has seen the end")
    assert observed["boundAt"] <= observed["runningFrom"] <= observed["endedAt"]


async def test_copies_come_before_the_guest_follow_their_source_and_go_at_the_end(
    admin: KubeClient, home: Home, consumer: str
) -> None:
    env_from = [{"secretRef": {"name": "login"}}, {"configMapRef": {"name": "maybe", "optional": True}}]
    wanted = pod("db", consumer)
    wanted["spec"]["containers"][0]["envFrom"] = env_from
    created = await admin.create(PODS, wanted)
    uid = created["metadata"]["uid"]

    async def waiting() -> bool:  # for the root certificate first, where the controller manager is late with it
        status = (await get(admin, created))["status"]
        said = status.get("reason"), status.get("message")
        return said == ("CreateContainerConfigError", 'secret "login" not found')

    await eventually(waiting, "the pod's wait for its Secret")
    await admin.create(SECRETS, {"metadata": {"name": "login", "namespace": consumer}, "stringData": {"user": "eva"}})
    await home.guest(uid)
    copy = await home.agent.client.get(SECRETS, names.copy_name(uid, "Secret", "login"), home.mailbox)
    assert copy["data"] == {"user": "ZXZh"}
    await home.run(uid)
    assert "reason" not in (await phase(admin, created, "Running"))["status"]
    await home.end(uid)
    await eventually(lambda: no_copies(home, uid), "the copies to be dropped")


async def no_copies(home: Home, uid: str) -> bool:
    selector = f"{names.LABEL_HUB_UID}={uid}"
    found = [await home.admin.list(kind, home.mailbox, label_selector=selector) for kind in (SECRETS, CONFIGMAPS)]
    return not any(listed.items for listed in found)


async def test_a_deleted_pod_is_stopped_with_its_grace_and_then_gone(
    admin: KubeClient, home: Home, consumer: str
) -> None:
    created = await admin.create(PODS, pod("short", consumer, terminationGracePeriodSeconds=7))
    uid = created["metadata"]["uid"]
    await home.guest(uid)
    await home.run(uid)
    await phase(admin, created, "Running")
    await admin.delete(PODS, "short", consumer)

    async def stopped() -> Json | None:
        stop: Json | None = (await home.guest(uid))["spec"].get("stop")
        return stop

    assert await eventually(stopped, "the word to stop") == {"gracePeriodSeconds": 7, "reason": "Deleted"}
    await asyncio.sleep(0.3)
    assert not await gone(admin, created), "the pod stays until its home has stopped it"
    await home.end(uid)
    await eventually(lambda: gone(admin, created), "the pod to be gone")


async def test_a_pod_deleted_by_force_stops_its_guest_and_a_new_one_of_that_name_is_another(
    admin: KubeClient, home: Home, consumer: str
) -> None:
    first = await admin.create(PODS, pod("same", consumer))
    await home.guest(first["metadata"]["uid"])
    await admin.delete(PODS, "same", consumer, grace_seconds=0)
    second = await admin.create(PODS, pod("same", consumer))
    await home.guest(second["metadata"]["uid"])

    async def stopped() -> bool:
        spec = (await home.guest(first["metadata"]["uid"]))["spec"]
        return bool(spec.get("stop") and spec["observed"].get("endedAt"))

    await eventually(stopped, "the first guest's stop, and the end of its reserved time")
    assert "stop" not in (await home.guest(second["metadata"]["uid"]))["spec"]


async def test_what_bypasses_the_scheduler_is_checked_for_fit_and_stays_pending(
    admin: KubeClient, home: Home, consumer: str
) -> None:
    node = (await nodes_of(admin, HOME))[0]["metadata"]["name"]
    big = pod("big", consumer, nodeName=node)
    big["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "640"
    created = await admin.create(PODS, big)
    said = await reason(admin, created, "OutOfcpu")
    assert said["status"]["phase"] == "Pending"
    assert created["metadata"]["uid"] not in {guest["metadata"]["name"] for guest in await home.guests()}


async def test_refused_pods_of_a_replica_set_do_not_multiply_and_cost_one_write_and_one_event_each(
    hub: Cluster, admin: KubeClient, home: Home, consumer: str
) -> None:
    aliases = [{"ip": "10.0.0.1", "hostnames": ["x"]}]  # not carried, and not refused at admission
    template = {"metadata": {"labels": {"app": "hot"}}, "spec": pod("x", consumer, hostAliases=aliases)["spec"]}
    spec = {"replicas": 3, "selector": {"matchLabels": {"app": "hot"}}, "template": template}
    metadata = {"name": "hot", "namespace": consumer}
    hub.apply([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec}])

    async def all_told() -> list[Json] | None:
        pods = (await admin.list(PODS, consumer)).items
        told = [one for one in pods if one["status"].get("reason") == "FieldNotCarried"]
        return told if len(told) == 3 else None

    before = await eventually(all_told, "three refusals")
    await asyncio.sleep(5)
    after = (await admin.list(PODS, consumer)).items
    assert {one["metadata"]["uid"] for one in after} == {one["metadata"]["uid"] for one in before}
    assert {version(one) for one in after} == {version(one) for one in before}, "at rest nothing is written"

    async def three_events() -> list[Json] | None:
        events = [event for event in (await admin.list(EVENTS, consumer)).items if event["reason"] == "FieldNotCarried"]
        counted = sorted((event["count"], event["involvedObject"]["kind"]) for event in events)
        return events if counted == [(1, "Pod")] * 3 else None

    assert "spec.hostAliases" in (await eventually(three_events, "one event each"))[0]["message"]


async def test_pods_that_a_home_does_not_welcome_fail_after_the_back_off_only(
    hub: Cluster, admin: KubeClient, home: Home, consumer: str
) -> None:
    offered = await home.agent.offer(OFFER, POOL, MACHINES, consumers=["someone-else"])

    async def known() -> bool:
        return bool((await home.agent.status(OFFER)).get("observedGeneration") == offered["metadata"]["generation"])

    try:
        await eventually(known, "the hub knows the offer")
        spec = {"replicas": 2, "selector": {"matchLabels": {"app": "sad"}}}
        spec["template"] = {"metadata": {"labels": {"app": "sad"}}, "spec": pod("x", consumer)["spec"]}
        metadata = {"name": "sad", "namespace": consumer}
        hub.apply([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec}])

        async def told() -> list[Json] | None:
            pods = (await admin.list(PODS, consumer)).items
            refused = [one for one in pods if one["status"].get("reason") == "ConsumerNotWelcome"]
            return refused if len(refused) == 2 else None

        first = await eventually(told, "both told why")
        assert [one["status"]["phase"] for one in first] == ["Pending"] * 2

        async def replaced() -> list[Json] | None:
            found = (await admin.list(PODS, consumer)).items
            return found if len(found) >= 4 else None

        found = await eventually(replaced, "both failed, and replaced")
        times = sorted(from_rfc3339(one["metadata"]["creationTimestamp"]) for one in found)
        assert times[2] - times[1] >= FIRST_DELAY - timedelta(seconds=1), "times have whole seconds"
        await asyncio.sleep(8)
        assert len((await admin.list(PODS, consumer)).items) == 4, "the second round waits twice as long"
    finally:
        await home.agent.offer(OFFER, POOL, MACHINES)


async def test_a_killed_operator_finishes_what_it_began_and_creates_nothing_twice(
    hub: Cluster, admin: KubeClient, consumer: str
) -> None:
    async with hub_operator(hub), Agent.joined(hub, admin, HOME) as agent:
        home = Home(agent, admin)
        created = await admin.create(PODS, pod("lasting", consumer))
        leaving = await admin.create(PODS, pod("leaving", consumer))
        uids = [one["metadata"]["uid"] for one in (created, leaving)]
        for uid in uids:
            await home.guest(uid)
            await home.run(uid)
        await phase(admin, leaving, "Running")
        before = await home.guest(uids[0])
    await admin.delete(PODS, "leaving", consumer)
    async with hub_operator(hub), Agent.joined(hub, admin, HOME) as agent:
        home = Home(agent, admin)

        async def stopped() -> bool:
            return bool((await home.guest(uids[1]))["spec"].get("stop"))

        await eventually(stopped, "the stop of the pod that was deleted meanwhile")
        await home.end(uids[1])
        await eventually(lambda: gone(admin, leaving), "the Terminating pod to be finished")
        after = await home.guest(uids[0])
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert "stop" not in after["spec"]


async def test_at_rest_the_hub_writes_nothing_but_leases(hub: Cluster, admin: KubeClient, consumer: str) -> None:
    """Three running guests and one refused pod, a full pass every second: the API server's own log is the witness."""
    async with hub_operator(hub, full_pass_seconds=1.0), Agent.joined(hub, admin, HOME) as agent:
        home = Home(agent, admin)
        refused = await admin.create(
            PODS, pod("refused", consumer, hostAliases=[{"ip": "10.0.0.1", "hostnames": ["x"]}])
        )
        async with home.obliging():
            for number in range(3):
                await phase(admin, await admin.create(PODS, pod(f"calm-{number}", consumer)), "Running")
            await reason(admin, refused, "FieldNotCarried")
            offset = await quiet(hub)
            await asyncio.sleep(5)
        user = f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"
        events = [event for event in hub.audit_events(offset) if event.user == user]
        assert any(event.resource == "leases" for event in events), "the operator was at work"
        written = [(e.verb, e.resource, e.name) for e in events if e.is_write and e.resource != "leases"]
        assert written == []


async def test_ten_pods_a_second_are_handed_over_and_mirrored_as_they_come(
    admin: KubeClient, home: Home, consumer: str
) -> None:
    """What the hub itself adds: bound to GuestPod plus reported Running to mirrored. The goal, a P50 below 0.3 s on an
    idle machine, is measured by `make bench`; here other tests run, and nothing may wait for a period."""
    count, seen = 30, dict[str, float]()
    async with home.obliging():
        watching = asyncio.create_task(watch_running(admin, consumer, seen, count))
        started = dict[str, float]()
        for number in range(count):
            created = await admin.create(PODS, pod(f"p{number}", consumer, terminationGracePeriodSeconds=0))
            started[created["metadata"]["uid"]] = time.monotonic()
            await asyncio.sleep(0.1)
        await asyncio.wait_for(watching, 240)
    latencies = sorted(seen[uid] - started[uid] for uid in started)
    print(f"created to Running at the hub: P50 {statistics.median(latencies):.3f} s, max {latencies[-1]:.3f} s")
    assert statistics.median(latencies) < 30, "half of a full pass's period"


async def watch_running(admin: KubeClient, namespace: str, seen: dict[str, float], count: int) -> None:
    async for _, one in admin.watch(PODS, namespace, (await admin.list(PODS, namespace)).resource_version):
        if (one.get("status") or {}).get("phase") == "Running":
            seen.setdefault(one["metadata"]["uid"], time.monotonic())
        if len(seen) == count:
            return


def version(obj: Json) -> tuple[str, str]:
    return obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]


async def test_an_exhausted_budget_keeps_new_pods_out_and_leaves_what_runs_alone(
    hub: Cluster, admin: KubeClient, home: Home, consumer: str
) -> None:
    """Refused at creation by policy, left Pending where it was created before, and running again once it is raised."""
    async with home.obliging():
        runs = await admin.create(PODS, pod("runs", consumer))
        await phase(admin, runs, "Running")
        early = await admin.create(PODS, pod("early", consumer, schedulingGates=[{"name": "example.org/later"}]))
        await give(admin, consumer, 0)
        await eventually(lambda: is_exhausted(admin, consumer), "the hub sees that nothing is left")
        message = str(await eventually(lambda: refusal(admin, consumer), "the policy refuses new pods"))
        assert f"ConsumerBudget {consumer}/monthly is exhausted" in message
        assert "homefed budget set" in message
        await admin.patch(PODS, "early", {"spec": {"schedulingGates": None}}, consumer)
        await reason(admin, early, "BudgetExhausted")
        events = (await admin.list(EVENTS, consumer)).items
        assert {"BudgetLow", "BudgetExhausted"} <= {event["reason"] for event in events}
        assert (await get(admin, runs))["status"]["phase"] == "Running"
        assert "stop" not in (await home.guest(runs["metadata"]["uid"]))["spec"]
        await give(admin, consumer, 1_000_000)
        await phase(admin, early, "Running")
        await eventually(lambda: takes(admin, consumer), "the policy lets new pods in")


async def give(admin: KubeClient, namespace: str, limit: int) -> None:
    body = {"metadata": {"name": "monthly", "namespace": namespace}, "spec": {"limitMicroCredits": limit}}
    await admin.apply(CONSUMERBUDGETS, body, field_manager="organiser", force=True)


async def is_exhausted(admin: KubeClient, namespace: str) -> bool:
    found = await admin.get(CONSUMERBUDGETS, "monthly", namespace)
    return bool((found.get("status") or {}).get("exhausted"))


async def refusal(admin: KubeClient, namespace: str) -> str:
    """Why a new pod is refused; empty where it is not."""
    created = pod("late", namespace)
    try:
        await admin.create(PODS, created)
    except Forbidden as error:
        return error.message
    await admin.delete(PODS, "late", namespace)
    return ""


async def takes(admin: KubeClient, namespace: str) -> bool:
    return not await refusal(admin, namespace)
