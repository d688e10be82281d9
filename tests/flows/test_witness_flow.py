"""A real ledger process, two homes that are its witnesses, a hub: what becomes of a ledger that is not what it was.

The homes' Secrets and the hub's claims lie on a real API server.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from settlement_world import World, at, new_home

from homefed.agent.witness import CONFLICT, SEEN, Member, Witness
from homefed.core import signed_note, witness
from homefed.core.findings import Finding
from homefed.kube.client import KubeClient
from homefed.kube.resources import SECRETS
from homefed.ledger_client import LedgerClient, Submission
from testbed.claims import FEDERATION, Chain, public
from testbed.cluster import Cluster
from testbed.ledger import HUB_TOKEN, LedgerProcess, register_home
from testbed.process import ProcessFailed

CRDS = Path(__file__).parents[2] / "crds"
STATE = ("ledger.db", "ledger.key", "signed-size")
LATE = 901
"""Seconds after a window's end: reserved amounts are settled without a report."""
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def hub_cluster(apiserver: Cluster) -> Cluster:
    apiserver.install_crds(CRDS)
    return apiserver


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerProcess]:
    """Two homes are registered with it."""
    for name, key in KEYS.items():
        register_home(tmp_path / "home-keys", name, key)
    process = LedgerProcess(tmp_path, "--home-key-dir", str(tmp_path / "home-keys"))
    process.start()
    yield process
    process.close()


KEYS = {f"uid-of-home-{number}": Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2)}


@dataclass
class Home:
    """One home's witness, which can be started anew."""

    client: KubeClient
    namespace: str
    uid: str
    url: str

    async def look(self) -> Finding:
        """One pass of an agent that has just been started."""
        async with LedgerClient(self.url, attempts=1) as ledger:
            own = Witness(
                self.client,
                self.namespace,
                "homefed-agent",
                ledger,
                member=lambda: Member(FEDERATION, self.uid),
                private=lambda: KEYS[self.uid],
            )
            return await own.run_pass(datetime.now(UTC))


@dataclass
class Scene:
    """`world`: a home whose windows a hub settles; `homes`: those that are witnesses."""

    ledger: LedgerProcess
    folder: Path
    reader: LedgerClient
    world: World
    homes: list[Home]

    async def settle(self, hours: int, more: float = 0) -> Finding:
        """By a hub that has just been started."""
        async with LedgerClient(self.ledger.url, lambda: HUB_TOKEN, attempts=1) as way:
            return await self.world.settlement(way).settle(self.world.name, at(hours, LATE + more))

    async def look(self) -> list[str]:
        return [(await home.look()).reason for home in self.homes]

    async def cosigners(self) -> set[str]:
        """Whose cosignatures under the ledger's checkpoint verify."""
        note = signed_note.parse((await self.reader.fetch("/checkpoint")).decode())
        keys = [witness.home_key(uid, public(key)) for uid, key in KEYS.items()]
        return {signature.name for signature in note.verify([await self.reader.ledger_key(), *keys])}

    def snapshot(self, name: str) -> Path:
        """Everything that the ledger holds, outside its database too."""
        self.ledger.process.stop()
        folder = self.folder / name
        folder.mkdir()
        for file in STATE:
            shutil.copy(self.folder / file, folder / file)
        self.ledger.start()
        return folder

    def bring_back(self, folder: Path, *files: str) -> None:
        """In place of what there is; starts the ledger."""
        self.ledger.process.stop()
        for path in self.folder.glob("ledger.db*"):
            path.unlink()
        for file in files:
            shutil.copy(folder / file, self.folder / file)
        self.ledger.start()


