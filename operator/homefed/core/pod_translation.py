"""From a hub's Pod to the GuestPod that a home runs: the same pod always gives the same bytes.

What the pod would read through the downward API is resolved to the hub's truth here. In env it becomes a literal; in
volumes an annotation `downward.homefed.io/<16 hex of the value's SHA-256>` that the volume refers to. Only `podIP` is
left to the home: inside the guest it is what the program can listen on. Labels and other annotations stay at the hub.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from homefed.api import names, quantities
from homefed.api.canonical import canonical, digest
from homefed.api.errors import Invalid
from homefed.api.guest_pod import Copy, GuestPodSpec, Observed
from homefed.api.quantities import Quantities
from homefed.core import pod_fields, refusals, virtual_node
from homefed.core.copy_objects import copies_pull_secrets
from homefed.core.placement import Site, container_requests
from homefed.core.times import from_rfc3339, to_rfc3339

Json = dict[str, Any]
MAX_COPIES: Final = 64
KINDS: Final = ("initContainers", "containers")
UNREACHABLE: Final = "node.kubernetes.io/unreachable"
LEASE_GRACE_SECONDS: Final = 30
"""Less than any time in which a silent node becomes Unknown (40 s in old releases, 50 s now)."""
_KEY = re.compile(r"metadata\.(labels|annotations)\['([^']{1,317})'\]")


@dataclass(frozen=True)
class Translation:
    pod: Json
    """{labels, annotations, spec}."""
    digest: str
    copies: tuple[Copy, ...]


def translate(pod: Mapping[str, Any], site: Site, requests: Quantities) -> Translation:
    """A pod that `placement.place` accepted with these requests. Invalid when it is too large or names too much."""
    uid = pod["metadata"]["uid"]
    annotations: dict[str, str] = {}
    spec = _resolved(pod, site, annotations)
    copies = copies_of(spec, uid)
    carried = pod_fields.carry(spec, rename=lambda kind, name: names.copy_name(uid, kind, name))
    translated = {"labels": {}, "annotations": annotations, "spec": _completed(carried, pod, requests)}
    size = len(canonical(translated))
    if size > pod_fields.MAX_POD_BYTES:
        message = f"the pod is {size} bytes long, {pod_fields.MAX_POD_BYTES} are possible: move text to a ConfigMap"
        raise Invalid(message, reason=refusals.POD_TOO_LARGE)
    return Translation(translated, digest(translated), copies)


def copies_of(spec: Mapping[str, Any], uid: str) -> tuple[Copy, ...]:
    """Every ConfigMap and Secret that the spec names, once; optional only where every mention is."""
    found: dict[tuple[str, str], Copy] = {}
    for reference in pod_fields.references(spec, stage="hub"):
        key = (reference.kind, reference.name)
        optional = reference.optional and (key not in found or found[key].optional)
        copy_name = names.copy_name(uid, *key)
        found[key] = Copy(kind=reference.kind, name=reference.name, copy_name=copy_name, optional=optional)
    if len(found) > MAX_COPIES:
        message = f"the pod names {len(found)} ConfigMaps and Secrets, {MAX_COPIES} are possible"
        raise Invalid(message, reason=refusals.TOO_MANY_OBJECTS)
    return tuple(found[key] for key in sorted(found))


def named_objects(pod: Mapping[str, Any]) -> tuple[Copy, ...]:
    """The copies that this pod needs; Invalid when it names too many."""
    return copies_of(_without_pull_secrets(pod), pod["metadata"]["uid"])


def guest_pod(
    pod: Mapping[str, Any], namespace_uid: str, site: Site, requests: Quantities, now: datetime
) -> tuple[Json, Translation]:
    """The GuestPod to create, and what it holds."""
    metadata, translation = pod["metadata"], translate(pod, site, requests)
    spec = GuestPodSpec(
        pod_uid=metadata["uid"],
        pod_name=metadata["name"],
        pod_namespace=metadata["namespace"],
        namespace_uid=namespace_uid,
        pool_name=site.pool,
        node_name=site.node_name,
        machine_id=site.machine_id,
        offer_name=site.offer_name,
        egress=site.egress,
        requests=quantities.render_all(requests),
        terms=virtual_node.terms(site.node),
        pod=translation.pod,
        pod_digest=translation.digest,
        copies=list(translation.copies),
        disconnect_deadline_seconds=disconnect_deadline(pod),
        observed=Observed(bound_at=to_rfc3339(bound_at(pod, now)), intervals=[]),
    )
    labels = {names.LABEL_HOME: site.home, names.LABEL_POOL: site.pool, names.LABEL_NODE: site.node_name}
    return {
        "apiVersion": names.API_VERSION,
        "kind": "GuestPod",
        "metadata": {
            "name": metadata["uid"],
            "namespace": names.mailbox(site.home),
            "labels": labels,
            "finalizers": [names.FINALIZER_GUEST],
        },
        "spec": spec.dump(),
    }, translation


def bound_at(pod: Mapping[str, Any], now: datetime) -> datetime:
    """When the scheduler bound the pod, by the hub's clock; `now` for one that was created bound."""
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "True":
            try:
                return min(now, from_rfc3339(condition["lastTransitionTime"]))
            except (KeyError, Invalid):
                return now
    return now


