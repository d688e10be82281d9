"""A hub operator under test, with the rights that the chart gives it, and a scripted agent of a home."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import names
from homefed.api.errors import HomefedError
from homefed.hub.app import Config, run
from homefed.kube.client import KubeClient
from homefed.kube.lease import renew
from homefed.kube.resources import HOMES, NODES, OFFERS, SCHEDULINGPOOLS
from testbed.binaries import Binaries
from testbed.cluster import Cluster

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "homefed"
CRDS = ROOT / "crds"
NAMESPACE = "homefed"
FEDERATION = "test-federation"
SERVICE_ACCOUNT = "homefed-hub"
PATIENCE_S = 120.0
"""Seconds that are waited for anything: they cost nothing where all works, and a loaded machine is slow."""
TEMPLATES = ("hub-rbac", "policies-hub", "hub")
Json = dict[str, Any]


@contextmanager
def prepared(cluster: Cluster, binaries: Binaries) -> Iterator[None]:
    """The cluster running, with our kinds and the hub's rights installed; stopped at the end, however it ends."""
    try:
        cluster.start()
        cluster.install_crds(CRDS)
        install_hub_rights(cluster, binaries)
        yield
    finally:
        cluster.stop()


def install_hub_rights(cluster: Cluster, binaries: Binaries) -> None:
    """The release's namespace, and in it what the chart renders for role hub."""
    cluster.create_namespace(NAMESPACE)
    apply_hub_chart(cluster, binaries)


def apply_hub_chart(cluster: Cluster, binaries: Binaries, *values: str) -> None:
    """What the chart renders for role hub with these values (NAME=VALUE), without its Deployment."""
    show = [argument for name in TEMPLATES for argument in ("--show-only", f"templates/{name}.yaml")]
    given = ["--set", ",".join([f"role=hub,federation.id={FEDERATION}", *values])]
    command = [str(binaries.path("helm4")), "template", "homefed", str(CHART), "--namespace", NAMESPACE, *given, *show]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    objects = [obj for obj in yaml.safe_load_all(rendered) if obj and obj["kind"] != "Deployment"]
    cluster.apply(objects)


@asynccontextmanager
async def hub_operator(cluster: Cluster, **settings: Any) -> AsyncIterator[None]:
    """The hub operator, running in this process as its own ServiceAccount."""
    config = Config(
        federation_id=FEDERATION,
        namespace=NAMESPACE,
        service_account=SERVICE_ACCOUNT,
        kubeconfig=cluster.kubeconfig_for(NAMESPACE, SERVICE_ACCOUNT),
        health_host="127.0.0.1",
        health_port=0,
        **settings,
    )
    task = asyncio.create_task(run(config))
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait({task})
        await asyncio.sleep(0.25)  # TLS connections say goodbye after their session has been closed


async def eventually(condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """The first true result of an async condition; an AssertionError that says what did not happen."""
    loop = asyncio.get_running_loop()
    end, last = loop.time() + timeout_s, ""
    while loop.time() < end:
        try:
            if seen := await condition():
                return seen
            last = repr(seen)
        except HomefedError as error:
            last = repr(error)
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what}: not within {timeout_s} s (last: {last})")


async def quiet(cluster: Cluster, for_s: float = 4.0) -> int:
    """The size of the audit log, once the hub operator has written nothing but Leases for so many seconds."""
    seen = cluster.audit_log.stat().st_size
    loop = asyncio.get_running_loop()
    since = loop.time()

    async def is_still() -> int:
        nonlocal seen, since
        size = cluster.audit_log.stat().st_size
        if hub_writes(cluster, seen):
            since = loop.time()
        seen = size
        return seen if loop.time() - since >= for_s else 0

    return int(await eventually(is_still, f"the hub writes nothing for {for_s} s"))


def hub_writes(cluster: Cluster, offset: int) -> list[str]:
    """What the hub operator has written since then, Leases aside."""
    events = [event for event in cluster.audit_events(offset) if event.user.endswith(f":{SERVICE_ACCOUNT}")]
    return [f"{event.verb} {event.path}" for event in events if event.is_write and event.resource != "leases"]


