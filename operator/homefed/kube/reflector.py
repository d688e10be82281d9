"""A local copy of one kind of object, kept by list and watch.

What was once seen is forgotten only when the server says so: by a DELETED event, or by a complete later list that
lacks it. A failed list changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from homefed.api.errors import Gone, HomefedError, Transient
from homefed.kube.client import WATCH_SECONDS, EventType, KubeClient, ListResult, Trim
from homefed.kube.queue import Backoff
from homefed.kube.resources import Resource
from homefed.kube.transport import Json

logger = logging.getLogger(__name__)
Key = tuple[str, str]
"""(namespace, name); the namespace is "" for kinds without one."""
OnChange = Callable[[Key, Json | None, Json | None], None]
"""(key, old, new): old is None for a new object, new is None for a deleted one. Must not block."""
STALE_SECONDS: Final = 180.0
STEADY_SECONDS: Final = 5.0
RELIST_AFTER: Final = 5
"""Failures in a row after which the version is not trusted: a server restored from a backup does not say so."""


def key_of(obj: Json) -> Key:
    """(namespace, name) of an object; Transient where a server's answer has none."""
    metadata = obj.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("name"), str):
        return metadata.get("namespace") or "", metadata["name"]
    raise Transient("an object without a name", reason="MalformedAnswer")


def drop_managed_fields(obj: Json) -> Json:
    """The default trim: managedFields are half of many objects and nobody here reads them."""
    obj.get("metadata", {}).pop("managedFields", None)
    return obj


class Reflector:
    """`store` mirrors the server's objects; `on_change` hears of every difference.

    An object deleted and created anew under its name between two lists is reported as one change (compare UIDs).
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        on_change: OnChange | None = None,
        trim: Trim = drop_managed_fields,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        backoff: Backoff[str] | None = None,
        server_seconds: float = WATCH_SECONDS,
    ) -> None:
        """`namespace` None: all namespaces. `clock` gives monotonic seconds; `server_seconds` is a watch's length."""
        self.store: dict[Key, Json] = {}
        """Read only. Objects are shared: copy before changing one."""
        self.synced = asyncio.Event()
        """Set once the first complete list has arrived."""
        self.last_seen: float | None = None
        """Monotonic seconds of the last sign of life of the list or watch."""
        self.resource_version: str | None = None
        self._client, self._resource, self._namespace = client, resource, namespace
        self._label_selector, self._field_selector = label_selector, field_selector
        self._on_change, self._trim, self._clock = on_change, trim, clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._backoff = backoff or Backoff(base=0.2, cap=15.0, rng=self._rng)
        self._server_seconds = server_seconds
        self._trouble = ""

    async def run(self) -> None:
        """List and watch until cancelled. Failures are logged and tried again, ever more slowly."""
        failures = 0
        while True:
            started = self._clock()
            try:
                await self._follow()
                failures = 0
            except HomefedError as error:
                failures += 1
                self._tell(error)
                if isinstance(error, Gone) or failures % RELIST_AFTER == 0:
                    self.resource_version = None
                wait = error.retry_after if isinstance(error, Transient) else None
            else:
                wait = None
            if self._clock() - started > STEADY_SECONDS:
                self._progressed()
            # Also after an orderly end: a server that ends every watch at once must not be asked in a loop.
            await asyncio.sleep(self._backoff.failed("", wait))

    def stale(self, now: float, after_seconds: float = STALE_SECONDS) -> bool:
        """Whether the copy may be behind: never listed, or no sign of life for `after_seconds`."""
        return self.last_seen is None or now - self.last_seen > after_seconds

    async def _follow(self) -> None:
        """One list, where none is valid, and one watch to its end."""
        if self.resource_version is None:
            self._replace(await self._list())
        await self._watch(self.resource_version or "")
        self.last_seen = self._clock()

    async def _list(self) -> ListResult:
        return await self._client.list(
            self._resource,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            trim=self._checked,
        )

    def _replace(self, listed: ListResult) -> None:
        """Make the store equal to a complete list, telling every difference, deletions too."""
        found = {key_of(obj): obj for obj in listed.items}
        for key in [key for key in self.store if key not in found]:
            self._forget(key)
        for key, obj in found.items():
            self._put(key, obj)
        self.resource_version = listed.resource_version
        self.last_seen = self._clock()
        self.synced.set()

    async def _watch(self, resource_version: str) -> None:
        events = self._client.watch(
            self._resource,
            self._namespace,
            resource_version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            server_seconds=self._server_seconds * self._rng.uniform(0.8, 1.0),
        )
        async with aclosing(events):
            async for type_, obj in events:
                self._take(type_, obj)

    def _take(self, type_: EventType, obj: Json) -> None:
        if type_ == "DELETED":
            self._forget(key_of(obj))
        elif type_ != "BOOKMARK":
            self._put(key_of(obj), self._checked(obj))
        version = obj.get("metadata", {}).get("resourceVersion")
        if isinstance(version, str) and version:
            self.resource_version = version
        self.last_seen = self._clock()
        self._progressed()

    def _checked(self, obj: Json) -> Json:
        key_of(obj)
        return self._trim(obj)

    def _put(self, key: Key, obj: Json) -> None:
        old = self.store.get(key)
        if old is not None and _version(old) == _version(obj):
            return
        self.store[key] = obj
        self._tell_change(key, old, obj)

    def _forget(self, key: Key) -> None:
        if (old := self.store.pop(key, None)) is not None:
            self._tell_change(key, old, None)

    def _tell_change(self, key: Key, old: Json | None, new: Json | None) -> None:
        if self._on_change is not None:
            self._on_change(key, old, new)

    def _progressed(self) -> None:
        self._backoff.succeeded("")
        if self._trouble:
            logger.info("%s: following again", self._resource.plural)
            self._trouble = ""

    def _tell(self, error: HomefedError) -> None:
        """Each trouble once, not at every attempt."""
        level = logging.DEBUG if isinstance(error, Gone) or error.message == self._trouble else logging.WARNING
        logger.log(level, "%s: %s", self._resource.plural, error.message, extra={"reason": error.reason})
        if not isinstance(error, Gone):
            self._trouble = error.message


def _version(obj: Json) -> tuple[str | None, str | None]:
    return obj["metadata"].get("uid"), obj["metadata"].get("resourceVersion")
