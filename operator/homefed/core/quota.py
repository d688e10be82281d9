"""The ResourceQuota of the guests' namespace: guests together may request what the home offers, and no more.

    hard = max(Σ machines that the hub has accepted, what guests that have not ended request)

A quota below what runs would stop nothing, but read as if the home had broken its word; so it falls with the guests.
It bounds even an agent or a hub gone wrong to what the owner gives; only he, or the agent at his word, raises it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from homefed.api import names, quantities
from homefed.api.errors import Invalid
from homefed.api.offer import Machine, OfferStatus
from homefed.api.quantities import ALWAYS_OFFERED, PODS, Quantities
from homefed.core.conditions import TRUE

ACCEPTED: Final = "Accepted"
_REFUSALS: Final = ("exceeded quota: ", "status unknown for quota: ")
"""How the API server's admission begins to say that there is no room, or that it has not counted a new bound yet."""

Json = Mapping[str, Any]


def accepted(machines: Iterable[Machine], status: OfferStatus) -> Quantities:
    """What one Offer adds (base units): its machines that have a virtual node, while the hub takes it at all."""
    if not any(condition.type == ACCEPTED and condition.status == TRUE for condition in status.conditions):
        return {}
    ids = {machine.id for machine in status.machines}
    total: dict[str, int] = {}
    for machine in machines:
        if machine.id in ids:
            total = quantities.add(total, quantities.parse_all(machine.allocatable))
    return total


def requested(pods: Iterable[Json]) -> Quantities:
    """What pods (as core.offer.trim_pod left them) request that have not ended, `pods` counting each."""
    total: dict[str, int] = {}
    for pod in pods:
        if not pod["finished"]:
            total = quantities.add(total, quantities.add(pod["requests"], {PODS: 1}))
    return total


def hard(offers: Iterable[Quantities], running: Quantities, present: Iterable[str]) -> dict[str, str]:
    """The part of spec.hard that is the agent's: quota resource → quantity.

    `present` are all resources that machines of this home have: what is not offered of them is bound to nothing.
    """
    given = dict.fromkeys([*ALWAYS_OFFERED, *present], 0)
    for offer in offers:
        given = quantities.add(given, offer)
    bound = {name: max(given.get(name, 0), running.get(name, 0)) for name in {**given, **running}}
    return {
        _quota_name(name): quantities.render(name, amount) for name, amount in sorted(bound.items()) if _known(name)
    }


def is_kept(quota: Json, wanted: Mapping[str, str]) -> bool:
    """Whether a stored ResourceQuota says what is wanted, and nothing else in the agent's name."""
    stored = (quota.get("spec") or {}).get("hard") or {}
    if _owned(quota) - wanted.keys():
        return False
    return all(name in stored and _amount(name, stored[name]) == _amount(name, text) for name, text in wanted.items())


def _owned(quota: Json) -> set[str]:
    """Names in spec.hard that server-side apply has noted as the agent's."""
    entries = [e for e in quota["metadata"].get("managedFields") or () if e.get("manager") == names.AGENT_MANAGER]
    fields = [((e.get("fieldsV1") or {}).get("f:spec") or {}).get("f:hard") or {} for e in entries]
    return {name.removeprefix("f:") for each in fields for name in each if name.startswith("f:")}


def is_refusal(message: str) -> bool:
    """Whether an API server's refusal of a pod is that of a quota: for want of room, not because of the pod."""
    return any(words in message for words in _REFUSALS)


def _amount(name: str, text: Any) -> int | None:
    try:
        return quantities.parse(name.removeprefix("requests."), text)
    except Invalid:
        return None


def _quota_name(resource: str) -> str:
    return resource if resource == PODS else f"requests.{resource}"


def _known(resource: str) -> bool:
    """What the API server takes in a quota: the usual ones, huge pages, and extended resources."""
    return resource in ALWAYS_OFFERED or "/" in resource or resource.startswith("hugepages-")
