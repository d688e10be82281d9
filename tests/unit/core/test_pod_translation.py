"""From a hub's Pod to a GuestPod: what is carried, what is resolved, what stays behind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api import names
from homefed.api.canonical import digest
from homefed.api.errors import Invalid
from homefed.api.guest_pod import GuestPodSpec
from homefed.api.meta import parse
from homefed.core import pod_fields
from homefed.core.pod_translation import (
    Translation,
    bound_at,
    disconnect_deadline,
    guest_pod,
    translate,
)
from unit.core.guest_builders import IN_BYTES, NODE, NOON, UID, a_node, a_pod, a_site, after, container

Json = dict[str, Any]


def translated(pod: Json, **site: Any) -> Translation:
    assert pod_fields.check(pod["spec"], stage="hub") == []
    result = translate(pod, a_site(**site), IN_BYTES)
    assert pod_fields.check(result.pod["spec"], stage="home") == [], "the home accepts what an honest hub sends"
    return result


def env_of(translation: Translation) -> dict[str, Any]:
    return {
        one["name"]: one.get("value", one.get("valueFrom")) for one in translation.pod["spec"]["containers"][0]["env"]
    }


def field(name: str, path: str) -> Json:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def test_what_the_api_server_injected_stays_at_the_hub() -> None:
    spec = translated(a_pod()).pod["spec"]
    assert set(spec) == {
        "containers", "hostname", "restartPolicy", "securityContext", "terminationGracePeriodSeconds", "volumes",
    }  # fmt: skip
    assert "imagePullPolicy" not in spec["containers"][0]


def test_no_token_leaves_but_certificate_and_namespace_do() -> None:
    result = translated(a_pod())
    sources = result.pod["spec"]["volumes"][0]["projected"]["sources"]
    assert "serviceAccountToken" not in json.dumps(result.pod)
    copy_name = names.copy_name(UID, "ConfigMap", "kube-root-ca.crt")
    assert sources[0]["configMap"]["name"] == copy_name
    path = sources[1]["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"]
    key = path.removeprefix("metadata.annotations['").removesuffix("']")
    assert pod_fields.is_downward_annotation(key)
    assert result.pod["annotations"][key] == "shop"


def test_labels_and_annotations_of_a_consumer_stay_at_the_hub() -> None:
    result = translated(a_pod(metadata={"labels": {"app": "web"}, "annotations": {"secret": "plan"}}))
    assert result.pod["labels"] == {}
    assert "plan" not in json.dumps(result.pod)


def test_the_downward_api_shows_the_hubs_truth() -> None:
    env = [
        field("NAME", "metadata.name"),
        field("NAMESPACE", "metadata.namespace"),
        field("UID", "metadata.uid"),
        field("NODE", "spec.nodeName"),
        field("ACCOUNT", "spec.serviceAccountName"),
        field("HOST", "status.hostIP"),
        field("APP", "metadata.labels['app']"),
        field("NONE", "metadata.labels['none']"),
        field("IP", "status.podIP"),
    ]
    pod = a_pod(metadata={"labels": {"app": "web"}}, containers=[container(env=env)])
    node = a_node()
    node["status"]["addresses"] = [{"type": "InternalIP", "address": "10.1.2.3"}]
    assert env_of(translated(pod, node=node)) == {
        "NAME": "web",
        "NAMESPACE": "shop",
        "UID": UID,
        "NODE": NODE,
        "ACCOUNT": "default",
        "HOST": "10.1.2.3",
        "APP": "web",
        "NONE": "",
        "IP": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}},
    }


def test_a_resolved_value_is_not_expanded_by_the_homes_kubelet() -> None:
    pod = a_pod(
        metadata={"annotations": {"note": "costs $(PRICE) $$"}},
        containers=[container(env=[field("NOTE", "metadata.annotations['note']")])],
    )
    assert env_of(translated(pod)) == {"NOTE": "costs $$(PRICE) $$$$"}


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", None, "1"),  # 100m in cores, rounded up
        ("requests.cpu", "1m", "100"),
        ("limits.memory", None, str(64 << 20)),
        ("limits.memory", "1Mi", "64"),
        ("limits.memory", "0", str(64 << 20)),
        ("limits.hugepages-2Mi", None, "0"),
        ("limits.pods", None, "20"),  # not limited: the virtual node's allocatable
        ("requests.pods", None, "0"),
    ],
)
def test_resource_fields_show_what_the_container_really_gets(resource: str, divisor: str | None, value: str) -> None:
    reference = {"resource": resource} | ({"divisor": divisor} if divisor else {})
    env = [{"name": "X", "valueFrom": {"resourceFieldRef": reference}}]
    assert env_of(translated(a_pod(containers=[container(env=env)]))) == {"X": value}


def test_a_volume_of_all_labels_is_written_as_the_kubelet_writes_it() -> None:
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    volume = {"name": "info", "downwardAPI": {"items": items}}
    result = translated(a_pod(metadata={"labels": {"b": "2", "a": 'say "x"'}}, volumes=[volume]))
    assert list(result.pod["annotations"].values()) == ['a="say \\"x\\""\nb="2"']


def test_every_object_is_copied_once_and_is_optional_only_where_every_mention_is() -> None:
    env_from = [{"configMapRef": {"name": "settings", "optional": True}}, {"secretRef": {"name": "login"}}]
    volume = {"name": "v", "configMap": {"name": "settings"}}
    result = translated(a_pod(containers=[container(envFrom=env_from)], volumes=[volume]))
    assert [(copy.kind, copy.name, copy.optional) for copy in result.copies] == [
        ("ConfigMap", "settings", False),
        ("Secret", "login", False),
    ]
    carried = result.pod["spec"]["containers"][0]["envFrom"]
    assert carried[1]["secretRef"]["name"] == names.copy_name(UID, "Secret", "login")
    assert result.pod["spec"]["volumes"][0]["configMap"]["name"] == result.copies[0].copy_name


def test_pull_secrets_leave_only_when_the_pod_says_so() -> None:
    wanted = [{"name": "registry"}]
    assert "imagePullSecrets" not in translated(a_pod(imagePullSecrets=wanted, volumes=[])).pod["spec"]
    says_so = {"annotations": {pod_fields.ANNOTATION_PULL_SECRETS: "Copy"}}
    result = translated(a_pod(metadata=says_so, imagePullSecrets=wanted, volumes=[]))
    assert result.pod["spec"]["imagePullSecrets"] == [{"name": names.copy_name(UID, "Secret", "registry")}]
    assert [copy.name for copy in result.copies] == ["registry"]


def test_limits_become_the_requests() -> None:
    app = container()
    app["resources"]["limits"] = {"cpu": "2", "memory": "64Mi"}
    resources = translated(a_pod(containers=[app])).pod["spec"]["containers"][0]["resources"]
    assert (
        resources["limits"] == resources["requests"] == {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "100Mi"}
    )


def test_an_empty_dir_without_a_size_gets_the_pods_request() -> None:
    volumes = [
        {"name": "disk", "emptyDir": {}},
        {"name": "ram", "emptyDir": {"medium": "Memory"}},
        {"name": "own", "emptyDir": {"sizeLimit": "5Mi"}},
    ]
    sized = translated(a_pod(volumes=volumes)).pod["spec"]["volumes"]
    assert [volume["emptyDir"]["sizeLimit"] for volume in sized] == ["100Mi", "64Mi", "5Mi"]


def test_the_grace_is_cut_to_what_a_home_gives() -> None:
    assert translated(a_pod(terminationGracePeriodSeconds=3600)).pod["spec"]["terminationGracePeriodSeconds"] == 300


@pytest.mark.parametrize(("name", "hostname"), [("web", "web"), ("a.b", "a-b"), ("x" * 62 + "-yz", "x" * 62)])
def test_the_host_name_is_the_pods_name(name: str, hostname: str) -> None:
    assert translated(a_pod(metadata={"name": name})).pod["spec"]["hostname"] == hostname


def test_a_host_name_of_its_own_is_kept() -> None:
    assert translated(a_pod(hostname="web-0", subdomain="web")).pod["spec"]["hostname"] == "web-0"


def test_a_pod_that_is_too_large_is_refused_with_a_remedy() -> None:
    env = [{"name": f"V{n}", "value": "x" * 100_000} for n in range(3)]
    with pytest.raises(Invalid, match="move text to a ConfigMap") as raised:
        translate(a_pod(containers=[container(env=env)]), a_site(), IN_BYTES)
    assert raised.value.reason == "PodTooLarge"


def test_a_pod_that_names_too_many_objects_is_refused() -> None:
    env_from = [{"configMapRef": {"name": f"c{n}"}} for n in range(64)]
    with pytest.raises(Invalid) as raised:
        translate(a_pod(containers=[container(envFrom=env_from)]), a_site(), IN_BYTES)
    assert raised.value.reason == "TooManyObjects"


@given(st.permutations(list(a_pod()["spec"].items())))
def test_the_same_pod_gives_the_same_bytes_in_whatever_order_it_is_written(items: list[tuple[str, Any]]) -> None:
    shuffled = a_pod() | {"spec": dict(items)}
    assert translate(shuffled, a_site(), IN_BYTES).digest == translate(a_pod(), a_site(), IN_BYTES).digest


def test_the_guest_pod_is_complete_and_its_digest_is_of_what_it_holds() -> None:
    obj, translation = guest_pod(a_pod(), "shop-uid", a_site(), IN_BYTES, NOON)
    spec = parse(GuestPodSpec, obj["spec"], where="spec")
    assert obj["metadata"]["name"] == spec.pod_uid == UID
    assert obj["metadata"]["namespace"] == "homefed-home-anna"
    assert obj["metadata"]["finalizers"] == [names.FINALIZER_GUEST]
    assert spec.pod_digest == digest(obj["spec"]["pod"]) == translation.digest
    assert spec.requests == {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "100Mi"}
    assert spec.observed.bound_at == "2026-01-31T12:00:00Z"


def test_a_guests_terms_are_what_the_node_says_when_it_is_bound() -> None:
    node = a_node(labels={names.LABEL_CLASS: "fast", names.LABEL_PRICE_PERCENT: "80"})
    priced, _ = guest_pod(a_pod(), "shop-uid", a_site(node=node), IN_BYTES, NOON)
    assert priced["spec"]["terms"] == {"class": "fast", "pricePpm": 800_000}
    plain, _ = guest_pod(a_pod(), "shop-uid", a_site(), IN_BYTES, NOON)
    assert plain["spec"]["terms"] == {"class": "standard", "pricePpm": 1_000_000}


def test_a_pod_was_bound_when_the_scheduler_said_so_but_never_in_the_future() -> None:
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-31T11:59:00Z"}
    assert bound_at(a_pod(status={"conditions": [scheduled]}), NOON) == after(-60)
    ahead = scheduled | {"lastTransitionTime": "2026-01-31T13:00:00Z"}
    assert bound_at(a_pod(status={"conditions": [ahead]}), NOON) == NOON
    assert bound_at(a_pod(), NOON) == NOON


def test_a_fenced_guest_is_stopped_before_its_replacement() -> None:
    fence = {"annotations": {names.ANNOTATION_ON_DISCONNECT: "Fence"}}
    assert disconnect_deadline(a_pod()) is None
    assert disconnect_deadline(a_pod(metadata=fence)) == 300
    at_once = a_pod(metadata=fence, tolerations=[], terminationGracePeriodSeconds=10)
    assert disconnect_deadline(at_once) == 20
    never = [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}]
    assert disconnect_deadline(a_pod(metadata=fence, tolerations=never)) is None