def disconnect_deadline(pod: Mapping[str, Any]) -> int | None:
    """Seconds of silence after which a fenced guest is stopped by its home; None without annotation `Fence`.

    The hub replaces the pod no sooner than 40 s + its toleration of `unreachable` after the last renewal, so that the
    guest has to be stopped, grace included, within 30 s + that toleration.
    """
    if (pod["metadata"].get("annotations") or {}).get(names.ANNOTATION_ON_DISCONNECT) != "Fence":
        return None
    tolerated = 0
    for toleration in pod["spec"].get("tolerations") or ():
        if toleration.get("key") in (UNREACHABLE, None, "") and toleration.get("effect") in ("NoExecute", None, ""):
            seconds = toleration.get("tolerationSeconds")
            if seconds is None:
                return None
            tolerated = max(tolerated, int(seconds))
    grace = grace_seconds(pod)
    return max(0, min(LEASE_GRACE_SECONDS + tolerated - grace, 604_800))


def grace_seconds(pod: Mapping[str, Any]) -> int:
    """The pod's termination grace as homes give it."""
    wanted = pod["spec"].get("terminationGracePeriodSeconds")
    return min(30 if wanted is None else int(wanted), pod_fields.MAX_GRACE_SECONDS)


def _without_pull_secrets(pod: Mapping[str, Any]) -> Json:
    """Pull secrets stay behind unless the pod says that they may leave."""
    spec = dict(pod["spec"])
    if not copies_pull_secrets(pod):
        spec.pop("imagePullSecrets", None)
    return spec


def _resolved(pod: Mapping[str, Any], site: Site, annotations: dict[str, str]) -> Json:
    """The spec with the downward API resolved; fills `annotations` with the values of volumes."""
    spec = _without_pull_secrets(pod)
    fields = _field_values(pod, site)
    resources = _ResourceFields(spec, site)
    for kind in KINDS:
        if spec.get(kind):
            spec[kind] = [_resolved_env(container, fields, resources) for container in spec[kind]]

    def annotate(value: str) -> str:
        key = pod_fields.DOWNWARD_PREFIX + hashlib.sha256(value.encode()).hexdigest()[:16]
        annotations[key] = value
        return f"metadata.annotations['{key}']"

    def text(item: Json) -> str:
        if "resourceFieldRef" in item:
            return resources.value(item["resourceFieldRef"], None)
        return fields(item["fieldRef"]["fieldPath"]) or ""

    if spec.get("volumes"):
        spec["volumes"] = [_resolved_volume(volume, lambda item: annotate(text(item))) for volume in spec["volumes"]]
    return spec


def _field_values(pod: Mapping[str, Any], site: Site) -> Callable[[str], str | None]:
    """fieldPath → the hub's value; None for what is the home's to say."""
    metadata, spec = pod["metadata"], pod["spec"]
    addresses = [a["address"] for a in site.node.get("status", {}).get("addresses") or () if a["type"] == "InternalIP"]
    simple = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": site.node_name,
        "spec.serviceAccountName": spec.get("serviceAccountName") or "default",
        "status.hostIP": addresses[0] if addresses else "",
        "status.hostIPs": ",".join(addresses),
        "metadata.labels": _format_map(metadata.get("labels") or {}),
        "metadata.annotations": _format_map(metadata.get("annotations") or {}),
    }

    def value(path: str) -> str | None:
        keyed = _KEY.fullmatch(path)
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], "")) if keyed else simple.get(path)

    return value


