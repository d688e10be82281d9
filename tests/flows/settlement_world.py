"""One home with one pool and one guest, on a real API server, Prometheus and ledger; every part started at will."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.agent.keys import Keys
from homefed.agent.meter import Meter
from homefed.api import dsse, names
from homefed.api.errors import Transient
from homefed.core import conditions
from homefed.core.findings import Finding
from homefed.core.witness import Head
from homefed.hub.alarms import STOPPED, Alarms
from homefed.hub.config import Config
from homefed.hub.ledger_gate import Ledger
from homefed.hub.settlement import Settlement
from homefed.kube.client import KubeClient
from homefed.kube.events import EventRecorder
from homefed.kube.resources import EVENTS, GUESTPODS, HOMES, REWARDCLAIMS, SCHEDULINGPOOLS, USAGEREPORTS
from homefed.ledger_client import Chain, Claim, LedgerClient, Submission, Submitted
from homefed.metering.evidence import EvidenceStore
from homefed.metering.prometheus import PrometheusConfig, PrometheusSource
from testbed.claims import FEDERATION, hub_key
from testbed.cluster import Cluster
from testbed.ledger import HUB_TOKEN, serving
from testbed.ledger import Ledger as Service
from testbed.metrics import Made

T0 = 1_767_225_600
UID = "11111111-2222-3333-4444-555555555555"
MIB = 2**20
HOME_KEY = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
Json = dict[str, Any]

PRICES = [
    {"resource": "cpu", "basis": "reserved", "microCredits": 1_000_000, "per": "core-hour"},
    {"resource": "cpu", "basis": "used", "microCredits": 2_000_000, "per": "core-hour"},
    {"resource": "memory", "basis": "used", "microCredits": 64_000, "per": "GiB-hour"},
    {"resource": "network-receive", "basis": "used", "microCredits": 1_000_000, "per": "GiB"},
]


def samples() -> list[Made]:
    """Three hours of one pod: 0.25 of its one core, 64 MiB, 10 kB/s in."""
    seconds = range(T0 + 15, T0 + 3 * 3600 + 1, 15)
    guest = {"namespace": "homefed-guests", "pod": f"hf-{UID}", "container": "app", "id": "/kubepods/a"}
    network = {**guest, "container": "", "id": "/kubepods/s", "interface": "eth0"}
    return [
        Made("container_cpu_usage_seconds_total", guest, [(s, 0.25 * (s - T0)) for s in seconds]),
        Made("container_memory_working_set_bytes", guest, [(s, 64 * MIB) for s in seconds]),
        Made("container_network_receive_bytes_total", network, [(s, 10_000 * (s - T0)) for s in seconds]),
        Made("container_start_time_seconds", guest, [(s, T0) for s in seconds]),
    ]


def at(hours: float, seconds: float = 0) -> datetime:
    """So long after T0."""
    return datetime.fromtimestamp(T0, UTC) + timedelta(hours=hours, seconds=seconds)


class Unreliable:
    """A ledger that can be down, or lose its answers after the deed."""

    def __init__(self, client: LedgerClient) -> None:
        self._client = client
        self.down = False
        self.answers_lost = 0
        self.puts = 0
        """Claims sent."""

    @property
    def _reached(self) -> LedgerClient:
        if self.down:
            raise Transient("the ledger is down", reason="Unavailable")
        return self._client

    async def submit(self, claims: Sequence[Submission]) -> Submitted:
        if self.down:
            return Submitted((), Transient("the ledger is down", reason="Unavailable"))
        self.puts += len(claims)
        submitted = await self._client.submit(claims)
        if self.answers_lost:
            self.answers_lost -= 1
            return Submitted((), Transient("the answer was lost"))
        return submitted

    async def claim(self, claim_id: str) -> Claim:
        return await self._reached.claim(claim_id)

    async def part(self, claim_id: str, number: int) -> dict[str, Any]:
        return await self._reached.part(claim_id, number)

    async def chain(self, pool: str, account: str, sequence: int | None = None) -> Chain | None:
        return await self._reached.chain(pool, account, sequence)

    async def check(self) -> Head:
        return await self._reached.check()

    async def confirm(self, receipt: str, envelope: dsse.Envelope) -> None:
        await self._reached.confirm(receipt, envelope)

    def forget(self) -> None:
        self._client.forget()


@dataclass
class World:
    """One home with one pool, one guest, its meter, and the hub's settlement."""

    client: KubeClient
    ledger: Ledger
    """As the hub reaches it."""
    name: str
    home_uid: str
    prometheus: str
    evidence: Path

    @property
    def mailbox(self) -> str:
        return names.mailbox(self.name)

    @property
    def account(self) -> str:
        return names.contributor_account(FEDERATION, self.home_uid)

    async def guests(self) -> list[Json]:
        return (await self.client.list(GUESTPODS, self.mailbox)).items

    async def reports(self) -> list[Json]:
        return (await self.client.list(USAGEREPORTS, self.mailbox)).items

    async def claims(self) -> list[Json]:
        """Headers, oldest first."""
        found = (await self.client.list(REWARDCLAIMS, self.mailbox)).items
        headers = [obj for obj in found if obj["spec"]["part"] == "Header"]
        return sorted(headers, key=lambda obj: int(obj["spec"]["sequence"]))

    async def meter(
        self,
        now: datetime,
        key: Ed25519PrivateKey = HOME_KEY,
        url: str | None = None,
        former: Sequence[Ed25519PrivateKey] = (),
    ) -> Finding:
        """One pass of a meter that has just been started; `former` are keys that `key` has replaced."""
        keys = Keys(key, "salt", former=tuple(one.public_key().public_bytes_raw() for one in former))
        offer = {
            "spec": {"poolName": self.name},
            "status": {
                "federationId": FEDERATION,
                "homeUid": self.home_uid,
                "windowSeconds": 3600,
                "graceSeconds": 60,
            },
        }
        guests = await self.guests()
        source = PrometheusSource(PrometheusConfig(url or self.prometheus, timeout_seconds=5))
        meter = Meter(
            self.client,
            self.mailbox,
            lambda: keys,
            source,
            EvidenceStore(self.evidence),
            offers=lambda: [offer],
            guests=lambda: guests,
        )
        findings = await meter.run_pass(now)
        source.close()
        return findings[self.name]

    def settlement(self, ledger: Ledger | None = None, seed: int = 1) -> Settlement:
        """A hub that has just been started. `ledger`: how it reaches its ledger; `seed`: of its key."""
        alarms = Alarms(EventRecorder(self.client, "homefed-hub"))
        config = Config(federation_id=FEDERATION)
        return Settlement(self.client, ledger or self.ledger, hub_key(seed), config, alarms)

    async def hour(self, number: int, settlement: Settlement | None = None) -> Finding:
        """The home reports the hour that begins `number - 1` hours after T0; the hub settles it."""
        await self.meter(at(number, 61))
        return await (settlement or self.settlement()).settle(self.name, at(number, 70))

    async def observe(self, **observed: str) -> None:
        """The hub's own observation of the guest."""
        await self.client.patch(GUESTPODS, UID, {"spec": {"observed": observed}}, self.mailbox)

    async def warnings(self) -> list[str]:
        """Reasons of the Warning events on the Home."""
        events = (await self.client.list(EVENTS, "default")).items
        return [e["reason"] for e in events if e["involvedObject"]["name"] == self.name and e["type"] == "Warning"]

    def alarms(self) -> dict[str, float]:
        """Reason → value of the gauge, for this home."""
        (metric,) = STOPPED.collect()
        return {s.labels["reason"]: s.value for s in metric.samples if s.labels["home"] == self.name}

    async def resume(self, how: str = "retry") -> None:
        """The organiser's word."""
        patch = {"metadata": {"annotations": {names.ANNOTATION_RESUME: how}}}
        await self.client.patch(HOMES, self.name, patch)

    async def rotate(self, new: Ed25519PrivateKey, until: str) -> None:
        """As the hub pins a key that a statement of the home's first one names; that one counts until then."""
        old, raw = HOME_KEY.public_key().public_bytes_raw(), new.public_key().public_bytes_raw()
        key = {"publicKey": base64.b64encode(raw).decode(), "fingerprint": dsse.fingerprint(raw)}
        former = {"publicKey": base64.b64encode(old).decode(), "fingerprint": dsse.fingerprint(old)}
        key |= {"pinnedAt": "2026-01-01T02:00:00Z", "former": [former | {"validUntil": until}]}  # type: ignore[dict-item]
        await self.client.patch(HOMES, self.name, {"status": {"key": key}}, subresource="status")

    async def condition(self) -> Json:
        home = await self.client.get(HOMES, self.name)
        return dict(conditions.get(home["status"].get("conditions"), "Settled") or {})


