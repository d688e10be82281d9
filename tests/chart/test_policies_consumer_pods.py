"""The hub's admission policy on consumers' pods: what a pod's own text and namespace show is refused at creation."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.api import ApiError
from testbed.cluster import Cluster, KubectlError
from testbed.installation import Release, merge

Json = dict[str, Any]
POOL = "garden"
RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": f"homefed-{POOL}"},
    "handler": "homefed",
    "scheduling": {
        "nodeSelector": {"homefed.io/pool": POOL},
        "tolerations": [{"key": "homefed.io/pool", "operator": "Equal", "value": POOL, "effect": "NoSchedule"}],
    },
}
REQUESTS = {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "64Mi"}


@pytest.fixture(scope="module")
def hub(installed: Release) -> Cluster:
    """Namespace `shop` may use pool garden, `stranger` may not."""
    cluster = installed.cluster
    cluster.apply([RUNTIME_CLASS])
    cluster.create_namespace("shop", {f"pools.homefed.io/{POOL}": "enabled"})
    cluster.create_namespace("stranger")
    cluster.wait_for(lambda: "may not use" in _outcome(cluster, "stranger"), 120, "the policies are in force")
    return cluster


def pod(spec: Json | None = None, container: Json | None = None, **metadata: Any) -> Json:
    """A pod that passes, with changes."""
    main = merge(
        {"name": "main", "image": "example.org/app:1", "resources": {"requests": dict(REQUESTS)}}, container or {}
    )
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "guest", **metadata},
        "spec": merge({"runtimeClassName": f"homefed-{POOL}", "containers": [main]}, spec or {}),
    }


def create(cluster: Cluster, body: Json, namespace: str = "shop", *, dry: bool = True) -> Json:
    query = "?dryRun=All" if dry else ""
    created: Json = cluster.api.request("POST", f"/api/v1/namespaces/{namespace}/pods{query}", body)
    return created


def refusal(cluster: Cluster, body: Json, namespace: str = "shop") -> str:
    with pytest.raises(ApiError) as caught:
        create(cluster, body, namespace)
    assert caught.value.status in (403, 422)
    return str(caught.value)


def test_an_ordinary_pod_with_requests_passes(hub: Cluster) -> None:
    created = create(hub, pod())
    assert created["spec"]["nodeSelector"] == {"homefed.io/pool": POOL}


def test_a_namespace_that_is_not_enabled_is_told_what_the_organiser_does(hub: Cluster) -> None:
    message = refusal(hub, pod(), "stranger")
    assert "namespace stranger may not use pool garden" in message
    assert "homefed consumer enable stranger --pool garden" in message


def test_a_pod_without_our_runtime_class_is_none_of_our_business(hub: Cluster) -> None:
    create(hub, {**pod(), "spec": {"hostNetwork": True, "containers": [{"name": "main", "image": "x"}]}}, "stranger")


def _container(**fields: Any) -> Json:
    return pod(container=fields)


def _security(**fields: Any) -> Json:
    return pod(container={"securityContext": fields})


def _volume(**source: Any) -> Json:
    return pod({"volumes": [{"name": "data", **source}]})


FORBIDDEN: dict[str, tuple[Json, str]] = {
    "hostNetwork": (pod({"hostNetwork": True}), "spec.hostNetwork"),
    "hostPID": (pod({"hostPID": True}), "spec.hostPID"),
    "hostIPC": (pod({"hostIPC": True}), "spec.hostIPC"),
    "hostPath": (_volume(hostPath={"path": "/"}), "spec.volumes[].hostPath"),
    "nfs": (_volume(nfs={"server": "192.0.2.1", "path": "/"}), "spec.volumes: guests can use"),
    "claim": (_volume(persistentVolumeClaim={"claimName": "x"}), "spec.volumes: guests can use"),
    "hostPort": (_container(ports=[{"containerPort": 80, "hostPort": 80}]), "spec.containers[].ports[].hostPort"),
    "privileged": (_security(privileged=True), "securityContext.privileged"),
    "escalation": (_security(allowPrivilegeEscalation=True), "securityContext.allowPrivilegeEscalation"),
    "capability": (_security(capabilities={"add": ["NET_ADMIN"]}), "securityContext.capabilities.add"),
    "procMount": (pod({"hostUsers": False}, {"securityContext": {"procMount": "Unmasked"}}), "procMount"),
    "account": (pod({"serviceAccountName": "clerk"}), "spec.serviceAccountName"),
    "dnsPolicy": (pod({"dnsPolicy": "Default"}), "spec.dnsPolicy"),
    "dnsConfig": (pod({"dnsConfig": {"nameservers": ["192.0.2.1"]}}), "spec.dnsConfig"),
    "readinessGates": (pod({"readinessGates": [{"conditionType": "example.org/x"}]}), "spec.readinessGates"),
    "sysctls": (
        pod({"securityContext": {"sysctls": [{"name": "net.ipv4.ip_local_port_range", "value": "1 2"}]}}),
        "spec.securityContext.sysctls",
    ),
    "resourceClaims": (pod({"resourceClaims": [{"name": "gpu", "resourceClaimName": "x"}]}), "spec.resourceClaims"),
    "init container": (
        pod({"initContainers": [{"name": "init", "image": "x", "securityContext": {"privileged": True},
                                 "resources": {"requests": REQUESTS}}]}),
        "securityContext.privileged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_forbidden_field_is_refused_by_name(hub: Cluster, what: str) -> None:
    hub.create_service_account("shop", "clerk")
    body, field = FORBIDDEN[what]
    assert field in refusal(hub, body)


@pytest.mark.parametrize("missing", REQUESTS)
def test_missing_requests_are_refused_with_the_command_that_sets_defaults(hub: Cluster, missing: str) -> None:
    body = pod()
    del body["spec"]["containers"][0]["resources"]["requests"][missing]
    message = refusal(hub, body)
    assert "spec.containers[].resources.requests: container main" in message
    assert "homefed consumer enable shop" in message


def test_requests_are_required_of_init_containers_too(hub: Cluster) -> None:
    assert "container setup needs" in refusal(hub, pod({"initContainers": [{"name": "setup", "image": "x"}]}))


@pytest.mark.parametrize("resource", ["memory", "ephemeral-storage"])
def test_a_limit_above_the_request_is_refused_with_the_value_to_set(hub: Cluster, resource: str) -> None:
    body = pod(container={"resources": {"limits": {resource: "256Mi"}}})
    message = refusal(hub, body)
    assert f"the {resource} limit may not exceed the request" in message
    assert "set both to 256Mi" in message


def test_the_annotation_lets_limits_run_at_the_request(hub: Cluster) -> None:
    limits = {"resources": {"limits": {"memory": "256Mi", "ephemeral-storage": "1Gi"}}}
    create(hub, pod(container=limits, annotations={"homefed.io/limits": "UseRequests"}))
    assert "memory limit" in refusal(hub, pod(container=limits, annotations={"homefed.io/limits": "userequests"}))


def test_limits_up_to_the_request_pass(hub: Cluster) -> None:
    create(hub, pod(container={"resources": {"limits": {"memory": "65536Ki", "ephemeral-storage": "64Mi"}}}))


def test_a_cpu_limit_above_the_request_is_admitted_with_a_warning(hub: Cluster) -> None:
    body = pod(container={"resources": {"limits": {"cpu": "2"}}})
    create(hub, body)
    program = str(hub.binaries.path("kubectl"))
    done = subprocess.run(
        [program, f"--kubeconfig={hub.kubeconfig}", "-n", "shop", "create", "--dry-run=server", "-f", "-"],
        input=json.dumps(body), capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "a home runs the CPU limit at the request" in done.stderr


def test_the_one_capability_of_the_restricted_profile_passes(hub: Cluster) -> None:
    create(hub, _security(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}))


def test_kubectl_run_with_a_runtime_class_passes(hub: Cluster) -> None:
    override = {"spec": {"runtimeClassName": f"homefed-{POOL}"}}
    text = hub.kubectl("run", "web", "--image=example.org/web", "--dry-run=client", "-o", "json",
                       f"--overrides={json.dumps(override)}")  # fmt: skip
    body = json.loads(text)
    body["spec"]["containers"][0]["resources"] = {"requests": REQUESTS}
    assert create(hub, body)["spec"]["enableServiceLinks"] is True


def test_a_deployment_made_by_kubectl_gets_its_pods(hub: Cluster) -> None:
    text = hub.kubectl("create", "deployment", "web", "--image=example.org/web", "-o", "json", "--dry-run=client")
    deployment = json.loads(text)
    template = deployment["spec"]["template"]["spec"]
    template |= {"runtimeClassName": f"homefed-{POOL}"}
    template["containers"][0]["resources"] = {"requests": REQUESTS}
    hub.kubectl("-n", "shop", "create", "-f", "-", stdin=json.dumps(deployment))
    hub.wait_for(lambda: bool(pods_of(hub, "web")), 120, "the Deployment's pod")


def test_a_deployment_that_is_refused_shows_the_sentence_and_backs_off(hub: Cluster) -> None:
    hub.kubectl("-n", "stranger", "create", "deployment", "web", "--image=example.org/web")
    patch = {"spec": {"template": {"spec": {"runtimeClassName": f"homefed-{POOL}"}}}}
    hub.kubectl("-n", "stranger", "patch", "deployment", "web", "--type=merge", "-p", json.dumps(patch))

    def explained() -> bool:
        sets = hub.api.get("/apis/apps/v1/namespaces/stranger/replicasets")["items"]
        conditions = [c for each in sets for c in each.get("status", {}).get("conditions", [])]
        return any("may not use pool garden" in c["message"] for c in conditions if c["type"] == "ReplicaFailure")

    hub.wait_for(explained, 120, "the sentence in the ReplicaSet's condition")


def pods_of(cluster: Cluster, app: str) -> list[Json]:
    found: list[Json] = cluster.api.get(f"/api/v1/namespaces/shop/pods?labelSelector=app%3D{app}")["items"]
    return found


# --- later


@pytest.fixture
def placed(hub: Cluster) -> Iterator[Json]:
    body = pod({"nodeName": "hf-oak-street-00000000"}, name="placed")
    yield create(hub, body, dry=False)
    hub.kubectl("-n", "shop", "delete", "pod", "placed", "--grace-period=0", "--force", "--ignore-not-found")


def update(cluster: Cluster, body: Json) -> Json:
    name = body["metadata"]["name"]
    body["metadata"].pop("resourceVersion", None)  # controllers write to the pod, too
    updated: Json = cluster.api.request("PUT", f"/api/v1/namespaces/shop/pods/{name}?dryRun=All", body)
    return updated


def test_the_image_of_a_placed_pod_is_fixed(hub: Cluster, placed: Json) -> None:
    changed = copy.deepcopy(placed)
    changed["spec"]["containers"][0]["image"] = "example.org/app:2"
    with pytest.raises(ApiError, match=r"spec\.containers\[\]\.image: what runs and is billed is fixed"):
        update(hub, changed)


def test_the_image_of_a_pod_that_waits_for_a_place_may_change(hub: Cluster) -> None:
    waiting = create(hub, pod(name="waiting"), dry=False)
    waiting["spec"]["containers"][0]["image"] = "example.org/app:2"
    update(hub, waiting)


def test_a_debug_container_is_refused_with_the_reason(hub: Cluster, placed: Json) -> None:
    with pytest.raises(KubectlError, match=r"spec\.ephemeralContainers: not carried to homes"):
        hub.kubectl("-n", "shop", "debug", "placed", "--image=example.org/shell", "--target=main")


def test_a_placed_pod_of_a_namespace_that_is_disabled_later_can_still_change(hub: Cluster, placed: Json) -> None:
    """A Job's controller takes its finalizer from a pod that has ended."""
    hub.kubectl("label", "namespace", "shop", f"pools.homefed.io/{POOL}-")
    try:
        changed = copy.deepcopy(placed)
        changed["metadata"]["labels"] = {"seen": "yes"}
        hub.wait_for(lambda: "may not use" in _outcome(hub), 120, "the namespace is disabled")
        update(hub, changed)
    finally:
        hub.kubectl("label", "namespace", "shop", f"pools.homefed.io/{POOL}=enabled")
        hub.wait_for(lambda: not _outcome(hub), 120, "the namespace is enabled again")


def _outcome(cluster: Cluster, namespace: str = "shop") -> str:
    try:
        create(cluster, pod(), namespace)
    except ApiError as error:
        return str(error)
    return ""


def test_the_api_server_finds_no_fault_in_any_policy(installed: Release) -> None:
    """Expressions are type-checked against the kinds that they match; what is wrong there would fail closed."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"

    def statuses() -> dict[str, Json]:
        return {p["metadata"]["name"]: p.get("status", {}) for p in installed.cluster.api.get(path)["items"]}

    installed.cluster.wait_for(
        lambda: all("typeChecking" in status for status in statuses().values()), 120, "policies type-checked"
    )
    found = statuses()
    assert len(found) == 8
    assert {name: status["typeChecking"] for name, status in found.items() if status["typeChecking"]} == {}
