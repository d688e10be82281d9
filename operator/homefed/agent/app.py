"""`homefed agent`: wires the home's agent. One process per home, one replica at a time.

Contribution ─▶ contributions ─▶ Offer          (home ─▶ mailbox)
GuestPod     ─▶ guests        ─▶ home Pod ─▶ GuestPod.status
Prometheus   ─▶ meter         ─▶ UsageReport
                leases        ─▶ a Lease per virtual node
ledger       ─▶ witness       ─▶ a cosignature of its checkpoint
                quota         ─▶ ResourceQuota of the guests' namespace
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from homefed.agent import witness
from homefed.agent.contributions import Contributions
from homefed.agent.copies import Copies
from homefed.agent.guests import Guests
from homefed.agent.identity import Connection
from homefed.agent.keys import Keys
from homefed.agent.leases import HomeProbe, NodeLeases
from homefed.agent.meter import Meter
from homefed.agent.quota import GuestQuota
from homefed.agent.settled import SettledEvidence
from homefed.agent.watching import follow_contributions, node_matters, pod_matters, trim_home_pod, trim_node
from homefed.agent.witness import Member, Witness
from homefed.api import names
from homefed.api.errors import HomefedError, Invalid
from homefed.core.clock import ClockOffset
from homefed.core.conditions import UNKNOWN
from homefed.core.findings import Finding
from homefed.core.home_pod import Isolation, pod_security
from homefed.core.offer import HomeNode
from homefed.core.signed_note import parse_vkey
from homefed.kube import transport
from homefed.kube.client import KubeClient
from homefed.kube.health import serve_health
from homefed.kube.lease import HolderLease, run_holding
from homefed.kube.reflector import Key, Reflector
from homefed.kube.resources import NODES, PODS
from homefed.ledger_client import LedgerClient
from homefed.metering.evidence import EvidenceStore
from homefed.metering.prometheus import PrometheusConfig, PrometheusSource

Json = dict[str, Any]
PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
METER_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Config:
    """Settings of one agent."""

    namespace: str
    """The release's: the only one in which Contributions are looked for."""
    release: str = "homefed"
    """Names the Secrets `<release>-join` and `<release>-agent`."""
    guests_namespace: str = names.GUESTS_NAMESPACE
    identity: str = field(default_factory=socket.gethostname)
    """Of this process, in its Lease: must differ between processes that run at once; in a cluster the pod's name."""
    kubeconfig: Path | None = None
    """None: the pod's ServiceAccount."""
    context: str | None = None
    prometheus_url: str = ""
    prometheus_auth_dir: Path | None = None
    """Credentials as files: see `metering.access`."""
    prometheus_timeout_seconds: int = 30
    scrape_interval_seconds: float = 15
    evidence_dir: Path = Path("/var/lib/homefed/evidence")
    ledger_url: str = ""
    """Public address of the ledger; empty: this home is no witness."""
    ledger_ca: Path | None = None
    ledger_key: str = ""
    """The ledger's verifier key; empty: the first one seen is kept in the Secret."""
    ledger_seconds: float = witness.EVERY_SECONDS
    """Between two looks at its checkpoint."""
    image_pull_policy: str = "Always"
    pod_security_version: str = "v1.30"
    health_host: str = "0.0.0.0"  # noqa: S104 - the kubelet probes the pod's own address
    health_port: int = 8081
    """0: chosen by the system."""
    lease_name: str = "homefed-agent"
    lease_seconds: int = 20

    def __post_init__(self) -> None:
        if self.image_pull_policy not in PULL_POLICIES:
            raise Invalid(
                f"imagePullPolicy {self.image_pull_policy!r}: must be one of {', '.join(PULL_POLICIES)}",
                reason="InvalidField",
            )
        pod_security(self.pod_security_version)

    def load(self) -> transport.Load:
        """How to reach the home's API server."""
        return transport.incluster() if self.kubeconfig is None else transport.kubeconfig(self.kubeconfig, self.context)


