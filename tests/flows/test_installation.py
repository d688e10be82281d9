"""HomeFed installed as people install it, by real Helm on real nodes: joined, upgraded, uninstalled, installed again.

One story on a hub and two homes, told in the order of the tests; each says what the one before it has left. Then the
whole in a single cluster.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.api import ApiError
from testbed.cluster import Cluster
from testbed.images import IMAGES
from testbed.installation import (
    ROOT,
    Release,
    cli,
    install_home,
    install_hub,
    invite,
    load_images,
    merge,
    provide_volumes,
    values_for,
    wipe,
)
from testbed.real import RealCluster, RealFederation
from testbed.rights import EXPLAINED, accounts_of, rights_used

FEDERATION = "garden-lane"
GUESTS = "/api/v1/namespaces/homefed-guests"
Json = dict[str, Any]


@dataclass
class World:
    """What the story has come to."""

    federation: RealFederation
    hub: Release
    homes: dict[str, Release] = field(default_factory=dict)
    invitations: dict[str, Path] = field(default_factory=dict)


@pytest.fixture(scope="module")
def world(federation_real: RealFederation) -> Iterator[World]:
    """A hub and home-1 by Helm 4, home-2 by Helm 3; each contributes its machine; namespace `shop` is enabled."""
    for member in federation_real.clusters:
        wipe(member)  # whatever an earlier test has left of HomeFed
    try:
        world = World(federation_real, install_hub(federation_real.hub, FEDERATION))
        hub = federation_real.hub.cluster
        offer_pool(hub)
        for member, version in zip(federation_real.homes, (4, 3), strict=True):
            world.invitations[member.name] = invite(hub, member.name, "--pool", "garden")
            world.homes[member.name] = install_home(member, world.invitations[member.name], version=version)
            contribute(member)
        enable(hub, "shop")
        yield world
    finally:
        for member in federation_real.clusters:
            if member is not federation_real.hub:
                federation_real.plug(member)
            wipe(member)


def offer_pool(hub: Cluster) -> None:
    """The example's pool, settled every half minute."""
    pool = yaml.safe_load((ROOT / "examples" / "pool.yaml").read_text())
    pool["spec"]["settlement"] |= {"windowSeconds": 30, "graceSeconds": 15, "latenessSeconds": 60}
    hub.apply([pool])


def contribute(member: RealCluster) -> None:
    member.kubectl("label", "node", member.node.name, "homefed.io/contribute=yes", "--overwrite")
    member.kubectl("apply", "-f", str(ROOT / "examples" / "contribution.yaml"))


def enable(hub: Cluster, namespace: str) -> None:
    """A namespace that may use the pool, with a Deployment of the examples: one guest per home."""
    hub.wait_for(lambda: bool(ready_nodes(hub)), 120, "a virtual node is Ready")
    hub.create_namespace(namespace)
    cli(hub, "consumer", "enable", namespace, "--pool", "garden")
    deployment = yaml.safe_load((ROOT / "examples" / "deployment.yaml").read_text())
    template = deployment["spec"]["template"]["spec"]
    template["terminationGracePeriodSeconds"] = 3
    template["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule",
            "matchLabelKeys": ["pod-template-hash"],
            "labelSelector": {"matchLabels": {"app": "hello"}},
        }
    ]
    template["containers"][0] |= {
        "image": IMAGES["workload"],
        "envFrom": [{"configMapRef": {"name": "opening-hours"}}, {"secretRef": {"name": "till"}}],
    }
    hub.kubectl("-n", namespace, "create", "configmap", "opening-hours", "--from-literal=OPEN=9")
    hub.kubectl("-n", namespace, "create", "secret", "generic", "till", "--from-literal=CODE=1234")
    hub.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(deployment))


# --- what is there


def items(cluster: Cluster, path: str) -> list[Json]:
    found: list[Json] = cluster.api.get(path)["items"]
    return found


def virtual_nodes(hub: Cluster) -> list[Json]:
    return [node for node in items(hub, "/api/v1/nodes") if node["metadata"]["name"].startswith("hf-")]


def ready_nodes(hub: Cluster) -> list[str]:
    return [node["metadata"]["name"] for node in virtual_nodes(hub) if is_true(node, "Ready")]


def is_true(obj: Json, condition: str) -> bool:
    conditions = obj.get("status", {}).get("conditions", [])
    return any(c["type"] == condition and c["status"] == "True" for c in conditions)


