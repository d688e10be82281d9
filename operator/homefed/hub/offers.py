"""From the Offers of one home to its virtual Nodes, and back: what the agent must know of the hub."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from homefed.api import meta, names
from homefed.api.errors import Invalid, NotFound
from homefed.api.home import PinnedKey
from homefed.api.offer import Machine
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import membership, virtual_node
from homefed.core import pool as pools
from homefed.core.compare import same
from homefed.core.membership import Member, Offered, Verdict
from homefed.core.pool import rate_card_digest
from homefed.core.virtual_node import VirtualNode
from homefed.hub.config import Config
from homefed.hub.mailbox import Mailboxes
from homefed.hub.nodes import Nodes
from homefed.kube.client import KubeClient
from homefed.kube.events import EventRecorder
from homefed.kube.reflector import Key
from homefed.kube.resources import NODES, OFFERS
from homefed.kube.transport import Json

AGAIN_SECONDS: Final = 5.0


@dataclass
class Membership:
    """What one pass found of a home: its offers in order, the verdict on each, and its Nodes by name."""

    offers: list[Offered]
    verdicts: dict[str, Verdict]
    key: PinnedKey | None = None
    wanted: dict[str, VirtualNode] = field(default_factory=dict)
    nodes: dict[str, Json] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    """By offer: what stood in the way of a Node."""
    again: float | None = None

    @property
    def ready(self) -> int:
        return sum(virtual_node.is_ready(node) for node in self.nodes.values())


class Offers:
    """Brings the virtual Nodes of one home in line with its Offers; for one home at a time."""

    def __init__(
        self,
        client: KubeClient,
        config: Config,
        mailboxes: Mailboxes,
        nodes: Nodes,
        recorder: EventRecorder,
        offers: Mapping[Key, Json],
        pools: Mapping[Key, Json],
    ) -> None:
        self._client, self._config, self._mailboxes, self._nodes = client, config, mailboxes, nodes
        self._recorder, self._offers, self._pools = recorder, offers, pools

    def of_home(self, who: Member) -> list[Json]:
        return [offer for (namespace, _), offer in self._offers.items() if namespace == who.mailbox]

    async def nodes_of(self, who: Member) -> dict[str, Json]:
        """This Home's Nodes by name, asked of the API server."""
        selector = f"{names.LABEL_HOME_UID}={who.uid},{names.LABEL_VIRTUAL}={names.VIRTUAL_NODE_TYPE}"
        listed = await self._client.list(NODES, label_selector=selector)
        return {node["metadata"]["name"]: node for node in listed.items}

    async def reconcile(self, who: Member, key: PinnedKey | None, now: datetime) -> Membership:
        """Nodes, Leases and the right to renew them, then the Offers' status, which tells the agent to begin."""
        found = self._judge(who, key, now)
        found.nodes = await self.nodes_of(who)
        self._want(found, who)
        leaving = {name: node for name, node in found.nodes.items() if name not in found.wanted}
        await asyncio.gather(
            self._mailboxes.grant_leases(who, [*found.wanted, *leaving]),
            *(self._ensure(found, who, node) for node in found.wanted.values()),
        )
        await self._withdraw(found, who, leaving)
        await asyncio.gather(*(self._answer(found, who, offer, now) for offer in found.offers))
        return found

    def _judge(self, who: Member, key: PinnedKey | None, now: datetime) -> Membership:
        offers = membership.in_order(map(membership.offered, self.of_home(who)))
        verdicts: dict[str, Verdict] = {}
        for offer in offers:
            try:
                pool = self._pool(offer)
                verdicts[offer.name] = membership.judge_offer(offer, who, key, pool, now)
            except Invalid as error:
                message = f"SchedulingPool {offer.spec.pool_name if offer.spec else ''}: {error.message}"
                verdicts[offer.name] = Verdict(False, "InvalidPool", message)
        return Membership(offers, verdicts, key)

    def _pool(self, offer: Offered) -> SchedulingPoolSpec | None:
        found = self._pools.get(("", offer.spec.pool_name)) if offer.spec is not None else None
        if found is None or "deletionTimestamp" in found["metadata"]:
            return None
        return meta.parse(SchedulingPoolSpec, found.get("spec"), where="spec")

    def _want(self, found: Membership, who: Member) -> None:
        taken = [offer for offer in found.offers if found.verdicts[offer.name].holds and not offer.deleting]
        machines = membership.machines_of(taken)
        for offer in taken:
            for machine in machines[offer.name]:
                try:
                    node = self._virtual_node(who, offer, machine)
                except Invalid as error:
                    found.problems[offer.name] = error.message
                    continue
                found.wanted[node.name] = node

    def _virtual_node(self, who: Member, offer: Offered, machine: Machine) -> VirtualNode:
        pool = self._pool(offer)
        if offer.spec is None or pool is None:
            raise Invalid(f"offer {offer.name} is not accepted")
        return VirtualNode(
            home=who.name,
            home_uid=who.uid,
            offer=offer.name,
            pool=offer.spec.pool_name,
            machine=machine,
            egress=offer.spec.egress,
            allocatable=virtual_node.accepted(machine, pool.machine_limits),
            cordon=membership.cordon_reason(machine, offer.spec, who),
            set_os_label=pool.set_os_label,
            machine_class=offer.spec.machine_class,
            price_percent=offer.spec.price.percent_of_card,
        )

    async def _ensure(self, found: Membership, who: Member, wanted: VirtualNode) -> None:
        node = found.nodes.get(wanted.name)
        if not self._nodes.has_lease(wanted.name):
            await self._mailboxes.create_lease(who, wanted.name)
        if problem := await self._nodes.ensure(wanted, node):
            found.problems[wanted.offer] = problem

    async def _withdraw(self, found: Membership, who: Member, leaving: Mapping[str, Json]) -> None:
        for name, node in leaving.items():
            if await self._nodes.withdraw(node, who.mailbox):
                del found.nodes[name]
            else:
                found.again = AGAIN_SECONDS

    async def _answer(self, found: Membership, who: Member, offer: Offered, now: datetime) -> None:
        """Write the Offer's status where it differs; one event when the hub does not take the offer (any more)."""
        obj = self._offers.get((who.mailbox, offer.name))
        if obj is None or obj["metadata"]["uid"] != offer.uid:
            return
        before, after = obj.get("status") or {}, self._status(obj, found, who, offer, now)
        if same(before, after):
            return
        body = {"metadata": {"name": offer.name, "namespace": who.mailbox, "uid": offer.uid}, "status": after}
        try:
            await self._client.apply(OFFERS, body, field_manager=names.HUB_MANAGER, force=True, subresource="status")
        except NotFound:
            return
        verdict = found.verdicts[offer.name]
        if not verdict.holds:
            await self._recorder.record(obj, verdict.reason, verdict.message, "Warning")

    def _status(self, obj: Json, found: Membership, who: Member, offer: Offered, now: datetime) -> Json:
        verdict = found.verdicts[offer.name]
        nodes = self._accepted_nodes(found, offer)
        ready = sum(virtual_node.is_ready(found.nodes[name]) for name in nodes.values() if name in found.nodes)
        available = self._available(found, who, offer, len(nodes), ready)
        before = (obj.get("status") or {}).get("conditions")
        status: Json = {
            "observedGeneration": offer.generation,
            "federationId": self._config.federation_id,
            "homeUid": who.uid,
            "machines": [{"id": machine, "node": node} for machine, node in sorted(nodes.items())],
            "readyMachines": ready,
            "conditions": membership.offer_conditions(before, offer, verdict, available, now),
        }
        status |= {"keyFingerprint": found.key.fingerprint} if found.key is not None else {}
        status |= {"memberSince": who.since} if who.since else {}
        return status | (_terms(pool, now) if verdict.holds and (pool := self._pool(offer)) else {})

    @staticmethod
    def _accepted_nodes(found: Membership, offer: Offered) -> dict[str, str]:
        """Node by machine id: what is wanted, and what still stands because guests are on it."""
        wanted = {node.machine.id: name for name, node in found.wanted.items() if node.offer == offer.name}
        standing = {
            virtual_node.machine_id(node): name
            for name, node in found.nodes.items()
            if name not in found.wanted and node["metadata"]["labels"].get(names.LABEL_OFFER) == offer.name
        }
        return standing | wanted

    @staticmethod
    def _available(found: Membership, who: Member, offer: Offered, machines: int, ready: int) -> Verdict:
        verdict = found.verdicts[offer.name]
        if not verdict.holds or offer.spec is None:
            return Verdict(False, verdict.reason, verdict.message)
        if offer.name in found.problems:
            return Verdict(False, "NodeProblem", found.problems[offer.name])
        return membership.availability(offer.spec, who, machines, ready)


def _terms(pool: SchedulingPoolSpec, now: datetime) -> Json:
    return {
        "windowSeconds": pool.settlement.window_seconds,
        "graceSeconds": pool.settlement.grace_seconds,
        "pendingTimeoutSeconds": pool.pending_timeout_seconds,
        "rateCardDigest": rate_card_digest(pool, now),
        "terms": pools.terms(pool),
    }


def offers_into(pool: str, offers: Sequence[Json]) -> list[str]:
    """Mailboxes with an offer into this pool."""
    return sorted({o["metadata"]["namespace"] for o in offers if (o.get("spec") or {}).get("poolName") == pool})