def machine(number: int, **changes: Any) -> Json:
    allocatable = {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "20Gi", "pods": "20"}
    return {"id": f"{number:064x}", "allocatable": allocatable, "arch": "amd64", "kubeletVersion": "v1.36.3"} | changes


async def make_pool(admin: KubeClient, name: str, **spec: Any) -> Json:
    prices = [{"resource": "cpu", "basis": "reserved", "microCredits": 1000, "per": "core-hour"}]
    card = {"version": "1", "validFrom": "2026-01-01T00:00:00Z", "prices": prices}
    return await admin.create(SCHEDULINGPOOLS, {"metadata": {"name": name}, "spec": {"rateCard": card} | spec})


async def make_home(admin: KubeClient, name: str, **spec: Any) -> Json:
    return await admin.create(HOMES, {"metadata": {"name": name}, "spec": spec})


class Agent:
    """A home's agent as the hub sees it: its own token, an Offer, renewed Leases; nothing else."""

    def __init__(self, client: KubeClient, admin: KubeClient, home: str) -> None:
        self.client, self._admin, self.home = client, admin, home
        self.key = base64.b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
        self.renewing = True

    @classmethod
    @asynccontextmanager
    async def joined(cls, cluster: Cluster, admin: KubeClient, home: str) -> AsyncIterator[Agent]:
        """Waits until the hub has made the mailbox, then renews whatever Leases the Offers' status names."""
        await eventually(lambda: mailbox_of(admin, home), f"mailbox of {home}")
        token = cluster.token_for(names.mailbox(home), names.AGENT_SERVICE_ACCOUNT)
        async with KubeClient.from_token(cluster.url, cluster.ca_path.read_text(), token) as client:
            agent = cls(client, admin, home)
            task = asyncio.create_task(agent._renew_forever())
            try:
                yield agent
            finally:
                task.cancel()
                await asyncio.wait({task})

    async def offer(self, name: str, pool: str, machines: Sequence[Json], **spec: Any) -> Json:
        uid = f"uid-{name}"
        given = {"contributionUid": uid, "poolName": pool, "publicKey": self.key, "machines": [*machines]} | spec
        body = {"metadata": {"name": name, "namespace": names.mailbox(self.home)}, "spec": given}
        return await self.client.apply(OFFERS, body, field_manager=names.AGENT_MANAGER, force=True)

    async def status(self, name: str) -> Json:
        offer = await self.client.get(OFFERS, name, names.mailbox(self.home))
        return offer.get("status") or {}

    async def condition(self, name: str, type_: str) -> Json:
        found = [c for c in (await self.status(name)).get("conditions", []) if c["type"] == type_]
        return found[0] if found else {}

    async def fall_silent(self) -> None:
        """All its Leases are renewed together for the last time, so that all run out in one look of Kubernetes."""
        self.renewing = False
        await asyncio.sleep(1)  # what is under way comes to its end
        offers = await self.client.list(OFFERS, names.mailbox(self.home))
        nodes = [one["node"] for offer in offers.items for one in (offer.get("status") or {}).get("machines", [])]
        now = datetime.now(UTC)
        await asyncio.gather(*(renew(self.client, node, names.NODE_LEASE_NAMESPACE, self.home, now) for node in nodes))

    async def _renew_forever(self) -> None:
        while True:
            if self.renewing:
                await self._renew_all()
            await asyncio.sleep(0.1)

    async def _renew_all(self) -> None:
        try:
            offers = await self.client.list(OFFERS, names.mailbox(self.home))
            for offer in offers.items:
                for accepted in (offer.get("status") or {}).get("machines", []):
                    node, now = accepted["node"], datetime.now(UTC)
                    await renew(self.client, node, names.NODE_LEASE_NAMESPACE, self.home, now)
        except HomefedError:
            return  # the right to renew may be a moment younger than the status


async def mailbox_of(admin: KubeClient, home: str) -> str:
    found = await admin.get(HOMES, home)
    return str((found.get("status") or {}).get("mailbox", ""))


async def nodes_of(admin: KubeClient, home: str) -> list[Json]:
    return (await admin.list(NODES, label_selector=f"{names.LABEL_HOME}={home}")).items


def condition_of(obj: Json, type_: str) -> Json:
    found = [c for c in (obj.get("status") or {}).get("conditions", []) if c["type"] == type_]
    return found[0] if found else {}