@pytest.fixture
async def scene(hub_cluster: Cluster, ledger: LedgerProcess, tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(KubeClient.from_kubeconfig(hub_cluster.kubeconfig))
        reader = await stack.enter_async_context(LedgerClient(ledger.url, lambda: HUB_TOKEN))
        name, uid = await new_home(client, hub_cluster)
        homes = []
        for number, home in enumerate(KEYS, 1):
            namespace = hub_cluster.create_namespace(f"{name}-home-{number}")
            await client.create(SECRETS, {"metadata": {"name": "homefed-agent", "namespace": namespace}})
            homes.append(Home(client, namespace, home, ledger.url))
        yield Scene(ledger, tmp_path, reader, World(client, reader, name, uid, NOWHERE, tmp_path), homes)


async def test_what_a_hub_settles_both_homes_cosign(scene: Scene) -> None:
    for hours in (1, 2, 3):
        assert (await scene.settle(hours)).status == "True"
        assert await scene.look() == ["Cosigned", "Cosigned"]
        assert await scene.cosigners() == {(await scene.reader.ledger_key()).name, *map(witness.home_name, KEYS)}


async def test_a_ledger_restored_from_an_older_backup_refuses_to_start(scene: Scene) -> None:
    """The mark outside the database says that more was signed."""
    await scene.settle(1)
    backup = await asyncio.to_thread(scene.snapshot, "older")
    await scene.settle(2)
    with pytest.raises(ProcessFailed, match="LedgerWentBack"):
        await asyncio.to_thread(scene.bring_back, backup, "ledger.db")


async def test_a_ledger_taken_back_with_all_its_marks_is_refused_by_hub_and_homes_until_they_are_told(
    scene: Scene,
) -> None:
    await scene.settle(1)
    backup = await asyncio.to_thread(scene.snapshot, "older")
    for hours in (2, 3):
        await scene.settle(hours)
    await scene.look()
    newest = await asyncio.to_thread(scene.snapshot, "newest")
    await asyncio.to_thread(scene.bring_back, backup, *STATE)
    assert await scene.look() == ["LedgerWentBack", "LedgerWentBack"]
    assert (await scene.settle(4)).reason == "LedgerWentBack"
    assert (await scene.reader.totals()).claims == 1, "nothing was sent"
    await asyncio.to_thread(scene.bring_back, newest, *STATE)
    assert await scene.look() == ["Cosigned", "Cosigned"], "the newest backup heals it"
    assert (await scene.settle(4, more=10)).status == "True"
    await asyncio.to_thread(scene.bring_back, backup, *STATE)
    await scene.world.resume("resend")
    scene.reader.forget()
    assert (await scene.settle(4, more=20)).status == "True", "the organiser said that this is the ledger now"
    claims = await scene.world.claims()
    assert [claim["status"]["leafIndex"] for claim in claims] == [0, 1, 2, 3]
    assert (await scene.reader.totals()).claims == 4


async def test_a_ledger_that_shows_another_history_is_found_by_hub_and_homes_and_never_cosigned(scene: Scene) -> None:
    await scene.settle(1)
    backup = await asyncio.to_thread(scene.snapshot, "older")
    await scene.settle(2)
    await scene.look()
    seen = [await home.client.get(SECRETS, "homefed-agent", home.namespace) for home in scene.homes]
    await asyncio.to_thread(scene.bring_back, backup, *STATE)
    other, claims = Chain(home="home-of-a-friend"), []
    for _ in range(3):
        claim = other.next({"ns-1": 10**9})
        claims.append(Submission(claim.id, claim.parts, claim.envelope))
    scene.reader.forget()
    assert (await scene.reader.submit(claims)).trouble is None
    for _ in range(2):
        assert await scene.look() == ["LedgerForked", "LedgerForked"]
    assert await scene.cosigners() == {(await scene.reader.ledger_key()).name}
    for home, before in zip(scene.homes, seen, strict=True):
        secret = await home.client.get(SECRETS, "homefed-agent", home.namespace)
        assert secret["data"][SEEN] == before["data"][SEEN]
        assert CONFLICT in secret["data"]
    found = await scene.settle(3)
    assert (found.status, found.reason) == ("False", "LedgerForked")
    assert (await scene.reader.totals()).claims == 1 + len(claims)
