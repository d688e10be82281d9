"""A claim that a real ledger has receipted is computed again on another machine, from the home's bundle alone."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from settlement_world import LedgerWorld, at, samples, settlement_world

import homefed
from homefed.agent.settled import SettledEvidence
from homefed.api.meta import parse
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import evidence, pool
from homefed.kube.resources import HOMES, SCHEDULINGPOOLS
from homefed.metering.evidence import EvidenceStore
from testbed.binaries import Binaries
from testbed.claims import hub_key, public
from testbed.cluster import Cluster
from testbed.metrics import prometheus

CRDS = Path(__file__).parents[2] / "crds"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def address(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus(binaries, tmp_path_factory.mktemp("prometheus"), samples()) as url:
        yield url


@pytest.fixture(scope="module")
def hub_cluster(apiserver: Cluster) -> Cluster:
    apiserver.install_crds(CRDS)
    return apiserver


@pytest.fixture
async def world(hub_cluster: Cluster, address: str, tmp_path: Path) -> AsyncIterator[LedgerWorld]:
    async with settlement_world(hub_cluster, address, tmp_path) as made:
        yield made


async def bundles(world: LedgerWorld, hour: int) -> EvidenceStore:
    """The home's evidence, once its agent has looked for claims; the Offer says what the hub writes to it."""
    home = await world.client.get(HOMES, world.name)
    spec = parse(SchedulingPoolSpec, (await world.client.get(SCHEDULINGPOOLS, world.name))["spec"], where="spec")
    status = {
        "windowSeconds": 3600,
        "terms": pool.terms(spec),
        "memberSince": home["metadata"]["creationTimestamp"],
    }
    store, guests = EvidenceStore(world.evidence), await world.guests()
    looking = SettledEvidence(
        world.client,
        world.mailbox,
        store,
        offers=lambda: [{"spec": {"poolName": world.name}, "status": status}],
        guests=lambda: guests,
    )
    assert await looking.run_pass(at(hour, 100)) > 0
    return store


async def from_ledger(world: LedgerWorld, claim_id: str, folder: Path) -> Path:
    """The claim as the ledger has it, whatever the home has seen; in the form of `homefed claims show`."""
    found = await world.reader.claim(claim_id)
    header = json.loads(found.envelope.payload)
    parts = [await world.reader.part(claim_id, number) for number in range(1, len(header["parts"]) + 1)]
    path = folder / f"{claim_id}.json"
    path.write_text(json.dumps({"envelope": found.envelope.to_json(), "parts": parts}), encoding="utf-8")
    return path


def elsewhere(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process that has these files and nothing else."""
    return subprocess.run(
        [sys.executable, "-m", "homefed", "claims", *arguments],
        cwd=folder,
        env={"PATH": os.defpath, "PYTHONPATH": str(Path(homefed.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )


async def test_claims_of_three_hours_come_out_byte_for_byte(world: LedgerWorld, tmp_path: Path) -> None:
    for hour in (1, 2, 3):
        await world.hour(hour)
    store = await bundles(world, 3)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "hub.pub").write_text(base64.b64encode(public(hub_key())).decode(), encoding="utf-8")
    for claim in await world.claims():
        end = int(claim["metadata"]["name"].rsplit("-", 2)[1])
        bundle = store.read(world.name, end)
        assert bundle is not None
        (folder / "bundle.gz").write_bytes(evidence.write_again(bundle))
        path = await from_ledger(world, claim["spec"]["claimId"], folder)
        done = elsewhere(folder, "recompute", "bundle.gz", "--claim", path.name, "--hub-key", "hub.pub")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "signature of the hub: verified" in done.stdout
        assert done.stdout.count(": the same") == 3, "report, header and lines"
        explained = json.loads(elsewhere(folder, "explain", "--file", "bundle.gz", "-o", "json").stdout)
        assert explained["holds"]
        assert explained["lines"]
        assert all(line["holds"] for line in explained["lines"])


async def test_a_late_report_and_the_claim_that_takes_it_in_come_out_too(world: LedgerWorld, tmp_path: Path) -> None:
    """Hour 1 is settled without its report; hour 2's claim rests on both."""
    await world.settlement().settle(world.name, at(1, 901))
    await world.meter(at(2, 61))
    await world.settlement().settle(world.name, at(2, 70))
    store = await bundles(world, 2)
    first, second = await world.claims()
    for claim, quoted in ((first, 0), (second, 2)):
        end = int(claim["metadata"]["name"].rsplit("-", 2)[1])
        bundle = store.read(world.name, end)
        assert bundle is not None
        assert bundle.settled is not None
        assert sum(len(part.reports) for part in bundle.settled.claim.parts) == quoted
        (tmp_path / "bundle.gz").write_bytes(evidence.write_again(bundle))
        done = elsewhere(tmp_path, "recompute", "bundle.gz")
        assert done.returncode == 0, done.stdout + done.stderr
