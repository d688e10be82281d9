"""What a dishonest home does at the hub's own API: a real API server, Prometheus and ledger."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from settlement_world import HOME_KEY, UID, LedgerWorld, at, samples, settlement_world

from homefed.api import dsse
from homefed.api.errors import HomefedError
from homefed.api.meta import parse
from homefed.api.report_document import ReportDocument
from homefed.core import readings
from homefed.kube.resources import USAGEREPORTS
from testbed.binaries import Binaries
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


def forged(report: Json, **changes: Any) -> Json:
    """The same report with other CPU figures, signed with the home's key."""
    document = parse(ReportDocument, dsse.document_of(dsse.decode(report["spec"]["envelope"])), where="report")
    lines = [line.model_copy(update=changes) if line.resource == "cpu" else line for line in document.lines]
    document = document.model_copy(update={"lines": lines, "evidence_digest": "1" * 64})
    return readings.report_object(document, report["metadata"]["namespace"], HOME_KEY)


async def settle_the_first_hour(world: LedgerWorld) -> None:
    assert (await world.hour(1)).status == "True"


async def test_a_report_under_another_name_is_not_counted(world: LedgerWorld) -> None:
    await world.meter(at(1, 61))
    (honest,) = await world.reports()
    more = forged(honest, close="1900000000", amount="1900000000")
    for number, obj in enumerate([more, copy.deepcopy(honest)]):
        name = f"{honest['metadata']['name']}-{number}"
        obj["metadata"] = {"name": name, "namespace": world.mailbox}
        await world.client.create(USAGEREPORTS, obj, world.mailbox)
    await world.settlement().settle(world.name, at(1, 70))
    (claim,) = await world.claims()
    lines = [line for line in await lines_of(world, claim) if line["basis"] == "used" and line["resource"] == "cpu"]
    assert [line["accepted"] for line in lines] == ["900000000"]


async def test_a_report_cannot_be_altered(world: LedgerWorld) -> None:
    await world.meter(at(1, 61))
    (honest,) = await world.reports()
    more = forged(honest, close="1900000000", amount="1900000000")
    with pytest.raises(HomefedError, match="immutable"):
        await world.client.patch(USAGEREPORTS, honest["metadata"]["name"], {"spec": more["spec"]}, world.mailbox)


async def test_an_impossible_report_stops_what_is_used_and_not_what_is_reserved(world: LedgerWorld) -> None:
    await settle_the_first_hour(world)
    await world.meter(at(2, 61))
    honest = next(obj for obj in await world.reports() if obj["spec"]["windowEnd"] == "2026-01-01T02:00:00Z")
    await world.client.delete(USAGEREPORTS, honest["metadata"]["name"], world.mailbox)
    obj = forged(honest, close="6000000000", amount="5100000000")
    await world.client.create(USAGEREPORTS, obj, world.mailbox)
    hub = world.settlement()
    await hub.settle(world.name, at(2, 70))
    assert (await world.hour(3)).status == "True"
    for claim in (await world.claims())[1:]:
        lines = {(line["resource"], line["basis"]): line for line in await lines_of(world, claim)}
        assert (lines["cpu", "used"]["accepted"], lines["cpu", "used"]["codes"]) == ("0", ["Impossible"])
        assert lines["cpu", "reserved"]["accepted"] == "3600000000"
        assert int(lines["memory", "used"]["accepted"]) > 0


async def lines_of(world: LedgerWorld, claim: Json) -> list[Json]:
    """As the ledger holds them; all are of the one guest."""
    part = await world.reader.part(claim["spec"]["claimId"], 1)
    assert {line["guestPod"] for line in part["lines"]} == {UID}
    return list(part["lines"])
