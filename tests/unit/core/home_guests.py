"""Guests and home pods for tests, as small as they can be."""

from typing import Any

from homefed.api import names
from homefed.api.canonical import digest
from homefed.api.contribution import ContributionSpec
from homefed.api.guest_pod import GuestPodSpec
from homefed.core.home_admission import Host

UID = "11111111-2222-3333-4444-555555555555"
MACHINE = "a" * 64
REQUESTS = {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "64Mi"}


def a_container(**changes: Any) -> dict[str, Any]:
    return {"name": "main", "image": "app:1", "resources": {"requests": dict(REQUESTS)}, **changes}


def a_guest(spec: dict[str, Any] | None = None, **changes: Any) -> GuestPodSpec:
    """A GuestPod's spec; `spec` are changes to its pod's."""
    pod = {"labels": {}, "annotations": {}, "spec": {"containers": [a_container()], **(spec or {})}}
    fields: dict[str, Any] = {
        "podUid": UID,
        "podName": "web",
        "podNamespace": "shop",
        "namespaceUid": "ns",
        "poolName": "garden",
        "nodeName": "hf-me-12345678",
        "machineId": MACHINE,
        "offerName": "mine",
        "requests": REQUESTS,
        "pod": pod,
        "observed": {"boundAt": "2026-01-31T09:59:50Z"},
        **changes,
    }
    fields.setdefault("podDigest", digest(fields["pod"]))
    return GuestPodSpec.model_validate(fields)


def a_host(machine: str | None = "attic", *, deleting: bool = False, **spec: Any) -> Host:
    return Host(ContributionSpec.model_validate({"poolName": "garden", **spec}), deleting, machine)


def a_home_pod(guest: GuestPodSpec, phase: str = "Running", **changes: Any) -> dict[str, Any]:
    """As the agent's reflector keeps it; `changes` are to its metadata, `status` to its status."""
    status = {"phase": phase, **changes.pop("status", {})}
    metadata = {
        "name": names.home_pod(guest.pod_uid),
        "namespace": names.GUESTS_NAMESPACE,
        "uid": "home-uid",
        "labels": {names.LABEL_HUB_UID: guest.pod_uid, names.LABEL_GUEST: "true"},
        "annotations": {names.ANNOTATION_DIGEST: guest.pod_digest},
        **changes,
    }
    return {"metadata": metadata, "status": status}


def running(started: str = "2026-01-31T09:30:00Z", **changes: Any) -> dict[str, Any]:
    state = {"running": {"startedAt": started}}
    return {"name": "main", "ready": True, "started": True, "restartCount": 0, "state": state, **changes}


def terminated(code: int = 0, finished: str = "2026-01-31T09:45:00Z", **changes: Any) -> dict[str, Any]:
    ended = {"exitCode": code, "reason": "Completed", "startedAt": "2026-01-31T09:30:00Z", "finishedAt": finished}
    return {"name": "main", "ready": False, "restartCount": 0, "state": {"terminated": ended}, **changes}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"name": "main", "restartCount": 0, "state": {"waiting": {"reason": reason, "message": message}}}
