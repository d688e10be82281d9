"""Every answer that a ledger can give to a claim, and what the hub makes of it: the same bytes again, or standstill."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from scripted_ledger import Answer, Json, ScriptedLedger, problem, scripted_ledger
from settlement_world import World, at, new_home, new_pool

from homefed.api import dsse
from homefed.api.canonical import canonical
from homefed.api.errors import Conflict
from homefed.core import conditions, standstill
from homefed.core.findings import Finding
from homefed.hub.clearing import Clearing
from homefed.hub.reports import Mailbox
from homefed.hub.settlement import Settlement
from homefed.kube.client import KubeClient
from homefed.kube.resources import GUESTPODS, HOMES, REWARDCLAIMS
from homefed.ledger_client import LedgerClient
from testbed.cluster import Cluster
from testbed.model_log import ModelLog, log_key

CRDS = Path(__file__).parents[2] / "crds"
NOWHERE = "http://127.0.0.1:9"
LATE = 901
"""Seconds after a window's end: reserved amounts are settled without a report."""


@pytest.fixture(scope="module")
def hub_cluster(apiserver: Cluster) -> Cluster:
    apiserver.install_crds(CRDS)
    return apiserver


@pytest.fixture
async def ledger() -> AsyncIterator[ScriptedLedger]:
    async with scripted_ledger() as running:
        yield running


class Told(World):
    """A home whose claims go to the scripted ledger, and hubs that can be started anew."""

    async def settle(self, hub: Settlement | None = None, *, hours: int = 1, more: float = 0) -> Finding:
        return await (hub or self.settlement()).settle(self.name, at(hours, LATE + more))

    async def receipted(self) -> list[bool]:
        return [bool((claim.get("status") or {}).get("receipt")) for claim in await self.claims()]

    async def stopped(self) -> str | None:
        """Reason of the oldest claim's condition Stopped."""
        (claim, *_) = await self.claims()
        found = conditions.get((claim.get("status") or {}).get("conditions"), standstill.STOPPED)
        return str(found["reason"]) if found is not None else None


@pytest.fixture
async def world(hub_cluster: Cluster, ledger: ScriptedLedger, tmp_path: Path) -> AsyncIterator[Told]:
    async with (
        KubeClient.from_kubeconfig(hub_cluster.kubeconfig) as client,
        LedgerClient(ledger.url, attempts=1, timeout_seconds=1.5) as way,
    ):
        name, uid = await new_home(client, hub_cluster)
        yield Told(client, way, name, uid, NOWHERE, tmp_path)


# --- what is sent again by itself


async def test_201_is_receipted_and_200_brings_the_same_receipt(world: Told, ledger: ScriptedLedger) -> None:
    assert (await world.settle()).status == "True"
    (claim,) = await world.claims()
    assert claim["status"]["receipt"] == ledger.log.receipt(0)
    assert claim["status"]["leafIndex"] == 0
    for obj in (await world.client.list(REWARDCLAIMS, world.mailbox)).items:
        if obj["spec"]["part"] == "Header":  # as if killed before the receipt was stored
            await world.client.patch(
                REWARDCLAIMS, obj["metadata"]["name"], {"status": None}, world.mailbox, subresource="status"
            )
    assert (await world.settle(more=10)).status == "True"
    (again,) = await world.claims()
    assert again["status"]["receipt"] == claim["status"]["receipt"]
    assert ledger.bodies[0] == ledger.bodies[1]


async def test_a_claim_is_stored_before_it_is_first_sent_and_never_made_anew(
    world: Told, ledger: ScriptedLedger
) -> None:
    """A hub that is killed while it sends leaves objects of the very bytes; its successor sees another truth."""
    stored: list[Json] = []

    async def look() -> None:
        stored.extend((await world.client.list(REWARDCLAIMS, world.mailbox)).items)

    ledger.before = look
    ledger.script.append(Answer(cut=True))
    await world.settle()
    (item, header) = json.loads(ledger.bodies[0])["items"]
    specs = {obj["spec"]["part"]: obj["spec"] for obj in stored}
    assert specs["Header"]["claimId"] == header["id"]
    assert dsse.decode(specs["Header"]["envelope"]) == dsse.from_json(header["envelope"])
    assert base64.b64decode(specs["Lines"]["envelope"]) == canonical(item["document"])
    await world.observe(runningFrom="2026-01-01T00:30:00Z")
    assert (await world.settle(more=10)).status == "True"
    assert ledger.bodies[1] == ledger.bodies[0]


