"""What a home offers: from its Nodes, its owner's pods and his Contributions to the machines of an Offer.

Per machine and resource:

    offered = max(0, min(limit, ⌊sharePercent × allocatable ÷ 100⌋, allocatable − reserve − owner's pods' requests))

The owner comes first: what his pods request is his, whether or not they use it. Guests are not his pods, and a
virtual node is never a machine, so that hub and home can be one cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from homefed.api import names, quantities
from homefed.api.contribution import ContributionSpec, Share
from homefed.api.errors import Invalid
from homefed.api.offer import Machine
from homefed.api.quantities import CPU, EPHEMERAL, MAX_QUANTITY, MEMORY, PODS, Quantities

Json = Mapping[str, Any]

DEFAULT_RESERVE: Final[Quantities] = {CPU: 500, MEMORY: 2**30, EPHEMERAL: 5 * 2**30, PODS: 0}
MAX_MACHINES: Final = 256
RISE_HOLD: Final = timedelta(seconds=15)
"""A machine's offer falls at once but rises only when it has stayed higher for so long: pods come and go."""

_WORD: Final = r"[a-z0-9]{1,32}"
_KUBELET: Final = r"v[0-9][0-9A-Za-z.+-]{0,62}"
_FINISHED: Final = ("Succeeded", "Failed")
_LABELS: Final = (names.LABEL_GUEST, names.LABEL_NODE, names.LABEL_OFFER)


@dataclass(frozen=True)
class HomeNode:
    """What matters of one Node of the home."""

    name: str
    uid: str
    labels: Mapping[str, str]
    allocatable: Quantities
    ready: bool
    """Ready, schedulable, and without a taint that keeps guests away."""
    alive: bool
    """The kubelet reports Ready: what runs there goes on, even when nothing new may come."""
    arch: str
    os: str
    kubelet_version: str
    user_namespaces: bool

    @property
    def virtual(self) -> bool:
        return self.labels.get(names.LABEL_VIRTUAL) == names.VIRTUAL_NODE_TYPE


@dataclass(frozen=True)
class Claimant:
    """A contribution that is valid, as far as the question of who gets a machine goes."""

    name: str
    uid: str
    created: str
    """metadata.creationTimestamp (RFC 3339 in UTC, so that text order is time order)."""
    spec: ContributionSpec


@dataclass(frozen=True)
class Claims:
    """Who gets which machine."""

    won: Mapping[str, tuple[str, ...]]
    """Contribution UID → names of its Nodes, sorted."""
    lost: Mapping[str, Mapping[str, str]]
    """Contribution UID → {Node name: name of the contribution that has it}."""


@dataclass(frozen=True)
class Plan:
    """What one contribution offers now."""

    machines: tuple[Machine, ...]
    held: Mapping[str, datetime] = field(default_factory=dict)
    """Machine id → since when more than was published could be offered of it."""

    def total(self) -> dict[str, int]:
        """Sum over all machines, base units."""
        amounts: dict[str, int] = {}
        for machine in self.machines:
            amounts = quantities.add(amounts, quantities.parse_all(machine.allocatable))
        return amounts


def home_node(obj: Json) -> HomeNode:
    """A Node object; whatever is missing or malformed reads as nothing offered."""
    metadata, spec, status = obj.get("metadata") or {}, obj.get("spec") or {}, obj.get("status") or {}
    info = status.get("nodeInfo") or {}
    alive = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
    barred = any(t.get("effect") in ("NoSchedule", "NoExecute") for t in spec.get("taints") or ())
    return HomeNode(
        name=metadata.get("name", ""),
        uid=metadata.get("uid", ""),
        labels=metadata.get("labels") or {},
        allocatable=_amounts(status.get("allocatable") or {}, unreadable=0),
        ready=alive and not barred and not spec.get("unschedulable", False),
        alive=alive,
        arch=_matching(_WORD, info.get("architecture"), "amd64"),
        os=_matching(_WORD, info.get("operatingSystem"), "linux"),
        kubelet_version=_matching(_KUBELET, info.get("kubeletVersion"), "v0.0.0"),
        user_namespaces=_user_namespaces(status.get("runtimeHandlers") or ()),
    )


