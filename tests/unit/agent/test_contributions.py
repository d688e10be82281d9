"""One pass over the contributions: what is written where, and what is left alone."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.agent.contributions import EVERYTHING, Contributions
from homefed.agent.identity import Connection
from homefed.agent.keys import Keys
from homefed.agent.watching import contribution_matters, node_matters, pod_matters, trim_home_pod, trim_node
from homefed.api import names
from homefed.api.errors import Invalid, Stale, Transient
from homefed.core.findings import Finding
from homefed.kube.resources import CONTRIBUTIONS, NODES, OFFERS, PODS
from unit.agent.doubles import Server, mirror, refresh

MAILBOX = "homefed-home-reed"
KEYS = Keys(Ed25519PrivateKey.from_private_bytes(b"k" * 32), "salt")


def a_node(name: str) -> dict[str, Any]:
    status = {
        "allocatable": {"cpu": "8", "memory": "16Gi", "ephemeral-storage": "100Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-31T10:00:00Z"}],
        "nodeInfo": {"architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": "v1.34.1"},
        "images": [{"names": ["secret.example/thing"]}],
        "addresses": [{"type": "InternalIP", "address": "192.168.1.9"}],
    }
    return {"metadata": {"name": name, "uid": f"uid-{name}", "labels": {"disk": "ssd"}}, "spec": {}, "status": status}


class World:
    def __init__(self) -> None:
        self.home, self.hub = Server(), Server()
        for name in ("attic", "cellar"):
            self.home.put(NODES, a_node(name))
        self.connection = SimpleNamespace(
            client=self.hub,
            hub=self.hub,
            mailbox=MAILBOX,
            keys=KEYS,
            finding=Finding("True", "Connected", "the hub answers"),
            skew=None,
        )
        self.nodes = mirror(self.home, NODES, trim=trim_node)
        self.pods = mirror(self.home, PODS)
        self.changes = 0
        self.contributions = Contributions(
            self.home,
            cast(Connection, self.connection),
            self.nodes,
            self.pods,
            "homefed",
            names.GUESTS_NAMESPACE,
            meter=lambda pool: Finding("True", "Reporting", pool),
            changed=self._changed,
            root_allowed=lambda node: False,
        )
        self.contributions.offers = mirror(self.hub, OFFERS)

    def _changed(self) -> None:
        self.changes += 1

    def contribute(self, name: str = "mine", *, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> None:
        old = self.home.objects.get(("contributions", "homefed", name), {})
        metadata = {
            "name": name,
            "namespace": "homefed",
            "generation": old.get("metadata", {}).get("generation", 0) + 1,
            "creationTimestamp": created,
            **{k: v for k, v in old.get("metadata", {}).items() if k in ("uid", "finalizers", "deletionTimestamp")},
        }
        obj = {"metadata": metadata, "spec": {"poolName": "garden", **spec}}
        self.home.put(CONTRIBUTIONS, {**obj, **({"status": old["status"]} if "status" in old else {})})

    def delete(self, name: str = "mine", *, ago: timedelta = timedelta()) -> None:
        stamp = (datetime.now(UTC) - ago).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.contribution(name)["metadata"]["deletionTimestamp"] = stamp

    def contribution(self, name: str = "mine") -> dict[str, Any]:
        return self.home.objects["contributions", "homefed", name]

    def offer(self, name: str = "mine") -> dict[str, Any]:
        return self.hub.objects["offers", MAILBOX, name]

    def reason(self, name: str = "mine", type_: str = "Ready") -> str:
        conditions = self.contribution(name)["status"]["conditions"]
        return next(str(c["reason"]) for c in conditions if c["type"] == type_)

    async def look(self) -> float | None:
        """A pass, with the mailbox's reflector up to date."""
        assert self.contributions.offers is not None
        refresh(self.contributions.offers, self.hub, OFFERS)
        return await self.contributions.reconcile(EVERYTHING)

    def guest(self) -> None:
        labels = {names.LABEL_GUEST: "true", names.LABEL_OFFER: "mine"}
        requests = {"requests": {"cpu": "250m"}}
        pod = {
            "metadata": {"name": "hf-1", "namespace": names.GUESTS_NAMESPACE, "labels": labels},
            "spec": {"nodeName": "attic", "containers": [{"resources": requests}]},
            "status": {"phase": "Running"},
        }
        self.home.put(PODS, pod)
        refresh(self.pods, self.home, PODS, lambda p: trim_home_pod(p, names.GUESTS_NAMESPACE))


