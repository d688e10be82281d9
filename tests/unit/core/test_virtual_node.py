"""Virtual nodes: what they say, what is repaired, what is left alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api import names, quantities
from homefed.api.errors import Invalid
from homefed.api.offer import Machine
from homefed.api.rate_card import Terms
from homefed.core import virtual_node
from homefed.core.virtual_node import VirtualNode

Json = dict[str, Any]
POOL_TAINT = {"key": names.TAINT_POOL, "value": "garden", "effect": "NoSchedule"}
UNREACHABLE = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}


def machine(**changes: Any) -> Machine:
    allocatable = {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "20Gi", "pods": "20"}
    return Machine.model_validate({"id": "a" * 64, "allocatable": allocatable, "arch": "arm64"} | changes)


def wanted(**changes: Any) -> VirtualNode:
    amounts = virtual_node.accepted(machine(), {})
    usual = VirtualNode("anna", "uid-1", "attic", "garden", machine(), "DNS", amounts)
    return replace(usual, **changes)


def live(node: VirtualNode) -> Json:
    """The Node as the API server keeps it."""
    body = copy.deepcopy(virtual_node.body(node, []))
    body["metadata"] |= {"uid": "node-uid", "resourceVersion": "7"}
    return body


def test_a_virtual_node_says_what_it_is_and_nothing_of_the_home() -> None:
    body = virtual_node.body(wanted(), ["10.244.3.0/32"])
    labels = body["metadata"]["labels"]
    assert labels["kubernetes.io/hostname"] == body["metadata"]["name"] == wanted().name
    assert labels["kubernetes.io/arch"] == "arm64"
    assert labels["topology.kubernetes.io/zone"] == "homefed-home-anna"
    assert labels["type"] == "virtual-kubelet"
    assert labels["node.kubernetes.io/exclude-from-external-load-balancers"] == "true"
    assert labels["homefed.io/egress"] == "DNS"
    assert "kubernetes.io/os" not in labels
    assert all(len(value) <= 63 for value in labels.values())
    assert body["spec"] == {"taints": [POOL_TAINT], "podCIDR": "10.244.3.0/32", "podCIDRs": ["10.244.3.0/32"]}
    assert "addresses" not in body["status"]
    assert "images" not in body["status"]
    assert '"egress":"declared"' in body["metadata"]["annotations"]["homefed.io/known"]
    assert virtual_node.machine_id(body) == "a" * 64


def test_class_and_price_are_labels_which_the_hub_reads_back_as_a_guests_terms() -> None:
    fast = wanted(machine_class="fast", price_percent=80)
    labels = virtual_node.labels(fast)
    assert (labels["homefed.io/class"], labels["homefed.io/price-percent"]) == ("fast", "80")
    assert virtual_node.terms(live(fast)) == Terms(machine_class="fast", price_ppm=800_000)
    assert virtual_node.terms(live(wanted())) == Terms()
    changed = virtual_node.repair(live(fast), wanted(machine_class="fast", price_percent=0))
    assert changed is not None
    assert changed["metadata"]["labels"] == {"homefed.io/price-percent": "0"}


@pytest.mark.parametrize("percent", ["", "101", "-1", "many"])
def test_a_price_label_that_somebody_spoilt_is_the_cards_price(percent: str) -> None:
    assert virtual_node.terms({"metadata": {"labels": {"homefed.io/price-percent": percent}}}) == Terms()


def test_the_os_label_is_an_option_of_the_pool() -> None:
    with_label = wanted(set_os_label=True)
    assert virtual_node.labels(with_label)["kubernetes.io/os"] == "linux"
    patch = virtual_node.repair(live(with_label), wanted())
    assert patch is not None
    assert patch["metadata"]["labels"] == {"kubernetes.io/os": None}


def test_a_node_as_wanted_needs_no_write() -> None:
    assert virtual_node.repair(live(wanted()), wanted()) is None
    assert virtual_node.repair_status(live(wanted()), wanted()) is None


def test_amounts_written_otherwise_are_equal() -> None:
    node = live(wanted())
    node["status"]["allocatable"] |= {"cpu": "2000m", "memory": "4096Mi"}
    assert virtual_node.repair_status(node, wanted()) is None


def test_less_is_offered_and_an_unlisted_resource_goes() -> None:
    node = live(wanted(allocatable={"cpu": 2000, "nvidia.com/gpu": 1}))
    patch = virtual_node.repair_status(node, wanted(allocatable={"cpu": 500}))
    assert patch is not None
    assert patch["status"]["allocatable"] == {"cpu": "500m", "nvidia.com/gpu": None}
    assert patch["status"]["capacity"] == {"cpu": "500m", "nvidia.com/gpu": None}


def test_labels_of_others_are_left_alone_and_ours_come_back() -> None:
    node = live(wanted())
    node["metadata"]["labels"] |= {"organiser/note": "x", names.LABEL_POOL: "other"}
    patch = virtual_node.repair(node, wanted())
    assert patch == {"metadata": {"labels": {names.LABEL_POOL: "garden"}, "resourceVersion": "7"}}


def test_a_lost_pool_taint_comes_back_and_the_lifecycles_taints_stay() -> None:
    node = live(wanted())
    node["spec"]["taints"] = [UNREACHABLE]
    patch = virtual_node.repair(node, wanted())
    assert patch is not None
    assert patch["spec"] == {"taints": [UNREACHABLE, POOL_TAINT]}


def test_a_pool_taint_of_another_pool_is_replaced() -> None:
    node = live(wanted())
    node["spec"]["taints"] = [POOL_TAINT | {"value": "other"}, UNREACHABLE]
    patch = virtual_node.repair(node, wanted())
    assert patch is not None
    assert patch["spec"]["taints"] == [UNREACHABLE, POOL_TAINT]


def test_a_cordon_says_why_and_is_undone() -> None:
    patch = virtual_node.repair(live(wanted()), wanted(cordon="Paused"))
    assert patch is not None
    assert patch["spec"] == {"unschedulable": True}
    assert patch["metadata"]["annotations"] == {virtual_node.ANNOTATION_CORDONED: "Paused"}
    undo = virtual_node.repair(live(wanted(cordon="Paused")), wanted())
    assert undo is not None
    assert undo["spec"] == {"unschedulable": None}
    assert undo["metadata"]["annotations"] == {virtual_node.ANNOTATION_CORDONED: None}


def test_a_cordon_of_somebody_else_is_not_undone() -> None:
    node = live(wanted())
    node["spec"]["unschedulable"] = True
    assert virtual_node.repair(node, wanted()) is None


def test_cordoning_twice_writes_once() -> None:
    node = live(wanted())
    patch = virtual_node.cordoned(node, virtual_node.WITHDRAWN)
    assert patch is not None
    node["spec"] |= patch["spec"]
    node["metadata"]["annotations"] |= patch["metadata"]["annotations"]
    assert virtual_node.cordoned(node, virtual_node.WITHDRAWN) is None


def test_a_node_without_this_homes_uid_is_not_its() -> None:
    assert virtual_node.belongs_to(live(wanted()), "uid-1")
    assert not virtual_node.belongs_to(live(wanted()), "uid-2")
    assert not virtual_node.belongs_to({"metadata": {"name": "real"}}, "uid-1")
    assert not virtual_node.belongs_to({"metadata": {"labels": {names.LABEL_HOME_UID: "uid-1"}}}, "uid-1")


def test_a_pool_takes_no_more_of_a_machine_than_its_limit() -> None:
    taken = virtual_node.accepted(machine(), {"cpu": "1500m", "memory": "8Gi", "nvidia.com/gpu": "1"})
    assert taken == {"cpu": 1500, "memory": 4 * 2**30, "ephemeral-storage": 20 * 2**30, "pods": 20}


def test_resources_with_names_that_no_node_can_carry_are_left_out() -> None:
    offered = {"cpu": "1", "nvidia.com/gpu": "2", "storage": "1", "kubernetes.io/x": "1", "a/b/c": "1", "UP/x": "1"}
    assert set(virtual_node.accepted(machine(allocatable=offered), {})) == {
        *quantities.ALWAYS_OFFERED,
        "nvidia.com/gpu",
    }


def test_an_absurd_quantity_is_refused() -> None:
    with pytest.raises(Invalid, match="absurdly large"):
        virtual_node.accepted(machine(allocatable={"memory": "999999999999999999Pi"}), {})


def test_pods_that_are_over_or_of_a_daemon_set_do_not_keep_a_node() -> None:
    owner = {"kind": "DaemonSet", "controller": True}
    assert virtual_node.blocks_deletion({"metadata": {}, "status": {"phase": "Running"}})
    assert virtual_node.blocks_deletion({"metadata": {}})
    assert not virtual_node.blocks_deletion({"metadata": {}, "status": {"phase": "Failed"}})
    assert not virtual_node.blocks_deletion({"metadata": {"ownerReferences": [owner]}})


@given(cpu=st.integers(0, 10**6), limit=st.integers(0, 10**6))
def test_never_more_than_offered_nor_more_than_the_limit(cpu: int, limit: int) -> None:
    taken = virtual_node.accepted(machine(allocatable={"cpu": f"{cpu}m"}), {"cpu": f"{limit}m"})
    assert taken["cpu"] == min(cpu, limit)


@given(
    before=st.tuples(st.sampled_from(["", "Paused", "MachineNotReady"]), st.booleans(), st.integers(0, 9000)),
    after=st.tuples(st.sampled_from(["", "Paused", "MachineNotReady"]), st.booleans(), st.integers(0, 9000)),
)
def test_one_repair_suffices_from_any_state(before: tuple[str, bool, int], after: tuple[str, bool, int]) -> None:
    first, second = (
        wanted(cordon=cordon, set_os_label=os_label, allocatable={"cpu": cpu})
        for cordon, os_label, cpu in (before, after)
    )
    node = live(first)
    merge(node, virtual_node.repair(node, second) or {})
    merge(node, virtual_node.repair_status(node, second) or {})
    assert virtual_node.repair(node, second) is None
    assert virtual_node.repair_status(node, second) is None


def merge(target: Json, patch: Json) -> None:
    """RFC 7386, in place."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            merge(target.setdefault(key, {}), value)
        else:
            target[key] = value
