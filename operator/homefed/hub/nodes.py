"""Virtual Nodes at the API server: made, repaired, kept Ready, withdrawn. A Node of anybody else's is never touched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from homefed.api import names
from homefed.api.errors import AlreadyExists, Conflict, NotFound
from homefed.api.guest_pod import TERMINAL
from homefed.core import liveness, pod_cidr, virtual_node
from homefed.core.virtual_node import VirtualNode
from homefed.kube.client import KubeClient
from homefed.kube.events import EventRecorder
from homefed.kube.queue import WorkQueue
from homefed.kube.reflector import Key
from homefed.kube.resources import GUESTPODS, LEASES, NODES, PODS
from homefed.kube.transport import Json

logger = logging.getLogger(__name__)
POLL_SECONDS: Final = 0.02
SEEN_SECONDS: Final = 2.0
ALLOCATOR_SECONDS: Final = pod_cidr.ALLOCATOR_PATIENCE.total_seconds() + 2
AGAIN_SECONDS: Final = 4.0
WITHHELD_AGAIN_SECONDS: Final = 15.0


def utc_now() -> datetime:
    return datetime.now(UTC)


class Nodes:
    """`store` is the reflector's copy of all Nodes of the hub, real ones too; `queue` takes names of virtual ones."""

    def __init__(
        self,
        client: KubeClient,
        store: Mapping[Key, Json],
        recorder: EventRecorder,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.queue: WorkQueue[str] = WorkQueue()
        self._client, self._store, self._recorder, self._clock = client, store, recorder, clock
        self._renewals: dict[str, liveness.Renewal] = {}
        self._started = clock()
        self._writing = asyncio.Lock()
        """Creations and deletions one at a time: each looks at the podCIDRs of all others."""

    def virtual(self) -> list[Json]:
        return [node for node in self._store.values() if virtual_node.is_virtual(node)]

    def on_lease(self, key: Key, old: Json | None, new: Json | None) -> None:
        """A Lease of a virtual node changed: remember whether it grew; wake the node where that makes it Ready."""
        name = key[1]
        if new is None:
            self._renewals.pop(name, None)
            return
        self._renewals[name] = liveness.observe(self._renewals.get(name), new, self._clock())
        node = self._store.get(("", name))
        if node is None or not virtual_node.is_ready(node):
            self.queue.add(name)

    def has_lease(self, name: str) -> bool:
        """Whether the Node's Lease was seen; creating one that is there does no harm."""
        return name in self._renewals

    async def ensure(self, wanted: VirtualNode, found: Json | None) -> str:
        """Create the Node, or repair the one that was read. Returns what stands in the way, or nothing."""
        if found is None:
            return await self._create(wanted)
        if not virtual_node.belongs_to(found, wanted.home_uid):
            return f"Node {wanted.name} exists and is not of this Home."
        if patch := virtual_node.repair(found, wanted):
            await self._client.patch(NODES, wanted.name, patch)
        if patch := virtual_node.repair_status(found, wanted):
            await self._client.patch(NODES, wanted.name, patch, subresource="status")
        return ""

    async def cordon(self, node: Json, reason: str) -> bool:
        """Make it unschedulable; whether that was still to be done."""
        patch = virtual_node.cordoned(node, reason)
        if patch is not None:
            await self._client.patch(NODES, node["metadata"]["name"], patch)
        return patch is not None

    async def withdraw(self, node: Json, mailbox: str) -> bool:
        """A machine is offered no more: cordon its Node, and delete it once nothing is on it. Whether it is gone.

        What is on it is asked of the API server, not of a copy; and not in the same pass as the cordon, as the
        scheduler may be about to bind a pod.
        """
        if await self.cordon(node, virtual_node.WITHDRAWN) or await self._occupied(node, mailbox):
            return False
        await self.delete(node)
        return True

    async def delete(self, node: Json) -> None:
        """Delete exactly this Node and its Lease, and have its address block occupied again by one that shares it."""
        name, uid = node["metadata"]["name"], node["metadata"]["uid"]
        async with self._writing:
            survivor = pod_cidr.survivor(node, self.virtual())
            if survivor is not None:
                await self._mark(survivor, pod_cidr.mark(pod_cidr.PENDING, uid, self._clock()))
            await self._client.delete(NODES, name, uid=uid)
            if survivor is not None:
                await self._mark(survivor, pod_cidr.mark(pod_cidr.ONCE, uid, self._clock()))
                self.queue.add_after(survivor, AGAIN_SECONDS)
        await self._client.delete(LEASES, name, names.NODE_LEASE_NAMESPACE)

    async def reconcile(self, name: str) -> float | None:
        """Ready when its Lease is renewed again; evictions that Kubernetes withholds; its address block."""
        node = self._store.get(("", name))
        if node is None or not virtual_node.is_virtual(node):
            return None
        now = self._clock()
        if patch := liveness.ready_again(node, self._renewals.get(name), now):
            await self._client.patch(NODES, name, patch, subresource="status", kind_of_patch="strategic")
            return None
        if (owed := await self._reoccupy(node, now)) is not None:
            return owed
        since = liveness.withheld_since(node)
        return None if since is None else await self._evict(node, since, now)

    async def _create(self, wanted: VirtualNode) -> str:
        async with self._writing:
            await self._until(lambda: not self._must_wait(), ALLOCATOR_SECONDS)
            cidrs = pod_cidr.for_new_node(self.virtual())
            try:
                await self._client.create(NODES, virtual_node.body(wanted, cidrs))
            except AlreadyExists:
                return await self._adopt(wanted)
            # So that the next creation counts this one.
            await self._until(lambda: ("", wanted.name) in self._store, SEEN_SECONDS)
        return ""

    async def _adopt(self, wanted: VirtualNode) -> str:
        """It is there though it was not found by its label: ours from a moment ago, or somebody else's."""
        found = await self._client.get(NODES, wanted.name)
        return "" if virtual_node.belongs_to(found, wanted.home_uid) else f"Node {wanted.name} is not of this Home."

    def _must_wait(self) -> bool:
        virtual = self.virtual()
        real = [node for node in self._store.values() if not virtual_node.is_virtual(node)]
        return pod_cidr.must_wait(virtual, real, self._clock())

    @staticmethod
    async def _until(true: Callable[[], bool], seconds: float) -> None:
        """Wait for what a watch will bring; bounded, as the watch may be broken."""
        for _ in range(int(seconds / POLL_SECONDS)):
            if true():
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _occupied(self, node: Json, mailbox: str) -> bool:
        name = node["metadata"]["name"]
        pods = await self._client.list(PODS, field_selector=f"spec.nodeName={name}")
        if any(virtual_node.blocks_deletion(pod) for pod in pods.items):
            return True
        guests = (await self._client.list(GUESTPODS, mailbox)).items
        here = [guest for guest in guests if guest["spec"]["nodeName"] == name]
        return any((guest.get("status") or {}).get("phase") not in TERMINAL for guest in here)

    async def _reoccupy(self, node: Json, now: datetime) -> float | None:
        """Write the update that a survivor owes; the seconds after which to look again while it owes one."""
        if not pod_cidr.owes(node):
            return None
        uids = {other["metadata"]["uid"] for other in self._store.values()}
        if (mark := pod_cidr.next_mark(node, uids, now)) is not None:
            await self._mark(node["metadata"]["name"], mark)
        return AGAIN_SECONDS

    async def _mark(self, name: str, annotations: dict[str, str]) -> None:
        try:
            await self._client.patch(NODES, name, {"metadata": {"annotations": annotations}})
        except NotFound:
            logger.info("node %s: gone before it could occupy its address block again", name)

    async def _evict(self, node: Json, since: datetime, now: datetime) -> float:
        """Only what this process itself has seen silent counts: after an outage of the hub nobody is to blame."""
        silent_since = max(since, self._last_sign(node["metadata"]["name"]))
        pods = await self._client.list(PODS, field_selector=f"spec.nodeName={node['metadata']['name']}")
        due, later = liveness.evictions(pods.items, silent_since, now)
        await self._delete_pods(due)
        until = (later - now) if later is not None else timedelta(seconds=WITHHELD_AGAIN_SECONDS)
        return max(0.1, min(until.total_seconds(), WITHHELD_AGAIN_SECONDS))

    def _last_sign(self, name: str) -> datetime:
        renewal = self._renewals.get(name)
        return max(self._started, renewal.seen_at) if renewal and renewal.seen_at else self._started

    async def _delete_pods(self, pods: Iterable[Json]) -> None:
        for pod in pods:
            metadata = pod["metadata"]
            try:
                await self._client.delete(PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
            except Conflict:
                continue  # another pod of that name by now
            message = "Its home has been silent for longer than the pod tolerates, and Kubernetes withholds evictions."
            await self._recorder.record({"apiVersion": "v1", "kind": "Pod", **pod}, "HomeSilent", message, "Warning")
