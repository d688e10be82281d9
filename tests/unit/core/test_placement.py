"""May this bound pod run on this virtual node?"""

from __future__ import annotations

from typing import Any

import pytest

from homefed.api import names
from homefed.core.placement import Accept, Fail, Pending, find_site, place
from unit.core.guest_builders import (
    HOME_UID,
    IN_BYTES,
    MACHINE,
    NODE,
    a_namespace,
    a_node,
    a_pod,
    a_site,
    container,
    of_replica_set,
)

Json = dict[str, Any]


def why(pod: Json, **site: Any) -> str:
    """The reason of a refusal; a pod of a ReplicaSet, so that what another node could take shows as Fail."""
    verdict = place(pod, a_namespace(), a_site(**site))
    assert not isinstance(verdict, Accept)
    assert verdict.message
    return verdict.reason


def test_the_output_of_kubectl_run_is_accepted_unchanged() -> None:
    assert place(a_pod(), a_namespace(), a_site()) == Accept(IN_BYTES)


def test_a_node_without_an_offer_behind_it_takes_nothing() -> None:
    assert place(a_pod(), a_namespace(), None) == Pending(
        "VirtualNodeUnknown", f"{NODE}: no offer of a home stands behind it"
    )


@pytest.mark.parametrize("kind", ["DaemonSet", "Node"])
def test_daemon_sets_and_static_pods_stay_pending_and_never_fail(kind: str) -> None:
    verdict = place(of_replica_set(a_pod(), kind=kind), a_namespace(), a_site(open=False))
    assert isinstance(verdict, Pending)
    assert verdict.reason == {"DaemonSet": "DaemonSetPod", "Node": "StaticPod"}[kind]


def test_a_guest_of_another_hub_is_not_passed_on() -> None:
    assert why(a_pod(metadata={"labels": {names.LABEL_HUB_UID: "x"}})) == "GuestOfAnotherHub"


def test_without_the_pools_runtime_class_a_pod_waits_and_is_told_which_one() -> None:
    verdict = place(a_pod(runtimeClassName="homefed-other"), a_namespace(), a_site())
    assert verdict == Pending("RuntimeClassMissing", "spec.runtimeClassName: set it to homefed-attic to use pool attic")


@pytest.mark.parametrize("value", ["disabled", ""])
def test_a_namespace_that_is_not_enabled_is_told_whom_to_ask(value: str) -> None:
    verdict = place(a_pod(), a_namespace(value), a_site())
    assert isinstance(verdict, Pending)
    assert verdict.reason == "NamespaceNotEnabled"
    assert "homefed consumer enable shop --pool attic" in verdict.message


def test_a_pod_that_skipped_the_scheduler_needs_the_toleration_all_the_same() -> None:
    assert why(a_pod(tolerations=[])) == "TaintNotTolerated"
    everything = [{"operator": "Exists"}]
    assert isinstance(place(a_pod(tolerations=everything), a_namespace(), a_site()), Accept)
    other = [{"key": names.TAINT_POOL, "operator": "Equal", "value": "cellar", "effect": "NoSchedule"}]
    assert why(a_pod(tolerations=other)) == "TaintNotTolerated"


@pytest.mark.parametrize("resource", ["cpu", "memory", "ephemeral-storage"])
@pytest.mark.parametrize("amount", [None, "0"])
def test_every_container_must_request_what_is_billed(resource: str, amount: str | None) -> None:
    app = container()
    app["resources"]["requests"].pop(resource)
    if amount is not None:
        app["resources"]["requests"][resource] = amount
    verdict = place(a_pod(containers=[app]), a_namespace(), a_site())
    assert isinstance(verdict, Pending)
    assert verdict.message == f"spec.containers[0].resources.requests.{resource}: set what the container needs"


def test_a_memory_limit_above_the_request_is_refused_with_the_value_to_set() -> None:
    app = container()
    app["resources"]["limits"] = {"memory": "1Gi"}
    verdict = place(a_pod(containers=[app]), a_namespace(), a_site())
    assert isinstance(verdict, Pending)
    assert verdict.reason == "LimitAboveRequest"
    assert "set it to the request, 64Mi" in verdict.message
    use_requests = {"annotations": {names.ANNOTATION_LIMITS: "UseRequests"}}
    assert isinstance(place(a_pod(metadata=use_requests, containers=[app]), a_namespace(), a_site()), Accept)


def test_a_cpu_limit_above_the_request_is_admitted_with_a_warning() -> None:
    app = container()
    app["resources"]["limits"] = {"cpu": "1"}
    verdict = place(a_pod(containers=[app]), a_namespace(), a_site())
    assert isinstance(verdict, Accept)
    assert [warning.message for warning in verdict.warnings] == [
        "spec.containers[0].resources.limits.cpu: homes run with limit = request; it gets 100m"
    ]


