"""Guests at home: gather what is known of one, decide (core.home_lifecycle), act. One key per hub pod's UID."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

from homefed.agent.copies import Copies
from homefed.agent.identity import Connection
from homefed.agent.watching import trim_home_pod
from homefed.api import names
from homefed.api.errors import AlreadyExists, Forbidden, HomefedError, Invalid, NotFound
from homefed.api.guest_pod import GuestPodSpec
from homefed.api.meta import parse
from homefed.core import home_lifecycle, home_pod, home_status, quota
from homefed.core.home_admission import Host
from homefed.core.home_lifecycle import (
    Absence,
    Action,
    CopyObjects,
    CreatePod,
    DeletePod,
    DropObjects,
    Inputs,
    LookAgain,
    PutStatus,
)
from homefed.core.home_pod import Isolation
from homefed.kube.client import KubeClient
from homefed.kube.queue import WorkQueue, periodic, run_workers
from homefed.kube.reflector import Key, Reflector
from homefed.kube.resources import GUESTPODS, PODS

logger = logging.getLogger(__name__)

PASS_SECONDS: Final = 30.0
ORPHANS_SECONDS: Final = 600.0
CONCURRENCY: Final = 8
REFUSED_AGAIN_SECONDS: Final = 30.0

Json = dict[str, Any]
HostOf = Callable[[str, str], Host]
"""(offer name, machine id) → what this home says about them."""


class Guests:
    """The guests of this home. `pods` is the reflector of all pods, trimmed by `trim_home_pod`."""

    def __init__(
        self,
        home: KubeClient,
        connection: Connection,
        copies: Copies,
        pods: Reflector,
        host_of: HostOf,
        isolation: Callable[[str | None], Isolation],
        guests_namespace: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`isolation` gives the settings for a machine (None: unknown)."""
        self._home, self._connection, self._copies, self._pods = home, connection, copies, pods
        self._host_of, self._isolation, self._namespace = host_of, isolation, guests_namespace
        self._monotonic = monotonic
        self.queue: WorkQueue[str] = WorkQueue()
        self.mailbox: Reflector | None = None
        """Of GuestPods; None until the hub is known."""
        self.synced = asyncio.Event()
        """Set once the mailbox's GuestPods are known."""
        self._written: dict[str, Json] = {}
        """UID → the GuestPod as our last write of its status left it, while the reflector may be behind."""
        self._gone: dict[str, Json] = {}
        """UID → the home pod as it was last seen, until its end is reported."""
        self._absent: dict[str, datetime] = {}
        """UID → hub time of the first direct "not found"."""

    def pod_changed(self, key: Key, old: Json | None, new: Json | None) -> None:
        """A pod in the guests' namespace came, changed or went."""
        uid = key[1].removeprefix(names.NODE_PREFIX)
        if new is None and old is not None:
            self._gone[uid] = old
        self.queue.add(uid)

    def living(self) -> list[Json]:
        """Home pods of guests that have not ended."""
        return [pod for pod in self._guest_pods() if not pod["finished"]]

    def guest_of(self, uid: str) -> Json | None:
        """The GuestPod object as we know it: the newer of the reflector's and our own last write."""
        seen = self.mailbox.store.get((self._connection.mailbox, uid)) if self.mailbox is not None else None
        written = self._written.get(uid)
        if seen is None or written is None:
            return seen
        if _version(seen) >= _version(written):
            del self._written[uid]
            return seen
        return written

    def wake_all(self) -> None:
        """Contributions or machines have changed: every guest may be concerned."""
        for uid in self._keys():
            self.queue.add(uid)

    async def run(self) -> None:
        """Until cancelled; the caller has waited until the home's pods and contributions are known."""
        async with asyncio.TaskGroup() as group:
            group.create_task(run_workers(self.queue, self.reconcile, concurrency=CONCURRENCY, name="guest"))
            group.create_task(periodic(self.queue, self._keys, PASS_SECONDS))
            group.create_task(self._follow_hub(), name="mailbox")

    async def _follow_hub(self) -> None:
        await self._connection.opened.wait()
        self.mailbox = Reflector(
            self._connection.hub, GUESTPODS, self._connection.mailbox, on_change=lambda key, _o, _n: self._told(key)
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self.mailbox.run(), name="guestpods")
            for reflector in self._copies.follow(self._connection, self.queue.add):
                group.create_task(reflector.run())
            await self.mailbox.synced.wait()
            self.synced.set()
            self.wake_all()
            group.create_task(self._sweep_copies(self.mailbox))

    def _told(self, key: Key) -> None:
        self.queue.add(key[1])

    async def _sweep_copies(self, mailbox: Reflector) -> None:
        """Copies that a killed process left behind; only with a complete view of both sides."""
        while True:
            if self._connection.reachable and not mailbox.stale(self._monotonic()):
                try:
                    await self._copies.drop_orphans(self._needs_copies)
                except HomefedError as error:
                    logger.warning("copies: %s", error.message, extra={"reason": error.reason})
            await asyncio.sleep(ORPHANS_SECONDS)

    def _needs_copies(self, uid: str) -> bool:
        guest = self.guest_of(uid)
        return (self._pod(uid) is not None and guest is None) or (
            guest is not None and not home_status.is_terminal(guest.get("status"))
        )

    def _keys(self) -> Iterable[str]:
        known = {pod["metadata"]["name"].removeprefix(names.NODE_PREFIX) for pod in self._guest_pods()}
        if self.mailbox is not None:
            known |= {name for _, name in self.mailbox.store}
        return known

    def _guest_pods(self) -> list[Json]:
        return [
            pod
            for (namespace, _), pod in self._pods.store.items()
            if namespace == self._namespace and names.LABEL_GUEST in (pod["metadata"].get("labels") or {})
        ]

    def _pod(self, uid: str) -> Json | None:
        return self._pods.store.get((self._namespace, names.home_pod(uid)))

    async def reconcile(self, uid: str) -> float | None:
        """Bring one guest forward; returns the seconds after which to look again."""
        inputs = await self._gather(uid)
        actions = home_lifecycle.decide(inputs, self._connection.hub_now())
        again = await self._act(inputs, actions)
        self._forget(inputs)
        return again

    async def _gather(self, uid: str) -> Inputs:
        obj = self.guest_of(uid)
        guest = parse(GuestPodSpec, obj.get("spec"), where=f"GuestPod {uid} spec") if obj is not None else None
        status = (obj or {}).get("status")
        host = self._host_of(guest.offer_name, guest.machine_id) if guest is not None else Host(None)
        pod = self._pod(uid)
        if pod is None and guest is not None and not home_status.is_terminal(status):
            pod = await self._look_at_home(uid, status, guest)
        return Inputs(
            name=uid,
            guest=guest,
            status=status,
            generation=(obj or {"metadata": {}})["metadata"].get("generation", 0),
            pod=pod,
            last=self._gone.get(uid) if pod is None else None,
            host=host,
            isolation=self._isolation(host.machine),
            missing_copy=self._copies.missing(guest) if guest is not None else None,
            offset=self._connection.offset,
            # Without a pod nothing follows from it: a copy often arrives before its GuestPod.
            absence=await self._absence(uid) if guest is None and pod is not None else None,
            hub_silent_seconds=self._connection.silent_seconds,
        )

    async def _look_at_home(self, uid: str, status: Json | None, guest: GuestPodSpec) -> Json | None:
        """The home pod by a direct read, where its absence would mean an end: the reflector may be behind."""
        if not (status or {}).get("phase") and uid not in self._gone and guest.stop is None:
            return None
        try:
            found = await self._home.get(PODS, names.home_pod(uid), self._namespace)
        except NotFound:
            return None
        return trim_home_pod(found, self._namespace)

    async def _absence(self, uid: str) -> Absence | None:
        """What the hub says, asked directly, of a GuestPod that its list does not have. None: nothing is known."""
        mailbox = self.mailbox
        if mailbox is None or not mailbox.synced.is_set():
            return None
        try:
            await self._connection.hub.get(GUESTPODS, uid, self._connection.mailbox)
        except NotFound:
            since = self._absent.setdefault(uid, self._connection.hub_now())
        else:
            self._absent.pop(uid, None)
            return None
        living = {pod["metadata"]["name"].removeprefix(names.NODE_PREFIX) for pod in self.living()}
        absent = len(living & self._absent.keys())
        braked = home_lifecycle.brake(absent, len(living))
        if braked:
            logger.error("%d of %d guests are unknown to the hub: none is stopped for that", absent, len(living))
        return Absence(since, self._connection.hub_pass, braked)

    async def _act(self, inputs: Inputs, actions: list[Action]) -> float | None:
        """In order. A status that the hub does not take now must not keep the owner from getting his machine back."""
        unsaid: HomefedError | None = None
        again: float | None = None
        for action in actions:
            match action:
                case PutStatus(status):
                    try:
                        await self._put_status(inputs.name, status)
                    except HomefedError as error:
                        unsaid = error
                case LookAgain(seconds):
                    again = seconds
                case DeletePod():
                    await self._delete(inputs.name, action)
                case DropObjects() | CopyObjects() | CreatePod() if unsaid is None:
                    again = await self._change(inputs, action) or again
        if unsaid is not None:
            raise unsaid
        return again

    async def _change(self, inputs: Inputs, action: DropObjects | CopyObjects | CreatePod) -> float | None:
        guest = inputs.guest
        match action:
            case CreatePod(manifest):
                return await self._create(inputs, manifest)
            case CopyObjects() if guest is not None:
                await self._copies.bring(guest)
            case DropObjects() if guest is not None:
                await self._copies.drop(guest)
        return None

    async def _put_status(self, uid: str, status: Json) -> None:
        obj = {"metadata": {"name": uid, "namespace": self._connection.mailbox}, "status": status}
        written = await self._connection.hub.apply(
            GUESTPODS, obj, field_manager=names.AGENT_MANAGER, force=True, subresource="status"
        )
        written.get("metadata", {}).pop("managedFields", None)
        self._written[uid] = written

    async def _create(self, inputs: Inputs, manifest: Json) -> float | None:
        """At most once: under its deterministic name a second creation finds the first."""
        try:
            await self._home.create(PODS, manifest, self._namespace)
            logger.info("guest %s created", inputs.name)
        except AlreadyExists:
            return await self._adopt(inputs, manifest["metadata"]["name"])
        except (Forbidden, Invalid) as error:
            if quota.is_refusal(error.message):
                return await self._act(inputs, home_lifecycle.crowded_out(inputs, self._connection.hub_now()))
            # Pod Security, or an admission policy of the owner: his word, told to the consumer.
            return await self._tell(inputs, "RefusedAtHome", error.message)
        return None

    async def _adopt(self, inputs: Inputs, name: str) -> float | None:
        found = await self._home.get(PODS, name, self._namespace)
        if inputs.guest is not None and home_pod.is_ours(found, inputs.guest):
            return 1.0
        return await self._tell(inputs, "NameTaken", f"a pod that is not this guest's has the name {name} in the home")

    async def _tell(self, inputs: Inputs, reason: str, message: str) -> float:
        if inputs.guest is not None:
            view = home_status.View(
                guest=inputs.guest,
                previous=inputs.status,
                generation=inputs.generation,
                now=self._connection.hub_now(),
                offset=inputs.offset,
            )
            status = home_status.waiting(reason, message, view)
            if home_status.changed(inputs.status, status):
                await self._put_status(inputs.name, status)
        return REFUSED_AGAIN_SECONDS

    async def _delete(self, uid: str, action: DeletePod) -> None:
        logger.info("stopping guest %s: %s", uid, action.why)
        await self._home.delete(
            PODS, names.home_pod(uid), self._namespace, uid=action.uid, grace_seconds=action.grace_seconds
        )

    def _forget(self, inputs: Inputs) -> None:
        """Memory of guests whose end has been reported, or of which nothing is left."""
        obj = self.guest_of(inputs.name)
        ended = obj is not None and home_status.is_terminal(obj.get("status"))
        if ended or (obj is None and inputs.pod is None):
            self._gone.pop(inputs.name, None)
        if obj is None:
            self._written.pop(inputs.name, None)
            if inputs.pod is None:
                self._absent.pop(inputs.name, None)
                self._copies.forget(inputs.name)
        elif inputs.absence is None:
            self._absent.pop(inputs.name, None)


def _version(obj: Json) -> int:
    text = obj["metadata"].get("resourceVersion") or "0"
    return int(text) if text.isdecimal() else 0