TRANSIENT = {
    "429": problem(429, "QueueFull", **{"Retry-After": "1"}),
    "500": problem(500, "Internal"),
    "502, not JSON": Answer(502, body=b"<html>"),
    "503": problem(503, "Stopping"),
    "cut before the deed": Answer(cut=True),
    "cut after the deed": Answer(cut=True, takes=True),
    "slow": Answer(wait=3.0, takes=True),
    "200, not JSON": Answer(body=b"<html>", takes=True),
    "200, no items": Answer(body=b"{}", takes=True),
    "200, too few items": Answer(body=b'{"items":[{"status":201}]}'),
    "200, items without status": Answer(body=b'{"items":[{},{}]}'),
    "an item answered with 503": Answer(body=b'{"items":[{"status":201},{"status":503,"reason":"Stopping"}]}'),
}


@pytest.mark.parametrize("answer", TRANSIENT.values(), ids=TRANSIENT)
async def test_what_passes_by_itself_is_sent_again_with_the_same_bytes(
    world: Told, ledger: ScriptedLedger, answer: Answer
) -> None:
    ledger.script.append(answer)
    hub = world.settlement()
    assert (await world.settle(hub)).status == "False"
    assert await world.receipted() == [False]
    assert (await world.settle(hub, more=10)).status == "True"
    assert await world.receipted() == [True]
    assert len(ledger.bodies) == 2
    assert ledger.bodies[0] == ledger.bodies[1]
    assert len(ledger.log.leaves) == 1
    assert (await world.warnings(), world.alarms()) == ([], {})


async def test_the_ledgers_retry_after_is_kept_and_holds_for_every_home(world: Told, ledger: ScriptedLedger) -> None:
    ledger.script.append(problem(429, "QueueFull", **{"Retry-After": "40"}))
    hub = world.settlement()
    for more in (0, 10, 20, 39):
        found = await world.settle(hub, more=more)
        assert (found.status, found.reason) == ("False", "QueueFull")
    assert len(ledger.bodies) == 1
    assert (await world.settle(hub, more=41)).status == "True"


async def test_many_claims_go_in_one_batch_after_the_ledger_was_down(world: Told, ledger: ScriptedLedger) -> None:
    ledger.script += [problem(503, "Stopping")] * 2
    hub = world.settlement()
    for hours in (1, 2):
        await world.settle(hub, hours=hours)
    assert (await world.settle(hub, hours=3)).status == "True"
    assert await world.receipted() == [True] * 3
    assert len(ledger.bodies) == 3 + 1, "the third window's claim follows those that were waiting"


# --- what stops


@pytest.mark.parametrize("reason", ["ClaimConflict", "BelowFloor", "UnknownKey", "ChainBroken", "SomethingNew"])
async def test_a_refused_claim_stops_the_home_until_the_organiser_says_so(
    world: Told, ledger: ScriptedLedger, reason: str
) -> None:
    if reason == "ClaimConflict":
        ledger.conflict = reason
    else:
        ledger.refuse = reason
    hub = world.settlement()
    for more in (0, 10, 20):
        found = await world.settle(hub, more=more)
        assert (found.status, found.reason) == ("False", reason)
        assert f"it says {reason}" in found.message
        assert "homefed claims resume" in found.message
    for more in (30, 40):  # hubs that are started anew
        assert (await world.settle(more=more)).reason == reason
    assert len(ledger.bodies) == 1, "never a silent retry"
    assert await world.stopped() == reason
    assert (await world.condition())["reason"] == reason
    assert await world.warnings() == [reason]
    assert world.alarms() == {reason: 1.0}
    ledger.conflict = ledger.refuse = ""
    await world.resume()
    assert (await world.settle(hub, more=50)).status == "True"
    assert ledger.bodies[1] == ledger.bodies[0]
    assert (await world.stopped(), world.alarms(), await world.receipted()) == (None, {}, [True])
    home = await world.client.get(HOMES, world.name)
    assert "annotations" not in home["metadata"]