def _matching(pattern: str, text: object, otherwise: str) -> str:
    """What an Offer's schema takes; kubelets of other makes say all kinds of things."""
    return text if isinstance(text, str) and re.fullmatch(pattern, text) else otherwise


def _user_namespaces(handlers: Iterable[Json]) -> bool:
    """Whether the default runtime handler (its name is empty) gives pods user namespaces of their own."""
    return any(not h.get("name") and (h.get("features") or {}).get("userNamespaces") is True for h in handlers)


def _amounts(resources: Mapping[str, Any], *, unreadable: int) -> dict[str, int]:
    found = {}
    for name, value in resources.items():
        try:
            found[name] = quantities.parse(name, value)
        except Invalid:
            found[name] = unreadable
    return found


def pod_requests(spec: Json) -> dict[str, int]:
    """Effective requests of a pod, base units: max(Σ containers + sidecars, each init step) + overhead.

    As the scheduler computes them (k8s.io/component-helpers resource.PodRequests): sidecars are init containers with
    restartPolicy Always and count beside every later step; pod-level requests replace the sum of their resource.
    """
    running: dict[str, int] = {}
    for container in spec.get("containers") or ():
        running = quantities.add(running, _requests(container))
    sidecars: dict[str, int] = {}
    highest: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        own = _requests(container)
        if container.get("restartPolicy") == "Always":
            sidecars = quantities.add(sidecars, own)
            own = {}
        highest = _maximum(highest, quantities.add(sidecars, own))
    effective = _maximum(quantities.add(running, sidecars), highest)
    effective |= _requests(spec)
    return quantities.add(effective, _amounts(spec.get("overhead") or {}, unreadable=MAX_QUANTITY))


def _requests(container: Json) -> dict[str, int]:
    resources = container.get("resources") or {}
    return _amounts(resources.get("requests") or {}, unreadable=MAX_QUANTITY)


def _maximum(left: Quantities, right: Quantities) -> dict[str, int]:
    return {name: max(left.get(name, 0), right.get(name, 0)) for name in {**left, **right}}


def trim_pod(pod: Json) -> dict[str, Any]:
    """The few bytes of any pod of the home that an offer depends on; keeps the agent small in a large home."""
    metadata, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    labels = metadata.get("labels") or {}
    kept = {key: labels[key] for key in _LABELS if key in labels}
    slim = {key: metadata.get(key) for key in ("name", "namespace", "uid", "resourceVersion")}
    return {
        "metadata": slim | {"labels": kept},
        "node": spec.get("nodeName", ""),
        "finished": (pod.get("status") or {}).get("phase") in _FINISHED,
        "requests": pod_requests(spec),
    }


def is_guest(pod: Json, guests_namespace: str) -> bool:
    """Ours: in the guests' namespace and with our label. Whatever else runs there is the owner's."""
    metadata = pod.get("metadata") or {}
    return metadata.get("namespace") == guests_namespace and names.LABEL_GUEST in (metadata.get("labels") or {})


def owners_requests(pods: Iterable[Json], guests_namespace: str) -> dict[str, dict[str, int]]:
    """Node name → what the owner's own pods (as `trim_pod` left them) request there, `pods` counting each."""
    found: dict[str, dict[str, int]] = {}
    for pod in pods:
        if pod["node"] and not pod["finished"] and not is_guest(pod, guests_namespace):
            found[pod["node"]] = quantities.add(found.get(pod["node"], {}), quantities.add(pod["requests"], {PODS: 1}))
    return found


def selects(spec: ContributionSpec, node: HomeNode) -> bool:
    return not node.virtual and all(node.labels.get(key) == value for key, value in spec.node_selector.items())