@pytest.mark.parametrize(
    ("site", "reason"),
    [
        ({"open": False}, "HomeTakesNoGuests"),
        ({"consumers": ("someone",)}, "ConsumerNotWelcome"),
        ({"allocated": {"cpu": 1950}}, "OutOfcpu"),
        ({"allocated": {"pods": 20}}, "OutOfpods"),
        ({"node": a_node(memory="63Mi")}, "OutOfmemory"),
    ],
)
def test_what_another_node_could_take_fails_for_a_controller_and_waits_for_a_bare_pod(site: Json, reason: str) -> None:
    verdict = place(of_replica_set(a_pod()), a_namespace(), a_site(**site))
    assert isinstance(verdict, Fail)
    assert verdict.reason == reason
    assert place(a_pod(), a_namespace(), a_site(**site)) == Pending(verdict.reason, verdict.message)


def test_what_only_a_person_can_change_is_said_before_what_the_node_lacks() -> None:
    assert why(of_replica_set(a_pod(hostNetwork=True)), open=False) == "ForbiddenField"


def test_an_extended_resource_that_the_node_lacks_does_not_fit() -> None:
    app = container()
    app["resources"] = {
        "requests": {**app["resources"]["requests"], "example.com/gpu": "1"},
        "limits": {"example.com/gpu": "1"},
    }
    assert why(a_pod(containers=[app])) == "OutOfgpu"
    with_a_gpu = a_node()
    with_a_gpu["status"]["allocatable"]["example.com/gpu"] = "1"
    assert isinstance(place(a_pod(containers=[app]), a_namespace(), a_site(node=with_a_gpu)), Accept)


@pytest.mark.parametrize(
    ("operator", "values", "matches"),
    [
        ("In", ["DNS", "Internet"], True),
        ("NotIn", ["DNS"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
        ("Gt", ["1"], False),
    ],
)
def test_required_node_affinity_is_checked_as_a_kubelet_does(operator: str, values: list[str], matches: bool) -> None:
    term = {"matchExpressions": [{"key": "homefed.io/egress", "operator": operator, "values": values}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    pod = a_pod(affinity={"nodeAffinity": required})
    verdict = place(pod, a_namespace(), a_site(node=a_node(labels={"homefed.io/egress": "DNS"})))
    assert isinstance(verdict, Accept) is matches


def test_a_number_is_compared_as_a_number() -> None:
    term = {"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["9"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    node = a_node(labels={"cores": "16"})
    assert isinstance(place(a_pod(affinity={"nodeAffinity": required}), a_namespace(), a_site(node=node)), Accept)


def test_a_node_selector_that_does_not_match_is_node_affinity() -> None:
    assert why(a_pod(nodeSelector={"disk": "ssd"})) == "NodeAffinity"


def an_offer(**spec: Any) -> Json:
    given = {"poolName": "attic", "machines": [{"id": MACHINE}]} | spec
    return {"metadata": {"name": "loft", "namespace": "homefed-home-anna"}, "spec": given}


def a_home(uid: str = HOME_UID, **spec: Any) -> dict[tuple[str, str], Json]:
    return {("", "anna"): {"metadata": {"name": "anna", "uid": uid}, "spec": spec}}


def test_the_site_of_a_node_is_its_machine_in_an_offer_of_its_home() -> None:
    site = find_site(a_node(), [an_offer(egress="None")], a_home(), {"cpu": 5})
    assert site is not None
    assert (site.machine_id, site.offer_name, site.egress, site.open, site.allocated) == (
        MACHINE,
        "loft",
        "None",
        True,
        {"cpu": 5},
    )


@pytest.mark.parametrize(
    ("offer", "home"),
    [
        (an_offer(machines=[{"id": "b" * 64}]), a_home()),
        (an_offer(poolName="cellar"), a_home()),
        (an_offer(), a_home("a re-created home")),
        (an_offer(), {}),
    ],
)
def test_a_node_of_another_home_pool_or_machine_has_no_site(offer: Json, home: dict[tuple[str, str], Json]) -> None:
    assert find_site(a_node(), [offer], home, {}) is None


@pytest.mark.parametrize(
    ("offer", "home"),
    [
        (an_offer(state="Paused"), {}),
        (an_offer(state="Draining"), {}),
        (an_offer(), {"suspended": True}),
        (an_offer(), {"accepted": False}),
    ],
)
def test_a_paused_draining_suspended_or_unaccepted_home_is_closed(offer: Json, home: Json) -> None:
    site = find_site(a_node(), [offer], a_home(**home), {})
    assert site is not None
    assert not site.open
