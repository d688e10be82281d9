"""The Node that stands at the hub for one machine of a home: what it must be, and what to change where it differs.

Changes are merge patches computed from the difference, not server-side apply: spec.taints is one atomic list that the
node lifecycle controller writes too (not-ready, unreachable), so that applying it would take those taints away again
and again. What others put on a Node (labels, their own cordon) is left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from homefed.api import names, quantities
from homefed.api.contribution import Egress
from homefed.api.errors import Invalid
from homefed.api.offer import Machine
from homefed.api.rate_card import PPM, STANDARD, Terms

HOSTNAME: Final = "kubernetes.io/hostname"
ARCH: Final = "kubernetes.io/arch"
KUBERNETES_OS: Final = "kubernetes.io/os"
ZONE: Final = "topology.kubernetes.io/zone"
NO_LOAD_BALANCER: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
ANNOTATION_KNOWN: Final = "homefed.io/known"
"""How what the Node says is known: declared by the home, measured, or attested."""
ANNOTATION_MACHINE: Final = "homefed.io/machine"
ANNOTATION_CORDONED: Final = "homefed.io/cordoned"
"""Why the hub made the Node unschedulable; absent where someone else did, and then the hub does not undo it."""
WITHDRAWN: Final = "Withdrawn"
"""Cordon reason of a Node whose machine is offered no more."""

_LABEL_VALUE_MAX: Final = 63
_EXTENDED = re.compile(r"^(?=.{3,200}$)[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
_NODE_INFO_EMPTY: Final = ("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion")
_OWN_LABELS: Final = (names.LABEL_EGRESS, KUBERNETES_OS)

Node = Mapping[str, Any]
Json = dict[str, Any]


@dataclass(frozen=True)
class VirtualNode:
    """What one virtual Node shall be."""

    home: str
    home_uid: str
    offer: str
    pool: str
    machine: Machine
    egress: Egress
    allocatable: quantities.Quantities
    """Base units; see `accepted`."""
    cordon: str = ""
    """CamelCase reason why it takes no new guests; empty where it does."""
    set_os_label: bool = False
    machine_class: str = STANDARD
    price_percent: int = 100

    @property
    def name(self) -> str:
        return names.virtual_node(self.home, self.home_uid, self.machine.id)


def accepted(machine: Machine, limits: Mapping[str, str]) -> dict[str, int]:
    """What the pool takes of a machine, in base units: the offer, at most the pool's limit per resource.

    Resources with names that a Node cannot carry are left out; Invalid names a quantity that is none.
    """
    bounds = quantities.parse_all(limits)
    offer = {name: quantities.parse(name, text) for name, text in machine.allocatable.items() if _is_resource(name)}
    always = dict.fromkeys(quantities.ALWAYS_OFFERED, 0)
    return {name: min(amount, bounds.get(name, amount)) for name, amount in (always | offer).items()}


def body(wanted: VirtualNode, pod_cidrs: Sequence[str]) -> Json:
    """The Node to create. No address, no image list, no host name of the home."""
    spec: Json = {"taints": [_pool_taint(wanted.pool)]}
    if wanted.cordon:
        spec["unschedulable"] = True
    if pod_cidrs:
        spec |= {"podCIDR": pod_cidrs[0], "podCIDRs": [*pod_cidrs]}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": wanted.name, "labels": labels(wanted), "annotations": _annotations(wanted)},
        "spec": spec,
        "status": _status(wanted),
    }


def labels(wanted: VirtualNode) -> dict[str, str]:
    found = {
        ARCH: wanted.machine.arch,
        HOSTNAME: wanted.name,
        ZONE: names.mailbox(wanted.home),
        NO_LOAD_BALANCER: "true",
        names.LABEL_VIRTUAL: names.VIRTUAL_NODE_TYPE,
        names.LABEL_OS: wanted.machine.os,
        names.LABEL_HOME: wanted.home,
        names.LABEL_HOME_UID: wanted.home_uid,
        names.LABEL_POOL: wanted.pool,
        names.LABEL_OFFER: wanted.offer,
        names.LABEL_MACHINE: wanted.machine.id[:_LABEL_VALUE_MAX],
        names.LABEL_EGRESS: wanted.egress,
        names.LABEL_CLASS: wanted.machine_class,
        names.LABEL_PRICE_PERCENT: str(wanted.price_percent),
        names.LABEL_MANAGED_BY: names.HUB_MANAGER,
    }
    return found | ({KUBERNETES_OS: wanted.machine.os} if wanted.set_os_label else {})


def repair(node: Node, wanted: VirtualNode) -> Json | None:
    """Merge patch, for this version only, of metadata and spec that makes `node` as wanted; None where it is."""
    metadata: Json = {}
    if changed := _differing(node["metadata"].get("labels"), labels(wanted), _OWN_LABELS):
        metadata["labels"] = changed
    if changed := _differing(node["metadata"].get("annotations"), _annotations(wanted), (ANNOTATION_CORDONED,)):
        metadata["annotations"] = changed
    spec = _repaired_spec(node, wanted)
    if not metadata and not spec:
        return None
    metadata["resourceVersion"] = node["metadata"]["resourceVersion"]
    return {"metadata": metadata} | ({"spec": spec} if spec else {})


def cordoned(node: Node, reason: str) -> Json | None:
    """Merge patch that makes the Node unschedulable for this reason; None where it is already."""
    annotations = node["metadata"].get("annotations") or {}
    if is_unschedulable(node) and annotations.get(ANNOTATION_CORDONED) == reason:
        return None
    metadata = {"annotations": {ANNOTATION_CORDONED: reason}, "resourceVersion": node["metadata"]["resourceVersion"]}
    return {"metadata": metadata, "spec": {"unschedulable": True}}


def repair_status(node: Node, wanted: VirtualNode) -> Json | None:
    """Merge patch of the status subresource (amounts and nodeInfo; never conditions); None where nothing differs."""
    status, before = _status(wanted), node.get("status") or {}
    stale = {field: () if field == "nodeInfo" else tuple(before.get(field) or ()) for field in status}
    patch = {field: _differing(before.get(field), status[field], stale[field]) for field in status}
    patch = {field: changed for field, changed in patch.items() if changed}
    return {"status": patch} if patch else None


def belongs_to(node: Node, home_uid: str) -> bool:
    """Whether the Node carries this Home's UID; any other Node is never touched."""
    found = node["metadata"].get("labels") or {}
    return found.get(names.LABEL_HOME_UID) == home_uid and found.get(names.LABEL_VIRTUAL) == names.VIRTUAL_NODE_TYPE


