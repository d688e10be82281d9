"""Pods, nodes and GuestPods as sentences, for the tests of placement, translation and lifecycle."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

from homefed.api import names
from homefed.core.placement import Site

Json = dict[str, Any]
NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
UID = "11111111-2222-3333-4444-555555555555"
HOME_UID = "home-uid"
MACHINE = "a" * 64
NODE = names.virtual_node("anna", HOME_UID, MACHINE)
REQUESTS = {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "100Mi"}
IN_BYTES = {"cpu": 100, "memory": 64 << 20, "ephemeral-storage": 100 << 20}


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def container(name: str = "app", **changes: Any) -> Json:
    return {"name": name, "image": "registry.example/app:1", "resources": {"requests": dict(REQUESTS)}} | changes


def a_pod(*, metadata: Json | None = None, status: Json | None = None, **spec: Any) -> Json:
    """A pod as `kubectl run` and the API server make it: everything injected is there."""
    mount = {
        "name": "kube-api-access-x7",
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        "readOnly": True,
    }
    app = container(
        imagePullPolicy="Always",
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        volumeMounts=[mount],
    )
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
            }
        },
    ]
    tolerations = [
        {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
        for what in ("not-ready", "unreachable")
    ]
    given = {
        "containers": [app],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "nodeName": NODE,
        "nodeSelector": {names.LABEL_POOL: "attic"},
        "preemptionPolicy": "PreemptLowerPriority",
        "priority": 0,
        "restartPolicy": "Always",
        "runtimeClassName": "homefed-attic",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "serviceAccount": "default",
        "serviceAccountName": "default",
        "terminationGracePeriodSeconds": 30,
        "tolerations": [
            {"key": names.TAINT_POOL, "operator": "Equal", "value": "attic", "effect": "NoSchedule"},
            *tolerations,
        ],
        "volumes": [{"name": "kube-api-access-x7", "projected": {"defaultMode": 420, "sources": sources}}],
    }
    return {
        "metadata": {"name": "web", "namespace": "shop", "uid": UID, "resourceVersion": "1"} | (metadata or {}),
        "spec": given | spec,
        "status": {"phase": "Pending"} | (status or {}),
    }


def of_replica_set(pod: Json, uid: str = "rs-1", kind: str = "ReplicaSet") -> Json:
    changed = copy.deepcopy(pod)
    changed["metadata"]["ownerReferences"] = [{"kind": kind, "name": "rs", "uid": uid, "controller": True}]
    return changed


def a_node(*, ready: str = "True", since: datetime = NOON, labels: Json | None = None, **allocatable: str) -> Json:
    amounts = {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "20Gi", "pods": "20"} | allocatable
    own = {
        names.LABEL_HOME: "anna",
        names.LABEL_HOME_UID: HOME_UID,
        names.LABEL_POOL: "attic",
        "type": "virtual-kubelet",
    }
    moment = since.strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": moment}
    return {
        "metadata": {"name": NODE, "labels": own | (labels or {})},
        "status": {"allocatable": amounts, "conditions": [condition]},
    }


def a_site(**changes: Any) -> Site:
    given: Json = {
        "pool": "attic",
        "node": a_node(),
        "home": "anna",
        "open": True,
        "consumers": (),
        "egress": "DNS",
        "offer_name": "loft",
        "machine_id": MACHINE,
        "allocated": {},
    }
    return Site(**(given | changes))


def a_namespace(enabled: str = "enabled") -> Json:
    return {"metadata": {"name": "shop", "uid": "shop-uid", "labels": {names.enabled_label("attic"): enabled}}}
