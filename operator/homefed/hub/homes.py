"""Homes: from one object of the organiser's to everything that a member needs, and all of it away again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from homefed.api import meta, names
from homefed.api.errors import Conflict, Invalid, NotFound
from homefed.api.guest_pod import TERMINAL
from homefed.api.home import PinnedKey
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.api.settlement_terms import Settlement
from homefed.core import conditions, leaving, membership
from homefed.core.compare import same
from homefed.core.membership import Member, Verdict
from homefed.core.times import from_rfc3339
from homefed.core.virtual_node import WITHDRAWN
from homefed.hub.mailbox import Mailboxes
from homefed.hub.nodes import Nodes, utc_now
from homefed.hub.offers import Membership, Offers
from homefed.kube.client import KubeClient
from homefed.kube.events import EventRecorder
from homefed.kube.queue import WorkQueue
from homefed.kube.reflector import Key
from homefed.kube.resources import GUESTPODS, HOMES, REWARDCLAIMS
from homefed.kube.transport import Json

LEAVING_AGAIN_SECONDS: Final = 2.0
TAKEN_AGAIN_SECONDS: Final = 15.0


class Homes:
    """Reconciles one Home at a time by its name: mailbox, key, Offers, Nodes, status; and its departure."""

    def __init__(
        self,
        client: KubeClient,
        mailboxes: Mailboxes,
        offers: Offers,
        nodes: Nodes,
        recorder: EventRecorder,
        *,
        pools: Mapping[Key, Json],
        guest_pods: Mapping[Key, Json],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """`pools` and `guest_pods` are stores by (namespace, name)."""
        self.queue: WorkQueue[str] = WorkQueue()
        self._client, self._mailboxes, self._offers, self._nodes = client, mailboxes, offers, nodes
        self._recorder, self._pools, self._guest_pods, self._clock = recorder, pools, guest_pods, clock

    async def reconcile(self, name: str) -> float | None:
        """Brings everything of this Home to what its spec and its Offers say. Errors are those of the API."""
        try:
            home = await self._client.get(HOMES, name)
        except NotFound:
            return None
        try:
            who = membership.member(home)
        except Invalid as error:
            await self._refuse(home, error)
            return None
        if who.deleting:
            return await self._leave(home, who)
        await self._hold_finalizer(home)
        mailbox = await self._mailboxes.ensure(who)
        if not mailbox.holds:
            await self._write_status(home, who, mailbox, None, None)
            return TAKEN_AGAIN_SECONDS
        key = membership.pinned_key(who, map(membership.offered, self._offers.of_home(who)), self._clock())
        if key != who.key:  # before anything is accepted under it
            home = await self._pin(home, key)
            await self._tell_rotated(home, who, key)
        found = await self._offers.reconcile(who, key, self._clock())
        await self._write_status(home, who, mailbox, key, found)
        return found.again

    async def _hold_finalizer(self, home: Json) -> None:
        finalizers = home["metadata"].get("finalizers") or []
        if names.FINALIZER_HOME not in finalizers:
            await self._set_finalizers(home, [*finalizers, names.FINALIZER_HOME])

    async def _set_finalizers(self, home: Json, finalizers: list[str]) -> None:
        metadata = home["metadata"]
        patch = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}}
        await self._client.patch(HOMES, metadata["name"], patch)

    async def _pin(self, home: Json, key: PinnedKey | None) -> Json:
        status = _own_status(home) | ({"key": key.dump()} if key is not None else {})
        return await self._apply_status(home, status)

    async def _tell_rotated(self, home: Json, who: Member, key: PinnedKey | None) -> None:
        former = key.former[0] if key is not None and key.former else None
        if key is not None and former is not None and who.key is not None and former.fingerprint == who.key.fingerprint:
            await self._recorder.record(home, "KeyRotated", membership.rotated(key, former))

    async def _refuse(self, home: Json, error: Invalid) -> None:
        before = _own_status(home)["conditions"]
        generation = home["metadata"].get("generation", 0)
        after = conditions.set_condition(
            before, conditions.READY, conditions.FALSE, error.reason, error.message, generation, self._clock()
        )
        if after != before:
            await self._apply_status(home, {**_own_status(home), "conditions": after})

    async def _write_status(
        self, home: Json, who: Member, mailbox: Verdict, key: PinnedKey | None, found: Membership | None
    ) -> None:
        machines, ready = (len(found.nodes), found.ready) if found is not None else (0, 0)
        offers = found.offers if found is not None else []
        before = _own_status(home)
        after: Json = {
            "observedGeneration": who.generation,
            "machines": machines,
            "guests": self._guests(who),
            "conditions": membership.home_conditions(
                before.get("conditions"),
                who,
                mailbox,
                membership.key_verdict(who, key, offers, self._clock()),
                membership.online_verdict(machines, ready),
                self._clock(),
            ),
        }
        after |= {"mailbox": who.mailbox} if mailbox.holds else {}
        after |= {"key": (key or who.key).dump()} if key or who.key else {}  # type: ignore[union-attr]
        if not same(before, after):
            await self._apply_status(home, after)

    def _guests(self, who: Member) -> int:
        phases = [
            (guest.get("status") or {}).get("phase")
            for (namespace, _), guest in self._guest_pods.items()
            if namespace == who.mailbox
        ]
        return sum(phase not in TERMINAL for phase in phases)

    async def _apply_status(self, home: Json, status: Json) -> Json:
        metadata = {"name": home["metadata"]["name"], "uid": home["metadata"]["uid"]}
        body = {"metadata": metadata, "status": status}
        return await self._client.apply(HOMES, body, field_manager=names.HUB_MANAGER, force=True, subresource="status")

    async def _leave(self, home: Json, who: Member) -> float | None:
        """One step of the departure; see core.leaving."""
        if names.FINALIZER_HOME not in home["metadata"].get("finalizers", []):
            return None
        nodes = await self._offers.nodes_of(who)
        await asyncio.gather(*(self._nodes.cordon(node, WITHDRAWN) for node in nodes.values()))
        step = await self._next_step(home, who)
        for guest in step.stop:
            await self._client.patch(GUESTPODS, guest["metadata"]["name"], leaving.stop_patch(guest), who.mailbox)
        await self._tell_leaving(home, who, step)
        if not step.remove:
            await self._offers.reconcile(who, who.key, self._clock())
            return LEAVING_AGAIN_SECONDS
        await asyncio.gather(*(self._nodes.delete(node) for node in nodes.values()))
        await self._mailboxes.remove(who)
        others = [finalizer for finalizer in home["metadata"]["finalizers"] if finalizer != names.FINALIZER_HOME]
        newest = await self._client.get(HOMES, who.name)
        if newest["metadata"]["uid"] != who.uid:
            raise Conflict(f"Home {who.name} is another one by now")
        await self._set_finalizers(newest, others)
        return None

    async def _next_step(self, home: Json, who: Member) -> leaving.Departure:
        if not (home.get("status") or {}).get("mailbox"):
            return leaving.Departure([], "Removing", "The Home never had a mailbox.", remove=True)
        guests, claims = await asyncio.gather(
            self._client.list(GUESTPODS, who.mailbox), self._client.list(REWARDCLAIMS, who.mailbox)
        )
        annotations = home["metadata"].get("annotations") or {}
        return leaving.decide(
            from_rfc3339(home["metadata"]["deletionTimestamp"]),
            guests.items,
            claims.items,
            self._settlements(),
            self._clock(),
            force=names.ANNOTATION_FORCE_DELETE in annotations,
            withheld=names.ANNOTATION_WITHHOLD in annotations,
        )

    def _settlements(self) -> dict[str, Settlement]:
        found = {}
        for (_, name), pool in self._pools.items():
            try:
                found[name] = meta.parse(SchedulingPoolSpec, pool.get("spec"), where="spec").settlement
            except Invalid:
                continue  # settles nothing, so nothing is to be awaited of it
        return found

    async def _tell_leaving(self, home: Json, who: Member, step: leaving.Departure) -> None:
        type_ = "Warning" if step.reason == "ForceDeleted" else "Normal"
        if step.remove:
            await self._recorder.record(home, step.reason, step.message, type_)  # type: ignore[arg-type]
            return
        before = _own_status(home)
        after = conditions.set_condition(
            before.get("conditions"),
            conditions.READY,
            conditions.FALSE,
            step.reason,
            step.message,
            who.generation,
            self._clock(),
        )
        if after != before.get("conditions"):
            await self._apply_status(home, {**before, "conditions": after})


def _own_status(home: Json) -> Json:
    """The Home's status without conditions of other writers."""
    status = home.get("status") or {}
    own = [c for c in status.get("conditions") or [] if c["type"] in membership.OWN_HOME_CONDITIONS]
    return {**status, "conditions": own}
