"""The allow-list of PodSpec: what is carried, stripped, refused; the same eyes at the hub and, stricter, at home."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.core import pod_fields
from homefed.core.field_rules import MAX_FAULTS
from unit.core.guest_builders import a_pod, container

Json = dict[str, Any]
MOUNT = {"name": "v", "mountPath": "/v"}


def hub(**spec: Any) -> list[str]:
    return [fault.field_path for fault in pod_fields.check(a_pod(**spec)["spec"], stage="hub")]


def home(**spec: Any) -> list[str]:
    return [fault.field_path for fault in pod_fields.check({"containers": [container()]} | spec, stage="home")]


def test_an_ordinary_pod_has_no_faults_at_the_hub_and_many_at_home() -> None:
    assert hub() == []
    assert len(pod_fields.check(a_pod()["spec"], stage="home")) == MAX_FAULTS
    assert home() == []


@pytest.mark.parametrize(
    "spec",
    [
        {"hostNetwork": True},
        {"hostPID": True},
        {"hostIPC": True},
        {"hostUsers": True},
        {"hostAliases": [{"ip": "1.2.3.4"}]},
        {"dnsConfig": {"nameservers": ["1.2.3.4"]}},
        {"readinessGates": [{"conditionType": "x"}]},
        {"resourceClaims": [{"name": "x"}]},
        {"setHostnameAsFQDN": True},
        {"aFieldOfTheFuture": {"any": "thing"}},
    ],
)
def test_forbidden_and_unknown_fields_of_a_pod_are_named(spec: Json) -> None:
    (name,) = spec
    assert hub(**spec) == home(**spec) == [f"spec.{name}"]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"securityContext": {"privileged": True}}, "securityContext.privileged"),
        ({"securityContext": {"allowPrivilegeEscalation": True}}, "securityContext.allowPrivilegeEscalation"),
        ({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}, "securityContext.capabilities.add[0]"),
        ({"securityContext": {"procMount": "Unmasked"}}, "securityContext.procMount"),
        ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, "securityContext.seccompProfile.type"),
        ({"securityContext": {"seLinuxOptions": {"level": "s0"}}}, "securityContext.seLinuxOptions"),
        ({"ports": [{"containerPort": 80, "hostPort": 80}]}, "ports[0].hostPort"),
        ({"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}, "volumeDevices"),
        ({"volumeMounts": [MOUNT | {"mountPropagation": "Bidirectional"}]}, "volumeMounts[0].mountPropagation"),
        ({"livenessProbe": {"httpGet": {"host": "192.168.0.1", "port": 80}}}, "livenessProbe.httpGet.host"),
        ({"lifecycle": {"preStop": {"tcpSocket": {"host": "router", "port": 1}}}}, "lifecycle.preStop.tcpSocket.host"),
        ({"resources": {"claims": [{"name": "gpu"}]}}, "resources.claims"),
        ({"env": [{"name": "X", "valueFrom": {"fileKeyRef": {"key": "k"}}}]}, "env[0].valueFrom.fileKeyRef"),
    ],
)
def test_forbidden_fields_of_a_container_are_named(changes: Json, path: str) -> None:
    assert hub(containers=[container(**changes)]) == [f"spec.containers[0].{path}"]
    assert hub(initContainers=[container(**changes)]) == [f"spec.initContainers[0].{path}"]


@pytest.mark.parametrize(
    "source",
    [
        {"hostPath": {"path": "/"}},
        {"persistentVolumeClaim": {"claimName": "x"}},
        {"nfs": {"server": "router", "path": "/"}},
        {"csi": {"driver": "x"}},
        {"image": {"reference": "x"}},
        {"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        {"projected": {"sources": [{"clusterTrustBundle": {"path": "t"}}]}},
    ],
)
def test_volumes_that_reach_into_a_home_or_carry_a_token_are_refused(source: Json) -> None:
    (fault,) = hub(volumes=[{"name": "v"} | source])
    assert fault.startswith(f"spec.volumes[0].{next(iter(source))}")


def test_an_injected_token_is_recognised_by_its_volume_and_only_alone_in_its_source() -> None:
    both = {"serviceAccountToken": {"path": "t"}, "secret": {"name": "s"}}
    volume = {"name": "kube-api-access-x", "projected": {"sources": [both]}}
    assert hub(volumes=[volume]) == ["spec.volumes[0].projected.sources[0].serviceAccountToken"]


def test_what_is_empty_or_false_is_not_there() -> None:
    assert hub(hostNetwork=False, hostPID=False, resourceClaims=[], dnsConfig={}) == []
    assert home(hostNetwork=False, nodeName="") == []


def test_a_named_service_account_is_refused_unless_it_renounces_its_token() -> None:
    assert hub(serviceAccountName="builder") == ["spec.serviceAccountName"]
    assert hub(serviceAccountName="builder", automountServiceAccountToken=False) == []


def test_at_home_only_what_the_hub_resolved_may_be_left() -> None:
    def env(path: str) -> list[str]:
        reference = {"fieldRef": {"fieldPath": path}}
        return home(containers=[container(env=[{"name": "X", "valueFrom": reference}])])

    assert env("status.podIP") == []
    assert env("spec.nodeName") == ["spec.containers[0].env[0].valueFrom.fieldRef.fieldPath"]
    assert env("status.hostIP") == ["spec.containers[0].env[0].valueFrom.fieldRef.fieldPath"]
    item = {"path": "p", "fieldRef": {"fieldPath": "metadata.annotations['homefed.io/pod-digest']"}}
    assert home(volumes=[{"name": "v", "downwardAPI": {"items": [item]}}]) != []


def test_a_grace_is_cut_at_the_hub_and_refused_at_home() -> None:
    assert hub(terminationGracePeriodSeconds=9000) == []
    assert home(terminationGracePeriodSeconds=9000) == ["spec.terminationGracePeriodSeconds"]


def test_references_are_found_wherever_a_pod_can_name_an_object() -> None:
    env = [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "one", "key": "k"}}},
        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "two", "key": "k", "optional": True}}},
    ]
    volumes = [
        {"name": "v", "secret": {"secretName": "three"}},
        {"name": "w", "projected": {"sources": [{"configMap": {"name": "four"}}]}},
    ]
    spec = {"containers": [container(env=env, envFrom=[{"secretRef": {"name": "five"}}])], "volumes": volumes}
    found = pod_fields.references(spec, stage="home")
    assert {(one.kind, one.name, one.optional) for one in found} == {
        ("Secret", "one", False),
        ("ConfigMap", "two", True),
        ("Secret", "three", False),
        ("ConfigMap", "four", False),
        ("Secret", "five", False),
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([
        "containers", "volumes", "env", "name", "valueFrom", "fieldRef", "securityContext", "projected", "sources",
        "configMap", "resources", "requests", "volumeMounts", "livenessProbe", "httpGet", "port",
        "terminationGracePeriodSeconds",
    ]), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_a_hostile_spec_is_refused_or_carried_but_never_crashes(spec: Any) -> None:
    for stage in ("hub", "home"):
        faults = pod_fields.check(spec, stage=stage)
        assert len(faults) <= MAX_FAULTS
        assert all(fault.message.startswith(fault.field_path) for fault in faults)


@given(JSON)
def test_what_the_hub_carries_the_home_accepts_but_for_unresolved_fields(spec: Any) -> None:
    if not isinstance(spec, dict) or pod_fields.check(spec, stage="hub"):
        return
    left = pod_fields.check(pod_fields.carry(spec), stage="home")
    assert all("fieldRef" in fault.field_path for fault in left)
