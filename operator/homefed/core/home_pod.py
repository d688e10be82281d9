"""The Pod that runs in the home for one guest: the hub's translated pod inside the home's isolation.

Every field of Pod Security `restricted` that is missing is set, none is loosened. The one exception keeps the safety:
where the machine gives pods user namespaces and the namespace's pinned Pod Security version allows it (≥ v1.35), root
inside the pod is nobody outside it, and runAsNonRoot is not forced.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from homefed.api import names
from homefed.api.errors import Invalid
from homefed.api.guest_pod import GuestPodSpec
from homefed.api.quantities import EPHEMERAL, render
from homefed.core.offer import pod_requests
from homefed.core.pod_fields import MAX_GRACE_SECONDS, is_downward_annotation

PRIORITY_CLASS: Final = "homefed-guest"
_USER_NAMESPACES_SINCE: Final = (1, 35)
"""From this version on, Pod Security `restricted` admits root in a user namespace of its own."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Isolation:
    """What the owner's settings and the machine say about every guest."""

    guests_namespace: str = names.GUESTS_NAMESPACE
    image_pull_policy: str = "Always"
    user_namespaces: bool = False
    """Of the machine's runtime."""
    pod_security_version: str = "v1.30"

    @property
    def root_allowed(self) -> bool:
        """Root inside is nobody outside, and Pod Security agrees."""
        version = pod_security(self.pod_security_version)
        return self.user_namespaces and version >= _USER_NAMESPACES_SINCE


def pod_security(version: str) -> tuple[int, int]:
    """`v1.30` → (1, 30); `latest` is newer than any. Invalid for anything else."""
    if version == "latest":
        return 1_000_000, 0
    match = re.fullmatch(r"v?(\d{1,3})\.(\d{1,4})", version)
    if match is None:
        raise Invalid(f"podSecurityVersion {version!r}: give a version such as v1.30", reason="InvalidField")
    return int(match[1]), int(match[2])


def build(guest: GuestPodSpec, machine: str, isolation: Isolation) -> Json:
    """The manifest. `guest` has passed home_admission; `machine` is the home Node's name.

    The home's scheduler places it (its Node is a required affinity), so that fit, quota and preemption are the home's.
    """
    spec = copy.deepcopy(guest.pod["spec"])
    spec |= {
        "affinity": {"nodeAffinity": _pinned(machine)},
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": PRIORITY_CLASS,
        "securityContext": _pod_context(spec.get("securityContext"), isolation),
        "terminationGracePeriodSeconds": min(spec.get("terminationGracePeriodSeconds", 30), MAX_GRACE_SECONDS),
        "volumes": [_sized(volume, spec) for volume in spec.get("volumes") or ()],
    }
    for kind in ("initContainers", "containers"):
        if spec.get(kind):
            spec[kind] = [_container(container, isolation) for container in spec[kind]]
    if isolation.user_namespaces:
        spec["hostUsers"] = False
    return {"metadata": _metadata(guest, isolation), "spec": spec}


def is_ours(pod: Mapping[str, Any], guest: GuestPodSpec) -> bool:
    """Whether a pod found under the deterministic name is this guest's, so that it may be adopted."""
    metadata = pod.get("metadata") or {}
    return (metadata.get("labels") or {}).get(names.LABEL_HUB_UID) == guest.pod_uid and (
        metadata.get("annotations") or {}
    ).get(names.ANNOTATION_DIGEST) == guest.pod_digest


def _metadata(guest: GuestPodSpec, isolation: Isolation) -> Json:
    """Of the hub's annotations only values of the downward API: others could speak to network or storage plugins."""
    annotations = guest.pod.get("annotations") or {}
    kept = {key: str(value) for key, value in annotations.items() if is_downward_annotation(key)}
    return {
        "name": names.home_pod(guest.pod_uid),
        "namespace": isolation.guests_namespace,
        "labels": {
            names.LABEL_GUEST: "true",
            names.LABEL_HUB_UID: guest.pod_uid,
            names.LABEL_NODE: guest.node_name,
            names.LABEL_POOL: guest.pool_name,
            names.LABEL_OFFER: _label(guest.offer_name),
            names.LABEL_EGRESS: guest.egress,
            names.LABEL_MANAGED_BY: names.AGENT_MANAGER,
        },
        "annotations": kept | {names.ANNOTATION_DIGEST: guest.pod_digest},
    }


def _label(text: str) -> str:
    return text[:63].rstrip("-.")


def _pinned(machine: str) -> Json:
    field = {"key": "metadata.name", "operator": "In", "values": [machine]}
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [field]}]}}


def _pod_context(context: Mapping[str, Any] | None, isolation: Isolation) -> Json:
    forced: Json = {"seccompProfile": {"type": "RuntimeDefault"}}
    if not isolation.root_allowed:
        forced["runAsNonRoot"] = True
    return {**(context or {}), **forced}


def _container(container: Json, isolation: Isolation) -> Json:
    context = dict(container.get("securityContext") or {})
    added = (context.get("capabilities") or {}).get("add")
    context |= {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], **({"add": added} if added else {})},
    }
    if not isolation.root_allowed and "runAsNonRoot" in context:
        context["runAsNonRoot"] = True
    requests = dict(container["resources"]["requests"])
    return {
        **container,
        "imagePullPolicy": isolation.image_pull_policy,
        "resources": {"requests": requests, "limits": dict(requests)},
        "securityContext": context,
    }


def _sized(volume: Json, spec: Json) -> Json:
    """An emptyDir without sizeLimit is bounded by what the pod requests of ephemeral storage."""
    empty = volume.get("emptyDir")
    if empty is None or "sizeLimit" in empty:
        return volume
    size = pod_requests(spec).get(EPHEMERAL, 0)
    return {**volume, "emptyDir": {**empty, "sizeLimit": render(EPHEMERAL, size)}}