def other_leaf(answer: Json) -> Json:
    log = ModelLog([b"before", b"other"])
    return answer | {"receipt": log.receipt(0)}


def other_key(answer: Json) -> Json:
    return answer | {"receipt": ModelLog([b"x"], log_key(2)).receipt(0)}


def other_index(answer: Json) -> Json:
    return answer | {"leafIndex": 7}


def other_id(answer: Json) -> Json:
    return answer | {"id": "0" * 64}


def other_root(answer: Json) -> Json:
    """A proof that does not lead to the root that is signed."""
    head, _, _ = str(answer["receipt"]).partition("\n\n")
    return answer | {"receipt": f"{head}\n\n{ModelLog([b'x', b'y', b'z']).signed()}"}


def no_receipt(answer: Json) -> Json:
    return answer | {"receipt": "receipted, honestly"}


@pytest.mark.parametrize("forge", [other_leaf, other_key, other_index, other_id, other_root, no_receipt])
async def test_a_wrong_receipt_stops_the_home_and_is_not_stored(
    world: Told, ledger: ScriptedLedger, forge: Any
) -> None:
    ledger.forge = forge
    hub = world.settlement()
    for more in (0, 10):
        found = await world.settle(hub, more=more)
        assert (found.status, found.reason) == ("False", "WrongReceipt")
    assert (await world.settle(more=20)).reason == "WrongReceipt"
    assert len(ledger.bodies) == 1
    assert (await world.stopped(), await world.receipted()) == ("WrongReceipt", [False])
    assert (await world.warnings(), world.alarms()) == (["WrongReceipt"], {"WrongReceipt": 1.0})


async def test_what_the_ledger_took_before_its_receipt_was_forged_is_receipted_after_resuming(
    world: Told, ledger: ScriptedLedger
) -> None:
    ledger.forge = other_key
    await world.settle()
    ledger.forge = lambda answer: answer
    await world.resume()
    assert (await world.settle(more=10)).status == "True"
    assert len(ledger.log.leaves) == 1


@pytest.mark.parametrize(("status", "reason"), [(401, "Unauthorised"), (403, "Forbidden"), (404, "NotFound")])
async def test_a_missing_right_is_told_aloud_and_heals_when_it_is_given(
    world: Told, ledger: ScriptedLedger, status: int, reason: str
) -> None:
    ledger.script += [problem(status, reason)] * 2
    hub = world.settlement()
    for more in (0, 10):
        assert (await world.settle(hub, more=more)).reason == reason
    assert world.alarms() == {reason: 1.0}
    assert await world.warnings() == [reason]
    assert (await world.settle(hub, more=20)).status == "True"
    assert world.alarms() == {}


# --- a ledger that is not what it was


async def test_a_ledger_restored_from_an_older_backup_is_refused_and_given_what_it_lost_on_request(
    world: Told, ledger: ScriptedLedger
) -> None:
    hub = world.settlement()
    await world.settle(hub)
    backup = ledger.backup()
    await world.settle(hub, hours=2)
    await world.settle(hub, hours=3)
    lost = [claim["status"]["receipt"] for claim in (await world.claims())[1:]]
    ledger.restore(backup)
    for own in (hub, world.settlement()):
        found = await world.settle(own, hours=4)
        assert (found.status, found.reason) == ("False", "LedgerWentBack")
        assert "--resend" in found.message
    assert world.alarms() == {"LedgerWentBack": 1.0}
    await world.resume("retry")
    assert (await world.settle(hours=4, more=10)).reason == "LedgerWentBack", "only what was asked for"
    assert len(ledger.log.leaves) == 1
    await world.resume("resend")
    assert (await world.settle(hub, hours=4, more=20)).status == "True"
    claims = await world.claims()
    assert [claim["status"]["leafIndex"] for claim in claims] == [0, 1, 2, 3]
    assert [claim["status"].get("previousReceipt") for claim in claims] == [None, *lost, None]
    assert world.alarms() == {}
    assert (await world.settle(hours=4, more=30)).status == "True", "a hub that starts anew believes it, too"


