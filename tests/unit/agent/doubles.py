"""A hub and a home in memory: objects by kind, every write in order, trouble on demand."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

from homefed.api.errors import AlreadyExists, HomefedError, NotFound
from homefed.kube.client import IssuedToken, KubeClient, ListResult
from homefed.kube.reflector import Reflector
from homefed.kube.resources import Resource

Json = dict[str, Any]


class Server(KubeClient):
    """What the agent's shells use of an API server. `writes` are (verb, plural, name)."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.writes: list[tuple[str, str, str]] = []
        self.reads: list[tuple[str, str]] = []
        self.trouble: dict[str, HomefedError] = {}
        """Verb → what it raises."""
        self.issued: list[str] = []
        self._version = 0

    def put(self, kind: Resource, obj: Json) -> Json:
        self._version += 1
        stored = copy.deepcopy(obj)
        metadata = stored["metadata"]
        metadata |= {"resourceVersion": str(self._version), "uid": metadata.get("uid", f"uid-{self._version}")}
        self.objects[kind.plural, metadata.get("namespace") or "", metadata["name"]] = stored
        return copy.deepcopy(stored)

    def has(self, kind: Resource, name: str, namespace: str = "") -> bool:
        return (kind.plural, namespace, name) in self.objects

    def remove(self, kind: Resource, name: str, namespace: str = "") -> None:
        del self.objects[kind.plural, namespace, name]

    def _check(self, verb: str) -> None:
        if verb in self.trouble:
            raise self.trouble[verb]

    async def get(self, kind: Resource, name: str, namespace: str | None = None) -> Json:
        self._check("get")
        self.reads.append((kind.plural, name))
        if not self.has(kind, name, namespace or ""):
            raise NotFound(f"{kind.kind} {name}")
        return copy.deepcopy(self.objects[kind.plural, namespace or "", name])

    async def list(self, kind: Resource, namespace: str | None = None, **_: Any) -> ListResult:
        self._check("list")
        found = [o for (plural, space, _), o in self.objects.items() if plural == kind.plural and space == namespace]
        return ListResult(copy.deepcopy(found), str(self._version))

    async def create(self, kind: Resource, obj: Json, namespace: str | None = None) -> Json:
        self._check("create")
        if self.has(kind, obj["metadata"]["name"], namespace or obj["metadata"].get("namespace") or ""):
            raise AlreadyExists(obj["metadata"]["name"])
        self.writes.append(("create", kind.plural, obj["metadata"]["name"]))
        return self.put(kind, obj)

    async def apply(self, kind: Resource, obj: Json, **_: Any) -> Json:
        self._check("apply")
        metadata = obj["metadata"]
        self.writes.append(("apply", kind.plural, metadata["name"]))
        current = self.objects.get((kind.plural, metadata.get("namespace") or "", metadata["name"]), {})
        return self.put(kind, {**current, **obj, "metadata": {**current.get("metadata", {}), **metadata}})

    async def patch(self, kind: Resource, name: str, patch: Any, namespace: str | None = None, **_: Any) -> Json:
        self._check("patch")
        current = await self.get(kind, name, namespace)
        self.writes.append(("patch", kind.plural, name))
        merged = {
            key: _merged(current.get(key, {}), value) if isinstance(value, dict) else value
            for key, value in patch.items()
        }
        return self.put(kind, {**current, **merged})

    async def update(self, kind: Resource, obj: Json, **_: Any) -> Json:
        self._check("update")
        self.writes.append(("update", kind.plural, obj["metadata"]["name"]))
        return self.put(kind, obj)

    async def delete(self, kind: Resource, name: str, namespace: str | None = None, **_: Any) -> bool:
        self._check("delete")
        self.writes.append(("delete", kind.plural, name))
        return self.objects.pop((kind.plural, namespace or "", name), None) is not None

    async def token(self, name: str, namespace: str, **_: Any) -> IssuedToken:
        self._check("token")
        return IssuedToken(self.issued.pop(0), datetime(2030, 1, 1, tzinfo=UTC))


def _merged(current: Json, patch: Json) -> Json:
    """A merge patch of one level: null deletes."""
    return {key: value for key, value in {**current, **patch}.items() if value is not None}


def mirror(server: Server, kind: Resource, *, synced: bool = True, trim: Any = None) -> Reflector:
    """A reflector that has seen what the server holds now (or, not synced, nothing)."""
    reflector = Reflector(server, kind)
    if synced:
        refresh(reflector, server, kind, trim)
        reflector.synced.set()
    return reflector


def refresh(reflector: Reflector, server: Server, kind: Resource, trim: Any = None) -> None:
    """Let it see what the server holds now."""
    reflector.store.clear()
    for (plural, namespace, name), obj in server.objects.items():
        if plural == kind.plural:
            seen = copy.deepcopy(obj)
            reflector.store[namespace, name] = trim(seen) if trim else seen
