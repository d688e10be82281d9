"""Copies of consumers' ConfigMaps and Secrets: read where a pod names them, written into the home's mailbox.

Objects are read one by one, by name: the hub has rights in enabled namespaces only, and watches no Secrets. What was
read is kept for some seconds, so that the pods of one Deployment cost one request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from homefed.api import names
from homefed.api.errors import Forbidden, NotFound
from homefed.api.guest_pod import Copy
from homefed.core import refusals
from homefed.core.copy_objects import Source, content_digest
from homefed.kube.client import KubeClient
from homefed.kube.resources import CONFIGMAPS, SECRETS, Resource
from homefed.kube.transport import Json

KINDS: Final[Mapping[str, Resource]] = {"ConfigMap": CONFIGMAPS, "Secret": SECRETS}
FRESH_SECONDS: Final = 30.0
MISSING_SECONDS: Final = 3.0
MAX_KEPT: Final = 10_000


@dataclass(frozen=True)
class _Read:
    at: float
    found: Json | None
    reason: str = ""
    message: str = ""


class Copies:
    """`of(uid)` tells what lies in the mailbox for one pod UID."""

    def __init__(self, client: KubeClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._clock = client, clock
        self._reads: dict[tuple[str, str, str], _Read] = {}
        self._reading: dict[tuple[str, str, str], asyncio.Lock] = {}
        self._written: dict[str, dict[tuple[str, str], tuple[str, str]]] = {}
        """uid → (kind, copy name) → (mailbox, content digest)."""
        self._loaded: set[str] = set()

    async def load(self, mailbox: str) -> list[str]:
        """Learn, once, what lies in a mailbox already; the pod UIDs that have copies there."""
        if mailbox in self._loaded:
            return []
        found: list[str] = []
        for kind, resource in KINDS.items():
            listed = await self._client.list(
                resource, mailbox, label_selector=names.LABEL_HUB_UID, trim=_without_content
            )
            for obj in listed.items:
                uid = obj["metadata"]["labels"][names.LABEL_HUB_UID]
                found.append(uid)
                self._note(uid, kind, obj)
        self._loaded.add(mailbox)
        return found

    def of(self, uid: str) -> dict[tuple[str, str], str]:
        """(kind, copy name) → digest of the content as it was written."""
        return {key: digest for key, (_, digest) in self._written.get(uid, {}).items()}

    async def sources(self, namespace: str, copies: Iterable[Copy]) -> tuple[Source, ...]:
        """The named objects as they are now, or were up to 30 s ago. Transient when the API server does not answer."""
        return tuple([await self._source(namespace, copy) for copy in copies])

    async def write(self, obj: Json) -> None:
        kind, uid = obj["kind"], obj["metadata"]["labels"][names.LABEL_HUB_UID]
        await self._client.apply(KINDS[kind], obj, field_manager=names.HUB_MANAGER, force=True)
        self._note(uid, kind, obj)

    async def drop(self, uid: str) -> None:
        for (kind, name), (mailbox, _) in list(self._written.get(uid, {}).items()):
            await self._client.delete(KINDS[kind], name, mailbox)
            self._written[uid].pop((kind, name))
        self._written.pop(uid, None)

    def _note(self, uid: str, kind: str, obj: Json) -> None:
        metadata = obj["metadata"]
        self._written.setdefault(uid, {})[kind, metadata["name"]] = metadata["namespace"], content_digest(obj)

    async def _source(self, namespace: str, copy: Copy) -> Source:
        key = (namespace, copy.kind, copy.name)
        async with self._reading.setdefault(key, asyncio.Lock()):
            read = self._reads.get(key)
            if read is None or self._clock() - read.at > (MISSING_SECONDS if read.found is None else FRESH_SECONDS):
                read = await self._read(namespace, copy.kind, copy.name)
                self._keep(key, read)
        return Source(copy, read.found, read.reason, read.message)

    async def _read(self, namespace: str, kind: Literal["ConfigMap", "Secret"], name: str) -> _Read:
        now = self._clock()
        try:
            return _Read(now, await self._client.get(KINDS[kind], name, namespace))
        except NotFound:
            return _Read(now, None)
        except Forbidden:
            remedy = f"ask the organiser: homefed consumer enable {namespace}"
            message = f'the hub operator may not read {kind.lower()} "{name}" in namespace {namespace}; {remedy}'
            return _Read(now, None, refusals.OBJECT_FORBIDDEN, message)

    def _keep(self, key: tuple[str, str, str], read: _Read) -> None:
        if len(self._reads) >= MAX_KEPT:
            self._reads.clear()
            self._reading = {kept: lock for kept, lock in self._reading.items() if lock.locked()}
        self._reads[key] = read


def _without_content(obj: Json) -> Json:
    """Nothing that is secret stays in memory longer than it has to."""
    metadata = {key: obj["metadata"].get(key) for key in ("name", "namespace", "labels", "annotations")}
    return {"metadata": metadata}
