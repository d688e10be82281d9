"""What a kubelet decides at admission: may this bound pod run on this virtual node?

Nothing guarantees that a pod came through the scheduler: one created with nodeName skips taint, fit and quota. So all
of it is checked again here, before a GuestPod exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from homefed.api import names, quantities
from homefed.api.errors import Invalid
from homefed.api.quantities import Quantities
from homefed.core import pod_fields, refusals
from homefed.core.field_rules import Fault
from homefed.core.offer import pod_requests

Json = Mapping[str, Any]
REQUIRED: Final = (quantities.CPU, quantities.MEMORY, quantities.EPHEMERAL)
BOUNDED: Final = (quantities.MEMORY, quantities.EPHEMERAL)
"""Resources whose limit may not exceed the request; a CPU limit above it is admitted with a warning."""
USE_REQUESTS: Final = "UseRequests"


@dataclass(frozen=True)
class Site:
    """Where a pod is bound: the virtual Node, the Offer's machine behind it, and who else runs there."""

    pool: str
    node: Json
    home: str
    open: bool
    """The home is accepted and not suspended, and the offer is Active."""
    consumers: tuple[str, ...]
    egress: str
    offer_name: str
    machine_id: str
    allocated: Quantities = field(default_factory=dict)
    """Requests of the other guests of the node that have not ended, `pods` included."""

    @property
    def node_name(self) -> str:
        return str(self.node["metadata"]["name"])

    @property
    def allocatable(self) -> dict[str, int]:
        return quantities.parse_all(self.node.get("status", {}).get("allocatable"))


@dataclass(frozen=True)
class Accept:
    requests: Quantities
    """Effective requests of the whole pod, in base units, without `pods`."""
    warnings: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Pending:
    """The pod is not run as it is; it stays Pending, with this reason and one event."""

    reason: str
    message: str


@dataclass(frozen=True)
class Fail:
    """Another node could take the pod: after the back-off it is failed, so that its controller makes a new one."""

    reason: str
    message: str


Verdict = Accept | Pending | Fail


def find_site(
    node: Json | None, offers: Iterable[Json], homes: Mapping[tuple[str, str], Json], allocated: Quantities
) -> Site | None:
    """The Site of a virtual Node, from the offers of its home's mailbox; None where no offer has its machine."""
    labels = (node or {}).get("metadata", {}).get("labels") or {}
    home, pool = labels.get(names.LABEL_HOME), labels.get(names.LABEL_POOL)
    member = homes.get(("", home)) if home else None
    if node is None or member is None or labels.get(names.LABEL_HOME_UID) != member["metadata"]["uid"]:
        return None
    name, uid = node["metadata"]["name"], member["metadata"]["uid"]
    for offer in offers:
        spec = offer["spec"]
        if offer["metadata"]["namespace"] != names.mailbox(str(home)) or spec.get("poolName") != pool:
            continue
        for machine in spec.get("machines") or ():
            if names.virtual_node(str(home), uid, machine["id"]) == name:
                return _site(node, offer, member, machine["id"], allocated)
    return None


def _site(node: Json, offer: Json, home: Json, machine_id: str, allocated: Quantities) -> Site:
    spec, member = offer["spec"], home.get("spec") or {}
    return Site(
        pool=spec["poolName"],
        node=node,
        home=home["metadata"]["name"],
        open=member.get("accepted", True) and not member.get("suspended") and spec.get("state", "Active") == "Active",
        consumers=tuple(spec.get("consumers") or ()),
        egress=spec.get("egress", "DNS"),
        offer_name=offer["metadata"]["name"],
        machine_id=machine_id,
        allocated=allocated,
    )


def place(pod: Json, namespace: Json | None, site: Site | None) -> Verdict:
    """Accept, or why not: first what only a person can change, then what another node might have."""
    if site is None:
        return Pending(refusals.NODE_UNKNOWN, f"{pod['spec'].get('nodeName')}: no offer of a home stands behind it")
    try:
        own = _own_faults(pod, namespace, site)
        if own is not None:
            return own
        requests = pod_requests(pod["spec"])
        here = _faults_here(pod, site, requests)
    except Invalid as error:
        return Pending(error.reason, error.message)
    if here is None:
        return Accept(requests, tuple(cpu_limits_above_request(pod["spec"])))
    return here if refusals.controller(pod) is not None else Pending(here.reason, here.message)


def _own_faults(pod: Json, namespace: Json | None, site: Site) -> Pending | None:
    """What lies in the pod's own text, its owner or its namespace."""
    kind = not_for_homes(pod)
    if kind is not None:
        return kind
    spec, wanted = pod["spec"], names.runtime_class(site.pool)
    if spec.get("runtimeClassName") != wanted:
        return Pending(refusals.RUNTIME_CLASS, f"spec.runtimeClassName: set it to {wanted} to use pool {site.pool}")
    labels = (namespace or {}).get("metadata", {}).get("labels") or {}
    if labels.get(names.enabled_label(site.pool)) != "enabled":
        name = pod["metadata"]["namespace"]
        remedy = f"ask the organiser: homefed consumer enable {name} --pool {site.pool}"
        return Pending(refusals.NAMESPACE_NOT_ENABLED, f"namespace {name} may not use pool {site.pool} yet; {remedy}")
    faults = pod_fields.check(spec, stage="hub") or request_faults(pod)
    if faults:
        return Pending(faults[0].reason, "; ".join(fault.message for fault in faults)[:1024])
    return _untolerated(spec, site)


