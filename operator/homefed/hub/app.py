"""The hub operator: what is watched, which queue a change wakes, and the full pass that makes good what was missed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import kopf

from homefed.api import names
from homefed.api.errors import HomefedError, NotFound, Transient
from homefed.core import virtual_node
from homefed.core.signed_note import parse_vkey
from homefed.core.times import from_rfc3339
from homefed.hub.alarms import Alarms
from homefed.hub.budgets import Budgets
from homefed.hub.config import Config
from homefed.hub.guests import Guests
from homefed.hub.home_keys import HomeKeys, public_key
from homefed.hub.homes import Homes
from homefed.hub.key import hub_key
from homefed.hub.mailbox import Mailboxes
from homefed.hub.mirror import Mirror
from homefed.hub.nodes import Nodes, utc_now
from homefed.hub.offers import Offers, offers_into
from homefed.hub.pools import Pools
from homefed.hub.settlement import Settlement
from homefed.kube.client import KubeClient
from homefed.kube.events import EventRecorder
from homefed.kube.health import serve_health
from homefed.kube.kopf_embedded import run_kopf
from homefed.kube.kopf_login import login
from homefed.kube.lease import HolderLease, run_holding
from homefed.kube.queue import WorkQueue, run_workers
from homefed.kube.reflector import Key, Reflector
from homefed.kube.resources import HOMES, LEASES, NAMESPACES, NODES, OFFERS, SCHEDULINGPOOLS, Resource
from homefed.kube.transport import Json
from homefed.ledger_client.client import LedgerClient

__all__ = ["Config", "Hub", "run"]

logger = logging.getLogger(__name__)
IDLE_POLL_SECONDS: Final = 0.05
MAILBOXES_ASKED: Final = 5
SUM_UP_SECONDS: Final = 0.3
"""A home joins with many machines at once: its pool is summed up for all that come within this time."""


class Stopped(Exception):
    """kopf has ended, as it does on SIGTERM: so do we."""


async def run(config: Config) -> None:
    """Serve health, wait for our Lease, work until told to stop. LeaseLost ends the process: one replica works."""
    async with config.client() as client:
        hub = Hub(client, config)
        lease = HolderLease(
            client, config.lease_name, config.namespace, config.identity, duration_seconds=config.lease_seconds
        )

        async def work() -> None:
            async with ledger_of(config) as ledger:
                await hub.work(ledger, lease.last_renewal)

        async with serve_health(config.health_port, {"hub": hub.problem}, host=config.health_host) as port:
            logger.info("hub operator of federation %s: health on port %d", config.federation_id, port)
            await run_holding(lease, work)


class Hub:
    """Wires watches to queues and queues to reconcilers. One per process."""

    def __init__(self, client: KubeClient, config: Config, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._client, self._config, self._clock = client, config, clock
        self._recorder = EventRecorder(client, names.HUB_MANAGER, instance=config.identity)
        self._mirrors = {HOMES: Mirror(self._on_home), OFFERS: Mirror(self._on_offer)}
        self._mirrors[SCHEDULINGPOOLS] = Mirror(self._on_pool)
        self._node_copy = Reflector(client, NODES, on_change=self._on_node)
        self._namespace_copy = Reflector(client, NAMESPACES, on_change=self._on_namespace)
        self.mailboxes = Mailboxes(client, config)
        self.nodes = Nodes(client, self._node_copy.store, self._recorder, clock=clock)
        self._lease_copy = Reflector(
            client,
            LEASES,
            names.NODE_LEASE_NAMESPACE,
            label_selector=names.LABEL_HOME_UID,
            on_change=self.nodes.on_lease,
        )
        pools, offers = self._mirrors[SCHEDULINGPOOLS].store, self._mirrors[OFFERS].store
        self.guests = Guests(
            client,
            nodes=self._node_copy.store,
            offers=offers,
            homes=self._mirrors[HOMES].store,
            namespaces=self._namespace_copy.store,
            recorder=self._recorder,
            clock=clock,
            over_budget=lambda namespace: self.budgets.refusal(namespace),
        )
        self.budgets = Budgets(
            client,
            config.federation_id,
            self._recorder,
            namespaces=self._namespace_copy.store,
            homes=self._mirrors[HOMES].store,
            pools=pools,
            guests=self.guests.guest_pods,
            on_change=self.guests.on_budget,
        )
        self.offers = Offers(client, config, self.mailboxes, self.nodes, self._recorder, offers, pools)
        self.homes = Homes(
            client,
            self.mailboxes,
            self.offers,
            self.nodes,
            self._recorder,
            pools=pools,
            guest_pods=self.guests.guest_pods,
            clock=clock,
        )
        self.pools = Pools(client, self.nodes, pools, clock=clock)
        self.home_keys = HomeKeys(client, config, self._mirrors[HOMES].store)
        self._starting = True

    def problem(self) -> str | None:
        """What keeps the operator from being ready; None when it is."""
        if self._starting:
            return "waiting for the Lease, or for the first complete lists"
        now = asyncio.get_running_loop().time()
        stale = [copy for copy in self._copies() if copy.stale(now)]
        return f"{len(stale)} watches have shown no sign of life for three minutes" if stale else None

    async def work(self, ledger: LedgerClient | None, last_at_work: datetime | None) -> None:
        """Until cancelled or told to stop by a signal. `last_at_work`: when an operator before us was seen last."""
        try:
            async with asyncio.TaskGroup() as group:
                for copy in self._copies():
                    group.create_task(copy.run())
                settlement = await self._know_everything(ledger, last_at_work)
                group.create_task(run_workers(self.homes.queue, self.homes.reconcile, name="home"))
                group.create_task(run_workers(self.nodes.queue, self.nodes.reconcile, name="node"))
                group.create_task(run_workers(self.pools.queue, self.pools.reconcile, concurrency=1, name="pool"))
                group.create_task(
                    run_workers(self.home_keys.queue, self.home_keys.reconcile, concurrency=1, name="key")
                )
                group.create_task(self.guests.run())
                group.create_task(self._settle(settlement))
                group.create_task(self._watch_budgets(settlement, ledger))
                group.create_task(self._passes())
                group.create_task(self._kopf())
                self._starting = False
        except* Stopped:
            logger.info("stopped")

    def _copies(self) -> list[Reflector]:
        return [self._node_copy, self._lease_copy, self._namespace_copy, *self.guests.copies]

    async def _know_everything(self, ledger: LedgerClient | None, last_at_work: datetime | None) -> Settlement:
        """Nothing is decided before every list has been seen wholly once."""
        key = await hub_key(self._client, self._config)
        await asyncio.gather(*(copy.synced.wait() for copy in self._copies()))
        await self._correct()
        await self.budgets.load()
        await self.guests.start(last_at_work or await self._last_pass())
        alarms = Alarms(self._recorder)
        return Settlement(self._client, ledger, key, self._config, alarms, is_observed=self.guests.is_observed)

    async def _settle(self, settlement: Settlement) -> None:
        while True:
            try:
                await settlement.run_pass(self._clock())
            except HomefedError as error:
                logger.warning("settlement: %s", error.message, extra={"reason": error.reason})
            await asyncio.sleep(self._config.settlement_seconds)

    async def _watch_budgets(self, settlement: Settlement, ledger: LedgerClient | None) -> None:
        while True:
            try:
                await self.budgets.run_pass(self._clock(), ledger, settlement.books)
            except HomefedError as error:
                logger.warning("budgets: %s", error.message, extra={"reason": error.reason})
            await asyncio.sleep(self._config.settlement_seconds)

    async def _last_pass(self) -> datetime | None:
        """As told in the mailboxes, for where our own Lease is new; a pass tells every mailbox, so a few suffice."""
        homes = list(self._mirrors[HOMES].store.values())
        mailboxes = [mailbox for home in homes if (mailbox := (home.get("status") or {}).get("mailbox"))]
        renewed: list[datetime] = []
        for mailbox in mailboxes[:MAILBOXES_ASKED]:
            try:
                lease = await self._client.get(LEASES, names.HUB_LEASE, mailbox)
            except NotFound:
                continue
            if text := (lease.get("spec") or {}).get("renewTime"):
                renewed.append(from_rfc3339(text))
        return max(renewed, default=None)

    async def _correct(self) -> None:
        """Compare the mirrors with complete lists."""
        for kind, mirror in self._mirrors.items():
            before = mirror.versions()
            mirror.correct((await self._client.list(kind)).items, before)

    async def _kopf(self) -> None:
        """kopf watches our own kinds and puts what it sees into the mirrors; it writes nothing."""
        await run_kopf(registry_of(self._config, self._mirrors), kopf_settings(), clusterwide=True)
        raise Stopped

    async def _passes(self) -> None:
        while True:
            started = self._clock()
            try:
                await self._pass(started)
            except HomefedError as error:
                logger.warning("full pass: %s", error.message, extra={"reason": error.reason})
            elapsed = (self._clock() - started).total_seconds()
            await asyncio.sleep(max(1.0, self._config.full_pass_seconds - elapsed))

    async def _pass(self, started: datetime) -> None:
        """Everything once; then say so in each mailbox, as homes conclude from it what a missing object means."""
        await self._correct()
        _add_all(self.homes.queue, self._names(HOMES))
        _add_all(self.pools.queue, self._names(SCHEDULINGPOOLS))
        self.home_keys.wake()
        _add_all(self.nodes.queue, [node["metadata"]["name"] for node in self.nodes.virtual()])
        _add_all(self.guests.queue, self.guests.keys())
        if not await self._idle():
            logger.warning("full pass: not done in time; homes are not told of it")
            return
        for home in list(self._mirrors[HOMES].store.values()):
            if mailbox := (home.get("status") or {}).get("mailbox"):
                await self._tell(mailbox, started)

    async def _tell(self, mailbox: str, started: datetime) -> None:
        try:
            await self.mailboxes.tell_pass(mailbox, started)
        except HomefedError as error:
            logger.warning("mailbox %s: %s", mailbox, error.message, extra={"reason": error.reason})

    async def _idle(self) -> bool:
        """Wait until what was queued is done, for half a period at most."""
        queues = (self.homes.queue, self.pools.queue, self.nodes.queue, self.guests.queue)
        for _ in range(int(self._config.full_pass_seconds / 2 / IDLE_POLL_SECONDS)):
            if all(queue.idle for queue in queues):
                return True
            await asyncio.sleep(IDLE_POLL_SECONDS)
        return False

    def _names(self, kind: Resource) -> list[str]:
        return [name for _, name in self._mirrors[kind].store]

    def _on_home(self, key: Key, old: Json | None, new: Json | None) -> None:
        self.homes.queue.add(key[1])
        if public_key(old) != public_key(new):
            self.home_keys.wake()
        self.guests.on_home(key, old, new)

    def _on_namespace(self, key: Key, old: Json | None, new: Json | None) -> None:
        self.guests.on_namespace(key, old, new)

    def _on_offer(self, key: Key, old: Json | None, new: Json | None) -> None:
        self.guests.on_offer(key, old, new)
        if key[0].startswith(names.MAILBOX_PREFIX):
            self.homes.queue.add(key[0].removeprefix(names.MAILBOX_PREFIX))

    def _on_pool(self, key: Key, old: Json | None, new: Json | None) -> None:
        self.pools.queue.add(key[1])
        if old is None or new is None or old.get("spec") != new.get("spec"):
            into = offers_into(key[1], list(self._mirrors[OFFERS].store.values()))
            _add_all(self.homes.queue, [mailbox.removeprefix(names.MAILBOX_PREFIX) for mailbox in into])

    def _on_node(self, key: Key, old: Json | None, new: Json | None) -> None:
        """A node's home and pool look again only where what they sum up has changed."""
        self.guests.on_node(key, old, new)
        if new is not None and virtual_node.is_virtual(new):
            self.nodes.queue.add(key[1])
        if _summed_up(old) == _summed_up(new):
            return
        for node in (old, new):
            labels = (node or {}).get("metadata", {}).get("labels") or {}
            if names.LABEL_HOME_UID in labels:
                self.homes.queue.add(labels.get(names.LABEL_HOME, ""))
                self.pools.queue.add_after(labels.get(names.LABEL_POOL, ""), SUM_UP_SECONDS)


