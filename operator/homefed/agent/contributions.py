"""Contribution → Offer → Contribution.status: one pass over all contributions, as they compete for machines.

kopf tells when a Contribution changes; its handlers only ask for a pass, and the pass reads for itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from homefed import VERSION
from homefed.agent.identity import Connection
from homefed.agent.known import Known, finalizers_of, read_contribution, spec_of, status_of, version_of
from homefed.api import names, quantities
from homefed.api.errors import HomefedError, NotFound, Refused, Stale
from homefed.api.offer import Machine, OfferSpec
from homefed.api.quantities import Quantities
from homefed.core import contribution as core
from homefed.core import key_rotation, quota
from homefed.core import offer as offers
from homefed.core.findings import Finding
from homefed.core.home_admission import Host
from homefed.core.offer import Claimant, HomeNode
from homefed.kube.client import KubeClient
from homefed.kube.events import EventRecorder
from homefed.kube.queue import WorkQueue, periodic, run_workers
from homefed.kube.reflector import Key, Reflector
from homefed.kube.resources import CONTRIBUTIONS, OFFERS

logger = logging.getLogger(__name__)

EVERYTHING: Final = "contributions"
"""The one key of the queue: contributions compete for machines and are looked at together."""
PASS_SECONDS: Final = 60.0
SETTLE_SECONDS: Final = 0.5
"""Pods come in bursts: one pass for all that come within this time."""

Json = dict[str, Any]


class Contributions:
    """The contributions of this home and their Offers."""

    def __init__(
        self,
        home: KubeClient,
        connection: Connection,
        nodes: Reflector,
        pods: Reflector,
        namespace: str,
        guests_namespace: str,
        *,
        meter: Callable[[str], Finding],
        ledger: Callable[[], Finding | None] = lambda: None,
        changed: Callable[[], None],
        root_allowed: Callable[[HomeNode], bool],
    ) -> None:
        """`meter` says how metering for a pool stands, `ledger` what the home sees as its witness; `changed` is called
        when guests may be concerned."""
        self._home, self._connection, self._nodes, self._pods = home, connection, nodes, pods
        self._namespace, self._guests_namespace = namespace, guests_namespace
        self._recorder = EventRecorder(home, names.AGENT_MANAGER)
        self._meter, self._ledger, self._changed, self._root_allowed = meter, ledger, changed, root_allowed
        self.queue: WorkQueue[str] = WorkQueue()
        self.offers: Reflector | None = None
        """Of the mailbox; None until the hub is known."""
        self.known: dict[str, Known] = {}
        self.looked = asyncio.Event()
        """Set after the first pass: from then on `host` speaks."""
        self.synced = asyncio.Event()
        """Set once the mailbox's Offers are known."""
        self._held: dict[str, Mapping[str, datetime]] = {}
        self._published: dict[str, Json] = {}
        """Offer name → as our last write left it, while the reflector may be behind."""
        self._refusals: dict[str, Finding] = {}
        self._read_nodes: dict[Key, tuple[Json, HomeNode]] = {}
        self.offers_changed: Callable[[], None] = lambda: None
        """Called when an Offer has changed at the hub, before the pass: new virtual nodes want their Leases."""

    def wake(self) -> None:
        """A pass now."""
        self.queue.add(EVERYTHING)

    def wake_soon(self) -> None:
        """A pass soon, with whatever else changes until then."""
        self.queue.add_after(EVERYTHING, SETTLE_SECONDS)

    async def run(self) -> None:
        """Until cancelled; the caller has waited until Nodes and pods are known."""
        async with asyncio.TaskGroup() as group:
            group.create_task(run_workers(self.queue, self.reconcile, concurrency=1, name="contributions"))
            group.create_task(periodic(self.queue, lambda: [EVERYTHING], PASS_SECONDS))
            group.create_task(self._follow_hub(), name="offers")

    async def _follow_hub(self) -> None:
        await self._connection.opened.wait()
        self.offers = Reflector(
            self._connection.hub, OFFERS, self._connection.mailbox, on_change=lambda *_: self._offer_changed()
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self.offers.run())
            await self.offers.synced.wait()
            self.synced.set()
            self.wake()

    def _offer_changed(self) -> None:
        self.offers_changed()
        self.wake()

    # What others ask.

    def nodes(self) -> list[HomeNode]:
        """All Nodes of the home, each read anew only when it has changed: every look at a guest asks for them."""
        read = {
            key: (obj, known[1] if (known := self._read_nodes.get(key)) and known[0] is obj else offers.home_node(obj))
            for key, obj in self._nodes.store.items()
        }
        self._read_nodes = read
        return [node for _, node in read.values()]

    def host(self, offer_name: str, machine_id: str) -> Host:
        """What this home says about a machine of one of its offers."""
        known, keys = self.known.get(offer_name), self._connection.keys
        if known is None or known.invalid is not None or keys is None:
            return Host(None)
        for node in self.nodes():
            if node.name in known.selected and names.machine_id(node.uid, keys.salt) == machine_id:
                return Host(known.spec, known.deleting, node.name, self._root_allowed(node))
        return Host(known.spec, known.deleting)

    def virtual_nodes(self) -> dict[str, bool]:
        """Virtual node → whether its machine's own Node is Ready; those only that the hub has accepted."""
        keys = self._connection.keys
        if keys is None or self.offers is None:
            return {}
        alive = {names.machine_id(node.uid, keys.salt): node.alive for node in self.nodes()}
        return {
            accepted.node: alive.get(accepted.id, False)
            for obj in list(self.offers.store.values())
            for accepted in status_of(obj).machines
            if obj["metadata"]["name"] in self.known
        }

    def accepted(self) -> list[Quantities] | None:
        """What of each Offer the hub has accepted, base units; None while its word is not known."""
        if not self.synced.is_set():
            return None
        found = [offer for name in self.known if (offer := self._offer(name)) is not None]
        return [quota.accepted(spec_of(offer).machines, status_of(offer)) for offer in found]

    async def warn(self, finding: Finding) -> None:
        """Tell the contributor by an event on each contribution."""
        for known in list(self.known.values()):
            await self._recorder.record(known.obj, finding.reason, finding.message, "Warning")

    # The pass.

    async def reconcile(self, _key: str) -> float | None:
        """One pass. The list is complete or the pass fails: nothing is concluded from a part."""
        listed = await self._home.list(CONTRIBUTIONS, self._namespace)
        before = {name: (k.generation, k.deleting, k.selected) for name, k in self.known.items()}
        self.known = {obj["metadata"]["name"]: read_contribution(obj) for obj in listed.items}
        self._plan()
        self.looked.set()
        again: list[float] = []
        trouble: list[HomefedError] = []
        try:
            await self._rotate_key()
        except HomefedError as error:
            trouble.append(error)
        if before != {name: (k.generation, k.deleting, k.selected) for name, k in self.known.items()}:
            self._changed()
        for known in list(self.known.values()):
            try:
                again += filter(None, [await self._bring(known)])
            except HomefedError as error:
                trouble.append(error)
        trouble += filter(None, [await self._withdraw_orphans()])
        if trouble:
            raise trouble[0]
        return min(again, default=None)

    async def _rotate_key(self) -> None:
        """One step of a change of key, as the hub's answers to the Offers allow it."""
        answers = [status_of(offer) for name in self.known if (offer := self._offer(name)) is not None]
        uid = next((answer.home_uid for answer in answers if answer.home_uid), None)
        keys = self._connection.keys
        if keys is None or uid is None:
            return
        pinned = {answer.key_fingerprint for answer in answers if answer.key_fingerprint}
        if await self._connection.rotate(uid, pinned):
            new = self._connection.keys.fingerprint if self._connection.keys is not None else ""
            message = f"The home's key {keys.fingerprint} is replaced by {new}: the hub has taken it over."
            for known in self.known.values():
                await self._recorder.record(known.obj, "KeyRotated", message)

    def _plan(self) -> None:
        """Who gets which machine, and what is offered of it."""
        nodes = self.nodes()
        readable = [k for k in self.known.values() if k.invalid is None]
        claims = offers.settle_claims(
            [Claimant(k.name, k.uid, k.obj["metadata"]["creationTimestamp"], k.spec) for k in readable], nodes
        )
        owners = offers.owners_requests(self._pods.store.values(), self._guests_namespace)
        keys, now = self._connection.keys, datetime.now(UTC)
        for known in readable:
            known.selected, known.lost = claims.won[known.uid], claims.lost[known.uid]
            if keys is None:
                continue
            mine = [node for node in nodes if node.name in known.selected]
            published = self._machines(known)
            fresh = (known.obj.get("status") or {}).get("observedGeneration") != known.generation
            held = self._held.get(known.uid, {})
            known.plan = offers.plan(known.spec, mine, owners, keys.salt, published, held, now, at_once=fresh)
            self._held[known.uid] = known.plan.held

    def _offer(self, name: str) -> Json | None:
        """The newer of the reflector's view and our own last write."""
        seen = self.offers.store.get((self._connection.mailbox, name)) if self.offers is not None else None
        written = self._published.get(name)
        if written is None or (seen is not None and version_of(seen) >= version_of(written)):
            self._published.pop(name, None)
            return seen
        return written

    def _machines(self, known: Known) -> Sequence[Machine]:
        obj = self._offer(known.name)
        if obj is None or (obj.get("spec") or {}).get("contributionUid") != known.uid:
            return ()
        return spec_of(obj).machines

    async def _bring(self, known: Known) -> float | None:
        """One contribution: finalizer, Offer, status. The status tells also why the Offer could not be written."""
        if known.deleting and names.FINALIZER_CONTRIBUTION not in finalizers_of(known.obj):
            return None
        if not known.deleting:
            await self._set_finalizer(known, present=True)
        trouble: HomefedError | None = None
        gone = False
        try:
            gone = await self._publish(known)
        except HomefedError as error:
            trouble = error
        if known.deleting and await self._released(known, gone):
            return None
        await self._put_status(known)
        if trouble is not None and not isinstance(trouble, Refused):
            raise trouble
        if known.deleting:
            return 1.0
        return offers.RISE_HOLD.total_seconds() if known.plan.held else None

    async def _publish(self, known: Known) -> bool:
        """Bring the Offer to the hub; True once a deleted contribution's Offer is certainly gone."""
        connection = self._connection
        if known.invalid is not None or connection.keys is None or connection.client is None:
            return False
        if self.offers is None or not self.offers.synced.is_set():
            return False
        current = self._offer(known.name)
        if current is not None and (current.get("spec") or {}).get("contributionUid") != known.uid:
            await self._delete_offer(current)
            raise Stale(f"Offer {known.name} belonged to an earlier contribution of that name; it is made anew")
        if known.deleting and (current is None or self._guests(known) == 0):
            return current is None or not await self._delete_offer(current)
        wanted = core.offer_spec(
            known.uid,
            known.spec,
            known.plan.machines,
            connection.keys.declared,
            VERSION,
            known.deleting,
            connection.keys.statement,
        )
        if current is None or OfferSpec.model_validate(current["spec"]) != wanted:
            await self._apply_offer(known, wanted)
        return False

    async def _apply_offer(self, known: Known, wanted: OfferSpec) -> None:
        obj = {"metadata": {"name": known.name, "namespace": self._connection.mailbox}, "spec": wanted.dump()}
        try:
            written = await self._connection.hub.apply(OFFERS, obj, field_manager=names.AGENT_MANAGER, force=True)
        except Refused as error:
            self._refusals[known.uid] = Finding.of(error)
            raise
        self._refusals.pop(known.uid, None)
        self._published[known.name] = written

    async def _delete_offer(self, obj: Json) -> bool:
        """True when something was deleted (and may linger), False when nothing was there."""
        metadata = obj["metadata"]
        found = await self._connection.hub.delete(
            OFFERS, metadata["name"], self._connection.mailbox, uid=metadata["uid"]
        )
        self._published.pop(metadata["name"], None)
        return found

    async def _withdraw_orphans(self) -> HomefedError | None:
        """Offers whose contribution is gone without our having seen its deletion, each confirmed by a direct read."""
        if self.offers is None or not self.offers.synced.is_set():
            return None
        for obj in list(self.offers.store.values()):
            name = obj["metadata"]["name"]
            if name in self.known:
                continue
            try:
                await self._home.get(CONTRIBUTIONS, name, self._namespace)
            except NotFound:
                try:
                    logger.warning("Offer %s has no contribution any more; withdrawn", name)
                    await self._delete_offer(obj)
                except HomefedError as error:
                    return error
            except HomefedError as error:
                return error
        return None

    # Status and end.

    def _guests(self, known: Known) -> int:
        return len(self._guest_pods(known))

    def _guest_pods(self, known: Known) -> list[Json]:
        return [
            pod
            for pod in self._pods.store.values()
            if offers.is_guest(pod, self._guests_namespace)
            and not pod["finished"]
            and (pod["metadata"].get("labels") or {}).get(names.LABEL_OFFER) == known.name
        ]

    async def _put_status(self, known: Known) -> None:
        connection = self._connection
        allocated: dict[str, int] = {}
        guests = self._guest_pods(known)
        for pod in guests:
            allocated = quantities.add(allocated, {**pod["requests"], quantities.PODS: 1})
        inputs = core.Inputs(
            spec=known.spec,
            generation=known.generation,
            status=known.obj.get("status"),
            selected=known.selected,
            lost=known.lost,
            machines=known.plan.machines,
            connection=connection.finding,
            offer=self._offer(known.name),
            meter=self._meter(known.spec.pool_name),
            ledger=self._ledger(),
            skew=connection.skew,
            guests=len(guests),
            allocated=allocated,
            fingerprint=connection.keys.fingerprint if connection.keys is not None else None,
            rotation=key_rotation.finding(connection.keys.progress) if connection.keys is not None else None,
            deleting=known.deleting,
            invalid=known.invalid,
            refused=self._refusals.get(known.uid),
        )
        status = core.status(inputs, datetime.now(UTC))
        if core.changed(known.obj.get("status"), status):
            metadata = {"name": known.name, "namespace": self._namespace, "uid": known.uid}
            obj = {"metadata": metadata, "status": status}
            written = await self._home.apply(
                CONTRIBUTIONS, obj, field_manager=names.AGENT_MANAGER, force=True, subresource="status"
            )
            known.obj["status"] = written.get("status")

    async def _released(self, known: Known, offer_gone: bool) -> bool:
        now = datetime.now(UTC)
        stamp = known.obj["metadata"]["deletionTimestamp"]
        if not core.may_release(stamp, known.spec.drain_timeout_seconds, self._guests(known), offer_gone, now):
            return False
        await self._set_finalizer(known, present=False)
        self._held.pop(known.uid, None)
        self._refusals.pop(known.uid, None)
        logger.info("contribution %s released", known.name)
        return True

    async def _set_finalizer(self, known: Known, *, present: bool) -> None:
        current = finalizers_of(known.obj)
        wanted = [other for other in current if other != names.FINALIZER_CONTRIBUTION]
        wanted += [names.FINALIZER_CONTRIBUTION] if present else []
        if sorted(wanted) == sorted(current):
            return
        metadata = {"resourceVersion": known.obj["metadata"]["resourceVersion"], "finalizers": wanted}
        try:
            known.obj |= await self._home.patch(CONTRIBUTIONS, known.name, {"metadata": metadata}, self._namespace)
        except NotFound:
            logger.debug("contribution %s is gone already", known.name)