@pytest.fixture
async def world() -> World:
    return World()


async def test_a_contribution_is_offered_and_at_rest_nothing_is_written(world: World) -> None:
    world.contribute()
    await world.look()
    assert [m["allocatable"]["cpu"] for m in world.offer()["spec"]["machines"]] == ["4", "4"]
    assert world.contribution()["metadata"]["finalizers"] == [names.FINALIZER_CONTRIBUTION]
    assert world.reason() == "WaitingForHub"

    writes = len(world.home.writes), len(world.hub.writes)
    for _ in range(3):
        await world.look()
    assert (len(world.home.writes), len(world.hub.writes)) == writes


async def test_nothing_of_a_machine_but_its_measure_leaves_the_home(world: World) -> None:
    world.contribute()
    await world.look()
    text = str(world.offer()["spec"])
    for private in ("attic", "192.168", "secret.example", "ssd", "uid-attic"):
        assert private not in text
    assert "secret.example" not in str(world.nodes.store)


async def test_guests_are_counted_for_the_contributor(world: World) -> None:
    world.contribute()
    world.guest()
    await world.look()
    status = world.contribution()["status"]
    assert (status["guests"], status["allocated"]["cpu"]) == (1, "250m")
    assert world.offer()["spec"]["machines"][0]["allocatable"]["cpu"] == "4", "guests are not the owner's own"


async def test_without_the_hub_the_contributor_still_reads_a_status(world: World) -> None:
    world.connection.client = None
    world.connection.finding = Finding("False", "InvalidJoin", "home.join.url must be an address")
    world.contribute()
    await world.look()
    assert world.reason() == "InvalidJoin"
    assert world.hub.writes == []


async def test_a_hub_that_is_away_is_tried_again_and_the_status_is_written_all_the_same(world: World) -> None:
    world.contribute()
    world.hub.trouble["apply"] = Transient("away")
    with pytest.raises(Transient):
        await world.look()
    assert world.reason() == "WaitingForHub"


async def test_what_the_hubs_api_refuses_is_shown_and_not_repeated_in_a_loop(world: World) -> None:
    world.contribute()
    world.hub.trouble["apply"] = Invalid("spec.machines: too many", reason="Invalid")
    await world.look()
    assert world.reason() == "Invalid"
    del world.hub.trouble["apply"]
    await world.look()
    assert world.reason() == "WaitingForHub"


async def test_an_offer_of_an_earlier_contribution_of_that_name_is_made_anew(world: World) -> None:
    world.hub.put(OFFERS, {"metadata": {"name": "mine", "namespace": MAILBOX}, "spec": {"contributionUid": "earlier"}})
    world.contribute()
    with pytest.raises(Stale, match="earlier contribution"):
        await world.look()
    await world.look()
    assert world.offer()["spec"]["contributionUid"] == world.contribution()["metadata"]["uid"]


async def test_a_deleted_contribution_drains_then_withdraws_then_goes(world: World) -> None:
    world.contribute()
    world.guest()
    await world.look()
    world.delete()
    await world.look()
    assert world.offer()["spec"]["state"] == "Draining"
    assert world.contributions.host("mine", "x").deleting

    world.pods.store.clear()
    await world.look()
    assert not world.hub.has(OFFERS, "mine", MAILBOX)
    await world.look()
    assert world.contribution()["metadata"]["finalizers"] == []


async def test_the_finalizer_goes_after_the_drain_timeout_whatever_the_hub_says(world: World) -> None:
    world.contribute(drainTimeoutSeconds=60)
    world.guest()
    await world.look()
    world.hub.trouble |= dict.fromkeys(("apply", "delete", "get"), Transient("away"))
    world.delete(ago=timedelta(seconds=61))
    await world.contributions.reconcile(EVERYTHING)
    assert world.contribution()["metadata"]["finalizers"] == []