async def test_a_ledger_that_shows_another_history_is_refused(world: Told, ledger: ScriptedLedger) -> None:
    hub = world.settlement()
    ledger.log.grow([b"of others", b"of others, too"])
    await world.settle(hub)
    ledger.log = ledger.log.fork(1, [b"another", *ledger.log.leaves[2:], b"and more"])
    for own in (hub, world.settlement()):
        found = await world.settle(own, hours=2, more=70)
        assert (found.status, found.reason) == ("False", "LedgerForked")
    assert len(ledger.bodies) == 1
    assert (await world.warnings(), world.alarms()) == (["LedgerForked"], {"LedgerForked": 1.0})


async def test_a_fork_that_shows_only_in_a_receipt_is_found(world: Told, ledger: ScriptedLedger) -> None:
    hub = world.settlement()
    await world.settle(hub)
    await world.settle(hub, hours=2)

    def forked(answer: Json) -> Json:
        other = ledger.log.fork(0, [b"another", *ledger.log.leaves[1:]])
        return answer | {"receipt": other.receipt(answer["leafIndex"])}

    ledger.forge = forked
    assert (await world.settle(hub, hours=3)).reason == "LedgerForked"
    assert (await world.settle(hours=3, more=10)).reason == "LedgerForked"
    assert await world.receipted() == [True, True, False]


async def test_a_ledger_under_another_key_is_refused_by_the_receipts_that_there_are(
    world: Told, ledger: ScriptedLedger
) -> None:
    await world.settle()
    (before,) = await world.claims()
    ledger.log = ModelLog(ledger.log.leaves, log_key(2))
    for _, answer in ledger.claims.values():
        answer["receipt"] = ledger.log.receipt(answer["leafIndex"])
    async with LedgerClient(ledger.url, attempts=1) as anew:
        found = await world.settlement(anew).settle(world.name, at(2, LATE))
    assert (found.status, found.reason) == ("False", "WrongReceipt")
    hub = world.settlement()
    assert (await world.settle(hub, hours=2, more=10)).status == "False", "one that has seen the old key, too"
    await world.resume("resend")
    assert (await world.settle(hub, hours=2, more=20)).status == "True"
    (first, second) = await world.claims()
    assert first["status"]["receipt"] == ledger.log.receipt(0, 1)
    assert first["status"]["previousReceipt"] == before["status"]["receipt"]
    assert second["status"]["leafIndex"] == 1


async def test_one_homes_standstill_is_not_anothers(
    world: Told, ledger: ScriptedLedger, hub_cluster: Cluster, tmp_path: Path
) -> None:
    name, uid = await new_home(world.client, hub_cluster)
    other = Told(world.client, world.ledger, name, uid, NOWHERE, tmp_path)
    hub = world.settlement()
    ledger.refuse = "BelowFloor"
    assert (await world.settle(hub)).status == "False"
    ledger.refuse = ""
    assert (await other.settle(hub)).status == "True"
    assert (await world.settle(hub, more=10)).status == "False"
    assert (world.alarms(), other.alarms()) == ({"BelowFloor": 1.0}, {})


async def test_a_pool_whose_pass_failed_is_read_again_and_not_begun_anew(
    world: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home in two pools: the other pool's book stays open meanwhile."""
    hub = world.settlement()
    second, _ = await new_pool(world.client, world.name)
    assert (await world.settle(hub)).status == "True"
    real = Clearing.clear

    async def fail(self: Clearing, mailbox: Mailbox, pool: str, *rest: Any) -> None:
        if pool == second:
            raise Conflict("somebody else has written")
        await real(self, mailbox, pool, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Clearing, "clear", fail)
        assert (await world.settle(hub, more=10)).reason == "Conflict"
    for guest in (await world.client.list(GUESTPODS, world.mailbox)).items:
        later = {"spec": {"observed": {"runningFrom": "2026-01-01T00:30:00Z"}}}
        await world.client.patch(GUESTPODS, guest["metadata"]["name"], later, world.mailbox)
    assert (await world.settle(hub, hours=2)).status == "True"
    claims = [(claim["spec"]["poolName"], claim["spec"]["sequence"]) for claim in await world.claims()]
    assert sorted(claims) == sorted([(world.name, 1), (world.name, 2), (second, 1), (second, 2)])
