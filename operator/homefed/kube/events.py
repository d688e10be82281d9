"""Kubernetes Events for people: one object per (involved object, reason, message), rarely written again."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal

from homefed.api.errors import AlreadyExists, HomefedError, NotFound
from homefed.kube.client import KubeClient
from homefed.kube.resources import EVENTS
from homefed.kube.transport import Json

logger = logging.getLogger(__name__)
REPEAT_SECONDS: Final = 300.0
MAX_REMEMBERED: Final = 4096
MAX_MESSAGE: Final = 1024


class EventRecorder:
    """Records events of one component. A repeated one costs at most one write in five minutes.

    Failures are logged, never raised: an event is a service to the reader, not part of the work.
    """

    def __init__(
        self, client: KubeClient, component: str, *, instance: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`component` is shown as the source, e.g. homefed-hub; `instance` names the process."""
        self._client, self._component, self._instance, self._clock = client, component, instance, clock
        self._remembered: OrderedDict[str, _Repeated] = OrderedDict()

    async def record(
        self, involved: Json, reason: str, message: str, type_: Literal["Normal", "Warning"] = "Normal"
    ) -> None:
        """`involved`: an object with apiVersion, kind and metadata. `reason` is CamelCase, `message` one sentence."""
        event = self._event(involved, reason, message[:MAX_MESSAGE], type_)
        name, namespace = event["metadata"]["name"], event["metadata"]["namespace"]
        seen = self._remember(name)
        seen.count += 1
        if seen.written_at is not None and self._clock() - seen.written_at < REPEAT_SECONDS:
            return
        seen.written_at = self._clock()
        try:
            await self._write(event, name, namespace, seen.count)
        except HomefedError as error:
            logger.warning("event %s for %s/%s: %s", reason, namespace, name, error.message)

    async def _write(self, event: Json, name: str, namespace: str, count: int) -> None:
        """Create it, or, where it is there already, count on; an event that expired meanwhile is created anew."""
        repeated = {"count": count, "lastTimestamp": event["lastTimestamp"]}
        if count > 1:
            try:
                await self._client.patch(EVENTS, name, repeated, namespace)
            except NotFound:
                await self._client.create(EVENTS, event | {"count": count})
            return
        try:
            await self._client.create(EVENTS, event)
        except AlreadyExists:  # from before a restart of this process: keep its count
            await self._client.patch(EVENTS, name, {"lastTimestamp": event["lastTimestamp"]}, namespace)

    def _event(self, involved: Json, reason: str, message: str, type_: str) -> Json:
        metadata = involved["metadata"]
        namespace = metadata.get("namespace") or "default"
        digest = hashlib.sha256(f"{metadata.get('uid', '')}\n{reason}\n{message}".encode()).hexdigest()[:16]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "metadata": {"name": f"{metadata['name'][:200].rstrip('.-')}.{digest}", "namespace": namespace},
            "involvedObject": _reference(involved),
            "reason": reason,
            "message": message,
            "type": type_,
            "source": {"component": self._component, "host": self._instance},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }

    def _remember(self, name: str) -> _Repeated:
        seen = self._remembered.setdefault(name, _Repeated())
        self._remembered.move_to_end(name)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return seen


class _Repeated:
    """How often one event happened in this process, and when it was last written (monotonic seconds)."""

    def __init__(self) -> None:
        self.count = 0
        self.written_at: float | None = None


def _reference(involved: Json) -> Json:
    metadata = involved["metadata"]
    reference = {"apiVersion": involved.get("apiVersion"), "kind": involved.get("kind")}
    reference |= {key: metadata.get(key) for key in ("name", "namespace", "uid", "resourceVersion")}
    return {key: value for key, value in reference.items() if value}