async def test_an_offer_without_contribution_is_withdrawn_only_when_a_direct_read_confirms_it(world: World) -> None:
    world.contribute()
    await world.look()
    obj = world.home.objects.pop(("contributions", "homefed", "mine"))
    world.home.trouble["get"] = Transient("no answer")
    with pytest.raises(Transient):
        await world.look()
    assert world.hub.has(OFFERS, "mine", MAILBOX)

    del world.home.trouble["get"]
    await world.look()
    assert not world.hub.has(OFFERS, "mine", MAILBOX)
    assert obj is not None


async def test_a_list_that_fails_changes_nothing(world: World) -> None:
    world.contribute()
    await world.look()
    writes = len(world.hub.writes)
    world.home.trouble["list"] = Transient("cut off")
    with pytest.raises(Transient):
        await world.look()
    assert len(world.hub.writes) == writes
    assert "mine" in world.contributions.known


async def test_one_broken_contribution_does_not_hold_up_the_others(world: World) -> None:
    world.contribute("broken", resources={"cpu": {"limit": "a lot"}})
    world.contribute()
    await world.look()
    assert world.reason("broken", "Available") == "InvalidSpec"
    assert world.hub.has(OFFERS, "mine", MAILBOX)
    assert not world.hub.has(OFFERS, "broken", MAILBOX)


async def test_virtual_nodes_are_those_accepted_with_the_life_of_their_machines(world: World) -> None:
    world.contribute()
    await world.look()
    attic, cellar = (names.machine_id(f"uid-{name}", "salt") for name in ("attic", "cellar"))
    machines = [{"id": attic, "node": "hf-reed-1"}, {"id": cellar, "node": "hf-reed-2"}]
    world.hub.put(OFFERS, world.offer() | {"status": {"machines": machines}})
    node = a_node("cellar")
    node["status"]["conditions"][0]["status"] = "Unknown"
    world.home.put(NODES, node)
    refresh(world.nodes, world.home, NODES, trim_node)
    await world.look()
    assert world.contributions.virtual_nodes() == {"hf-reed-1": True, "hf-reed-2": False}
    host = world.contributions.host("mine", attic)
    assert host.machine == "attic"
    assert world.contributions.host("mine", "f" * 64).machine is None
    assert world.contributions.host("other", attic).contribution is None


async def test_a_node_is_read_anew_when_it_has_changed_and_forgotten_when_it_is_gone(world: World) -> None:
    attic, cellar = world.contributions.nodes()
    (key,) = (key for key in world.nodes.store if key[1] == "attic")
    world.nodes.store[key] = trim_node(a_node("attic") | {"spec": {"unschedulable": True}})
    changed, same = world.contributions.nodes()
    assert (attic.ready, changed.ready) == (True, False)
    assert same is cellar
    del world.nodes.store[key]
    assert world.contributions.nodes() == [cellar]


async def test_guests_hear_of_a_change_and_of_nothing_else(world: World) -> None:
    world.contribute()
    await world.look()
    assert world.changes == 1
    await world.look()
    assert world.changes == 1
    world.contribute(state="Draining")
    await world.look()
    assert world.changes == 2


def test_heartbeats_and_restarts_change_no_offer() -> None:
    before, after = a_node("attic"), a_node("attic")
    after["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-01-31T10:05:00Z"
    assert not node_matters(trim_node(before), trim_node(after))
    after["spec"] = {"unschedulable": True}
    assert node_matters(trim_node(before), trim_node(after))

    pod = {"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": "attic", "containers": []}}
    small = trim_home_pod(pod, names.GUESTS_NAMESPACE)
    assert not pod_matters(small, small | {"metadata": {}})
    assert pod_matters(small, small | {"finished": True})
    assert pod_matters(None, small)
    assert not pod_matters(None, small | {"node": ""})


def test_a_written_status_wakes_no_pass_but_spec_deletion_finalizer_and_another_object_do() -> None:
    before = {"uid": "u1", "generation": 1, "finalizers": ["homefed.io/contribution"], "resourceVersion": "5"}
    assert contribution_matters(None, before)
    assert not contribution_matters(before, before | {"resourceVersion": "6", "managedFields": []})
    changes: list[Any] = [{"generation": 2}, {"deletionTimestamp": "2026-11-22T00:00:00Z"}, {"finalizers": []}]
    changes.append({"uid": "u2"})
    assert all(contribution_matters(before, before | change) for change in changes)
