"""What the agent watches at home, and how little of it is kept and passed on.

Nodes report every few seconds and pods of the owner come and go; most of it changes no offer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import kopf

from homefed.api import names
from homefed.core import offer as offers
from homefed.kube.kopf_embedded import run_kopf
from homefed.kube.kopf_login import login
from homefed.kube.transport import Load

Json = dict[str, Any]
_STATUS: Final = (
    "phase",
    "reason",
    "message",
    "conditions",
    "startTime",
    "containerStatuses",
    "initContainerStatuses",
)
_NODE_INFO: Final = ("architecture", "operatingSystem", "kubeletVersion")


def node_matters(old: Json | None, new: Json | None) -> bool:
    """Whether a Node changed in what an offer shows; heartbeats do not."""
    if old is None or new is None:
        return True
    return offers.home_node(old) != offers.home_node(new)


def pod_matters(old: Json | None, new: Json | None) -> bool:
    """Whether a pod changed in what an offer depends on."""
    relevant = ("node", "finished", "requests")
    if old is None or new is None:
        pod = old or new or {}
        return bool(pod.get("node")) and not pod.get("finished")
    return any(old[key] != new[key] for key in relevant)


def contribution_matters(old: Json | None, new: Json) -> bool:
    """Whether a Contribution changed in what a pass acts on. Its status does not count: a pass writes it, and would
    wake the next one."""
    if old is None:
        return True
    relevant = ("uid", "generation", "deletionTimestamp", "finalizers")
    return any(old.get(key) != new.get(key) for key in relevant)


async def follow_contributions(load: Load, namespace: str, wake: Callable[[], None]) -> None:
    """kopf on the home's API, for Contribution only, until cancelled: what matters asks for a pass."""
    registry = kopf.OperatorRegistry()
    known: dict[str, Json] = {}

    @kopf.on.login(registry=registry)
    async def _login(**kwargs: Any) -> kopf.ConnectionInfo:
        return await login(load)(**kwargs)

    @kopf.on.event(names.GROUP, names.VERSION, "contributions", registry=registry)
    async def _changed(name: str, event: Any, meta: Any, **_: Any) -> None:
        before, now = known.pop(name, None), dict(meta)
        if event.get("type") != "DELETED":
            known[name] = now
        if event.get("type") == "DELETED" or contribution_matters(before, now):
            wake()

    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # no right to watch namespaces and CRDs, and no need
    settings.posting.enabled = False
    settings.watching.server_timeout = 270
    settings.watching.client_timeout = 300
    await run_kopf(registry, settings, namespaces=[namespace])


def trim_node(node: Json) -> Json:
    """Of a Node what an offer depends on: without images, addresses and managed fields."""
    metadata, status = node["metadata"], node.get("status") or {}
    kept = {k: metadata[k] for k in ("name", "uid", "labels", "resourceVersion", "creationTimestamp") if k in metadata}
    ready = [c for c in status.get("conditions") or () if c.get("type") == "Ready"]
    info = {k: v for k, v in (status.get("nodeInfo") or {}).items() if k in _NODE_INFO}
    return {
        "metadata": kept,
        "spec": {k: v for k, v in (node.get("spec") or {}).items() if k in ("taints", "unschedulable")},
        "status": {
            "allocatable": status.get("allocatable") or {},
            "conditions": ready,
            "nodeInfo": info,
            "runtimeHandlers": status.get("runtimeHandlers") or [],
        },
    }


def trim_home_pod(pod: Json, guests_namespace: str) -> Json:
    """Any pod of the home, as small as its use: of guests what is mirrored, of all others what they request."""
    slim = offers.trim_pod(pod)
    metadata = pod["metadata"]
    if metadata.get("namespace") != guests_namespace:
        return slim
    kept = ("labels", "deletionTimestamp", "deletionGracePeriodSeconds", "creationTimestamp")
    slim["metadata"] |= {key: metadata[key] for key in kept if key in metadata}
    annotations = metadata.get("annotations") or {}
    slim["metadata"]["annotations"] = {k: v for k, v in annotations.items() if k == names.ANNOTATION_DIGEST}
    slim["status"] = {k: v for k, v in (pod.get("status") or {}).items() if k in _STATUS}
    return slim
