"""The home's own gate: what of a GuestPod it lets in, whatever the hub says.

A hub can be hostile, or newer than this home. So the pod is checked again by the allow-list that both sides know, its
digest is computed anew, and it may name only copies that were made for it and machines that this home offers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from homefed.api import names, quantities
from homefed.api.canonical import canonical, digest
from homefed.api.contribution import ContributionSpec
from homefed.api.errors import Invalid
from homefed.api.guest_pod import GuestPodSpec
from homefed.core import pod_fields
from homefed.core.offer import pod_requests

BOUNDED: Final = (quantities.CPU, quantities.MEMORY, quantities.EPHEMERAL)
"""What every container must request: it becomes its limit."""
ROOT_REMEDY: Final = "guests do not run as root here; add `securityContext: {runAsUser: 1000}` to the pod"


@dataclass(frozen=True)
class Refusal:
    """Why a guest is not let in: CamelCase reason, one sentence."""

    reason: str
    message: str
    final: bool
    """True: the pod itself is wrong. False: the owner or the machine is not ready for it; another home may be."""


@dataclass(frozen=True)
class Host:
    """What this home says about the contribution and the machine that a guest was bound to."""

    contribution: ContributionSpec | None
    """None: the offer is not one of ours (any more)."""
    deleting: bool = False
    machine: str | None = None
    """Name of the home's Node; None: not a machine that the contribution offers."""
    root_allowed: bool = False
    """Root in the pod is nobody outside it there."""


def refuse(name: str, guest: GuestPodSpec, host: Host) -> Refusal | None:
    """None when this guest may be created here. `name` is the GuestPod's."""
    return _refuse_content(name, guest) or _refuse_host(guest, host)


def _refuse_content(name: str, guest: GuestPodSpec) -> Refusal | None:
    if guest.pod_uid != name:
        return Refusal("InvalidGuestPod", f"spec.podUid {guest.pod_uid} is not the GuestPod's name {name}", True)
    try:
        size, actual = len(canonical(guest.pod)), digest(guest.pod)
    except Invalid as error:
        return Refusal("InvalidGuestPod", f"spec.pod: {error.message}", True)
    if size > pod_fields.MAX_POD_BYTES:
        return Refusal("PodTooLarge", f"spec.pod has {size} bytes; at most {pod_fields.MAX_POD_BYTES}", True)
    if actual != guest.pod_digest:
        return Refusal("DigestMismatch", "spec.pod is not the pod that spec.podDigest was computed over", True)
    faults = pod_fields.check(guest.pod.get("spec"), stage="home")
    if faults:
        return Refusal(faults[0].reason, "; ".join(fault.message for fault in faults)[:1024], True)
    return _refuse_references(guest) or _refuse_requests(guest)


def _refuse_references(guest: GuestPodSpec) -> Refusal | None:
    """A pod may mount its own copies only, not another guest's and not what else lies in the guests' namespace."""
    for copy in guest.copies:
        if copy.copy_name != names.copy_name(guest.pod_uid, copy.kind, copy.name):
            return Refusal("ForeignCopy", f"spec.copies: {copy.copy_name} is not a copy made for this pod", True)
    own = {(copy.kind, copy.copy_name) for copy in guest.copies}
    for reference in pod_fields.references(guest.pod["spec"], stage="home"):
        if (reference.kind, reference.name) not in own:
            return Refusal(
                "ForeignCopy", f"{reference.field_path}: {reference.kind} {reference.name} is no copy of this pod", True
            )
    return None


def _refuse_requests(guest: GuestPodSpec) -> Refusal | None:
    spec: Mapping[str, Any] = guest.pod["spec"]
    if not spec.get("containers"):
        return Refusal("InvalidField", "spec.containers: at least one is required", True)
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or ()):
            requests = (container.get("resources") or {}).get("requests") or {}
            missing = [name for name in BOUNDED if name not in requests]
            if missing:
                path = f"spec.{kind}[{index}].resources.requests.{missing[0]}"
                return Refusal("MissingRequests", f"{path}: is required, as it becomes the limit", True)
    try:
        billed = quantities.parse_all(guest.requests)
    except Invalid as error:
        return Refusal("InvalidField", f"spec.requests.{error.message}", True)
    beyond = quantities.fits(pod_requests(spec), billed)
    if beyond:
        return Refusal("RequestsMismatch", f"spec.requests.{beyond[0]}: less than the pod's containers request", True)
    return None


def _refuse_host(guest: GuestPodSpec, host: Host) -> Refusal | None:
    contribution = host.contribution
    if contribution is None:
        return Refusal("NotOffered", f"this home has no contribution {guest.offer_name}", False)
    if contribution.pool_name != guest.pool_name:
        return Refusal("NotOffered", f"{guest.offer_name} is not offered to pool {guest.pool_name}", False)
    if host.deleting or contribution.state == "Draining":
        return Refusal("Draining", "the contributor is taking his machines back", False)
    if contribution.state == "Paused":
        return Refusal("Paused", "the contributor takes no new guests at the moment", False)
    if contribution.consumers and guest.pod_namespace not in contribution.consumers:
        return Refusal("ConsumerNotWelcome", f"the contributor does not list namespace {guest.pod_namespace}", False)
    if guest.egress != contribution.egress:
        return Refusal("EgressMismatch", f"the contributor allows egress {contribution.egress} only", False)
    if host.machine is None:
        return Refusal("UnknownMachine", "the machine is not one that this contribution offers", False)
    return None if host.root_allowed else _refuse_root(guest.pod["spec"])


def _refuse_root(spec: Mapping[str, Any]) -> Refusal | None:
    """Pod Security would refuse it too, but without the line to add."""
    owners = [("spec", spec)]
    for kind in ("initContainers", "containers"):
        owners += [(f"spec.{kind}[{i}]", container) for i, container in enumerate(spec.get(kind) or ())]
    for path, owner in owners:
        if (owner.get("securityContext") or {}).get("runAsUser") == 0:
            return Refusal("RunsAsRoot", f"{path}.securityContext.runAsUser: {ROOT_REMEDY}", True)
    return None
