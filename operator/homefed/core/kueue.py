"""A pool's capacity as quota of a Kueue ClusterQueue: quota and fairness between consumers are Kueue's, in front.

The organiser makes queue, flavor and cohort as he likes; of all that only `nominalQuota` of the pool's flavor is set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, Final

from homefed.api import quantities
from homefed.api.errors import Forbidden, HomefedError, Invalid, NotFound, Refused
from homefed.api.quantities import Quantities
from homefed.api.scheduling_pool import ClusterQueueRef
from homefed.core.conditions import FALSE, TRUE
from homefed.core.findings import Finding

NOT_SERVED: Final = "KindNotServed"
"""Reason of the error of a kind that the API server does not know."""

Json = Mapping[str, Any]


def patch(queue: Json, flavor: str, capacity: Quantities) -> dict[str, Any] | None:
    """Merge patch that gives the flavor this capacity (base units); None where it has it.

    What the queue covers and the pool has not gets 0. Errors: Invalid with reason FlavorMissing.
    """
    groups = deepcopy(list((queue.get("spec") or {}).get("resourceGroups") or ()))
    changed = False
    for resource in _resources(groups, flavor, queue["metadata"]["name"]):
        name = str(resource.get("name"))
        amount = capacity.get(name, 0)
        if _amount(name, resource.get("nominalQuota")) != amount:
            resource["nominalQuota"], changed = quantities.render(name, amount), True
    if not changed:
        return None
    # The list of groups is replaced as a whole, so only as it was read.
    metadata = {"resourceVersion": queue["metadata"]["resourceVersion"]}
    return {"metadata": metadata, "spec": {"resourceGroups": groups}}


def _resources(groups: Iterable[dict[str, Any]], flavor: str, queue: str) -> list[dict[str, Any]]:
    for group in groups:
        for each in group.get("flavors") or ():
            if each.get("name") == flavor:
                return list(each.get("resources") or ())
    raise Invalid(
        f"spec.clusterQueue.flavor: ClusterQueue {queue} has no flavor {flavor} in spec.resourceGroups",
        reason="FlavorMissing",
    )


def _amount(resource: str, text: Any) -> int | None:
    try:
        return quantities.parse(resource, text)
    except Invalid:
        return None


def written(queue: Json, reference: ClusterQueueRef, capacity: Quantities) -> Finding:
    """What to say when the quota stands; names what of the pool the queue leaves out."""
    covered = {str(one.get("name")) for one in _resources(_groups(queue), reference.flavor, reference.name)}
    beyond = sorted(name for name, amount in capacity.items() if amount and name not in covered)
    left_out = f" It does not cover {', '.join(beyond)}." if beyond else ""
    message = f"Flavor {reference.flavor} of ClusterQueue {reference.name} has the pool's capacity.{left_out}"
    return Finding(TRUE, "QuotaWritten", message)


def _groups(queue: Json) -> list[dict[str, Any]]:
    return list((queue.get("spec") or {}).get("resourceGroups") or ())


def trouble(error: HomefedError, reference: ClusterQueueRef) -> Finding | None:
    """What keeps the quota from being written until a person changes something; None where a retry may do."""
    where = f"ClusterQueue {reference.name}"
    if error.reason == NOT_SERVED:
        message = "The hub does not know ClusterQueues (kueue.x-k8s.io/v1beta1): install Kueue"
        return Finding(FALSE, "KueueNotInstalled", f"{message}, or remove spec.clusterQueue.")
    if isinstance(error, NotFound):
        return Finding(FALSE, "QueueMissing", f"{where} is not there: create it, or correct spec.clusterQueue.name.")
    if isinstance(error, Forbidden):
        remedy = "upgrade the hub's release with hub.kueue.enabled=true"
        return Finding(FALSE, "QueueForbidden", f"The hub may not write {where}: {remedy}. ({error.message})")
    if isinstance(error, Invalid) and error.reason == "FlavorMissing":
        return Finding.of(error)
    if isinstance(error, Refused):
        return Finding(FALSE, "QuotaRefused", f"{where} does not take the quota: {error.message}")
    return None


def claimed(name: str, created: str, reference: ClusterQueueRef, others: Iterable[Json]) -> Finding | None:
    """Where an older pool writes the same flavor of the same queue: two would overwrite each other for ever."""
    wanted = reference.dump()
    for other in others:
        metadata = other["metadata"]
        same = metadata["name"] != name and (other.get("spec") or {}).get("clusterQueue") == wanted
        if same and (metadata["creationTimestamp"], metadata["name"]) < (created, name):
            message = f"SchedulingPool {metadata['name']} writes flavor {reference.flavor} of {reference.name} already"
            return Finding(FALSE, "FlavorTaken", f"{message}: give each pool a flavor of its own.")
    return None