@dataclass
class LedgerWorld(World):
    """With a real ledger."""

    ledger: Unreliable
    service: Service
    reader: LedgerClient


_numbers = iter(range(1, 1000))


@asynccontextmanager
async def settlement_world(cluster: Cluster, prometheus_url: str, folder: Path) -> AsyncIterator[LedgerWorld]:
    """A new home; the ledger serves in this event loop, with its files below `folder`."""
    (folder / "ledger").mkdir()
    async with (
        KubeClient.from_kubeconfig(cluster.kubeconfig) as client,
        serving(folder / "ledger") as service,
        LedgerClient(service.url, lambda: HUB_TOKEN, attempts=1) as ledger,
    ):
        name, uid = await new_home(client, cluster)
        unreliable = Unreliable(ledger)
        yield LedgerWorld(client, unreliable, name, uid, prometheus_url, folder / "evidence", service, ledger)


async def new_home(client: KubeClient, cluster: Cluster) -> tuple[str, str]:
    """Its name (that of its pool, too) and UID, with a guest that runs since T0."""
    name = f"alice-{next(_numbers)}"
    return name, await _prepare(client, cluster, name)


async def _prepare(client: KubeClient, cluster: Cluster, name: str) -> str:
    """Home, pool, mailbox, and a guest that runs since T0; the Home's UID."""
    home = await client.create(HOMES, {"metadata": {"name": name}, "spec": {}})
    raw = HOME_KEY.public_key().public_bytes_raw()
    key = {"publicKey": base64.b64encode(raw).decode(), "fingerprint": dsse.fingerprint(raw)}
    status = {"mailbox": names.mailbox(name), "key": key | {"pinnedAt": "2026-01-01T00:00:00Z"}}
    await client.patch(HOMES, name, {"status": status}, subresource="status")
    cluster.create_namespace(names.mailbox(name))
    await _fill_pool(client, name, name, UID)
    return str(home["metadata"]["uid"])