@asynccontextmanager
async def ledger_of(config: Config) -> AsyncIterator[LedgerClient | None]:
    """The client of the configured ledger; None where there is none."""
    if not config.ledger_url:
        yield None
        return
    file = config.ledger_token_file
    source = (lambda: _token(file)) if file is not None else None
    # One attempt: settlement comes round again by itself, and homes behind this one wait for it.
    key = parse_vkey(config.ledger_key) if config.ledger_key else None
    async with LedgerClient(config.ledger_url, source, config.ledger_ca, key=key, attempts=1) as client:
        yield client


def _token(file: Path) -> str:
    """The ServiceAccount token of the moment; the kubelet renews the file."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Transient(f"ledger token {file}: {error.strerror}", reason="NoLedgerToken") from error


def registry_of(config: Config, mirrors: dict[Resource, Mirror]) -> kopf.OperatorRegistry:
    """kopf's handlers: events only, so that it adds neither finalizers nor annotations to anything."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(login(config.load()))
    for kind, mirror in mirrors.items():
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=kind.plural)(_taking(mirror))
    return registry


def kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = f"{names.GROUP}/kopf"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=names.GROUP)
    settings.posting.enabled = False
    settings.scanning.disabled = True  # neither CRDs nor namespaces are ours to watch
    return settings


def _taking(mirror: Mirror) -> Callable[..., Any]:
    async def take(event: Any, **_: object) -> None:
        mirror.take(event)

    return take


def _add_all(queue: WorkQueue[str], keys: Iterable[str]) -> None:
    for key in keys:
        queue.add(key)


def _summed_up(node: Json | None) -> object:
    """What homes and pools see of a node."""
    if node is None:
        return None
    labels, status = node["metadata"].get("labels") or {}, node.get("status") or {}
    shown = [labels.get(name) for name in (names.LABEL_HOME, names.LABEL_HOME_UID, names.LABEL_POOL)]
    ready, cordoned = virtual_node.is_ready(node), virtual_node.is_unschedulable(node)
    return node["metadata"]["uid"], shown, ready, cordoned, status.get("allocatable")