def settle_claims(claimants: Iterable[Claimant], nodes: Sequence[HomeNode]) -> Claims:
    """One contribution per machine: the older creationTimestamp, then the smaller UID wins."""
    won: dict[str, tuple[str, ...]] = {}
    lost: dict[str, dict[str, str]] = {}
    holder: dict[str, str] = {}
    for claimant in sorted(claimants, key=lambda c: (c.created, c.uid)):
        wanted = sorted(node.name for node in nodes if selects(claimant.spec, node))
        lost[claimant.uid] = {name: holder[name] for name in wanted if name in holder}
        won[claimant.uid] = tuple(name for name in wanted if name not in holder)
        holder |= dict.fromkeys(won[claimant.uid], claimant.name)
    return Claims(won, lost)


def offered(spec: ContributionSpec, allocatable: Quantities, owners: Quantities) -> dict[str, int]:
    """Amounts of one machine (base units): see the module's formula. Resources of which nothing is left are 0."""
    wanted = [*quantities.ALWAYS_OFFERED, *sorted(set(spec.resources) - set(quantities.ALWAYS_OFFERED))]
    return {name: _offered(name, spec.resources.get(name) or Share(), allocatable, owners) for name in wanted}


def _offered(name: str, share: Share, allocatable: Quantities, owners: Quantities) -> int:
    whole = allocatable.get(name, 0)
    reserve = DEFAULT_RESERVE.get(name, 0) if share.reserve is None else quantities.parse(name, share.reserve)
    bounds = [share.share_percent * whole // 100, whole - reserve - owners.get(name, 0)]
    if share.limit is not None:
        bounds.append(quantities.parse(name, share.limit))
    return max(0, min(bounds))


def is_useful(amounts: Quantities) -> bool:
    """A machine without CPU, memory or room for a pod places nothing."""
    return all(amounts.get(name, 0) > 0 for name in (CPU, MEMORY, PODS))


def plan(
    spec: ContributionSpec,
    nodes: Sequence[HomeNode],
    owners: Mapping[str, Quantities],
    salt: str,
    published: Sequence[Machine],
    held: Mapping[str, datetime],
    now: datetime,
    *,
    at_once: bool = False,
) -> Plan:
    """The Offer's machines for the Nodes that this contribution has won.

    `published` is what the hub was told last, `held` the previous plan's; rises wait RISE_HOLD, falls do not, and
    `at_once` (the owner has just changed the spec) nothing does. Machines of which nothing useful is left stay listed,
    so that their virtual nodes and the guests on them do not come and go with the owner's pods.
    """
    before = {machine.id: machine for machine in published}
    machines: list[Machine] = []
    waiting: dict[str, datetime] = {}
    for node in sorted(nodes, key=lambda n: n.uid)[:MAX_MACHINES]:
        identity = names.machine_id(node.uid, salt)
        amounts = offered(spec, node.allocatable, owners.get(node.name, {}))
        since = None
        if not at_once:
            amounts, since = _hold_rise(amounts, before.get(identity), held.get(identity), now)
        if since is not None:
            waiting[identity] = since
        if is_useful(amounts) or identity in before:
            machines.append(_machine(node, identity, amounts))
    return Plan(tuple(sorted(machines, key=lambda machine: machine.id)), waiting)


def _machine(node: HomeNode, identity: str, amounts: Quantities) -> Machine:
    return Machine(
        id=identity,
        allocatable=quantities.render_all(amounts),
        arch=node.arch,
        os=node.os,
        kubelet_version=node.kubelet_version,
        ready=node.ready,
    )


def _hold_rise(
    amounts: dict[str, int], before: Machine | None, since: datetime | None, now: datetime
) -> tuple[dict[str, int], datetime | None]:
    """The amounts to publish, and since when a rise has been held back (None: nothing is held back)."""
    if before is None:
        return amounts, None
    old = quantities.parse_all(before.allocatable)
    rises = set(old) == set(amounts) and any(amount > old[name] for name, amount in amounts.items())
    if not rises or (since is not None and now - since >= RISE_HOLD):
        return amounts, None
    return {name: min(amount, old[name]) for name, amount in amounts.items()}, since or now
