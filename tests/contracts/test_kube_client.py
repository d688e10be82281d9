"""The client, reflector, lease and events against a real API server: what it answers is what they take it for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from homefed.api.errors import AlreadyExists, Conflict, Forbidden, Gone, Invalid, NotFound, Transient, Unauthorised
from homefed.core.clock import ClockOffset
from homefed.core.lease import micro_time, parse_micro_time
from homefed.kube import client as client_module
from homefed.kube.client import KubeClient
from homefed.kube.events import EventRecorder
from homefed.kube.lease import HolderLease, renew
from homefed.kube.queue import Backoff
from homefed.kube.reflector import Reflector
from homefed.kube.resources import (
    CONFIGMAPS,
    CUSTOMRESOURCEDEFINITIONS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    ROLEBINDINGS,
    ROLES,
    RUNTIMECLASSES,
    SERVICEACCOUNTS,
    Resource,
)
from testbed.cluster import Cluster

MANAGER = "homefed-test"


@pytest.fixture
async def client(apiserver: Cluster) -> AsyncIterator[KubeClient]:
    async with KubeClient.from_kubeconfig(apiserver.kubeconfig) as opened:
        yield opened


def configmap(namespace: str, name: str = "a", **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "data": data}


async def test_an_object_is_created_read_replaced_and_deleted(client: KubeClient, namespace: str) -> None:
    created = await client.create(CONFIGMAPS, configmap(namespace, x="1"))
    assert created["metadata"]["uid"]
    replaced = await client.update(CONFIGMAPS, created | {"data": {"x": "2"}})
    assert (await client.get(CONFIGMAPS, "a", namespace))["data"] == {"x": "2"}
    with pytest.raises(Conflict):
        await client.update(CONFIGMAPS, created | {"data": {"x": "3"}})
    with pytest.raises(AlreadyExists):
        await client.create(CONFIGMAPS, configmap(namespace))
    assert replaced["metadata"]["resourceVersion"] != created["metadata"]["resourceVersion"]
    assert await client.delete(CONFIGMAPS, "a", namespace) is True
    assert await client.delete(CONFIGMAPS, "a", namespace) is False
    with pytest.raises(NotFound):
        await client.get(CONFIGMAPS, "a", namespace)


async def test_a_precondition_protects_what_was_created_anew(client: KubeClient, namespace: str) -> None:
    first = await client.create(CONFIGMAPS, configmap(namespace))
    await client.delete(CONFIGMAPS, "a", namespace)
    second = await client.create(CONFIGMAPS, configmap(namespace))
    with pytest.raises(Conflict):
        await client.delete(CONFIGMAPS, "a", namespace, uid=first["metadata"]["uid"])
    with pytest.raises(Conflict):
        await client.delete(CONFIGMAPS, "a", namespace, resource_version=first["metadata"]["resourceVersion"])
    stale = configmap(namespace, x="1")
    stale["metadata"]["uid"] = first["metadata"]["uid"]
    with pytest.raises(Invalid, match=r"metadata\.uid"):
        await client.apply(CONFIGMAPS, stale, field_manager=MANAGER)
    assert await client.delete(CONFIGMAPS, "a", namespace, uid=second["metadata"]["uid"])
    with pytest.raises(Conflict):
        await client.apply(CONFIGMAPS, stale, field_manager=MANAGER)


async def test_apply_creates_owns_its_fields_and_writes_nothing_at_rest(client: KubeClient, namespace: str) -> None:
    first = await client.apply(CONFIGMAPS, configmap(namespace, x="1"), field_manager=MANAGER)
    again = await client.apply(CONFIGMAPS, configmap(namespace, x="1"), field_manager=MANAGER)
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    with pytest.raises(Conflict):
        await client.apply(CONFIGMAPS, configmap(namespace, x="2"), field_manager="another")
    forced = await client.apply(CONFIGMAPS, configmap(namespace, x="2"), field_manager="another", force=True)
    assert forced["data"] == {"x": "2"}
    dropped = await client.apply(CONFIGMAPS, configmap(namespace), field_manager="another")
    assert "data" not in dropped or dropped["data"] == {}


async def test_apply_of_a_status_does_not_create(client: KubeClient) -> None:
    status = {"metadata": {"name": "no-such-node"}, "status": {"phase": "Running"}}
    with pytest.raises(NotFound):
        await client.apply(NODES, status, field_manager=MANAGER, subresource="status")


async def test_every_kind_of_patch_is_understood(client: KubeClient, namespace: str) -> None:
    await client.create(CONFIGMAPS, configmap(namespace, x="1", y="2"))
    assert (await client.patch(CONFIGMAPS, "a", {"data": {"x": None}}, namespace))["data"] == {"y": "2"}
    operations = [{"op": "test", "path": "/data/y", "value": "2"}, {"op": "replace", "path": "/data/y", "value": "3"}]
    patched = await client.patch(CONFIGMAPS, "a", operations, namespace, kind_of_patch="json")
    assert patched["data"] == {"y": "3"}
    with pytest.raises(Invalid):
        await client.patch(CONFIGMAPS, "a", operations, namespace, kind_of_patch="json")
    strategic = await client.patch(CONFIGMAPS, "a", {"data": {"z": "4"}}, namespace, kind_of_patch="strategic")
    assert strategic["data"] == {"y": "3", "z": "4"}
    with pytest.raises(NotFound):
        await client.patch(CONFIGMAPS, "none", {}, namespace)


async def test_a_wrong_object_is_invalid_and_the_message_names_the_field(client: KubeClient, namespace: str) -> None:
    with pytest.raises(Invalid, match=r"metadata\.name"):
        await client.create(CONFIGMAPS, configmap(namespace, name="NOT-A-NAME"))
    lease = {"metadata": {"name": "a", "namespace": namespace}, "spec": {"leaseDurationSeconds": -1}}
    with pytest.raises(Invalid, match="leaseDurationSeconds"):
        await client.create(LEASES, lease)


async def test_a_list_has_all_pages(client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGE", 3)
    names = [f"c{number}" for number in range(8)]
    for name in names:
        labelled = configmap(namespace, name)
        labelled["metadata"]["labels"] = {"half": str(int(name[1]) % 2)}
        await client.create(CONFIGMAPS, labelled)
    listed = await client.list(CONFIGMAPS, namespace)
    found = [item["metadata"]["name"] for item in listed.items if item["metadata"]["name"] != "kube-root-ca.crt"]
    assert found == names
    assert {item["kind"] for item in listed.items} == {"ConfigMap"}
    assert len((await client.list(CONFIGMAPS, namespace, label_selector="half=1")).items) == 4
    by_field = await client.list(CONFIGMAPS, namespace, field_selector="metadata.name=c3")
    assert [item["metadata"]["name"] for item in by_field.items] == ["c3"]
    everywhere = await client.list(CONFIGMAPS, field_selector="metadata.name=c3")
    assert namespace in [item["metadata"]["namespace"] for item in everywhere.items]


@pytest.mark.parametrize("kind", [PODS, NODES, NAMESPACES, LEASES, ROLES, ROLEBINDINGS, RUNTIMECLASSES, EVENTS])
async def test_the_server_serves_the_kinds_where_we_look_for_them(client: KubeClient, kind: Resource) -> None:
    listed = await client.list(kind)
    assert all(item["apiVersion"] == kind.api_version and item["kind"] == kind.kind for item in listed.items)
    assert listed.resource_version.isdecimal()


async def test_a_kind_that_is_not_served_is_not_an_empty_list(client: KubeClient, namespace: str) -> None:
    unknown = Resource("nowhere.homefed.io", "v1", "things", "Thing")
    for request in (client.list(unknown), client.get(unknown, "a", namespace), client.delete(unknown, "a", namespace)):
        with pytest.raises(Transient) as caught:
            await request
        assert caught.value.reason == "KindNotServed"


async def test_a_watch_tells_changes_and_ends_in_its_time(client: KubeClient, namespace: str) -> None:
    start = (await client.list(CONFIGMAPS, namespace)).resource_version
    await client.create(CONFIGMAPS, configmap(namespace, x="1"))
    await client.patch(CONFIGMAPS, "a", {"data": {"x": "2"}}, namespace)
    await client.delete(CONFIGMAPS, "a", namespace)
    events = [
        (type_, obj["metadata"].get("name"))
        async for type_, obj in client.watch(CONFIGMAPS, namespace, start, server_seconds=2)
        if obj["metadata"].get("name") != "kube-root-ca.crt"
    ]
    assert events[:3] == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    assert events[3:] == [("BOOKMARK", None)] * len(events[3:])


async def test_a_version_from_before_the_servers_memory_is_gone(client: KubeClient) -> None:
    things = Resource("kube.test", "v1", "things", "Thing", namespaced=False)
    await client.create(CUSTOMRESOURCEDEFINITIONS, _definition(things))
    async with asyncio.timeout(120):
        while True:
            with contextlib.suppress(Transient):  # not served yet
                await client.list(things)
                break
            await asyncio.sleep(0.1)
    with pytest.raises(Gone):  # the server's memory of this kind starts after version 1
        await asyncio.wait_for(anext(client.watch(things, None, "1", server_seconds=5)), 120)


def _definition(kind: Resource) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object"}}
    names = {"plural": kind.plural, "kind": kind.kind, "singular": kind.kind.lower()}
    return {
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "scope": "Cluster",
            "names": names,
            "versions": [{"name": kind.version, "served": True, "storage": True, "schema": schema}],
        },
    }


@asynccontextmanager
async def following(reflector: Reflector) -> AsyncIterator[Reflector]:
    task = asyncio.create_task(reflector.run())
    try:
        await asyncio.wait_for(reflector.synced.wait(), 120)
        yield reflector
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_reflector_follows_over_many_watches(client: KubeClient, namespace: str) -> None:
    changed = asyncio.Event()
    options: dict[str, Any] = {"field_selector": "metadata.name!=kube-root-ca.crt", "server_seconds": 1.0}
    backoff: Backoff[str] = Backoff(base=0.01, cap=0.1)
    reflector = Reflector(client, CONFIGMAPS, namespace, on_change=lambda *_: changed.set(), backoff=backoff, **options)
    async with following(reflector):
        for number in range(12):
            await client.apply(CONFIGMAPS, configmap(namespace, f"c{number % 4}", n=str(number)), field_manager=MANAGER)
            if number % 5 == 4:
                await client.delete(CONFIGMAPS, f"c{number % 4}", namespace)
            await asyncio.sleep(0.25)
        truth = await client.list(CONFIGMAPS, namespace, field_selector=options["field_selector"])
        expected = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in truth.items}
        async with asyncio.timeout(120):
            while _versions(reflector) != expected:
                changed.clear()
                await changed.wait()
    assert expected.keys() == {"c0", "c2", "c3"}
    assert not any("managedFields" in obj["metadata"] for obj in reflector.store.values())


async def test_a_restarted_server_loses_and_invents_nothing(
    apiserver: Cluster, client: KubeClient, namespace: str
) -> None:
    for name in ("kept", "deleted"):
        await client.create(CONFIGMAPS, configmap(namespace, name))
    told: list[tuple[str, str]] = []

    def note(key: tuple[str, str], old: Any, new: Any) -> None:
        told.append((key[1], "new" if old is None else "gone" if new is None else "changed"))

    backoff: Backoff[str] = Backoff(base=0.1, cap=0.5)
    reflector = Reflector(
        client, CONFIGMAPS, namespace, field_selector="metadata.name!=kube-root-ca.crt", on_change=note, backoff=backoff
    )
    async with following(reflector):
        await asyncio.to_thread(apiserver.restart, "kube-apiserver")
        await client.delete(CONFIGMAPS, "deleted", namespace)
        await client.create(CONFIGMAPS, configmap(namespace, "added"))
        async with asyncio.timeout(120):
            while _versions(reflector).keys() != {"kept", "added"}:  # noqa: ASYNC110 - polls the copy
                await asyncio.sleep(0.05)
    assert sorted(told) == [("added", "new"), ("deleted", "gone"), ("deleted", "new"), ("kept", "new")]


async def test_a_server_that_hangs_is_given_up_in_time(apiserver: Cluster, namespace: str) -> None:
    async with KubeClient.from_kubeconfig(apiserver.kubeconfig, timeout_seconds=5.0) as client:
        await client.list(CONFIGMAPS, namespace)
        apiserver.pause("kube-apiserver")
        try:
            with pytest.raises(Transient) as caught:
                await asyncio.wait_for(client.list(CONFIGMAPS, namespace), 120)
        finally:
            apiserver.resume("kube-apiserver")
        await client.list(CONFIGMAPS, namespace)
    assert caught.value.reason == "Timeout"


def _versions(reflector: Reflector) -> dict[str, str]:
    return {name: obj["metadata"]["resourceVersion"] for (_, name), obj in reflector.store.items()}


async def test_a_renewal_needs_no_right_but_get_and_update(
    apiserver: Cluster, client: KubeClient, namespace: str
) -> None:
    await _account(client, namespace, "agent")
    await _allow(client, namespace, "agent", "leases", ["get", "update"], LEASES.group, ["node"])
    lease = {"metadata": {"name": "node", "namespace": namespace}, "spec": {"holderIdentity": "node"}}
    await client.create(LEASES, lease)
    now = datetime.now(UTC)
    async with _as(apiserver, client, namespace, "agent") as agent:
        first = await renew(agent, "node", namespace, "node", now)
        second = await renew(agent, "node", namespace, "node", now - timedelta(minutes=5))
        with pytest.raises(Forbidden):
            await agent.create(LEASES, {"metadata": {"name": "another", "namespace": namespace}})
        with pytest.raises(Forbidden):
            await agent.get(LEASES, "another", namespace)
    assert first["spec"]["renewTime"] == micro_time(now)
    assert parse_micro_time(second["spec"]["renewTime"]) == now + timedelta(microseconds=1)


async def test_one_process_at_a_time_holds_our_lease(client: KubeClient, namespace: str) -> None:
    first, second = (
        HolderLease(client, "homefed-hub", namespace, name, duration_seconds=6, retry_seconds=0.1)
        for name in ("one", "two")
    )
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(second.acquire(), 7.5)
    holding.cancel()  # as if killed: nothing is released
    await asyncio.wait_for(second.acquire(), 120)
    lease = await client.get(LEASES, "homefed-hub", namespace)
    assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("two", 1)
    await second.release()
    await asyncio.wait_for(first.acquire(), 5.5)  # at once, as the other has given it up: not after its six seconds


async def test_a_token_is_issued_reviewed_and_revoked_with_its_account(
    apiserver: Cluster, client: KubeClient, namespace: str
) -> None:
    await _account(client, namespace, "agent")
    issued = await client.token("agent", namespace, audiences=["homefed-ledger"], seconds=600)
    assert timedelta(minutes=9) < issued.expires_at - datetime.now(UTC) < timedelta(minutes=11)
    username = f"system:serviceaccount:{namespace}:agent"
    reviewed = await client.review_token(issued.token, audiences=["homefed-ledger"])
    assert (reviewed["authenticated"], reviewed["user"]["username"]) == (True, username)
    assert reviewed["audiences"] == ["homefed-ledger"]
    assert not (await client.review_token(issued.token)).get("authenticated")
    assert not (await client.review_token("nonsense", audiences=["homefed-ledger"])).get("authenticated")
    async with KubeClient.from_token(apiserver.url, apiserver.ca_path.read_text(), issued.token) as wrong:
        with pytest.raises(Unauthorised):
            await wrong.get(CONFIGMAPS, "a", namespace)


async def test_access_is_reviewed(client: KubeClient, namespace: str) -> None:
    await _account(client, namespace, "agent")
    await _allow(client, namespace, "agent", "configmaps", ["get"])  # waits until a review allows it
    username = f"system:serviceaccount:{namespace}:agent"
    attributes = {"verb": "get", "resource": "configmaps", "namespace": namespace}
    assert await client.review_access(username, [], attributes)
    assert not await client.review_access(username, [], attributes | {"verb": "delete"})
    assert not await client.review_access("somebody", [], attributes)


async def test_a_deleted_account_is_unauthorised_and_a_renewed_token_is_taken(
    apiserver: Cluster, client: KubeClient, namespace: str
) -> None:
    await _account(client, namespace, "agent")
    await _allow(client, namespace, "agent", "configmaps", ["get", "create"])
    async with _as(apiserver, client, namespace, "agent") as agent:
        await agent.create(CONFIGMAPS, configmap(namespace))
        agent.use_token("nonsense")
        with pytest.raises(Unauthorised):
            await agent.get(CONFIGMAPS, "a", namespace)
        agent.use_token((await client.token("agent", namespace)).token)
        assert (await agent.get(CONFIGMAPS, "a", namespace))["metadata"]["name"] == "a"
        await client.delete(SERVICEACCOUNTS, "agent", namespace)
        with pytest.raises(Unauthorised):
            await _read_until_it_fails(agent, namespace)


async def test_the_servers_clock_is_seen(apiserver: Cluster) -> None:
    clock = ClockOffset()
    async with KubeClient.from_kubeconfig(
        apiserver.kubeconfig, on_date=lambda date: clock.observe(date, datetime.now(UTC))
    ) as client:
        for _ in range(5):
            await client.request("GET", "/version")
    assert clock.offset == timedelta()


async def test_an_event_is_written_once_and_counted(client: KubeClient, namespace: str) -> None:
    now = [0.0]
    recorder = EventRecorder(client, "homefed-hub", instance="pod", clock=lambda: now[0])
    involved = await client.create(CONFIGMAPS, configmap(namespace))
    for now[0] in (0.0, 1.0, 400.0):
        await recorder.record(involved, "Refused", "The pod is refused.", "Warning")
    (event,) = (await client.list(EVENTS, namespace)).items
    assert (event["count"], event["reason"], event["type"]) == (3, "Refused", "Warning")
    assert event["involvedObject"]["uid"] == involved["metadata"]["uid"]


async def test_an_untrusted_certificate_is_refused(apiserver: Cluster) -> None:
    async with KubeClient.from_token(apiserver.url, None, "token") as client:
        with pytest.raises(client_module.HomefedError) as caught:
            await client.get(NODES, "a")
    assert caught.value.reason == "UntrustedCertificate"


async def _account(client: KubeClient, namespace: str, name: str) -> None:
    await client.create(SERVICEACCOUNTS, {"metadata": {"name": name, "namespace": namespace}})


async def _allow(
    client: KubeClient,
    namespace: str,
    account: str,
    resource: str,
    verbs: list[str],
    group: str = "",
    names: list[str] | None = None,
) -> None:
    """A Role for these verbs, bound to the account and in effect."""
    metadata = {"name": account, "namespace": namespace}
    rule = {"apiGroups": [group], "resources": [resource], "verbs": verbs}
    rule |= {"resourceNames": names} if names else {}
    await client.create(ROLES, {"metadata": metadata, "rules": [rule]})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
    subjects = [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]
    await client.create(ROLEBINDINGS, {"metadata": metadata, "roleRef": reference, "subjects": subjects})
    attributes = {"verb": verbs[-1], "group": group, "resource": resource, "namespace": namespace}
    attributes |= {"name": names[0]} if names else {}
    await _in_effect(client, f"system:serviceaccount:{namespace}:{account}", attributes)


async def _in_effect(client: KubeClient, username: str, attributes: dict[str, str]) -> None:
    """The authoriser learns of a new role a moment later."""
    async with asyncio.timeout(120):
        while not await client.review_access(username, [], attributes):  # noqa: ASYNC110 - the event is in the server
            await asyncio.sleep(0.05)


async def _read_until_it_fails(client: KubeClient, namespace: str) -> None:
    async with asyncio.timeout(120):
        while True:
            await client.get(CONFIGMAPS, "a", namespace)
            await asyncio.sleep(0.1)


@asynccontextmanager
async def _as(cluster: Cluster, admin: KubeClient, namespace: str, account: str) -> AsyncIterator[KubeClient]:
    """A client with the account's own token."""
    token = (await admin.token(account, namespace)).token
    async with KubeClient.from_token(cluster.url, cluster.ca_path.read_text(), token) as client:
        yield client
