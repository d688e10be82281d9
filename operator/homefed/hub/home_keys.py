"""The homes' public keys for those who verify: ConfigMap `<release>-home-keys`, which the ledger mounts.

Home UID → raw Ed25519 public key in base64, as it is pinned in `Home.status.key`. A home that is removed, or whose key
is pinned anew, is believed by the ledger as the ConfigMap says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from homefed.api.errors import NotFound, Refused
from homefed.hub.config import Config
from homefed.kube.client import KubeClient
from homefed.kube.queue import WorkQueue
from homefed.kube.reflector import Key
from homefed.kube.resources import CONFIGMAPS
from homefed.kube.transport import Json

EVERYTHING: Final = "home-keys"
"""The one key of the queue."""


class HomeKeys:
    """Keeps the ConfigMap as the Homes are. Reads at each wake, writes only what differs."""

    def __init__(self, client: KubeClient, config: Config, homes: Mapping[Key, Json]) -> None:
        """`homes`: a store by (namespace, name) that was complete before the first `reconcile`."""
        self.queue: WorkQueue[str] = WorkQueue()
        self._client, self._config, self._homes = client, config, homes

    def wake(self) -> None:
        self.queue.add(EVERYTHING)

    async def reconcile(self, _key: str) -> None:
        """Refused where the ConfigMap is missing: the chart makes it, empty."""
        name, namespace = self._config.home_keys_config_map, self._config.namespace
        try:
            found = await self._client.get(CONFIGMAPS, name, namespace)
        except NotFound as error:
            message = f"ConfigMap {namespace}/{name} is missing: the chart makes it, empty; upgrade the release"
            raise Refused(message, reason="NoHomeKeys") from error
        before: Mapping[str, str] = found.get("data") or {}
        after = {home["metadata"]["uid"]: key for home in self._homes.values() if (key := public_key(home))}
        changes: dict[str, str | None] = {uid: key for uid, key in after.items() if before.get(uid) != key}
        changes |= dict.fromkeys(before.keys() - after.keys())
        if changes:
            await self._client.patch(CONFIGMAPS, name, {"data": changes}, namespace)


def public_key(home: Json | None) -> str | None:
    """The pinned key of a Home, base64; None before there is one."""
    key = (((home or {}).get("status") or {}).get("key") or {}).get("publicKey")
    return str(key) if key else None
