"""What a home offers, machine by machine."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api import names
from homefed.api.contribution import ContributionSpec
from homefed.core import offer
from homefed.core.offer import RISE_HOLD, Claimant, HomeNode

NOW = datetime(2026, 1, 31, 10, tzinfo=UTC)
GI = 2**30
AMOUNTS = {"cpu": 8000, "memory": 16 * GI, "ephemeral-storage": 100 * GI, "pods": 110}


def a_node(name: str = "attic", **changes: Any) -> HomeNode:
    status = {
        "allocatable": {"cpu": "8", "memory": "16Gi", "ephemeral-storage": "100Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True"}],
        "nodeInfo": {"architecture": "arm64", "operatingSystem": "linux", "kubeletVersion": "v1.34.2+k3s1"},
        **changes.pop("status", {}),
    }
    metadata = {"name": name, "uid": f"uid-{name}", "labels": changes.pop("labels", {})}
    return offer.home_node({"metadata": metadata, "spec": changes.pop("spec", {}), "status": status})


def a_spec(**fields: Any) -> ContributionSpec:
    return ContributionSpec.model_validate({"poolName": "garden", **fields})


def a_pod(node: str = "attic", cpu: str = "1", namespace: str = "default", **labels: str) -> dict[str, Any]:
    spec = {"nodeName": node, "containers": [{"resources": {"requests": {"cpu": cpu}}}]}
    metadata = {"name": f"p-{node}-{cpu}-{namespace}", "namespace": namespace, "uid": "u", "labels": labels}
    return offer.trim_pod({"metadata": metadata, "spec": spec, "status": {"phase": "Running"}})


def test_half_is_offered_by_default() -> None:
    found = offer.offered(a_spec(), AMOUNTS, {})
    assert found == {"cpu": 4000, "memory": 8 * GI, "ephemeral-storage": 50 * GI, "pods": 55}


def test_the_owners_pods_and_the_reserve_come_first() -> None:
    found = offer.offered(a_spec(), AMOUNTS, {"cpu": 6000, "memory": 10 * GI})
    assert found["cpu"] == 8000 - 500 - 6000
    assert found["memory"] == 16 * GI - GI - 10 * GI


def test_a_limit_bounds_what_the_share_would_give() -> None:
    spec = a_spec(resources={"cpu": {"sharePercent": 100, "limit": "1500m"}})
    assert offer.offered(spec, AMOUNTS, {})["cpu"] == 1500


def test_a_reserve_of_ones_own_replaces_the_default() -> None:
    spec = a_spec(resources={"cpu": {"sharePercent": 100, "reserve": "3"}})
    assert offer.offered(spec, AMOUNTS, {})["cpu"] == 5000


def test_nothing_is_ever_negative() -> None:
    assert offer.offered(a_spec(), AMOUNTS, {"cpu": 99_000})["cpu"] == 0


def test_extended_resources_are_offered_when_listed_only() -> None:
    amounts = {**AMOUNTS, "nvidia.com/gpu": 2}
    assert "nvidia.com/gpu" not in offer.offered(a_spec(), amounts, {})
    spec = a_spec(resources={"nvidia.com/gpu": {"sharePercent": 100}})
    assert offer.offered(spec, amounts, {"nvidia.com/gpu": 1})["nvidia.com/gpu"] == 1


@given(
    share=st.integers(1, 100),
    whole=st.integers(0, 10**7),
    reserve=st.integers(0, 10**6),
    limit=st.none() | st.integers(0, 10**7),
    owners=st.integers(0, 2 * 10**7),
)
def test_an_offer_respects_each_of_its_bounds(
    share: int, whole: int, reserve: int, limit: int | None, owners: int
) -> None:
    cpu = {"sharePercent": share, "reserve": f"{reserve}m"} | ({} if limit is None else {"limit": f"{limit}m"})
    found = offer.offered(a_spec(resources={"cpu": cpu}), {"cpu": whole}, {"cpu": owners})["cpu"]

    assert 0 <= found <= whole
    assert found * 100 <= share * whole
    assert found == 0 or found <= whole - reserve - owners
    assert limit is None or found <= limit
    bounds = [share * whole // 100, whole - reserve - owners, *([] if limit is None else [limit])]
    assert found in (0, *bounds), "as much as the bounds allow"


def test_requests_of_a_pod_are_those_of_its_most_demanding_moment() -> None:
    def container(cpu: str, **more: str) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    spec = {
        "containers": [container("1"), container("500m")],
        "initContainers": [
            container("100m", restartPolicy="Always"),
            container("3"),
            container("200m", restartPolicy="Always"),
        ],
        "overhead": {"cpu": "50m"},
    }
    assert offer.pod_requests(spec)["cpu"] == max(1500 + 300, 100 + 3000) + 50


def test_requests_of_the_whole_pod_replace_the_sum() -> None:
    spec = {"containers": [{"resources": {"requests": {"cpu": "1"}}}], "resources": {"requests": {"cpu": "2"}}}
    assert offer.pod_requests(spec)["cpu"] == 2000


def test_an_unreadable_request_of_the_owner_leaves_nothing_to_guests() -> None:
    pod = a_pod(cpu="99999999999999999999E")
    owners = offer.owners_requests([pod], names.GUESTS_NAMESPACE)["attic"]
    assert offer.offered(a_spec(), AMOUNTS, owners)["cpu"] == 0


def test_guests_are_not_the_owners_own_pods() -> None:
    guest = a_pod(namespace=names.GUESTS_NAMESPACE, **{names.LABEL_GUEST: "true"})
    own = a_pod(cpu="2")
    unlabelled = a_pod(cpu="3", namespace=names.GUESTS_NAMESPACE)
    imposter = a_pod(cpu="4", **{names.LABEL_GUEST: "true"})
    pods = [guest, own, unlabelled, imposter]

    assert offer.owners_requests(pods, names.GUESTS_NAMESPACE)["attic"] == {"cpu": 9000, "pods": 3}


def test_finished_and_unplaced_pods_hold_nothing() -> None:
    finished = a_pod() | {"finished": True}
    assert offer.owners_requests([finished, a_pod(node="")], names.GUESTS_NAMESPACE) == {}


def test_virtual_nodes_are_never_selected() -> None:
    virtual = a_node("hf-me", labels={"type": "virtual-kubelet"})
    assert not offer.selects(a_spec(), virtual)
    assert not offer.selects(a_spec(nodeSelector={"type": "virtual-kubelet"}), virtual)
    assert offer.selects(a_spec(), a_node())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("2026-01-01T00:00:00Z", "b"), ("2026-01-02T00:00:00Z", "a")),
        (("2026-01-01T00:00:00Z", "a"), ("2026-01-01T00:00:00Z", "b")),
    ],
    ids=["older", "smaller-uid"],
)
def test_one_machine_has_one_contribution(first: tuple[str, str], second: tuple[str, str]) -> None:
    winner = Claimant("winner", first[1], first[0], a_spec())
    loser = Claimant("loser", second[1], second[0], a_spec())

    for order in ([winner, loser], [loser, winner]):
        claims = offer.settle_claims(order, [a_node("attic"), a_node("cellar")])
        assert claims.won == {winner.uid: ("attic", "cellar"), loser.uid: ()}
        assert claims.lost[loser.uid] == {"attic": "winner", "cellar": "winner"}


def plan(node: HomeNode, owners: dict[str, Any], before: offer.Plan, now: datetime, **more: Any) -> offer.Plan:
    return offer.plan(a_spec(), [node], owners, "salt", before.machines, before.held, now, **more)


def cpu_of(found: offer.Plan) -> str:
    return found.machines[0].allocatable["cpu"]


def test_an_offer_falls_at_once_and_rises_when_it_lasts() -> None:
    busy = {"attic": {"cpu": 6000}}
    first = plan(a_node(), {}, offer.Plan(()), NOW)
    fallen = plan(a_node(), busy, first, NOW)
    assert (cpu_of(first), cpu_of(fallen)) == ("4", "1500m")

    held = plan(a_node(), {}, fallen, NOW)
    still = plan(a_node(), {}, held, NOW + RISE_HOLD - timedelta(seconds=1))
    risen = plan(a_node(), {}, still, NOW + RISE_HOLD)
    assert (cpu_of(held), cpu_of(still), cpu_of(risen)) == ("1500m", "1500m", "4")
    assert risen.held == {}


def test_a_rise_that_does_not_last_never_shows() -> None:
    busy = {"attic": {"cpu": 6000}}
    before = plan(a_node(), busy, offer.Plan(()), NOW)
    held = plan(a_node(), {}, before, NOW)
    again = plan(a_node(), busy, held, NOW + timedelta(seconds=5))
    assert (cpu_of(again), again.held) == ("1500m", {})


def test_the_owners_own_change_is_published_at_once() -> None:
    before = plan(a_node(), {"attic": {"cpu": 6000}}, offer.Plan(()), NOW)
    assert cpu_of(plan(a_node(), {}, before, NOW, at_once=True)) == "4"


def test_a_machine_with_nothing_left_is_not_listed_but_a_listed_one_stays() -> None:
    full = {"attic": {"cpu": 8000}}
    assert plan(a_node(), full, offer.Plan(()), NOW).machines == ()
    listed = plan(a_node(), {}, offer.Plan(()), NOW)
    assert cpu_of(plan(a_node(), full, listed, NOW)) == "0"


@pytest.mark.parametrize(
    ("change", "ready", "alive"),
    [
        ({}, True, True),
        ({"spec": {"unschedulable": True}}, False, True),
        ({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}, False, True),
        ({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}}, True, True),
        ({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}, False, False),
        ({"status": {"conditions": []}}, False, False),
    ],
)
def test_a_cordoned_machine_takes_nothing_new_but_what_runs_there_lives(
    change: dict[str, Any], ready: bool, alive: bool
) -> None:
    node = a_node(**change)
    assert (node.ready, node.alive) == (ready, alive)


def test_a_machine_is_offered_without_its_name_and_whatever_its_kubelet_says() -> None:
    node = a_node(status={"nodeInfo": {"architecture": "AMD 64!", "kubeletVersion": "kwok"}})
    machine = plan(node, {}, offer.Plan(()), NOW).machines[0]
    assert machine.id == names.machine_id("uid-attic", "salt")
    assert (machine.arch, machine.kubelet_version) == ("amd64", "v0.0.0")
    assert "attic" not in str(machine.dump())


def test_a_node_object_without_anything_offers_nothing() -> None:
    node = offer.home_node({"metadata": {"name": "n", "uid": "u"}})
    assert offer.offered(a_spec(), node.allocatable, {}) == dict.fromkeys(AMOUNTS, 0)
