"""Guest pods: the hub operator as the kubelet of its virtual nodes.

Wiring (hub/app.py):

    guests = Guests(client, nodes=nodes.store, offers=offers.store, homes=homes.store,
                    namespaces=namespaces.store, recorder=EventRecorder(client, "homefed-hub"))
    Reflector(client, NODES, ..., on_change=guests.on_node)             # beside the app's own handlers
    Reflector(client, OFFERS, on_change=guests.on_offer)                # or a Mirror's
    Reflector(client, HOMES, on_change=guests.on_home)
    Reflector(client, NAMESPACES, on_change=guests.on_namespace)
    async with TaskGroup() as group:
        for copy in guests.copies: group.create_task(copy.run())        # Pods and GuestPods
        ...                                                             # all stores synced
        await guests.start(last_pass)                                   # learns what lies in the mailboxes
        group.create_task(guests.run())
        ...                                                      # every full pass adds guests.keys() to guests.queue

The stores are those of reflectors or mirrors: (namespace, name) → object, namespace "" for cluster kinds.
`guests.guest_pods` is the store of GuestPods (spec.pod trimmed), for settlement and membership to read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from homefed.api import names
from homefed.api.errors import Invalid, NotFound
from homefed.api.guest_pod import Copy
from homefed.core import guest_lifecycle, guest_status, pod_translation, refusals, virtual_node
from homefed.core.guest_lifecycle import Inputs
from homefed.core.observation import BLIND_AFTER, Blind
from homefed.core.placement import Accept, Pending, find_site, place
from homefed.hub.copies import Copies
from homefed.hub.guest_actions import GuestActions
from homefed.hub.guest_views import Allocations, View, is_hosted, trim_guest, trim_pod
from homefed.kube.client import KubeClient
from homefed.kube.events import EventRecorder
from homefed.kube.queue import WorkQueue, run_workers
from homefed.kube.reflector import Key, Reflector
from homefed.kube.resources import GUESTPODS, PODS
from homefed.kube.transport import Json

SIGHT_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Settings:
    retention: timedelta = guest_lifecycle.RETENTION
    """How long a settled GuestPod is kept."""
    concurrency: int = 8


def utc_now() -> datetime:
    return datetime.now(UTC)


class Guests:
    """One key per pod UID. See the module for the wiring."""

    def __init__(
        self,
        client: KubeClient,
        *,
        nodes: Mapping[Key, Json],
        offers: Mapping[Key, Json],
        homes: Mapping[Key, Json],
        namespaces: Mapping[Key, Json],
        recorder: EventRecorder,
        settings: Settings | None = None,
        clock: Callable[[], datetime] = utc_now,
        over_budget: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        """`over_budget`: why no further pod of a namespace is run; None where it may."""
        self._over_budget = over_budget
        self.queue: WorkQueue[str] = WorkQueue()
        self._client, self._clock, self._settings = client, clock, settings or Settings()
        self._nodes, self._offers, self._homes, self._namespaces = nodes, offers, homes, namespaces
        self._pod_copy = Reflector(
            client, PODS, field_selector="spec.nodeName!=", on_change=self._on_pod, trim=trim_pod
        )
        self._guest_copy = Reflector(client, GUESTPODS, on_change=self._on_guest, trim=trim_guest)
        self._pods, self._guests = View(self._pod_copy.store), View(self._guest_copy.store)
        self._allocations = Allocations()
        self._objects = Copies(client)
        self._actions = GuestActions(
            client,
            self._objects,
            recorder,
            pod_written=lambda uid, obj: self._pods.wrote(uid, trim_pod(obj)),
            guest_written=lambda uid, obj: self._guests.wrote(uid, trim_guest(obj)),
            guest_created=lambda uid, obj: self._guests.wrote(uid, trim_guest(obj), created=True),
            clock=clock,
        )
        self._blind: Blind | None = None
        self._blind_since: datetime | None = None
        """Since when the API server shows us nothing; None while it does."""

    @property
    def copies(self) -> list[Reflector]:
        """Of Pods and GuestPods: the caller runs them."""
        return [self._pod_copy, self._guest_copy]

    @property
    def guest_pods(self) -> Mapping[Key, Json]:
        return self._guest_copy.store

    async def start(self, last_pass: datetime | None) -> None:
        """Wait for both lists, then learn which copies lie in the mailboxes: those of no guest will be dropped.

        `last_pass`: when an operator before this one was last seen at work; since then nobody has observed guests.
        """
        self._blind = Blind(last_pass, self._clock()) if last_pass is not None else None
        await asyncio.gather(*(copy.synced.wait() for copy in self.copies))
        for mailbox in sorted({key[0] for key in self._guest_copy.store}):
            for uid in await self._objects.load(mailbox):
                self.queue.add(uid)

    async def run(self) -> None:
        """Until cancelled. The caller's full pass adds `keys` to the queue every minute."""
        async with asyncio.TaskGroup() as group:
            concurrency = self._settings.concurrency
            group.create_task(run_workers(self.queue, self.reconcile, concurrency=concurrency, name="guest"))
            group.create_task(self._keep_sight())

    def keys(self) -> set[str]:
        """Every pod UID there is something to look at."""
        return {*self._pods.uids(), *self._guests.uids()}

    def is_observed(self, guest: Json, now: datetime) -> bool:
        """Whether a GuestPod, just read, holds all that is known here: what does not must not be settled yet."""
        loop = asyncio.get_running_loop()
        in_sight = not any(copy.stale(loop.time(), BLIND_AFTER.total_seconds()) for copy in self.copies)
        return in_sight and self._blind_since is None and guest_lifecycle.is_observed(guest, self._blind, now)

    async def reconcile(self, uid: str) -> float | None:
        """Bring one pod UID forward; the seconds after which to look again."""
        inputs = await self._gather(uid)
        if inputs is None:
            return None
        try:
            actions = guest_lifecycle.decide(inputs, self._clock())
            return await self._actions.act(inputs, actions)
        except NotFound:
            self._pods.forget_writes(uid)
            self._guests.forget_writes(uid)
            raise
        finally:
            self._tidy(inputs)

    def on_node(self, key: Key, old: Json | None, new: Json | None) -> None:
        """A virtual node became Ready or Unknown, or offers something else."""
        if key[1].startswith(names.NODE_PREFIX) and _as_site(old) != _as_site(new):
            for uid in self.keys():
                if self._node_name(uid) == key[1]:
                    self.queue.add(uid)

    def on_offer(self, key: Key, old: Json | None, new: Json | None) -> None:
        if old is None or new is None or old["spec"] != new["spec"]:
            self._look_at_refused()

    def on_home(self, key: Key, old: Json | None, new: Json | None) -> None:
        if old is None or new is None or old.get("spec") != new.get("spec"):
            self._look_at_refused()

    def on_namespace(self, key: Key, old: Json | None, new: Json | None) -> None:
        if _labels(old) != _labels(new):
            self._look_at_refused(namespace=key[1])

    def on_budget(self, namespace: str) -> None:
        """A budget of the namespace is exhausted, or is not any more."""
        self._look_at_refused(namespace=namespace)

    def _on_pod(self, key: Key, old: Json | None, new: Json | None) -> None:
        for pod in (old, new):
            if pod is None or not is_hosted(pod):
                continue
            uid = pod["metadata"]["uid"]
            gone = new is None or new["metadata"]["uid"] != uid
            self._pods.changed(uid, key, gone=gone)
            self.queue.add(uid)

    def _on_guest(self, key: Key, old: Json | None, new: Json | None) -> None:
        guest = new or old
        if guest is None:
            return
        self._guests.changed(key[1], key, gone=new is None)
        if self._allocations.follow(guest, gone=new is None):
            self._look_at_refused(node=guest["spec"]["nodeName"])
        self.queue.add(key[1])

    def _look_at_refused(self, *, namespace: str | None = None, node: str | None = None) -> None:
        """Pods that wait without a GuestPod: what stood in their way may be gone."""
        for uid in self._pods.uids():
            pod = self._pods.get(uid)
            if pod is None or uid in self._guests or not is_hosted(pod):
                continue
            if namespace in (None, pod["metadata"]["namespace"]) and node in (None, pod["spec"]["nodeName"]):
                self.queue.add(uid)

    def _node_name(self, uid: str) -> str | None:
        pod, guest = self._pods.get(uid), self._guests.get(uid)
        spec = (guest or pod or {}).get("spec") or {}
        return spec.get("nodeName")

    async def _gather(self, uid: str) -> Inputs | None:
        """All that is known of one UID; None where it is not ours: a real node may have a name like ours."""
        pod, guest = self._pods.get(uid), self._guests.get(uid)
        if pod is None and guest is not None and not guest_lifecycle.has_ended(guest):
            pod = await self._look_for_pod(uid, guest)
        node = self._nodes.get(("", self._node_name(uid) or ""))
        if guest is None and pod is not None and (node is None or not virtual_node.is_virtual(node)):
            return None
        inputs = Inputs(
            uid=uid,
            pod=pod,
            guest=guest,
            node=node,
            refused_since=self._actions.refused_since.get(uid),
            rounds=self._actions.rounds.get(refusals.controller_uid(pod)) if pod is not None else None,
            blind=self._blind,
            retention=self._settings.retention,
        )
        if guest is not None:
            inputs = await self._with_guest(inputs, pod, guest)
        elif pod is not None and node is not None:
            inputs = await self._with_verdict(inputs, pod, node)
        return replace(inputs, copied=self._objects.of(uid))

    async def _look_for_pod(self, uid: str, guest: Json) -> Json | None:
        """A direct read: that a list does not show the pod does not prove that it is gone."""
        if guest["spec"].get("stop") and guest["spec"]["observed"].get("endedAt"):
            return None
        try:
            pod = await self._client.get(PODS, guest["spec"]["podName"], guest["spec"]["podNamespace"])
        except NotFound:
            return None
        return pod if pod["metadata"]["uid"] == uid else None

    async def _with_guest(self, inputs: Inputs, pod: Json | None, guest: Json) -> Inputs:
        await self._load(guest["metadata"]["namespace"])
        inputs = replace(inputs, patience=self._patience(guest))
        if pod is None or guest_lifecycle.has_ended(guest) or not guest["spec"].get("copies"):
            return inputs
        copies = [Copy.model_validate(copy) for copy in guest["spec"]["copies"]]
        return replace(inputs, sources=await self._objects.sources(pod["metadata"]["namespace"], copies))

    def _patience(self, guest: Json) -> timedelta:
        """The pool's pendingTimeoutSeconds, as the guest's offer was told of it."""
        offer = self._offers.get((guest["metadata"]["namespace"], guest["spec"]["offerName"])) or {}
        seconds = (offer.get("status") or {}).get("pendingTimeoutSeconds")
        return timedelta(seconds=seconds) if seconds else guest_lifecycle.PATIENCE

    async def _with_verdict(self, inputs: Inputs, pod: Json, node: Json) -> Inputs:
        """What placement says; an accepted pod's requests are reserved at once, before anything is awaited."""
        if guest_lifecycle.is_terminating(pod) or guest_status.is_over(pod):
            return inputs
        name, uid = node["metadata"]["name"], inputs.uid
        mailbox = names.mailbox(_labels(node).get(names.LABEL_HOME, ""))
        offers = [offer for key, offer in self._offers.items() if key[0] == mailbox]
        site = find_site(node, offers, self._homes, self._allocations.of_others(name, uid))
        namespace = self._namespaces.get(("", pod["metadata"]["namespace"]))
        verdict = place(pod, namespace, site)
        if isinstance(verdict, Accept) and (why := self._over_budget(pod["metadata"]["namespace"])) is not None:
            verdict = Pending(refusals.BUDGET_EXHAUSTED, why)
        if not isinstance(verdict, Accept) or namespace is None:
            return replace(inputs, verdict=verdict, site=site)
        self._allocations.reserve(name, uid, verdict.requests)
        try:
            named = pod_translation.named_objects(pod)
        except Invalid as error:
            return replace(inputs, verdict=Pending(error.reason, error.message), site=site)
        await self._load(mailbox)
        sources = await self._objects.sources(pod["metadata"]["namespace"], named)
        namespace_uid = namespace["metadata"]["uid"]
        return replace(inputs, verdict=verdict, site=site, namespace_uid=namespace_uid, sources=sources)

    async def _load(self, mailbox: str) -> None:
        for orphan in await self._objects.load(mailbox):
            self.queue.add(orphan)

    def _tidy(self, inputs: Inputs) -> None:
        """A reservation without a GuestPod ends here; of what is gone on both sides nothing is remembered."""
        uid = inputs.uid
        if uid in self._guests:
            return
        node = self._node_name(uid) or (inputs.pod or {}).get("spec", {}).get("nodeName")
        if node:
            self._allocations.free(node, uid)
        if uid not in self._pods:
            self._actions.forget(uid)

    async def _keep_sight(self) -> None:
        """Time in which the API server showed us nothing is an interval of every guest, as after a restart."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SIGHT_SECONDS)
            if any(copy.stale(loop.time(), BLIND_AFTER.total_seconds()) for copy in self.copies):
                self._blind_since = self._blind_since or self._clock() - BLIND_AFTER
            elif self._blind_since is not None:
                self._blind = Blind(self._blind_since - timedelta(seconds=1), self._clock())
                self._blind_since = None
                for uid in self._guests.uids():
                    self.queue.add(uid)


def _labels(obj: Json | None) -> dict[str, str]:
    return (obj or {}).get("metadata", {}).get("labels") or {}


def _as_site(node: Json | None) -> object:
    """What of a node decides over guests."""
    status = (node or {}).get("status") or {}
    ready = [
        (c.get("status"), c.get("lastTransitionTime")) for c in status.get("conditions") or () if c["type"] == "Ready"
    ]
    return _labels(node), ready, status.get("allocatable")