def _format_map(values: Mapping[str, str]) -> str:
    """As the kubelet writes labels and annotations into a file: key="value", one per line, sorted by key."""
    return "\n".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in sorted(values.items()))


class _ResourceFields:
    """resourceFieldRef → number: what a container really gets (limit = request), else the node's allocatable."""

    def __init__(self, spec: Mapping[str, Any], site: Site) -> None:
        self._granted = {
            container["name"]: container_requests(container) for kind in KINDS for container in spec.get(kind) or ()
        }
        self._allocatable = site.allocatable

    def value(self, reference: Mapping[str, Any], own: str | None) -> str:
        side, _, resource = str(reference["resource"]).partition(".")
        granted = self._granted.get(reference.get("containerName") or own or "", {})
        default = self._allocatable.get(resource, 0) if side == "limits" else 0
        divisor = quantities.parse(resource, reference.get("divisor") or "1")
        if divisor <= 0:
            divisor = quantities.parse(resource, "1")
        return str(-(-granted.get(resource, default) // divisor))


def _resolved_env(container: Json, fields: Callable[[str], str | None], resources: _ResourceFields) -> Json:
    def resolve(variable: Json) -> Json:
        source = variable.get("valueFrom") or {}
        if "resourceFieldRef" in source:
            return {"name": variable["name"], "value": resources.value(source["resourceFieldRef"], container["name"])}
        value = fields(source["fieldRef"]["fieldPath"]) if "fieldRef" in source else None
        # A literal is expanded by the kubelet where $(NAME) stands in it, a reference never: so $ is doubled.
        return variable if value is None else {"name": variable["name"], "value": value.replace("$", "$$")}

    return (
        container | {"env": [resolve(variable) for variable in container["env"]]} if container.get("env") else container
    )


def _resolved_volume(volume: Json, refer: Callable[[Json], str]) -> Json:
    def resolve(source: Json) -> Json:
        items = [_referring(item, refer(item)) for item in source.get("items") or ()]
        return source | {"items": items}

    if "downwardAPI" in volume:
        return volume | {"downwardAPI": resolve(volume["downwardAPI"])}
    projected = volume.get("projected")
    if not projected:
        return volume
    sources = [
        source | {"downwardAPI": resolve(source["downwardAPI"])} if "downwardAPI" in source else source
        for source in projected.get("sources") or ()
    ]
    return volume | {"projected": projected | {"sources": sources}}


def _referring(item: Json, path: str) -> Json:
    kept = {key: value for key, value in item.items() if key != "resourceFieldRef"}
    return kept | {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}


def _completed(spec: Json, pod: Mapping[str, Any], requests: Quantities) -> Json:
    """Limits, sizes and the host name, as they will be."""
    for kind in KINDS:
        if spec.get(kind):
            spec[kind] = [container | {"resources": _resources(container)} for container in spec[kind]]
    if spec.get("volumes"):
        spec["volumes"] = [_sized(volume, requests) for volume in spec["volumes"]]
    return spec | {"hostname": spec.get("hostname") or _hostname(pod["metadata"]["name"])}


def _resources(container: Mapping[str, Any]) -> Json:
    granted = quantities.render_all(container_requests(container))
    return {"requests": granted, "limits": dict(granted)}


def _sized(volume: Json, requests: Quantities) -> Json:
    empty = volume.get("emptyDir")
    if empty is None or empty.get("sizeLimit"):
        return volume
    resource = quantities.MEMORY if empty.get("medium") == "Memory" else quantities.EPHEMERAL
    return volume | {"emptyDir": empty | {"sizeLimit": quantities.render(resource, requests.get(resource, 0))}}


def _hostname(name: str) -> str:
    """The pod's name as the kubelet cuts it to a host name."""
    return name.replace(".", "-")[:63].rstrip("-")
