"""The home's gate, and the pod that comes out of it."""

from typing import Any

import pytest

from homefed.api import names
from homefed.api.errors import Invalid
from homefed.core import home_pod
from homefed.core.home_admission import Host, refuse
from homefed.core.home_pod import Isolation
from unit.core.home_guests import UID, a_container, a_guest, a_home_pod, a_host

REMAPPED = Isolation(user_namespaces=True, pod_security_version="v1.35")


def reason(guest: Any, host: Host | None = None, name: str = UID) -> str:
    found = refuse(name, guest, host or a_host())
    return found.reason if found is not None else ""


def test_an_honest_guest_is_let_in() -> None:
    assert reason(a_guest()) == ""


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"hostNetwork": True}, "ForbiddenField"),
        ({"hostPID": True}, "ForbiddenField"),
        ({"nodeName": "attic"}, "FieldNotCarried"),
        ({"affinity": {"nodeAffinity": {}, "x": 1}}, "FieldNotCarried"),
        ({"priorityClassName": "system-node-critical"}, "FieldNotCarried"),
        ({"runtimeClassName": "kata"}, "FieldNotCarried"),
        ({"somethingNew": 1}, "FieldNotCarried"),
        ({"terminationGracePeriodSeconds": 86_400}, "InvalidField"),
        ({"containers": []}, "InvalidField"),
        ({"containers": [a_container(securityContext={"privileged": True})]}, "ForbiddenField"),
        ({"containers": [a_container(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}})]}, "ForbiddenField"),
        ({"containers": [a_container(ports=[{"containerPort": 80, "hostPort": 80}])]}, "ForbiddenField"),
        ({"containers": [a_container(resources={"requests": {"cpu": "1"}})]}, "MissingRequests"),
        ({"initContainers": [{"name": "i", "image": "x"}]}, "MissingRequests"),
        ({"containers": [a_container(), a_container(name="two")]}, "RequestsMismatch"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "ForbiddenField"),
        ({"volumes": [{"name": "v", "configMap": {"name": "kube-root-ca.crt"}}]}, "ForeignCopy"),
        ({"securityContext": {"runAsUser": 0}}, "RunsAsRoot"),
        ({"containers": [a_container(securityContext={"runAsUser": 0})]}, "RunsAsRoot"),
    ],
)
def test_what_a_hostile_hub_could_send_is_refused(spec: dict[str, Any], expected: str) -> None:
    guest = a_guest(spec)
    assert reason(guest) == expected
    found = refuse(UID, guest, a_host())
    assert found is not None
    assert found.final


def test_a_pod_of_another_digest_name_or_size_is_refused() -> None:
    assert reason(a_guest(podDigest="0" * 64)) == "DigestMismatch"
    assert reason(a_guest(), name="another") == "InvalidGuestPod"
    huge = a_guest({"containers": [a_container(args=["x" * 100_000, "y" * 100_000, "z" * 100_000])]})
    assert reason(huge) == "PodTooLarge"


def test_a_guest_may_name_its_own_copies_only() -> None:
    own = names.copy_name(UID, "Secret", "password")
    other = names.copy_name("another-uid", "Secret", "password")

    def guest(mounted: str, listed: str) -> Any:
        volumes = [{"name": "v", "secret": {"secretName": mounted}}]
        return a_guest({"volumes": volumes}, copies=[{"kind": "Secret", "name": "password", "copyName": listed}])

    assert reason(guest(own, own)) == ""
    assert reason(guest(other, other)) == "ForeignCopy"
    assert reason(guest(other, own)) == "ForeignCopy"


@pytest.mark.parametrize(
    ("host", "expected", "final"),
    [
        (Host(None), "NotOffered", False),
        (a_host(None), "UnknownMachine", False),
        (a_host(state="Paused"), "Paused", False),
        (a_host(state="Draining"), "Draining", False),
        (a_host(deleting=True), "Draining", False),
        (a_host(poolName="orchard"), "NotOffered", False),
        (a_host(consumers=["office"]), "ConsumerNotWelcome", False),
        (a_host(egress="None"), "EgressMismatch", False),
    ],
)
def test_the_owner_decides_who_comes(host: Host, expected: str, final: bool) -> None:
    found = refuse(UID, a_guest(), host)
    assert found is not None
    assert (found.reason, found.final) == (expected, final)