def reason(obj: Json, condition: str) -> str:
    return str(next(c["reason"] for c in obj["status"]["conditions"] if c["type"] == condition))


def running(cluster: Cluster, namespace: str) -> set[str]:
    """UIDs of the running pods of a namespace."""
    pods = items(cluster, f"/api/v1/namespaces/{namespace}/pods")
    alive = [p for p in pods if p["status"]["phase"] == "Running" and "deletionTimestamp" not in p["metadata"]]
    return {pod["metadata"]["uid"] for pod in alive}


def exists(cluster: Cluster, path: str) -> bool:
    try:
        cluster.api.get(path)
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


def await_end(cluster: Cluster, path: str) -> None:
    cluster.wait_for(lambda: not exists(cluster, path), 120, f"{path} is gone")


def secret(cluster: Cluster, name: str) -> Json:
    data: Json = cluster.api.get(f"/api/v1/namespaces/homefed/secrets/{name}").get("data", {})
    return data


def claims(cluster: Cluster) -> dict[str, str]:
    """Claim → UID."""
    found = items(cluster, "/api/v1/namespaces/homefed/persistentvolumeclaims")
    return {claim["metadata"]["name"]: claim["metadata"]["uid"] for claim in found}


def components(release: Release) -> set[str]:
    return {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in release.pods() if is_true(pod, "Ready")}


def assert_nothing_was_denied(*clusters: Cluster) -> None:
    for cluster in clusters:
        used = rights_used(cluster, accounts_of(cluster, "homefed"))
        assert used.requests > 0
        assert used.denied == {}


# --- the story


