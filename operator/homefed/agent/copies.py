"""ConfigMaps and Secrets of guests, from the mailbox to the guests' namespace: only those that a pod of ours names.

Both sides hold copies under one name, derived from the hub pod's UID, so that two guests never share one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from homefed.agent.identity import Connection
from homefed.api import names
from homefed.api.canonical import digest
from homefed.api.guest_pod import Copy, GuestPodSpec
from homefed.kube.client import KubeClient
from homefed.kube.reflector import Key, OnChange, Reflector
from homefed.kube.resources import CONFIGMAPS, SECRETS, Resource

logger = logging.getLogger(__name__)

KINDS: Final[Mapping[str, Resource]] = {"ConfigMap": CONFIGMAPS, "Secret": SECRETS}
PLAIN_TYPES: Final = (
    "Opaque",
    "kubernetes.io/dockerconfigjson",
    "kubernetes.io/dockercfg",
    "kubernetes.io/tls",
    "kubernetes.io/basic-auth",
    "kubernetes.io/ssh-auth",
)
"""A Secret of another type (a token of an account) would mean something to the home's control plane."""

Json = dict[str, Any]


def uid_of(copy_name: str) -> str:
    """The hub pod's UID in a copy's name."""
    return copy_name.rpartition("-")[0]


class Copies:
    """Keeps the home's copies equal to the mailbox's. `missing`, `bring` and `drop` are per guest."""

    def __init__(self, home: KubeClient, guests_namespace: str) -> None:
        self._home, self._namespace = home, guests_namespace
        self._sources: dict[str, Reflector] = {}
        self._mailbox = ""
        self._brought: dict[tuple[str, str], str] = {}
        self._dropped: set[str] = set()

    def follow(self, connection: Connection, changed: Callable[[str], None]) -> list[Reflector]:
        """Reflectors of the mailbox, for the caller to run; `changed` is told the UID of the guest concerned."""
        self._mailbox = connection.mailbox
        on_change = _told(changed)
        self._sources = {
            kind: Reflector(connection.hub, resource, self._mailbox, on_change=on_change)
            for kind, resource in KINDS.items()
        }
        return list(self._sources.values())

    def missing(self, guest: GuestPodSpec) -> str | None:
        """The first object, not optional, that has not arrived in the mailbox."""
        for copy in guest.copies:
            if not copy.optional and self._source(copy) is None:
                return f"{copy.kind} {copy.name}"
        return None

    async def bring(self, guest: GuestPodSpec) -> None:
        """Write what differs from what this process last wrote; at rest nothing is written."""
        for copy in guest.copies:
            source = self._source(copy)
            if source is None:
                continue
            wanted = _copy(copy, source, guest.pod_uid, self._namespace)
            mark = digest(wanted)
            if self._brought.get((copy.kind, copy.copy_name)) != mark:
                await self._home.apply(KINDS[copy.kind], wanted, field_manager=names.AGENT_MANAGER, force=True)
                self._brought[copy.kind, copy.copy_name] = mark
        self._dropped.discard(guest.pod_uid)

    async def drop(self, guest: GuestPodSpec) -> None:
        """Delete the guest's copies; asks the server once per process and guest."""
        if guest.pod_uid in self._dropped:
            return
        for copy in guest.copies:
            await self._home.delete(KINDS[copy.kind], copy.copy_name, self._namespace)
            self._brought.pop((copy.kind, copy.copy_name), None)
        self._dropped.add(guest.pod_uid)

    async def drop_orphans(self, needed: Callable[[str], bool]) -> None:
        """Delete copies of guests that are not `needed` any more: what a killed process left behind."""
        for kind, resource in KINDS.items():
            selector = f"{names.LABEL_HUB_UID},{names.LABEL_MANAGED_BY}={names.AGENT_MANAGER}"
            listed = await self._home.list(resource, self._namespace, label_selector=selector)
            for obj in listed.items:
                metadata = obj["metadata"]
                if not needed(metadata["labels"][names.LABEL_HUB_UID]):
                    logger.info("deleting orphaned copy %s %s", kind, metadata["name"])
                    await self._home.delete(resource, metadata["name"], self._namespace, uid=metadata["uid"])

    def forget(self, uid: str) -> None:
        self._dropped.discard(uid)

    def _source(self, copy: Copy) -> Json | None:
        reflector = self._sources.get(copy.kind)
        return reflector.store.get((self._mailbox, copy.copy_name)) if reflector is not None else None


def _told(changed: Callable[[str], None]) -> OnChange:
    def on_change(key: Key, _old: Json | None, _new: Json | None) -> None:
        if uid := uid_of(key[1]):
            changed(uid)

    return on_change


def _copy(copy: Copy, source: Json, uid: str, namespace: str) -> Json:
    wanted: Json = {
        "metadata": {
            "name": copy.copy_name,
            "namespace": namespace,
            "labels": {names.LABEL_HUB_UID: uid, names.LABEL_MANAGED_BY: names.AGENT_MANAGER},
        },
        "data": dict(source.get("data") or {}),
    }
    if copy.kind == "Secret":
        stated = source.get("type")
        wanted["type"] = stated if stated in PLAIN_TYPES else "Opaque"
    elif source.get("binaryData"):
        wanted["binaryData"] = dict(source["binaryData"])
    return wanted
