"""The shell around the guests' lifecycle: where it looks, in which order it writes, what a failure leaves undone."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from homefed.agent.copies import Copies
from homefed.agent.guests import Guests
from homefed.agent.identity import Connection
from homefed.agent.watching import trim_home_pod
from homefed.api import names
from homefed.api.errors import Forbidden, Transient
from homefed.core.home_admission import Host
from homefed.core.home_lifecycle import ABSENCE
from homefed.core.home_pod import Isolation
from homefed.kube.resources import CONFIGMAPS, GUESTPODS, PODS, SECRETS
from unit.agent.doubles import Server, mirror, refresh
from unit.core.home_guests import a_guest, a_host, running

MAILBOX = "homefed-home-reed"
GUESTS = names.GUESTS_NAMESPACE


class World:
    def __init__(self) -> None:
        self.home, self.hub = Server(), Server()
        self.now = datetime(2026, 1, 31, 10, tzinfo=UTC)
        self.connection = SimpleNamespace(
            hub=self.hub,
            mailbox=MAILBOX,
            offset=timedelta(),
            silent_seconds=0.0,
            reachable=True,
            hub_pass=None,
            hub_now=lambda: self.now,
        )
        self.host: Host = a_host()
        connection = cast(Connection, self.connection)
        self.copies = Copies(self.home, GUESTS)
        self.copies.follow(connection, lambda uid: None)
        self.pods = mirror(self.home, PODS)
        self.guests = Guests(
            self.home,
            connection,
            self.copies,
            self.pods,
            lambda offer, machine: self.host,
            lambda machine: Isolation(),
            GUESTS,
        )
        self.guests.mailbox = mirror(self.hub, GUESTPODS)

    def send(self, uid: str, **changes: Any) -> None:
        spec = a_guest(**{"podUid": uid, **changes}).dump()
        old = self.hub.objects.get(("guestpods", MAILBOX, uid), {})
        self.hub.put(GUESTPODS, {"metadata": {"name": uid, "namespace": MAILBOX}, "spec": spec, **_only_status(old)})
        self.see()

    def see(self) -> None:
        """Both reflectors catch up."""
        before = dict(self.pods.store)
        refresh(self.pods, self.home, PODS, lambda pod: trim_home_pod(pod, GUESTS))
        for key, old in before.items():
            if key not in self.pods.store:
                self.guests.pod_changed(key, old, None)
        assert self.guests.mailbox is not None
        refresh(self.guests.mailbox, self.hub, GUESTPODS)

    def status(self, uid: str) -> dict[str, Any]:
        return dict(self.hub.objects["guestpods", MAILBOX, uid].get("status") or {})

    def run_pod(self, uid: str) -> None:
        pod = self.home.objects["pods", GUESTS, names.home_pod(uid)]
        self.home.put(PODS, {**pod, "status": {"phase": "Running", "containerStatuses": [running()]}})
        self.see()

    async def started(self, uid: str) -> None:
        self.send(uid)
        await self.guests.reconcile(uid)
        self.run_pod(uid)
        await self.guests.reconcile(uid)
        self.see()


def _only_status(obj: dict[str, Any]) -> dict[str, Any]:
    return {"status": obj["status"]} if "status" in obj else {}


@pytest.fixture
async def world() -> World:
    return World()


async def test_a_guest_is_created_and_mirrored(world: World) -> None:
    await world.started("one")
    assert world.status("one")["phase"] == "Running"
    assert world.home.writes == [("create", "pods", "hf-one")]


async def test_a_full_quota_is_no_fault_of_the_guest(world: World) -> None:
    world.home.trouble["create"] = Forbidden('pods "hf-one" is forbidden: exceeded quota: homefed-guests, used: cpu=8')
    world.send("one")
    assert await world.guests.reconcile("one") == 2.0
    assert world.status("one")["reason"] == "QuotaExceeded"
    world.home.trouble.clear()
    world.see()
    await world.guests.reconcile("one")
    assert world.home.writes == [("create", "pods", "hf-one")]


async def test_at_rest_nothing_is_written(world: World) -> None:
    await world.started("one")
    writes = len(world.home.writes), len(world.hub.writes)
    for _ in range(3):
        world.now += timedelta(minutes=1)
        await world.guests.reconcile("one")
    assert (len(world.home.writes), len(world.hub.writes)) == writes


async def test_a_reflector_that_is_behind_makes_no_second_pod_and_no_end(world: World) -> None:
    world.send("one")
    await world.guests.reconcile("one")
    await world.guests.reconcile("one")  # neither the pod nor a status has been seen
    assert [w for w in world.home.writes if w[0] == "create"] == [("create", "pods", "hf-one")]
    world.run_pod("one")
    await world.guests.reconcile("one")
    world.pods.store.clear()  # a stale view: the pod is there all the same
    await world.guests.reconcile("one")
    assert world.status("one")["phase"] == "Running"


async def test_our_own_status_counts_before_the_reflector_brings_it_back(world: World) -> None:
    world.send("one")
    await world.guests.reconcile("one")
    world.run_pod("one")
    await world.guests.reconcile("one")
    world.home.remove(PODS, "hf-one", GUESTS)
    world.pods.store.clear()
    await world.guests.reconcile("one")  # the mailbox's reflector still shows no status at all
    assert world.status("one")["phase"] == "Failed"
    assert [w for w in world.home.writes if w[0] == "create"] == [("create", "pods", "hf-one")]


async def test_a_pod_that_vanished_with_a_result_keeps_it(world: World) -> None:
    await world.started("one")
    pod = world.home.objects["pods", GUESTS, "hf-one"]
    ended = running() | {"state": {"terminated": {"exitCode": 3, "finishedAt": "2026-01-31T09:59:00Z"}}}
    world.home.put(PODS, {**pod, "status": {"phase": "Failed", "containerStatuses": [ended]}})
    world.see()
    world.home.remove(PODS, "hf-one", GUESTS)
    world.see()  # gone before the agent came to look
    await world.guests.reconcile("one")
    assert (world.status("one")["phase"], world.status("one")["containers"][0]["exitCode"]) == ("Failed", 3)


async def test_the_owner_gets_his_machine_back_even_when_the_hub_is_away(world: World) -> None:
    world.send("one")
    await world.guests.reconcile("one")
    world.run_pod("one")
    world.host = a_host(deleting=True)
    world.hub.trouble["apply"] = Transient("the hub is away")
    with pytest.raises(Transient):
        await world.guests.reconcile("one")
    assert ("delete", "pods", "hf-one") in world.home.writes


async def test_nothing_is_given_back_before_the_end_is_written(world: World) -> None:
    copy = names.copy_name("one", "Secret", "password")
    spec = {"volumes": [{"name": "v", "secret": {"secretName": copy}}]}
    guest = a_guest(spec)
    source = {"metadata": {"name": copy, "namespace": MAILBOX}, "data": {"p": "MQ=="}}
    world.copies._sources["Secret"].store[MAILBOX, copy] = world.hub.put(SECRETS, source)
    copies = [{"kind": "Secret", "name": "password", "copyName": copy}]
    world.send("one", pod=guest.pod, copies=copies)
    await world.guests.reconcile("one")
    assert world.home.writes == [("apply", "secrets", copy), ("create", "pods", "hf-one")]

    world.run_pod("one")
    await world.guests.reconcile("one")
    world.see()
    pod = world.home.objects["pods", GUESTS, "hf-one"]
    world.home.put(PODS, {**pod, "status": {"phase": "Succeeded", "containerStatuses": []}})
    world.see()
    world.hub.trouble["apply"] = Transient("the hub is away")
    with pytest.raises(Transient):
        await world.guests.reconcile("one")
    assert world.home.has(SECRETS, copy, GUESTS)

    del world.hub.trouble["apply"]
    await world.guests.reconcile("one")
    assert not world.home.has(SECRETS, copy, GUESTS)
    assert world.status("one")["phase"] == "Succeeded"


async def test_what_the_homes_admission_says_reaches_the_consumer(world: World) -> None:
    world.send("one")
    world.home.trouble["create"] = Forbidden("pods is forbidden: exceeded quota")
    assert await world.guests.reconcile("one") is not None
    assert world.status("one")["reason"] == "RefusedAtHome"
    assert "exceeded quota" in world.status("one")["message"]

    world.see()
    del world.home.trouble["create"]
    await world.guests.reconcile("one")
    assert world.home.has(PODS, "hf-one", GUESTS)


async def test_an_unsynced_mailbox_says_nothing_about_absence(world: World) -> None:
    await world.started("one")
    assert world.guests.mailbox is not None
    world.guests.mailbox.store.clear()
    world.guests.mailbox.synced.clear()
    world.now += 3 * ABSENCE
    await world.guests.reconcile("one")
    assert ("delete", "pods", "hf-one") not in world.home.writes
    assert world.guests._absent == {}


async def test_a_guest_pod_that_a_direct_read_finds_is_not_absent(world: World) -> None:
    await world.started("one")
    assert world.guests.mailbox is not None
    world.guests.mailbox.store.clear()
    world.guests._written.clear()
    world.connection.hub_pass = world.now + 3 * ABSENCE
    for _ in range(2):
        await world.guests.reconcile("one")
        world.now += 2 * ABSENCE
    assert world.home.has(PODS, "hf-one", GUESTS)


async def absent_for_long(world: World, *uids: str) -> None:
    for uid in uids:
        await world.started(uid)
        world.hub.remove(GUESTPODS, uid, MAILBOX)
    world.see()
    for uid in uids:
        await world.guests.reconcile(uid)
    world.now += ABSENCE
    world.connection.hub_pass = world.now
    for uid in uids:
        await world.guests.reconcile(uid)


async def test_one_guest_absent_for_long_is_stopped(world: World) -> None:
    await absent_for_long(world, "one")
    assert ("delete", "pods", "hf-one") in world.home.writes


async def test_all_guests_absent_at_once_live(world: World) -> None:
    await absent_for_long(world, "one", "two", "three")
    assert not [w for w in world.home.writes if w[0] == "delete"]


async def test_a_hub_that_does_not_answer_is_no_absence(world: World) -> None:
    await world.started("one")
    world.hub.remove(GUESTPODS, "one", MAILBOX)
    world.see()
    world.hub.trouble["get"] = Transient("no answer")
    with pytest.raises(Transient):
        await world.guests.reconcile("one")
    assert world.guests._absent == {}


async def test_orphaned_copies_go_and_needed_ones_stay(world: World) -> None:
    await world.started("one")
    labels = {names.LABEL_MANAGED_BY: names.AGENT_MANAGER}
    for uid in ("one", "gone"):
        metadata = {"name": f"{uid}-12345678", "namespace": GUESTS, "labels": {**labels, names.LABEL_HUB_UID: uid}}
        world.home.put(CONFIGMAPS, {"metadata": metadata})
    await world.copies.drop_orphans(world.guests._needs_copies)
    assert world.home.has(CONFIGMAPS, "one-12345678", GUESTS)
    assert not world.home.has(CONFIGMAPS, "gone-12345678", GUESTS)


async def test_a_token_secret_arrives_as_plain_data(world: World) -> None:
    copy = names.copy_name("one", "Secret", "token")
    source = {
        "metadata": {"name": copy, "namespace": MAILBOX},
        "type": "kubernetes.io/service-account-token",
        "data": {"token": "MQ=="},
    }
    world.copies._sources["Secret"].store[MAILBOX, copy] = source
    guest = a_guest(podUid="one", copies=[{"kind": "Secret", "name": "token", "copyName": copy}])
    await world.copies.bring(guest)
    assert world.home.objects["secrets", GUESTS, copy]["type"] == "Opaque"


async def test_memory_of_a_finished_guest_is_let_go(world: World) -> None:
    await world.started("one")
    world.home.remove(PODS, "hf-one", GUESTS)
    world.see()
    await world.guests.reconcile("one")
    world.see()
    world.hub.remove(GUESTPODS, "one", MAILBOX)
    world.see()
    await world.guests.reconcile("one")
    assert (world.guests._gone, world.guests._written, world.guests._absent) == ({}, {}, {})