def test_the_home_sets_every_field_of_restricted() -> None:
    pod = home_pod.build(a_guest({"initContainers": [a_container(name="init")]}), "attic", Isolation())
    spec = pod["spec"]
    assert spec["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}, "runAsNonRoot": True}
    for container in [*spec["containers"], *spec["initContainers"]]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert container["imagePullPolicy"] == "Always"
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["priorityClassName"] == "homefed-guest"
    assert "hostUsers" not in spec


def test_a_guest_cannot_loosen_what_the_home_sets() -> None:
    context = {"runAsNonRoot": False, "seccompProfile": {"type": "Unconfined"}}
    container = a_container(securityContext={"runAsNonRoot": False, "capabilities": {"add": ["NET_BIND_SERVICE"]}})
    spec = home_pod.build(a_guest({"securityContext": context, "containers": [container]}), "attic", Isolation())[
        "spec"
    ]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    inner = spec["containers"][0]["securityContext"]
    assert inner["runAsNonRoot"] is True
    assert inner["capabilities"] == {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}


def test_limits_above_the_request_do_not_reach_the_home() -> None:
    container = a_container(resources={"requests": {"cpu": "1"}, "limits": {"cpu": "8"}})
    spec = home_pod.build(a_guest({"containers": [container]}), "attic", Isolation())["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {"cpu": "1"}


@pytest.mark.parametrize(
    ("isolation", "forced", "own_users"),
    [
        (Isolation(), True, False),
        (Isolation(user_namespaces=True, pod_security_version="v1.34"), True, True),
        (REMAPPED, False, True),
        (Isolation(user_namespaces=True, pod_security_version="latest"), False, True),
        (Isolation(user_namespaces=False, pod_security_version="v1.35"), True, False),
    ],
)
def test_root_is_nobody_outside_or_is_refused(isolation: Isolation, forced: bool, own_users: bool) -> None:
    spec = home_pod.build(a_guest(), "attic", isolation)["spec"]
    assert spec["securityContext"].get("runAsNonRoot", False) is forced
    assert spec.get("hostUsers") is (False if own_users else None)


def test_a_guest_is_left_to_the_homes_scheduler_and_bound_to_its_machine() -> None:
    spec = home_pod.build(a_guest(), "attic", Isolation())["spec"]
    assert "nodeName" not in spec
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required["nodeSelectorTerms"] == [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["attic"]}]}
    ]


def test_an_empty_dir_is_bounded_by_what_the_pod_requests() -> None:
    volumes = [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {"sizeLimit": "1Mi"}}]
    spec = home_pod.build(a_guest({"volumes": volumes}), "attic", Isolation())["spec"]
    assert [v["emptyDir"]["sizeLimit"] for v in spec["volumes"]] == ["64Mi", "1Mi"]


def test_of_the_hubs_annotations_only_values_of_the_downward_api_come_along() -> None:
    pod = a_guest().pod | {
        "labels": {"sidecar.istio.io/inject": "true"},
        "annotations": {"downward.homefed.io/0123456789abcdef": "v", "k8s.v1.cni.cncf.io/networks": "lan"},
    }
    guest = a_guest(pod=pod)
    metadata = home_pod.build(guest, "attic", Isolation())["metadata"]
    assert metadata["annotations"] == {
        "downward.homefed.io/0123456789abcdef": "v",
        names.ANNOTATION_DIGEST: guest.pod_digest,
    }
    assert metadata["name"] == f"hf-{UID}"
    assert metadata["labels"] == {
        names.LABEL_GUEST: "true",
        names.LABEL_HUB_UID: UID,
        names.LABEL_NODE: "hf-me-12345678",
        names.LABEL_POOL: "garden",
        names.LABEL_OFFER: "mine",
        names.LABEL_EGRESS: "DNS",
        names.LABEL_MANAGED_BY: names.AGENT_MANAGER,
    }


def test_a_pod_is_adopted_by_uid_and_digest_only() -> None:
    guest = a_guest()
    assert home_pod.is_ours(a_home_pod(guest), guest)
    assert not home_pod.is_ours(a_home_pod(guest, labels={}), guest)
    assert not home_pod.is_ours(a_home_pod(guest, annotations={names.ANNOTATION_DIGEST: "0" * 64}), guest)
    assert not home_pod.is_ours({"metadata": {"name": "hf-x"}}, guest)


def test_building_does_not_change_the_guest() -> None:
    guest = a_guest({"volumes": [{"name": "a", "emptyDir": {}}]})
    before = a_guest({"volumes": [{"name": "a", "emptyDir": {}}]})
    home_pod.build(guest, "attic", Isolation())
    assert guest == before


@pytest.mark.parametrize("text", ["", "1", "v1.x", "newest"])
def test_a_pod_security_version_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(Invalid, match="podSecurityVersion"):
        home_pod.pod_security(text)
