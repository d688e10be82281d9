"""Ready of virtual nodes, and evictions that Kubernetes withholds.

A Lease is fresh when its renewTime was seen to *grow* within the last 30 s: a time alone proves nothing, as a home's
clock may be wrong. When a home falls silent, Kubernetes' own node lifecycle marks its nodes; it never marks them Ready
again, so the hub does. Where three or more nodes of a zone and at least 55 % of it are gone, or all nodes of all zones,
the lifecycle takes its unreachable taint back and evicts nobody; for a home that simply is offline that would be for
ever, so there the hub evicts after the pods' own toleration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from homefed.api import names
from homefed.api.errors import Invalid
from homefed.core.times import from_rfc3339, to_rfc3339

FRESH: Final = timedelta(seconds=30)
UNREACHABLE: Final = "node.kubernetes.io/unreachable"
PRESSURES: Final = ("MemoryPressure", "DiskPressure", "PIDPressure")

Json = dict[str, Any]


@dataclass(frozen=True)
class Renewal:
    """A Lease as the hub saw it: its renewTime, and when that was seen to grow (hub's clock; None: never yet)."""

    renew_time: datetime | None
    seen_at: datetime | None

    def fresh(self, now: datetime) -> bool:
        return self.seen_at is not None and now - self.seen_at <= FRESH


def observe(before: Renewal | None, lease: Mapping[str, Any], now: datetime) -> Renewal:
    """What is known after seeing this Lease. The first sight counts by its renewTime, unless that is in the future."""
    renewed = _renew_time(lease)
    if before is None:
        return Renewal(renewed, renewed if renewed is not None and renewed <= now else None)
    grown = renewed is not None and (before.renew_time is None or renewed > before.renew_time)
    return Renewal(renewed, now) if grown else Renewal(before.renew_time, before.seen_at)


def ready_again(node: Mapping[str, Any], renewal: Renewal | None, now: datetime) -> Json | None:
    """Strategic merge patch of the status that makes the Node Ready; None where it is or its Lease is not fresh."""
    if renewal is None or not renewal.fresh(now) or not _waits_for_renewal(node, renewal):
        return None
    unknown = [type_ for type_ in PRESSURES if _status_of(node, type_) == "Unknown"]
    ready = _condition("Ready", "True", "LeaseRenewed", "The home renews this machine's Lease.", now)
    pressures = [
        _condition(type_, "False", "NotOffered", "A machine under pressure is not offered.", now) for type_ in unknown
    ]
    return {"status": {"conditions": [ready, *pressures]}}


def _waits_for_renewal(node: Mapping[str, Any], renewal: Renewal) -> bool:
    """Whether the Node is not Ready, and the renewal came after it was marked so: else both would write in turns."""
    found = _find(node, "Ready")
    if found is None or renewal.seen_at is None:
        return found is None
    return found.get("status") != "True" and renewal.seen_at >= from_rfc3339(found["lastTransitionTime"])


def withheld_since(node: Mapping[str, Any]) -> datetime | None:
    """Since when the Node is Unknown without the taint that would evict; None where Kubernetes does its part."""
    found = _find(node, "Ready")
    taints = (node.get("spec") or {}).get("taints") or []
    tainted = any(taint.get("key") == UNREACHABLE and taint.get("effect") == "NoExecute" for taint in taints)
    if found is None or found.get("status") != "Unknown" or tainted:
        return None
    return from_rfc3339(found["lastTransitionTime"])


def evictions(pods: Iterable[Mapping[str, Any]], since: datetime, now: datetime) -> tuple[list[Json], datetime | None]:
    """Pods to delete now, and when to look again: `since` is when they became unreachable to the hub's knowledge."""
    due: list[Json] = []
    later: list[datetime] = []
    for pod in pods:
        tolerated = _toleration(pod)
        if "deletionTimestamp" in pod["metadata"] or _over(pod) or _kept(pod) or tolerated is None:
            continue
        if since + tolerated <= now:
            due.append(dict(pod))
        else:
            later.append(since + tolerated)
    return due, min(later, default=None)


def _toleration(pod: Mapping[str, Any]) -> timedelta | None:
    """How long a pod tolerates an unreachable node; None: for ever."""
    matching = [
        toleration
        for toleration in (pod.get("spec") or {}).get("tolerations") or []
        if toleration.get("key") in (None, "", UNREACHABLE) and toleration.get("effect") in (None, "", "NoExecute")
    ]
    seconds = [toleration.get("tolerationSeconds") for toleration in matching]
    finite = [limit for limit in seconds if isinstance(limit, int)]
    if matching and not finite:
        return None
    return timedelta(seconds=max(0, min(finite))) if finite else timedelta()


def _kept(pod: Mapping[str, Any]) -> bool:
    return (pod["metadata"].get("annotations") or {}).get(names.ANNOTATION_ON_DISCONNECT) == "Keep"


def _over(pod: Mapping[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _renew_time(lease: Mapping[str, Any]) -> datetime | None:
    try:
        return from_rfc3339((lease.get("spec") or {})["renewTime"])
    except (KeyError, Invalid):
        return None


def _condition(type_: str, status: str, reason: str, message: str, now: datetime) -> Json:
    time = to_rfc3339(now)
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": time,
        "lastTransitionTime": time,
    }


def _find(node: Mapping[str, Any], type_: str) -> Mapping[str, Any] | None:
    conditions = (node.get("status") or {}).get("conditions") or []
    return next((condition for condition in conditions if condition.get("type") == type_), None)


def _status_of(node: Mapping[str, Any], type_: str) -> str:
    return str((_find(node, type_) or {}).get("status", ""))
