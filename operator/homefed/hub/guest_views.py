"""Pods and GuestPods by the pod's UID: as the reflectors have them, or as we wrote them a moment ago."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from homefed.api import names, quantities
from homefed.core.guest_lifecycle import has_ended
from homefed.kube.reflector import Key
from homefed.kube.transport import Json

_POD_METADATA = ("name", "namespace", "uid", "resourceVersion")


def is_hosted(pod: Json) -> bool:
    """Bound to a Node with the name of a virtual one; whether the Node is one, its labels tell."""
    return str(pod.get("spec", {}).get("nodeName", "")).startswith(names.NODE_PREFIX)


def trim_pod(pod: Json) -> Json:
    """Pods of real nodes are none of our business: of them only the name is kept."""
    if is_hosted(pod):
        pod["metadata"].pop("managedFields", None)
        return pod
    return {"metadata": {key: pod["metadata"].get(key) for key in _POD_METADATA}}


def trim_guest(guest: Json) -> Json:
    """Of the translated pod only what a later look needs; it can be large."""
    guest["metadata"].pop("managedFields", None)
    pod = (guest.get("spec") or {}).get("pod")
    if pod is not None:
        spec = pod.get("spec") or {}
        kept = {key: spec[key] for key in ("terminationGracePeriodSeconds",) if key in spec}
        for kind in ("initContainers", "containers"):
            if spec.get(kind):
                kept[kind] = [_trim_container(container) for container in spec[kind]]
        guest["spec"]["pod"] = {"spec": kept}
    return guest


def _trim_container(container: Json) -> Json:
    return {key: container[key] for key in ("name", "image", "resources") if key in container}


class View:
    """One kind by UID. `store` is its reflector's; `changed` must hear every change of it."""

    def __init__(self, store: Mapping[Key, Json]) -> None:
        self._store = store
        self._keys: dict[str, Key] = {}
        self._written: dict[str, Json] = {}

    def changed(self, uid: str, key: Key, *, gone: bool) -> None:
        if gone and self._keys.get(uid) == key:
            del self._keys[uid]
            self._written.pop(uid, None)
        elif not gone:
            self._keys[uid] = key

    def wrote(self, uid: str, obj: Json, *, created: bool = False) -> None:
        """The server's answer to a write. One that comes after the object was seen to go is too late."""
        if created or uid in self._keys:
            self._written[uid] = obj

    def get(self, uid: str) -> Json | None:
        """The newer of what was seen and what was written."""
        seen = self._store.get(self._keys[uid]) if uid in self._keys else None
        written = self._written.get(uid)
        if written is None or seen is None:
            return seen or written
        if _version(seen) >= _version(written):
            del self._written[uid]
            return seen
        return written

    def forget_writes(self, uid: str) -> None:
        """The server does not have it: only what the reflector says counts."""
        self._written.pop(uid, None)

    def __contains__(self, uid: str) -> bool:
        return uid in self._keys or uid in self._written

    def uids(self) -> set[str]:
        return {*self._keys, *self._written}


class Allocations:
    """What the guests of each virtual node request, until they have ended; accepted ones from the first moment on."""

    def __init__(self) -> None:
        self._by_node: dict[str, dict[str, quantities.Quantities]] = defaultdict(dict)

    def of_others(self, node: str, uid: str) -> dict[str, int]:
        total: dict[str, int] = {}
        for other, requests in self._by_node[node].items():
            if other != uid:
                total = quantities.add(total, requests)
        return total

    def reserve(self, node: str, uid: str, requests: quantities.Quantities) -> None:
        self._by_node[node][uid] = {**requests, quantities.PODS: 1}

    def free(self, node: str, uid: str) -> bool:
        """Whether there was something to free."""
        return self._by_node[node].pop(uid, None) is not None

    def follow(self, guest: Json, *, gone: bool) -> bool:
        """Reserve or free as the GuestPod says; True when capacity became free."""
        spec, uid = guest["spec"], guest["metadata"]["name"]
        if gone or has_ended(guest):
            return self.free(spec["nodeName"], uid)
        self.reserve(spec["nodeName"], uid, quantities.parse_all(spec["requests"]))
        return False


def _version(obj: Json) -> int:
    text = obj["metadata"].get("resourceVersion") or "0"
    return int(text) if text.isdecimal() else 0
