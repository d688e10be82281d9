"""SchedulingPools: their RuntimeClass, their quota at Kueue, and their status as the sum over their virtual nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from homefed.api import meta, names
from homefed.api.errors import AlreadyExists, HomefedError, Invalid, NotFound
from homefed.api.quantities import Quantities
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import kueue
from homefed.core import pool as pools
from homefed.core.compare import same
from homefed.core.findings import Finding
from homefed.hub.nodes import Nodes, utc_now
from homefed.kube.client import KubeClient
from homefed.kube.queue import WorkQueue
from homefed.kube.reflector import Key
from homefed.kube.resources import CLUSTERQUEUES, RUNTIMECLASSES, SCHEDULINGPOOLS
from homefed.kube.transport import Json


class Pools:
    """Reconciles one pool at a time by its name. A pool has no finalizer: without it its offers are just refused."""

    def __init__(
        self,
        client: KubeClient,
        nodes: Nodes,
        store: Mapping[Key, Json],
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.queue: WorkQueue[str] = WorkQueue()
        self._client, self._nodes, self._store, self._clock = client, nodes, store, clock

    async def reconcile(self, name: str) -> float | None:
        pool = self._store.get(("", name))
        if pool is None or "deletionTimestamp" in pool["metadata"]:
            await self._retire(name)
            return None
        try:
            spec = meta.parse(SchedulingPoolSpec, pool.get("spec"), where="spec")
        except Invalid as error:
            await self._write(pool, pools.refused(pool, error, self._clock()))
            return None
        problem, members = await self._runtime_class(name), self._members(name)
        queue, unwritten = await self._queue(pool, spec, pools.capacity(members))
        await self._write(pool, pools.status(pool, spec, members, problem, self._clock(), queue))
        if unwritten is not None:
            raise unwritten
        return None

    async def _queue(
        self, pool: Json, spec: SchedulingPoolSpec, capacity: Quantities
    ) -> tuple[Finding | None, HomefedError | None]:
        """Bring the pool's capacity to its ClusterQueue. How that stands, and an error after which to try again."""
        reference, metadata = spec.cluster_queue, pool["metadata"]
        if reference is None:
            return None, None
        taken = kueue.claimed(metadata["name"], metadata["creationTimestamp"], reference, self._store.values())
        if taken is not None:
            return taken, None
        try:
            queue = await self._client.get(CLUSTERQUEUES, reference.name)
            if (patch := kueue.patch(queue, reference.flavor, capacity)) is not None:
                queue = await self._client.patch(CLUSTERQUEUES, reference.name, patch)
            return kueue.written(queue, reference, capacity), None
        except HomefedError as error:
            found = kueue.trouble(error, reference)
            return found, error if found is None else None

    def _members(self, name: str) -> list[Json]:
        return [node for node in self._nodes.virtual() if node["metadata"]["labels"].get(names.LABEL_POOL) == name]

    async def _runtime_class(self, pool: str) -> str:
        """Make it or mend it; a sentence where its name is somebody else's."""
        wanted = pools.runtime_class(pool)
        name = wanted["metadata"]["name"]
        try:
            found = await self._client.get(RUNTIMECLASSES, name)
        except NotFound:
            try:
                await self._client.create(RUNTIMECLASSES, wanted)
                return ""
            except AlreadyExists:
                found = await self._client.get(RUNTIMECLASSES, name)
        if not pools.is_ours(found, pool):
            return f"RuntimeClass {name} exists and was not made for this pool: delete it or rename the pool."
        if pools.differs(found, wanted):
            await self._client.apply(RUNTIMECLASSES, wanted, field_manager=names.HUB_MANAGER, force=True)
        return ""

    async def _retire(self, pool: str) -> None:
        """The pool is gone: its RuntimeClass goes when no virtual node is left, so that what runs can be re-created."""
        if self._members(pool):
            return
        try:
            found = await self._client.get(RUNTIMECLASSES, names.runtime_class(pool))
        except NotFound:
            return
        if pools.is_ours(found, pool):
            await self._client.delete(RUNTIMECLASSES, found["metadata"]["name"], uid=found["metadata"]["uid"])

    async def _write(self, pool: Json, status: Json) -> None:
        if same(pool.get("status") or {}, status):
            return
        body = {"metadata": {"name": pool["metadata"]["name"], "uid": pool["metadata"]["uid"]}, "status": status}
        manager = names.HUB_MANAGER
        await self._client.apply(SCHEDULINGPOOLS, body, field_manager=manager, force=True, subresource="status")