def not_for_homes(pod: Json) -> Pending | None:
    """Pods that no home ever runs: static ones, those of a DaemonSet, guests of another hub."""
    metadata = pod["metadata"]
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    owners = {owner.get("kind") for owner in metadata.get("ownerReferences") or ()}
    if "kubernetes.io/config.mirror" in annotations or "Node" in owners:
        return Pending(refusals.STATIC_POD, "static pods do not run in homes")
    if "DaemonSet" in owners:
        return Pending(
            refusals.DAEMON_SET, "DaemonSets do not run in homes: let its affinity exclude label type=virtual-kubelet"
        )
    if names.LABEL_HUB_UID in labels or names.LABEL_GUEST in labels:
        return Pending(refusals.GUEST_OF_A_HUB, "this pod is a guest of a hub already and is not passed on")
    return None


def _untolerated(spec: Json, site: Site) -> Pending | None:
    taint = {"key": names.TAINT_POOL, "value": site.pool, "effect": "NoSchedule"}
    if any(_tolerates(toleration, taint) for toleration in spec.get("tolerations") or ()):
        return None
    return Pending(refusals.NOT_TOLERATED, f"spec.tolerations: {names.TAINT_POOL}={site.pool}:NoSchedule is missing")


def _tolerates(toleration: Json, taint: Json) -> bool:
    """v1.Toleration.ToleratesTaint."""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    key = toleration.get("key") or ""
    if key not in ("", taint["key"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(key) and (toleration.get("value") or "") == taint["value"]


def _faults_here(pod: Json, site: Site, requests: Quantities) -> Fail | None:
    """What another node could do better."""
    consumer = pod["metadata"]["namespace"]
    if not site.open:
        return Fail(refusals.HOME_CLOSED, f"{site.node_name} takes no new guests now")
    if site.consumers and consumer not in site.consumers:
        return Fail(refusals.NOT_WELCOME, f"{site.node_name} takes no guests of namespace {consumer}")
    if not _selected(pod["spec"], site.node):
        return Fail(refusals.NODE_AFFINITY, f"{site.node_name} does not match the pod's node selector or affinity")
    allocatable = site.allocatable
    short = quantities.fits({**requests, quantities.PODS: 1}, quantities.subtract(allocatable, site.allocated))
    if short:
        resource = short[0]
        asked = quantities.render(resource, {**requests, quantities.PODS: 1}[resource])
        whole = quantities.render(resource, allocatable.get(resource, 0))
        return Fail(
            f"{refusals.OUT_OF}{resource.rpartition('/')[2]}"[:63],
            f"{site.node_name}: {asked} of {resource} do not fit beside its other guests ({whole} in all)",
        )
    return None


def _selected(spec: Json, node: Json) -> bool:
    """nodeSelector and required node affinity, as the kubelet checks them."""
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not affinity:
        return True
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(
        (term.get("matchExpressions") or term.get("matchFields"))
        and all(_matches(one, labels) for one in term.get("matchExpressions") or ())
        and all(_matches(one, fields) for one in term.get("matchFields") or ())
        for term in affinity.get("nodeSelectorTerms") or ()
    )


def _matches(expression: Json, labels: Mapping[str, str]) -> bool:
    """One v1.NodeSelectorRequirement."""
    value, values = labels.get(expression["key"]), expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            return value is not None and _compares(value, values[0], operator)
    return False


def _compares(value: str, bound: str, operator: str) -> bool:
    try:
        return int(value) > int(bound) if operator == "Gt" else int(value) < int(bound)
    except ValueError:
        return False


def container_requests(container: Json) -> dict[str, int]:
    """Requests in base units; a limit without a request counts as both, as the API server defaults it."""
    resources = container.get("resources") or {}
    return quantities.parse_all({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def _containers(spec: Json) -> list[tuple[str, Json]]:
    return [
        (f"spec.{kind}[{number}]", container)
        for kind in ("initContainers", "containers")
        for number, container in enumerate(spec.get(kind) or ())
    ]


def request_faults(pod: Json) -> list[Fault]:
    """Requests that are missing or zero, and limits above them, per container."""
    faults: list[Fault] = []
    use_requests = (pod["metadata"].get("annotations") or {}).get(names.ANNOTATION_LIMITS) == USE_REQUESTS
    for path, container in _containers(pod["spec"]):
        requests, limits = container_requests(container), _limits(container)
        for resource in REQUIRED:
            if requests.get(resource, 0) <= 0:
                where = f"{path}.resources.requests.{resource}"
                faults.append(Fault(where, refusals.REQUESTS_MISSING, f"{where}: set what the container needs"))
        for resource in BOUNDED:
            if not use_requests and limits.get(resource, 0) > requests.get(resource, 0) > 0:
                faults.append(_limit_fault(path, resource, requests[resource]))
    return faults[:8]


def _limit_fault(path: str, resource: str, request: int) -> Fault:
    where = f"{path}.resources.limits.{resource}"
    remedy = f"set it to the request, {quantities.render(resource, request)}, or annotate the pod"
    return Fault(
        where,
        refusals.LIMIT_ABOVE_REQUEST,
        f"{where}: is above the request; {remedy} {names.ANNOTATION_LIMITS}: {USE_REQUESTS}",
    )


def cpu_limits_above_request(spec: Json) -> list[Fault]:
    """Not refused, but said: a home runs every container with limit = request."""
    found: list[Fault] = []
    for path, container in _containers(spec):
        request, limit = container_requests(container).get(quantities.CPU, 0), _limits(container).get(quantities.CPU, 0)
        if limit > request > 0:
            text = quantities.render(quantities.CPU, request)
            message = f"{path}.resources.limits.cpu: homes run with limit = request; it gets {text}"
            found.append(Fault(f"{path}.resources.limits.cpu", refusals.LIMIT_ABOVE_REQUEST, message))
    return found


def _limits(container: Json) -> dict[str, int]:
    return quantities.parse_all((container.get("resources") or {}).get("limits"))