async def new_pool(client: KubeClient, home: str) -> tuple[str, str]:
    """A further pool of a home, with a guest that runs since T0: its name, and the guest's UID."""
    name, uid = f"{home}-more", UID.replace("1111", "2222")
    await _fill_pool(client, home, name, uid)
    return name, uid


async def _fill_pool(client: KubeClient, home: str, pool: str, uid: str) -> None:
    card = {"version": "1", "validFrom": "2026-01-01T00:00:00Z", "prices": PRICES}
    spec = {"rateCard": card, "settlement": {"feePpm": 100_000, "graceSeconds": 60, "heldBack": []}}
    await client.create(SCHEDULINGPOOLS, {"metadata": {"name": pool}, "spec": spec})
    guest = guest_pod(home)
    guest["metadata"]["name"] = guest["spec"]["podUid"] = uid
    guest["spec"]["poolName"] = pool
    await client.create(GUESTPODS, guest)
    running = {"status": {"phase": "Running", "startedAt": "2026-01-01T00:00:00Z", "containers": [RUNNING]}}
    await client.patch(GUESTPODS, uid, running, names.mailbox(home), subresource="status")


RUNNING = {"name": "app", "state": "running", "startedAt": "2026-01-01T00:00:00Z"}


def guest_pod(name: str) -> Json:
    spec = {
        "podUid": UID,
        "podName": "web",
        "podNamespace": "shop",
        "namespaceUid": "ns-uid-1",
        "poolName": name,
        "nodeName": f"hf-{name}-00000000",
        "machineId": "0" * 64,
        "offerName": name,
        "requests": {"cpu": "1", "memory": "128Mi"},
        "pod": {"spec": {}},
        "podDigest": "0" * 64,
        "observed": {"boundAt": "2026-01-01T00:00:00Z", "runningFrom": "2026-01-01T00:00:00Z"},
    }
    return {"metadata": {"name": UID, "namespace": names.mailbox(name)}, "spec": spec}
