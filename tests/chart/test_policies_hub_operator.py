"""The hub's admission policies on its own operator: verbs that RBAC cannot narrow are bound to HomeFed's names."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.api import Api, ApiError
from testbed.installation import Release

Json = dict[str, Any]
OURS = {"homefed.io/home-uid": "0000"}
RBAC = "rbac.authorization.k8s.io"


@pytest.fixture(scope="module")
def admin(installed: Release) -> Api:
    """A mailbox, a namespace that only has the name of one, foreign and virtual nodes with a pod each."""
    cluster = installed.cluster
    cluster.create_namespace("homefed-home-oak", OURS)
    cluster.create_namespace("homefed-home-lookalike")
    cluster.create_namespace("bystander")
    for name, labels in (("machine", {}), ("hf-lookalike", {}), ("hf-oak-1", OURS)):
        cluster.api.request("POST", "/api/v1/nodes", object_("Node", name, labels))
        body = object_("Pod", f"on-{name}") | {"spec": {"nodeName": name, "containers": [{"name": "c", "image": "x"}]}}
        cluster.api.request("POST", "/api/v1/namespaces/bystander/pods", body)
    return cluster.api


@pytest.fixture(scope="module")
def operator(installed: Release, admin: Api) -> Api:
    """Its ServiceAccount, with the mailbox bound to it as it binds it itself."""
    cluster = installed.cluster
    subject = {"kind": "ServiceAccount", "name": "homefed-hub", "namespace": "homefed"}
    for namespace in ("homefed-home-oak", "bystander"):
        body = object_("RoleBinding", "homefed-mailbox-hub") | {
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "homefed-mailbox-hub"},
            "subjects": [subject],
        }
        admin.request("POST", f"/apis/{RBAC}/v1/namespaces/{namespace}/rolebindings", body)
    token = cluster.token_for("homefed", "homefed-hub")
    api = Api(cluster.host, cluster.spec.ports.apiserver, cluster.ca_path, token=token)
    cluster.wait_for(lambda: api.answers("/api/v1/namespaces/bystander/secrets"), 120, "the operator's rights")
    for what in ("a machine", "an ordinary pod"):  # one of each policy
        cluster.wait_for(lambda what=what: _is_refused(api, what), 120, "the policies are in force")  # type: ignore[misc]
    return api


def _is_refused(api: Api, what: str) -> bool:
    method, path, body, sentence = REFUSED[what]
    try:
        _send(api, method, path, body)
    except ApiError as error:
        return sentence in str(error)
    return False


def object_(kind: str, name: str, labels: Json | None = None) -> Json:
    group = {"Role": f"{RBAC}/v1", "RoleBinding": f"{RBAC}/v1", "RuntimeClass": "node.k8s.io/v1"}
    group |= {"Lease": "coordination.k8s.io/v1"}
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": group.get(kind, "v1"), "kind": kind, "metadata": metadata}


LABEL = {"metadata": {"labels": {"seen": "yes"}}}
READY = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
NODE_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

ALLOWED: dict[str, tuple[str, str, Json | None]] = {
    "a virtual node": ("POST", "/api/v1/nodes", object_("Node", "hf-oak-2", OURS)),
    "its labels": ("PATCH", "/api/v1/nodes/hf-oak-1", LABEL),
    "its status": ("PATCH", "/api/v1/nodes/hf-oak-1/status", READY),
    "its end": ("DELETE", "/api/v1/nodes/hf-oak-1", None),
    "a mailbox": ("POST", "/api/v1/namespaces", object_("Namespace", "homefed-home-elm", OURS)),
    "a mailbox's end": ("DELETE", "/api/v1/namespaces/homefed-home-oak", None),
    "a guest's pod": ("DELETE", "/api/v1/namespaces/bystander/pods/on-hf-oak-1", None),
    "its pod's status": (
        "PATCH",
        "/api/v1/namespaces/bystander/pods/on-hf-oak-1/status",
        {"status": {"phase": "Running"}},
    ),
    "a pool's class": (
        "POST",
        "/apis/node.k8s.io/v1/runtimeclasses",
        object_("RuntimeClass", "homefed-evening") | {"handler": "homefed"},
    ),
    "a copied Secret": ("POST", "/api/v1/namespaces/homefed-home-oak/secrets", object_("Secret", "copy")),
    "an agent's identity": (
        "POST",
        "/api/v1/namespaces/homefed-home-oak/serviceaccounts",
        object_("ServiceAccount", "homefed-agent"),
    ),
    "an agent's Leases": (
        "POST",
        f"/apis/{RBAC}/v1/namespaces/kube-node-lease/roles",
        object_("Role", "homefed-home-oak") | {"rules": []},
    ),
    "a node's Lease": ("POST", NODE_LEASES, object_("Lease", "hf-oak-1") | {"spec": {}}),
    "its own Lease": (
        "POST",
        "/apis/coordination.k8s.io/v1/namespaces/homefed/leases",
        object_("Lease", "homefed-hub") | {"spec": {}},
    ),
    "its own key": ("PATCH", "/api/v1/namespaces/homefed/secrets/homefed-hub", {"data": {"ed25519": "AAAA"}}),
    "its public key": ("PATCH", "/api/v1/namespaces/homefed/configmaps/homefed-hub-key", {"data": {"hub.pub": "A"}}),
    "the homes' keys": ("PATCH", "/api/v1/namespaces/homefed/configmaps/homefed-home-keys", {"data": {"u": "A"}}),
}

REFUSED: dict[str, tuple[str, str, Json | None, str]] = {
    "a node of another name": ("POST", "/api/v1/nodes", object_("Node", "worker", OURS), "only virtual nodes"),
    "a node without a home": ("POST", "/api/v1/nodes", object_("Node", "hf-x"), "only virtual nodes"),
    "a machine's labels": ("PATCH", "/api/v1/nodes/machine", LABEL, "only virtual nodes"),
    "a machine's status": ("PATCH", "/api/v1/nodes/machine/status", READY, "only virtual nodes"),
    "a machine": ("DELETE", "/api/v1/nodes/machine", None, "only virtual nodes"),
    "a machine that sounds virtual": ("DELETE", "/api/v1/nodes/hf-lookalike", None, "only virtual nodes"),
    "a machine that it labels itself": (
        "PATCH", "/api/v1/nodes/hf-lookalike", {"metadata": {"labels": OURS}}, "only virtual nodes",
    ),
    "any namespace": ("POST", "/api/v1/namespaces", object_("Namespace", "mine", OURS), "only mailboxes"),
    "a namespace's end": ("DELETE", "/api/v1/namespaces/bystander", None, "only mailboxes"),
    "a namespace that sounds so": ("DELETE", "/api/v1/namespaces/homefed-home-lookalike", None, "only mailboxes"),
    "an ordinary pod": ("DELETE", "/api/v1/namespaces/bystander/pods/on-machine", None, "only pods on virtual nodes"),
    "an ordinary pod's status": (
        "PATCH", "/api/v1/namespaces/bystander/pods/on-machine/status", {"status": {"phase": "Failed"}},
        "only pods on virtual nodes",
    ),
    "a foreign class": (
        "POST", "/apis/node.k8s.io/v1/runtimeclasses", object_("RuntimeClass", "gvisor") | {"handler": "x"},
        "only RuntimeClasses homefed-*",
    ),
    "a Secret elsewhere, though bound there": (
        "POST", "/api/v1/namespaces/bystander/secrets", object_("Secret", "copy"), "only in mailboxes",
    ),
    "an identity elsewhere": (
        "POST", "/api/v1/namespaces/bystander/serviceaccounts", object_("ServiceAccount", "x"), "only in mailboxes",
    ),
    "an identity in a namespace that sounds like ours": (
        "POST", "/api/v1/namespaces/homefed-home-lookalike/serviceaccounts", object_("ServiceAccount", "x"),
        "only in mailboxes",
    ),
    "a Role elsewhere": (
        "POST", f"/apis/{RBAC}/v1/namespaces/bystander/roles", object_("Role", "x") | {"rules": []},
        "only in mailboxes",
    ),
    "its own Role": (
        "POST", f"/apis/{RBAC}/v1/namespaces/kube-node-lease/roles", object_("Role", "homefed-hub-2") | {"rules": []},
        "only in mailboxes",
    ),
    "a kubelet's Lease": ("POST", NODE_LEASES, object_("Lease", "machine") | {"spec": {}}, "only Leases of virtual"),
}  # fmt: skip


@pytest.mark.parametrize("what", ALLOWED)
def test_the_operator_writes_what_is_homefeds(operator: Api, what: str) -> None:
    method, path, body = ALLOWED[what]
    _send(operator, method, path, body)


@pytest.mark.parametrize("what", REFUSED)
def test_the_operator_cannot_touch_what_is_not(operator: Api, what: str) -> None:
    method, path, body, sentence = REFUSED[what]
    with pytest.raises(ApiError) as caught:
        _send(operator, method, path, body)
    assert sentence in str(caught.value)


def test_nobody_else_is_bound(admin: Api) -> None:
    _send(admin, "PATCH", "/api/v1/nodes/machine", LABEL)


def _send(api: Api, method: str, path: str, body: Json | None) -> None:
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    api.request(method, f"{path}?dryRun=All", body, content_type=kind)