def is_virtual(node: Node) -> bool:
    found = node["metadata"].get("labels") or {}
    return names.LABEL_HOME_UID in found and found.get(names.LABEL_VIRTUAL) == names.VIRTUAL_NODE_TYPE


def is_ready(node: Node) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(condition.get("type") == "Ready" and condition.get("status") == "True" for condition in conditions)


def is_unschedulable(node: Node) -> bool:
    return bool((node.get("spec") or {}).get("unschedulable"))


def allocatable(node: Node) -> dict[str, int]:
    """In base units."""
    return quantities.parse_all((node.get("status") or {}).get("allocatable"))


def terms(node: Node) -> Terms:
    """What guests of the Node are priced by from now on, as the hub wrote it when it took the offer."""
    found = node["metadata"].get("labels") or {}
    percent = str(found.get(names.LABEL_PRICE_PERCENT, "100"))
    known = percent.isdecimal() and int(percent) <= 100
    return Terms(
        machine_class=found.get(names.LABEL_CLASS, STANDARD), price_ppm=int(percent) * PPM // 100 if known else PPM
    )


def machine_id(node: Node) -> str:
    """The whole machine id (a label holds only 63 of its 64 digits)."""
    return str((node["metadata"].get("annotations") or {}).get(ANNOTATION_MACHINE, ""))


def blocks_deletion(pod: Mapping[str, Any]) -> bool:
    """Whether a pod bound to a Node keeps it from being deleted: it is not over, and no DaemonSet's."""
    owners = pod["metadata"].get("ownerReferences") or []
    over = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not over and not any(owner.get("kind") == "DaemonSet" and owner.get("controller") for owner in owners)


def _is_resource(name: str) -> bool:
    if name in quantities.ALWAYS_OFFERED:
        return True
    return bool(_EXTENDED.match(name)) and not name.partition("/")[0].endswith("kubernetes.io")


def _pool_taint(pool: str) -> dict[str, str]:
    return {"key": names.TAINT_POOL, "value": pool, "effect": "NoSchedule"}


def _annotations(wanted: VirtualNode) -> dict[str, str]:
    known = dict.fromkeys(("allocatable", "arch", "egress", "os"), "declared")
    found = {
        ANNOTATION_MACHINE: wanted.machine.id,
        ANNOTATION_KNOWN: json.dumps(known, sort_keys=True, separators=(",", ":")),
    }
    return found | ({ANNOTATION_CORDONED: wanted.cordon} if wanted.cordon else {})


def _status(wanted: VirtualNode) -> dict[str, dict[str, str]]:
    amounts = quantities.render_all(wanted.allocatable)
    info = {
        "architecture": wanted.machine.arch,
        "operatingSystem": wanted.machine.os,
        "kubeletVersion": wanted.machine.kubelet_version,
        "kubeProxyVersion": "",
    }
    info |= dict.fromkeys(_NODE_INFO_EMPTY, "")
    return {"capacity": amounts, "allocatable": dict(amounts), "nodeInfo": info}


def _repaired_spec(node: Node, wanted: VirtualNode) -> Json:
    spec: Json = {}
    annotations = node["metadata"].get("annotations") or {}
    if wanted.cordon and not is_unschedulable(node):
        spec["unschedulable"] = True
    if not wanted.cordon and is_unschedulable(node) and ANNOTATION_CORDONED in annotations:
        spec["unschedulable"] = None
    taints = (node.get("spec") or {}).get("taints") or []
    if _pool_taint(wanted.pool) not in [
        {key: taint.get(key) for key in ("key", "value", "effect")} for taint in taints
    ]:
        others = [taint for taint in taints if taint.get("key") != names.TAINT_POOL]
        spec["taints"] = [*others, _pool_taint(wanted.pool)]
    return spec


def _differing(
    before: Mapping[str, str] | None, wanted: Mapping[str, str], removable: Sequence[str]
) -> dict[str, str | None]:
    """What to merge into `before` to have `wanted`; keys in `removable` that are not wanted go."""
    before = before or {}
    changed: dict[str, str | None] = {
        key: value for key, value in wanted.items() if not _equal(key, before.get(key), value)
    }
    return changed | {key: None for key in removable if key in before and key not in wanted}


def _equal(key: str, before: str | None, wanted: str) -> bool:
    """Equal as text (absent and empty are), or as quantities: the API server writes 1024Mi as 1Gi."""
    if (before or "") == wanted:
        return True
    try:
        return before is not None and quantities.parse(key, before) == quantities.parse(key, wanted)
    except Invalid:
        return False