class Agent:
    """All parts of one home's agent, wired. Nothing runs before `run`."""

    def __init__(self, config: Config, home: KubeClient) -> None:
        self.config, self.home = config, home
        self.clock = ClockOffset()
        self.connection = Connection(home, config.namespace, config.release, self.clock)
        self.nodes = Reflector(home, NODES, trim=trim_node, on_change=self._node_changed)
        self.pods = Reflector(home, PODS, trim=self._trim_pod, on_change=self._pod_changed)
        self.copies = Copies(home, config.guests_namespace)
        self.probe = HomeProbe(home, config.lease_name, config.namespace)
        self.contributions = Contributions(
            home,
            self.connection,
            self.nodes,
            self.pods,
            config.namespace,
            config.guests_namespace,
            meter=self._meter_finding,
            ledger=lambda: self._ledger_finding,
            changed=self._contributions_changed,
            root_allowed=lambda node: self._isolation(node).root_allowed,
        )
        self.leases = NodeLeases(
            self.connection, self.probe, self.contributions.virtual_nodes, names.NODE_LEASE_NAMESPACE
        )
        self.guests = Guests(
            home,
            self.connection,
            self.copies,
            self.pods,
            self.contributions.host,
            self._isolation_of,
            config.guests_namespace,
        )
        self.quota = GuestQuota(
            home,
            config.guests_namespace,
            offers=self.contributions.accepted,
            pods=self._guest_pods,
            present=lambda: {name for node in self.contributions.nodes() for name in node.allocatable},
            done=self.leases.wake,
        )
        self._ledger_finding: Finding | None = None
        self._meter_findings: dict[str, Finding] = {}
        self._meter_trouble = Finding(UNKNOWN, "Starting", "the meter has not run yet")
        self.connection.on_change = self.contributions.wake
        self.contributions.offers_changed = self.quota.wake  # before the Lease that brings the first guests

    async def run(self) -> None:
        """Until cancelled, or until a part of it ends the process by raising."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.nodes.run(), name="nodes")
            group.create_task(self.pods.run(), name="pods")
            group.create_task(self.probe.run(), name="home-probe")
            group.create_task(self.connection.run(), name="connection")
            await self.nodes.synced.wait()
            await self.pods.synced.wait()
            group.create_task(self.contributions.run(), name="contributions")
            group.create_task(self.leases.run(), name="leases")
            await self.contributions.looked.wait()
            group.create_task(self.quota.run(), name="quota")
            group.create_task(self.guests.run(), name="guests")
            group.create_task(self._measure(), name="meter")
            group.create_task(self._watch_ledger(), name="witness")

    def checks(self) -> Mapping[str, Callable[[], str | None]]:
        """For /readyz. A hub that is down makes no agent unready: nothing would be mended by that."""
        return {
            "nodes": lambda: None if self.nodes.synced.is_set() else "the home's Nodes have not been listed yet",
            "pods": lambda: None if self.pods.synced.is_set() else "the home's pods have not been listed yet",
            "home": lambda: None if self.probe.alive else "the home's API server does not answer",
        }

    def _trim_pod(self, pod: Json) -> Json:
        return trim_home_pod(pod, self.config.guests_namespace)

    def _node_changed(self, _key: Key, old: Json | None, new: Json | None) -> None:
        if node_matters(old, new):
            self.contributions.wake()
            self.leases.wake()

    def _pod_changed(self, key: Key, old: Json | None, new: Json | None) -> None:
        if key[0] == self.config.guests_namespace and key[1].startswith(names.NODE_PREFIX):
            self.guests.pod_changed(key, old, new)
        if pod_matters(old, new):
            self.contributions.wake_soon()
            if key[0] == self.config.guests_namespace:
                self.quota.wake()

    def _guest_pods(self) -> list[Json]:
        return [pod for (namespace, _), pod in self.pods.store.items() if namespace == self.config.guests_namespace]

    def _contributions_changed(self) -> None:
        self.guests.wake_all()
        self.leases.wake()

    def _isolation(self, node: HomeNode | None) -> Isolation:
        config = self.config
        return Isolation(
            guests_namespace=config.guests_namespace,
            image_pull_policy=config.image_pull_policy,
            user_namespaces=node is not None and node.user_namespaces,
            pod_security_version=config.pod_security_version,
        )

    def _isolation_of(self, machine: str | None) -> Isolation:
        return self._isolation(next((node for node in self.contributions.nodes() if node.name == machine), None))

    def _meter_finding(self, pool: str) -> Finding:
        return self._meter_findings.get(pool, self._meter_trouble)

    async def _measure(self) -> None:
        """Meter passes until cancelled. A meter that cannot be had is told to the contributor and stops nothing."""
        try:
            source = PrometheusSource(self._prometheus())
        except HomefedError as error:
            self._meter_trouble = Finding.of(error)
            return
        await self.guests.synced.wait()
        await self.contributions.synced.wait()
        store = EvidenceStore(self.config.evidence_dir)
        meter, settled = self._meter(source, store), self._settled(store)
        while True:
            findings = await meter.run_pass(datetime.now(UTC))
            await settled.run_pass(self.connection.hub_now())
            if findings != self._meter_findings:
                self._meter_findings = findings
                self.contributions.wake()
            await asyncio.sleep(METER_SECONDS)

    async def _watch_ledger(self) -> None:
        """As a witness, until cancelled; told to the contributor, and stops nothing."""
        config, connection = self.config, self.connection
        if not config.ledger_url:
            return
        key = parse_vkey(config.ledger_key) if config.ledger_key else None
        async with LedgerClient(config.ledger_url, None, config.ledger_ca, key=key, attempts=1) as ledger:
            own = Witness(
                self.home,
                config.namespace,
                f"{config.release}-agent",
                ledger,
                member=self._member,
                private=lambda: connection.keys.private if connection.keys is not None else None,
            )
            while True:
                await self._tell_ledger(await own.run_pass(self.connection.hub_now()))
                await asyncio.sleep(config.ledger_seconds)

    async def _tell_ledger(self, finding: Finding) -> None:
        if finding.reason in witness.ALARMS:
            await self.contributions.warn(finding)
        if finding != self._ledger_finding:
            self._ledger_finding = finding
            self.contributions.wake()

    def _member(self) -> Member | None:
        """As the hub's answer to an Offer names this home."""
        answers = [offer.get("status") or {} for offer in _objects(self.contributions.offers)]
        found = next((one for one in answers if one.get("homeUid") and one.get("federationId")), None)
        return Member(found["federationId"], found["homeUid"]) if found is not None else None

    def _prometheus(self) -> PrometheusConfig:
        config = self.config
        if not config.prometheus_url:
            raise Invalid("prometheus.url is not set: nothing that guests use is metered", reason="NoPrometheus")
        return PrometheusConfig.from_folder(
            config.prometheus_url,
            config.prometheus_auth_dir,
            namespace=config.guests_namespace,
            timeout_seconds=config.prometheus_timeout_seconds,
        )

    def _signer(self) -> Keys:
        if self.connection.keys is None:
            raise Invalid("the home has no key yet", reason="NoKey")
        return self.connection.keys

    def _settled(self, store: EvidenceStore) -> SettledEvidence:
        return SettledEvidence(
            self.connection.hub,
            self.connection.mailbox,
            store,
            offers=lambda: _objects(self.contributions.offers),
            guests=lambda: _objects(self.guests.mailbox),
        )

    def _meter(self, source: PrometheusSource, store: EvidenceStore) -> Meter:
        config, connection = self.config, self.connection
        return Meter(
            connection.hub,
            connection.mailbox,
            self._signer,
            source,
            store,
            offers=lambda: _objects(self.contributions.offers),
            guests=lambda: _objects(self.guests.mailbox),
            offset=lambda: connection.offset,
            scrape_interval_ms=round(config.scrape_interval_seconds * 1000),
        )


def _objects(reflector: Reflector | None) -> list[Json]:
    return list(reflector.store.values()) if reflector is not None else []


async def run(config: Config) -> None:
    """Until SIGTERM or SIGINT (which kopf takes), or until the process must end: LeaseLost, Rejoin, Refused."""
    async with KubeClient(config.load()) as home:
        agent = Agent(config, home)
        lease = HolderLease(
            home, config.lease_name, config.namespace, config.identity, duration_seconds=config.lease_seconds
        )
        async with serve_health(config.health_port, agent.checks(), host=config.health_host):
            await run_holding(lease, lambda: _work(agent))


async def _work(agent: Agent) -> None:
    """The agent beside kopf; when one of them ends, both do."""
    config = agent.config
    parts: list[Awaitable[None]] = [
        agent.run(),
        follow_contributions(config.load(), config.namespace, agent.contributions.wake),
    ]
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    except BaseExceptionGroup as group:
        raise _first(group) from group
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a person should read of several failures at once: an error of ours before any other."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((error for error in leaves if isinstance(error, HomefedError)), leaves[0])
