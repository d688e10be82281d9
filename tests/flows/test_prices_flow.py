"""Cards, classes and the two meters on a real API server, Prometheus and ledger: what claims and conditions say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from settlement_world import UID, LedgerWorld, at, samples, settlement_world

from homefed.api.canonical import parse as parse_json
from homefed.api.claim_document import ClaimHeader, Line
from homefed.api.dsse import decode
from homefed.api.rate_card import RateCard
from homefed.core import audit_lines, claim_chain, conditions, rates
from homefed.hub.meter_gaps import GAP
from homefed.kube.resources import GUESTPODS, HOMES, REWARDCLAIMS, SCHEDULINGPOOLS
from testbed.binaries import Binaries
from testbed.cluster import Cluster
from testbed.metrics import prometheus

CRDS = Path(__file__).parents[2] / "crds"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def address(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus(binaries, tmp_path_factory.mktemp("prometheus"), samples()) as url:
        yield url


@pytest.fixture
async def world(apiserver: Cluster, address: str, tmp_path: Path) -> AsyncIterator[LedgerWorld]:
    apiserver.install_crds(CRDS)
    async with settlement_world(apiserver, address, tmp_path) as made:
        yield made


async def patch_guest(world: LedgerWorld, **spec: object) -> None:
    await world.client.patch(GUESTPODS, UID, {"spec": spec}, world.mailbox)


async def lines_of(world: LedgerWorld) -> list[list[Line]]:
    """Of each claim, oldest first."""
    parts = {
        obj["spec"]["claimId"]: audit_lines.read_lines(claim_chain.part_bytes(obj))
        for obj in (await world.client.list(REWARDCLAIMS, world.mailbox)).items
        if obj["spec"]["part"] == "Lines"
    }
    return [parts[claim["spec"]["claimId"]] for claim in await world.claims()]


async def headers(world: LedgerWorld) -> list[ClaimHeader]:
    envelopes = [decode(claim["spec"]["envelope"]) for claim in await world.claims()]
    return [ClaimHeader.model_validate(parse_json(one.payload, limit=2**20)) for one in envelopes]


async def meter_agrees(world: LedgerWorld) -> Json | None:
    home = await world.client.get(HOMES, world.name)
    found = conditions.get(home["status"].get("conditions"), "MeterAgrees")
    return dict(found) if found is not None else None


def observed(home: str) -> tuple[float, float]:
    """Lines counted of the home, and those of them without a gap."""
    found = {s.labels.get("le", s.name): s.value for m in GAP.collect() for s in m.samples if s.labels["home"] == home}
    return found["+Inf"], found["0.0"]


async def test_an_honest_home_agrees_with_the_hub_and_the_histogram_has_no_gap(world: LedgerWorld) -> None:
    settlement = world.settlement()
    await settlement.settle(world.name, at(1, 120))
    assert (await world.condition())["reason"] == "WaitingForData"
    for number in (1, 2):
        await world.hour(number, settlement)
        assert await meter_agrees(world) is None, "two windows are too few"
    await world.hour(3, settlement)
    told = await meter_agrees(world)
    assert told is not None
    assert (told["status"], told["reason"]) == ("True", "MetersAgree")
    lines, without_gap = observed(world.name)
    assert lines == without_gap > 0
    assert (await world.condition())["status"] == "True"
    await settlement.settle(world.name, at(4, 120))
    assert (await world.condition())["reason"] == "WaitingForData"
    assert await meter_agrees(world) == told, "one condition does not push the other out"


async def test_a_home_that_reports_more_than_the_hub_saw_run_is_told_so_after_three_windows(world: LedgerWorld) -> None:
    for number in (1, 2, 3):
        await patch_guest(world, requests={"cpu": "1", "memory": "128Mi"})
        await world.meter(at(number, 61))
        await patch_guest(world, requests={"cpu": "50m", "memory": "128Mi"})
        await world.settlement().settle(world.name, at(number, 70))
    told = await meter_agrees(world)
    assert told is not None
    assert (told["status"], told["reason"]) == ("False", "MetersDisagree")
    assert "of the cpu" in told["message"]
    cpu = [line for lines in await lines_of(world) for line in lines if (line.resource, line.basis) == ("cpu", "used")]
    assert all(int(line.gap or 0) > 0 for line in cpu)
    lines, without_gap = observed(world.name)
    assert lines > without_gap


async def test_windows_before_and_after_a_new_card_have_each_their_own(world: LedgerWorld) -> None:
    pool = await world.client.get(SCHEDULINGPOOLS, world.name)
    first = pool["spec"]["rateCard"]
    dearer = [price | {"microCredits": 3 * price["microCredits"]} for price in first["prices"]]
    second = {"version": "2", "validFrom": "2026-01-01T01:00:00Z", "prices": dearer}
    await world.client.patch(SCHEDULINGPOOLS, world.name, {"spec": {"nextRateCards": [second]}})
    for number in (1, 2):
        await world.hour(number)
    digests = [rates.card_digest(RateCard.model_validate(card)) for card in (first, second)]
    before, after = await headers(world)
    assert [before.rate_card_digest, after.rate_card_digest] == digests
    reserved = [[line for line in lines if line.basis == "reserved"] for lines in await lines_of(world)]
    assert [int(lines[0].amount) for lines in reserved] == [1_000_000, 3_000_000]


async def test_class_owners_price_and_time_of_day_reach_the_claim_and_the_ledger(world: LedgerWorld) -> None:
    pool = await world.client.get(SCHEDULINGPOOLS, world.name)
    card = pool["spec"]["rateCard"]
    fast = [price | {"class": "fast", "microCredits": 2 * price["microCredits"]} for price in card["prices"]]
    bands = [{"from": "00:00", "factorPpm": 250_000}, {"from": "01:00", "factorPpm": 1_000_000}]
    changed = card | {"version": "2", "prices": [*card["prices"], *fast], "timeOfDay": bands}
    await world.client.patch(SCHEDULINGPOOLS, world.name, {"spec": {"rateCard": changed}})
    guest = await world.client.get(GUESTPODS, UID, world.mailbox)
    metadata = {key: guest["metadata"][key] for key in ("name", "namespace")}
    status = {"status": {key: guest["status"][key] for key in ("phase", "startedAt", "containers")}}
    await world.client.delete(GUESTPODS, UID, world.mailbox)
    terms = {"class": "fast", "pricePpm": 800_000}
    await world.client.create(GUESTPODS, {"metadata": metadata, "spec": guest["spec"] | {"terms": terms}})
    await world.client.patch(GUESTPODS, UID, status, world.mailbox, subresource="status")
    for number in (1, 2):
        assert (await world.hour(number)).status == "True"
    found = [next(line for line in lines if line.basis == "reserved") for lines in await lines_of(world)]
    assert [int(line.amount) for line in found] == [1_000_000 * 2 * 8 // 10 // 4, 1_000_000 * 2 * 8 // 10]
    assert [(line.rate.machine_class, line.rate.price, line.factor) for line in found] == [
        ("fast", 800_000, 250_000),
        ("fast", 800_000, 1_000_000),
    ]
    paid = sum(int(header.paid) for header in await headers(world))
    assert await world.reader.balance(world.account) == paid
    assert (await world.reader.totals()).conserved
