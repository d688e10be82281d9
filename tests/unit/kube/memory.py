"""A client that keeps objects in memory with resource versions, for logic that only reads and replaces one object."""

from __future__ import annotations

import copy
from typing import Any

from homefed.api.errors import AlreadyExists, Conflict, HomefedError, NotFound
from homefed.kube.client import KubeClient
from homefed.kube.resources import Resource

Json = dict[str, Any]


class MemoryClient(KubeClient):
    """Optimistic concurrency as the API server does it; `trouble` is raised by the next requests, one each."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Json] = {}
        self.writes: list[tuple[str, Json]] = []
        self.trouble: list[HomefedError | None] = []
        self._version = 0

    def _stored(self, obj: Json) -> Json:
        self._version += 1
        stored = copy.deepcopy(obj)
        stored["metadata"]["resourceVersion"] = str(self._version)
        self.objects[stored["metadata"]["namespace"], stored["metadata"]["name"]] = stored
        return copy.deepcopy(stored)

    def _raise_trouble(self) -> None:
        error = self.trouble.pop(0) if self.trouble else None
        if error is not None:
            raise error

    async def get(self, kind: Resource, name: str, namespace: str | None = None) -> Json:
        self._raise_trouble()
        if (namespace or "", name) not in self.objects:
            raise NotFound(name)
        return copy.deepcopy(self.objects[namespace or "", name])

    async def create(self, kind: Resource, obj: Json, namespace: str | None = None) -> Json:
        self._raise_trouble()
        if (obj["metadata"]["namespace"], obj["metadata"]["name"]) in self.objects:
            raise AlreadyExists(obj["metadata"]["name"])
        self.writes.append(("create", copy.deepcopy(obj)))
        return self._stored(obj)

    async def update(self, kind: Resource, obj: Json, *, subresource: str | None = None) -> Json:
        self._raise_trouble()
        current = await self.get(kind, obj["metadata"]["name"], obj["metadata"]["namespace"])
        if current["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            raise Conflict(obj["metadata"]["name"])
        self.writes.append(("update", copy.deepcopy(obj)))
        return self._stored(obj)

    async def patch(self, kind: Resource, name: str, patch: Any, namespace: str | None = None, **_: Any) -> Json:
        self._raise_trouble()
        current = await self.get(kind, name, namespace)
        self.writes.append(("patch", copy.deepcopy(patch)))
        return self._stored(current | patch)
