"""Why a pod is not run, and how slowly refused pods are failed.

A controller replaces a failed pod at once: a ReplicaSet whose pods fail immediately makes dozens of new ones within
seconds. So most refusals leave the pod Pending with a reason; only where another node could take it, it is failed, and
per controller ever more slowly: 10 s after it was refused, doubling with every round up to 15 min.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

# A pod's own text, or its namespace: stays Pending until a person changes it.
STATIC_POD: Final = "StaticPod"
DAEMON_SET: Final = "DaemonSetPod"
GUEST_OF_A_HUB: Final = "GuestOfAnotherHub"
RUNTIME_CLASS: Final = "RuntimeClassMissing"
NAMESPACE_NOT_ENABLED: Final = "NamespaceNotEnabled"
BUDGET_EXHAUSTED: Final = "BudgetExhausted"
REQUESTS_MISSING: Final = "RequestsMissing"
LIMIT_ABOVE_REQUEST: Final = "LimitAboveRequest"
NOT_TOLERATED: Final = "TaintNotTolerated"
POD_TOO_LARGE: Final = "PodTooLarge"
TOO_MANY_OBJECTS: Final = "TooManyObjects"
MISSING_OBJECT: Final = "CreateContainerConfigError"
OBJECT_REFUSED: Final = "ObjectRefused"
OBJECT_FORBIDDEN: Final = "ObjectForbidden"
NODE_UNKNOWN: Final = "VirtualNodeUnknown"
# Another node could take it.
NODE_AFFINITY: Final = "NodeAffinity"
NOT_WELCOME: Final = "ConsumerNotWelcome"
HOME_CLOSED: Final = "HomeTakesNoGuests"
OUT_OF: Final = "OutOf"
"""Followed by the resource, as the kubelet writes it: OutOfcpu."""
UNSCHEDULABLE: Final = "Unschedulable"

FIRST_DELAY: Final = timedelta(seconds=10)
LONGEST_DELAY: Final = timedelta(minutes=15)
_DOUBLINGS: Final = 7


@dataclass(frozen=True)
class Rounds:
    """How often pods of one controller were failed. Pods failed within 10 s of each other are one round."""

    count: int
    last: datetime


def delay(rounds: Rounds | None, now: datetime) -> timedelta:
    """How long a refused pod of this controller stays Pending before it is failed: min(10 s × 2ⁿ, 15 min).

    n starts again at 0 after twice the longest delay without a failure.
    """
    if rounds is None or now - rounds.last > 2 * LONGEST_DELAY:
        return FIRST_DELAY
    return min(FIRST_DELAY * (1 << min(rounds.count, _DOUBLINGS)), LONGEST_DELAY)


def failed(rounds: Rounds | None, now: datetime) -> Rounds:
    """The rounds of a controller after one more of its pods was failed at `now`."""
    if rounds is None or now - rounds.last > 2 * LONGEST_DELAY:
        return Rounds(1, now)
    if now - rounds.last < FIRST_DELAY:
        return rounds
    return Rounds(rounds.count + 1, now)


def controller(pod: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference of the pod's controller, None for a bare pod."""
    owners = pod["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), None)


def controller_uid(pod: Mapping[str, Any]) -> str:
    """What the back-off counts by: the controller's UID, a bare pod's own."""
    owner = controller(pod)
    return str((owner or pod["metadata"])["uid"])
