"""From samples to a receipt: a real Prometheus, API server and ledger; the meter and the settlement between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from settlement_world import HOME_KEY, UID, LedgerWorld, at, samples, settlement_world

from homefed.api import names
from homefed.core import conditions
from homefed.core.guest_lifecycle import ANNOTATION_SETTLED
from homefed.hub.ledger_gate import NoLedger
from homefed.kube.resources import GUESTPODS, REWARDCLAIMS, USAGEREPORTS
from testbed.binaries import Binaries
from testbed.claims import FEDERATION
from testbed.cluster import Cluster
from testbed.metrics import prometheus

NEW_KEY = Ed25519PrivateKey.from_private_bytes(b"b" * 32)
CRDS = Path(__file__).parents[2] / "crds"


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


CPU_HOUR = 1_000_000 + 2_000_000 // 4
MEMORY_HOUR = 64_000 // 16
NETWORK_HOUR = 36_000_000 * 1_000_000 // 2**30


async def test_an_hour_of_work_becomes_a_receipted_claim_and_a_balance(world: LedgerWorld) -> None:
    assert (await world.meter(at(1, 61))).reason == "Metering"
    found = await world.settlement().settle(world.name, at(1, 70))
    assert found.status == "True"
    (claim,) = await world.claims()
    assert conditions.is_true(claim["status"]["conditions"], "Ready")
    memory = 64 * 1024 * 3600 * 64_000 // (3600 * 2**20)
    charged = CPU_HOUR + memory + NETWORK_HOUR
    assert int(claim["spec"]["charged"]) == charged
    assert await world.reader.balance(world.account) == int(claim["spec"]["paid"]) == charged * 9 // 10
    assert await world.reader.balance(names.consumer_account(FEDERATION, "ns-uid-1")) == -charged
    assert (await world.reader.totals()).conserved


async def test_meters_and_hubs_that_are_started_anew_for_every_step_double_nothing(world: LedgerWorld) -> None:
    for hour in (1, 2, 3):
        for _ in range(2):
            await world.meter(at(hour, 61))
            await world.settlement().settle(world.name, at(hour, 70))
    claims = await world.claims()
    assert [claim["spec"]["sequence"] for claim in claims] == [1, 2, 3]
    assert world.ledger.puts == 3
    assert sum(int(claim["spec"]["paid"]) for claim in claims) == await world.reader.balance(world.account)
    assert len(await world.reports()) == 3


async def test_at_rest_nothing_is_written(world: LedgerWorld) -> None:
    await world.meter(at(1, 61))
    settlement = world.settlement()
    await settlement.settle(world.name, at(1, 70))
    before = [obj["metadata"]["resourceVersion"] for obj in [*await world.guests(), *await world.claims()]]
    for seconds in range(75, 200, 5):
        await settlement.run_pass(at(1, seconds))
    after = [obj["metadata"]["resourceVersion"] for obj in [*await world.guests(), *await world.claims()]]
    assert after == before


async def test_a_change_of_key_costs_the_home_no_window(world: LedgerWorld) -> None:
    """Hour 2 was reported under the old key before the hub went over; hour 3 goes on from its readings."""
    await world.hour(1)
    await world.meter(at(2, 61))
    await world.rotate(NEW_KEY, until="2026-01-03T02:00:00Z")
    assert (await world.settlement().settle(world.name, at(2, 70))).status == "True"
    assert (await world.meter(at(3, 61), NEW_KEY, former=[HOME_KEY])).reason == "Metering"
    assert (await world.settlement().settle(world.name, at(3, 70))).status == "True"
    charged = [int(claim["spec"]["charged"]) for claim in await world.claims()]
    assert len(charged) == 3
    assert min(charged[1:]) >= charged[0], "whole hours, with what was used"


async def test_what_the_old_key_signs_counts_no_more_when_its_time_is_over(world: LedgerWorld) -> None:
    await world.rotate(NEW_KEY, until="2026-01-01T00:30:00Z")
    await world.meter(at(1, 61))
    late = at(1, 61 + 900)
    await world.settlement().settle(world.name, late)
    (claim,) = await world.claims()
    assert int(claim["spec"]["charged"]) == 1_000_000, "the reserved core alone"


async def test_missed_windows_are_caught_up(world: LedgerWorld) -> None:
    await world.meter(at(3, 61))
    await world.settlement().settle(world.name, at(3, 70))
    hours = [claim["spec"]["windowEnd"][11:13] for claim in await world.claims()]
    assert hours == ["01", "02", "03"]


async def test_a_meter_that_was_killed_before_it_sent_its_report_sends_the_same_bytes(world: LedgerWorld) -> None:
    await world.meter(at(1, 61))
    (first,) = await world.reports()
    await world.client.delete(USAGEREPORTS, first["metadata"]["name"], world.mailbox)
    assert (await world.meter(at(1, 900), url="http://127.0.0.1:9")).status == "True"
    (again,) = await world.reports()
    assert again["spec"] == first["spec"]


async def test_while_prometheus_is_down_the_window_waits_and_nothing_is_lost(world: LedgerWorld) -> None:
    down = await world.meter(at(1, 61), url="http://127.0.0.1:9")
    assert (down.status, down.reason) == ("False", "PrometheusDown")
    settlement = world.settlement()
    assert (await settlement.settle(world.name, at(1, 120))).reason == "WaitingForData"
    assert (await world.condition())["reason"] == "WaitingForData"
    await settlement.settle(world.name, at(1, 901))
    (first,) = await world.claims()
    assert int(first["spec"]["charged"]) == 1_000_000
    await world.meter(at(2, 61))
    await settlement.settle(world.name, at(2, 70))
    total = sum(int(claim["spec"]["charged"]) for claim in await world.claims())
    memory = 64 * 1024 * 7200 * 64_000 // (3600 * 2**20)
    network = 72_000_000 * 1_000_000 // 2**30
    assert total == 2 * CPU_HOUR + memory + network
    assert (await world.condition())["status"] == "True"


async def test_a_ledger_that_is_down_delays_receipts_and_loses_nothing(world: LedgerWorld) -> None:
    settlement = world.settlement()
    await world.meter(at(1, 61))
    await settlement.settle(world.name, at(1, 70))
    world.ledger.down = True
    for hour in (2, 3):
        await world.meter(at(hour, 61))
        found = await settlement.settle(world.name, at(hour, 70))
        assert (found.status, found.reason) == ("False", "Unavailable")
    waiting = (await world.claims())[1:]
    assert [conditions.is_true(claim["status"]["conditions"], "Ready") for claim in waiting[:1]] == [False]
    world.ledger.down = False
    assert (await settlement.settle(world.name, at(3, 80))).status == "True"
    claims = await world.claims()
    assert all(conditions.is_true(claim["status"]["conditions"], "Ready") for claim in claims)
    assert await world.reader.balance(world.account) == sum(int(claim["spec"]["paid"]) for claim in claims)


async def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_bytes(world: LedgerWorld) -> None:
    await world.meter(at(1, 61))
    world.ledger.answers_lost = 1
    settlement = world.settlement()
    assert (await settlement.settle(world.name, at(1, 70))).status == "False"
    assert (await settlement.settle(world.name, at(1, 80))).status == "True"
    assert (await world.reader.totals()).claims == 1


async def test_a_hub_restored_from_a_backup_takes_over_what_it_had_sent(world: LedgerWorld) -> None:
    for hour in (1, 2, 3):
        await world.meter(at(hour, 61))
        await world.settlement().settle(world.name, at(hour, 70))
    before = [(claim["metadata"]["name"], claim["spec"]) for claim in await world.claims()]
    for obj in (await world.client.list(REWARDCLAIMS, world.mailbox)).items:
        if obj["spec"]["sequence"] > 1:
            await world.client.delete(REWARDCLAIMS, obj["metadata"]["name"], world.mailbox)
    assert (await world.settlement().settle(world.name, at(3, 80))).status == "True"
    assert [(claim["metadata"]["name"], claim["spec"]) for claim in await world.claims()] == before
    assert (await world.reader.totals()).claims == 3


async def test_a_claim_of_other_bytes_at_the_ledger_is_taken_over_when_we_signed_it(world: LedgerWorld) -> None:
    """A hub restored from a backup has settled the same window anew, before it could ask the ledger."""
    await world.meter(at(1, 61))
    await world.settlement().settle(world.name, at(1, 70))
    (sent,) = await world.claims()
    for obj in (await world.client.list(REWARDCLAIMS, world.mailbox)).items:
        await world.client.delete(REWARDCLAIMS, obj["metadata"]["name"], world.mailbox)
    offline = world.settlement(NoLedger())
    await world.observe(runningFrom="2026-01-01T00:10:00Z")
    await offline.settle(world.name, at(1, 80))
    (own,) = await world.claims()
    assert own["spec"]["envelope"] != sent["spec"]["envelope"]
    assert (await world.settlement().settle(world.name, at(1, 90))).status == "True"
    (adopted,) = await world.claims()
    assert adopted["spec"] == sent["spec"]


async def test_a_chain_that_this_hub_did_not_sign_stops_settlement_of_this_home(world: LedgerWorld) -> None:
    await world.meter(at(1, 61))
    await world.settlement().settle(world.name, at(1, 70))
    for obj in (await world.client.list(REWARDCLAIMS, world.mailbox)).items:
        await world.client.delete(REWARDCLAIMS, obj["metadata"]["name"], world.mailbox)
    other = world.settlement(seed=2)
    found = await other.settle(world.name, at(1, 80))
    assert (found.status, found.reason) == ("False", "ForeignClaim")
    assert await world.claims() == []
    assert (await world.condition())["reason"] == "ForeignClaim"


async def test_a_report_under_another_key_is_not_believed(world: LedgerWorld) -> None:
    await world.meter(at(1, 61), key=Ed25519PrivateKey.from_private_bytes(b"x" * 32))
    found = await world.settlement().settle(world.name, at(1, 200))
    assert found.reason == "WaitingForData"
    assert "is not registered" in found.message


async def test_a_guest_that_ended_is_marked_as_settled_once_the_ledger_has_receipted(world: LedgerWorld) -> None:
    ended = {"status": {"phase": "Succeeded", "finishedAt": "2026-01-01T00:30:00Z"}}
    await world.client.patch(GUESTPODS, UID, ended, world.mailbox, subresource="status")
    await world.observe(endedAt="2026-01-01T00:30:00Z")
    await world.meter(at(1, 61))
    settlement = world.settlement()
    world.ledger.down = True
    await settlement.settle(world.name, at(1, 70))
    assert ANNOTATION_SETTLED not in ((await world.guests())[0]["metadata"].get("annotations") or {})
    world.ledger.down = False
    await settlement.settle(world.name, at(1, 80))
    (guest,) = await world.guests()
    assert guest["metadata"]["annotations"][ANNOTATION_SETTLED] == "2026-01-01T01:00:00Z"
    assert await world.claims() != []


async def test_nothing_is_settled_before_the_hub_has_taken_in_what_homes_reported_while_it_was_away(
    world: LedgerWorld,
) -> None:
    """A hub that comes back would else bill the whole outage for a guest whose end it has not looked at yet."""
    ended = {"status": {"phase": "Succeeded", "finishedAt": "2026-01-01T00:30:00Z"}}
    await world.client.patch(GUESTPODS, UID, ended, world.mailbox, subresource="status")
    settlement = world.settlement()
    await settlement.settle(world.name, at(3, 70))
    assert await world.claims() == []
    await world.observe(endedAt="2026-01-01T00:30:00Z")
    await settlement.settle(world.name, at(3, 71))
    assert [claim["spec"]["charged"] for claim in await world.claims()] == [str(500_000)]


async def test_old_reports_and_claims_are_forgotten_and_the_newest_stay(world: LedgerWorld) -> None:
    for hour in (1, 2):
        await world.meter(at(hour, 61))
        await world.settlement().settle(world.name, at(hour, 70))
    await world.client.delete(GUESTPODS, UID, world.mailbox)
    await world.settlement().settle(world.name, at(24 * 8))
    assert [claim["spec"]["sequence"] for claim in await world.claims()] == [2]
    assert [report["spec"]["windowEnd"] for report in await world.reports()] == ["2026-01-01T02:00:00Z"]


async def test_an_empty_answer_is_waited_out_and_then_reported_as_such(world: LedgerWorld) -> None:
    """The samples end after three hours; the guest runs on."""
    assert (await world.meter(at(3, 61))).status == "True"
    waiting = await world.meter(at(4, 61))
    assert (waiting.status, waiting.reason) == ("False", "EmptyAnswer")
    assert len(await world.reports()) == 3
    given_up = await world.meter(at(4, 901))
    assert "reported without usage" in given_up.message
    assert len(await world.reports()) == 4