def test_all_pods_of_the_chart_are_ready_in_restricted_namespaces(world: World) -> None:
    world.hub.cluster.wait_for(lambda: components(world.hub) == {"hub", "ledger"}, 120, "the hub's pods")
    for home in world.homes.values():
        ready = lambda home=home: components(home) == {"agent", "prometheus"}  # noqa: E731
        home.cluster.wait_for(ready, 120, "the home's pods")
        labels = home.cluster.api.get("/api/v1/namespaces/homefed")["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_consumers_deployment_runs_in_the_homes_that_joined(world: World) -> None:
    hub = world.hub.cluster
    hub.wait_for(lambda: len(running(hub, "shop")) == 2, 120, "both replicas run at the hub")
    guests = [guest for home in world.homes.values() for guest in running(home.cluster, "homefed-guests")]
    assert len(guests) == 2


def test_an_upgrade_changes_settings_and_keeps_keys_volumes_and_guests(world: World) -> None:
    hub = world.hub.cluster
    guests = running(hub, "shop")
    home = world.homes["home-1"]
    keys = secret(hub, "homefed-hub"), secret(home.cluster, "homefed-agent")
    volumes = claims(hub), claims(home.cluster)
    for release in (world.hub, home):
        before = {pod["metadata"]["uid"] for pod in release.pods()}
        release.upgrade({"logLevel": "debug", "prometheus": {"scrapeInterval": "6s"}}, "--wait", "--timeout=300s")
        assert before.isdisjoint(pod["metadata"]["uid"] for pod in release.pods() if is_true(pod, "Ready"))
    assert keys == (secret(hub, "homefed-hub"), secret(home.cluster, "homefed-agent"))
    assert volumes == (claims(hub), claims(home.cluster))
    assert volumes[0].keys() == {"homefed-ledger"}
    hub.wait_for(lambda: len(ready_nodes(hub)) == 2, 120, "both virtual nodes are Ready")
    assert running(hub, "shop") == guests


def test_helm_3_upgrades_too(world: World) -> None:
    home = world.homes["home-2"]
    key = secret(home.cluster, "homefed-agent")
    assert key
    home.upgrade({"logLevel": "debug"}, "--wait", "--timeout=300s")
    assert secret(home.cluster, "homefed-agent") == key


def test_a_changed_config_map_reaches_the_home(world: World) -> None:
    hub = world.hub.cluster
    patch = '{"data":{"OPEN":"10"}}'
    hub.kubectl("-n", "shop", "patch", "configmap", "opening-hours", "--type=merge", f"--patch={patch}")
    hub.kubectl("-n", "shop", "patch", "secret", "till", "--type=merge", '--patch={"stringData":{"CODE":"4321"}}')
    for home in world.homes.values():
        home.cluster.wait_for(lambda home=home: "10" in copies(home.cluster), 120, "the copy")  # type: ignore[misc]


def copies(home: Cluster) -> set[str]:
    found = items(home, f"{GUESTS}/configmaps")
    return {value for copy in found for key, value in copy.get("data", {}).items() if key == "OPEN"}


def test_claims_of_both_homes_reach_the_ledger(world: World) -> None:
    hub = world.hub.cluster

    def receipted() -> set[str]:
        rows = json.loads(cli(hub, "claims", "list", "-o", "json"))
        return {row["home"] for row in rows if row["receipted"] and row["paidMicro"] > 0}

    hub.wait_for(lambda: receipted() == {"home-1", "home-2"}, 180, "a receipted claim of each home")


def test_a_budget_tells_what_its_namespace_has_spent(world: World) -> None:
    hub = world.hub.cluster
    hub.kubectl("apply", "-f", str(ROOT / "examples" / "budget.yaml"))
    path = "/apis/homefed.io/v1alpha1/namespaces/shop/consumerbudgets/monthly"
    hub.wait_for(lambda: hub.api.get(path).get("status", {}).get("spent", "0") != "0", 120, "what shop was charged")


def test_a_contribution_that_is_deleted_takes_its_node_along(world: World) -> None:
    hub, member = world.hub.cluster, world.federation.homes[1]
    before = set(ready_nodes(hub))
    member.kubectl("-n", "homefed", "delete", "contribution", "spare-machines", timeout_s=300)
    hub.wait_for(lambda: len(virtual_nodes(hub)) == 1, 120, "its virtual node is gone")
    hub.wait_for(lambda: len(running(hub, "shop")) == 2, 120, "both replicas run elsewhere")
    contribute(member)
    hub.wait_for(lambda: len(ready_nodes(hub)) == 2, 120, "it is back")
    assert set(ready_nodes(hub)) == before  # the same machine of the same Home
    hub.kubectl("-n", "shop", "rollout", "restart", "deployment/hello")
    hub.kubectl("-n", "shop", "rollout", "status", "deployment/hello", "--timeout=240s", timeout_s=300)


def test_a_member_that_never_came_is_deleted_without_a_trace(world: World) -> None:
    hub = world.hub.cluster
    invite(hub, "home-3")
    hub.kubectl("delete", "home", "home-3", timeout_s=300)
    await_end(hub, "/api/v1/namespaces/homefed-home-home-3")
    await_end(hub, "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-node-lease/roles/homefed-home-home-3")


def test_no_process_lacks_a_right_and_none_is_given_that_nobody_uses(world: World) -> None:
    clusters = [world.hub.cluster, *(home.cluster for home in world.homes.values())]
    assert_nothing_was_denied(*clusters)
    unused = [set(rights_used(cluster, accounts_of(cluster, "homefed")).unused) for cluster in clusters]
    hub, homes = unused[0], unused[1] & unused[2]
    superfluous = sorted((hub | homes) - EXPLAINED.keys())
    assert not superfluous, "\n".join(["granted, never used, not explained:", *superfluous])


def test_uninstalling_a_home_stops_its_guests_with_their_grace(world: World) -> None:
    home = world.homes["home-1"]
    assert running(home.cluster, "homefed-guests")
    started = time.monotonic()
    printed = home.uninstall()
    assert time.monotonic() - started >= 3  # the guests' grace; their shell does not end on SIGTERM
    assert "homefed-agent" in printed  # what is kept is named
    await_end(home.cluster, GUESTS)
    contributions = items(home.cluster, "/apis/homefed.io/v1alpha1/contributions")
    assert [c["metadata"].get("finalizers", []) for c in contributions] == [[]]
    assert [reason(contribution, "Ready") for contribution in contributions] == ["Uninstalled"]
    assert not exists(home.cluster, "/apis/rbac.authorization.k8s.io/v1/clusterroles/homefed-agent")
    assert_hook_had_its_rights(home.cluster)


def test_a_home_installed_again_is_the_same_member(world: World) -> None:
    """Its key is kept, and pinned at the hub: another one would be refused. Helm 3 goes on where Helm 4 was."""
    member, hub = world.federation.homes[0], world.hub.cluster
    key = secret(member.cluster, "homefed-agent")
    world.homes["home-1"] = install_home(member, world.invitations["home-1"], version=3)
    assert {name: secret(member.cluster, "homefed-agent").get(name) for name in key} == key
    hub.wait_for(lambda: len(ready_nodes(hub)) == 2, 120, "both virtual nodes are Ready")
    hub.wait_for(lambda: len(running(hub, "shop")) == 2, 120, "both replicas run again")


def test_uninstalling_the_hub_leaves_nothing_of_it_though_a_home_is_out_of_reach(world: World) -> None:
    hub, away = world.hub.cluster, world.federation.homes[1]
    guests = running(away.cluster, "homefed-guests")
    hub.kubectl("-n", "shop", "delete", "deployment", "hello", "--cascade=orphan")
    hub.kubectl("-n", "shop", "delete", "replicasets", "--all", "--cascade=orphan")
    world.federation.unplug(away)
    printed = world.hub.uninstall()
    assert "homefed-hub" in printed
    assert virtual_nodes(hub) == []
    leases = items(hub, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")
    assert [lease for lease in leases if lease["metadata"]["name"].startswith("hf-")] == []
    assert not exists(hub, "/apis/node.k8s.io/v1/runtimeclasses/homefed-garden")
    assert items(hub, "/api/v1/namespaces/shop/pods") == []
    assert [h["metadata"].get("finalizers", []) for h in items(hub, "/apis/homefed.io/v1alpha1/homes")] == [[], []]
    hub.wait_for(lambda: mailboxes(hub) == unsettled(hub), 120, "only mailboxes with unsettled claims are left")
    assert secret(hub, "homefed-hub")  # the key, and with it every claim it has signed, is kept
    assert running(away.cluster, "homefed-guests") == guests  # healthy guests outlive their hub
    assert_hook_had_its_rights(hub)


def mailboxes(hub: Cluster) -> set[str]:
    names = {namespace["metadata"]["name"] for namespace in items(hub, "/api/v1/namespaces")}
    return {name for name in names if name.startswith("homefed-home-")}


def unsettled(hub: Cluster) -> set[str]:
    """Mailboxes with claims that the ledger has not receipted: they are owed, and stay."""
    claims = items(hub, "/apis/homefed.io/v1alpha1/rewardclaims")
    headers = [claim for claim in claims if claim["spec"]["part"] == "Header"]
    return {claim["metadata"]["namespace"] for claim in headers if not claim.get("status", {}).get("receiptedAt")}


def test_a_home_can_be_uninstalled_with_its_hub_gone(world: World) -> None:
    home = world.homes["home-2"]
    home.uninstall()
    await_end(home.cluster, GUESTS)
    contributions = items(home.cluster, "/apis/homefed.io/v1alpha1/contributions")
    assert [c["metadata"].get("finalizers", []) for c in contributions] == [[]]


def assert_hook_had_its_rights(cluster: Cluster) -> None:
    """Its account is gone by now; the log is not."""
    denied = [e for e in cluster.audit_events() if e.user.endswith(":homefed-uninstall") and e.denied]
    assert [f"{event.verb} {event.path}" for event in denied] == []


# --- the whole in one cluster


@pytest.fixture
def single(federation_real: RealFederation) -> Iterator[RealCluster]:
    member = federation_real.homes[0]
    wipe(member)
    yield member
    wipe(member)


def test_hub_and_home_in_a_single_cluster(single: RealCluster) -> None:
    """First role hub, then, with the invitation, role both: one release, as docs/kind.md has it."""
    cluster = single.cluster
    load_images(single, "both")
    release = Release(cluster, values_for("hub", federation_id=FEDERATION, volumes=True))
    provide_volumes(single, Release(cluster, {"role": "both"}))
    release.install("--wait", "--timeout=300s")
    cluster.kubectl("apply", "-f", str(ROOT / "examples" / "pool.yaml"))
    join = yaml.safe_load(invite(cluster, "here").read_text())
    both = values_for("both", federation_id=FEDERATION, join=join["home"]["join"], volumes=True)
    release.upgrade(merge(both, {"role": "both"}), "--wait", "--timeout=300s")
    assert components(release) == {"hub", "ledger", "agent", "prometheus"}
    contribute(single)
    enable(cluster, "shop")
    cluster.wait_for(lambda: len(running(cluster, "shop")) == 2, 120, "both replicas run")
    assert len(running(cluster, "homefed-guests")) == 2
    assert len(virtual_nodes(cluster)) == 1
    assert_nothing_was_denied(cluster)
    cluster.kubectl("delete", "namespace", "shop", timeout_s=300)
    release.uninstall()
    assert virtual_nodes(cluster) == []
    await_end(cluster, GUESTS)
    assert_hook_had_its_rights(cluster)
