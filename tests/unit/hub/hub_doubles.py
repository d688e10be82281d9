"""ConfigMaps in memory, for what the hub publishes."""

from __future__ import annotations

from typing import Any

from homefed.api.errors import NotFound
from homefed.kube.client import KubeClient
from homefed.kube.resources import Resource

Json = dict[str, Any]


class Cluster(KubeClient):
    """`config_maps`: name → data; `writes` counts patches."""

    def __init__(self, config_maps: dict[str, dict[str, str]]) -> None:
        self.config_maps = config_maps
        self.writes = 0

    async def get(self, kind: Resource, name: str, namespace: str | None = None) -> Json:
        if name not in self.config_maps:
            raise NotFound(name)
        return {"data": dict(self.config_maps[name])}

    async def patch(self, kind: Resource, name: str, patch: Any, namespace: str | None = None, **_: Any) -> Json:
        self.writes += 1
        merged = {**self.config_maps[name], **patch["data"]}
        self.config_maps[name] = {key: value for key, value in merged.items() if value is not None}
        return {"data": self.config_maps[name]}
