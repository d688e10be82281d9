"""The agent as a process against a real hub and home (simulated nodes); the test plays the hub operator."""

import base64
import itertools
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.agent_world import GROUP, NAMESPACE, World, joined, pod_spec
from homefed.api import names
from homefed.api.home import PinnedKey
from homefed.core import key_rotation
from testbed.api import MERGE_PATCH
from testbed.federation import Federation
from testbed.installation import cli

_numbers = itertools.count(1)


@pytest.fixture
def world(federation: Federation, tmp_path: Path) -> Iterator[World]:
    with joined(federation.hub, federation.homes[0], f"reed-{next(_numbers)}", tmp_path) as made:
        yield made


@pytest.fixture
def offering(world: World) -> World:
    """A world in which contribution `mine` is accepted."""
    world.contribute("mine")
    world.accept("mine")
    world.wait_condition("mine", "Ready", "Ready")
    return world


def machine_of(world: World, index: int = 0) -> str:
    offer = world.offer("mine")
    assert offer is not None
    return str(offer["spec"]["machines"][index]["id"])


# Contributions.


def test_a_contribution_becomes_an_offer_of_its_machines(world: World) -> None:
    world.contribute("mine", resources={"cpu": {"sharePercent": 25}})
    offer = world.wait(lambda: world.offer("mine"), "an offer")

    assert offer["spec"]["poolName"] == "garden"
    assert [m["allocatable"]["cpu"] for m in offer["spec"]["machines"]] == ["2", "2"]
    assert [m["allocatable"]["pods"] for m in offer["spec"]["machines"]] == ["55", "55"]
    assert "home-1-a" not in str(offer["spec"]), "names of machines stay at home"
    waiting = world.wait_condition("mine", "Ready", "WaitingForHub")
    assert waiting["status"] == "Unknown"

    world.answer(offer, {}, "False", "UnknownPool")
    assert world.wait_condition("mine", "Ready", "UnknownPool")["status"] == "False"

    world.accept("mine")
    world.wait_condition("mine", "Ready", "Ready")
    status = world.wait(
        lambda: s if (s := (world.contribution("mine") or {})["status"]).get("offered") else None, "what is offered"
    )
    assert (status["machines"], status["offered"]["cpu"]) == (2, "4")
    assert status["keyFingerprint"].startswith("SHA256:")


def test_leases_are_renewed_and_go_on(offering: World) -> None:
    node = names.virtual_node(offering.name, offering.home_uid, machine_of(offering))
    first = offering.wait(lambda: offering.node_lease(node), "the first renewal")

    offering.wait(lambda: offering.node_lease(node) > first, "another renewal")


def test_leases_stop_while_the_home_api_is_away(offering: World) -> None:
    node = names.virtual_node(offering.name, offering.home_uid, machine_of(offering))
    offering.wait(lambda: offering.node_lease(node), "the first renewal")
    offering.home.pause("kube-apiserver")
    try:
        stopped = offering.wait_still(lambda: offering.node_lease(node), 15, "renewals stop")  # their period is 10 s
    finally:
        offering.home.resume("kube-apiserver")
    # The agent's own Lease may have run out meanwhile; in a cluster the kubelet starts it again.
    if offering.agent is not None and not offering.agent.alive:
        offering.start_agent()
    offering.wait(lambda: offering.node_lease(node) > stopped, "renewals after the home is back")


def test_a_selector_that_matches_nothing_says_so(world: World) -> None:
    world.contribute("mine", nodeSelector={"disk": "ssd"})

    condition = world.wait_condition("mine", "Available", "SelectorMatchesNothing")
    assert "disk=ssd" in condition["message"]


def test_the_older_contribution_keeps_a_machine_and_the_other_says_so(offering: World) -> None:
    time.sleep(1.1)  # creationTimestamp has whole seconds
    offering.contribute("theirs")

    condition = offering.wait_condition("theirs", "Available", "MachineClaimed")
    assert "mine" in condition["message"]
    offer = offering.wait(lambda: offering.offer("theirs"), "the other's offer")
    assert offer["spec"].get("machines", []) == []


def test_pausing_reaches_the_offer(offering: World) -> None:
    offering.contribute("mine", state="Paused")

    offering.wait(lambda: (offering.offer("mine") or {})["spec"]["state"] == "Paused", "a paused offer")
    assert offering.wait_condition("mine", "Ready", "Paused")["status"] == "False"


def test_a_deleted_contribution_stops_its_guests_and_goes(offering: World) -> None:
    offering.send("gone-1", machine_of(offering))
    offering.wait_phase("gone-1", "Running")
    offering.home.kubectl("delete", "contribution", "mine", "-n", NAMESPACE, "--wait=false")

    status = offering.wait_phase("gone-1", "Failed")
    assert status["reason"] == "Drained"
    offering.wait(lambda: offering.contribution("mine") is None, "the contribution is gone")
    assert offering.offer("mine") is None, "the hub was told before"


def test_a_contribution_is_released_after_the_drain_timeout_without_the_hub(offering: World) -> None:
    offering.contribute("mine", drainTimeoutSeconds=3)
    offering.wait(
        lambda: (offering.contribution("mine") or {})["status"]["observedGeneration"] == 2, "the change is seen"
    )
    offering.hub.pause("kube-apiserver")
    try:
        offering.home.kubectl("delete", "contribution", "mine", "-n", NAMESPACE, "--wait=false")
        offering.wait(lambda: offering.contribution("mine") is None, "released")
    finally:
        offering.hub.resume("kube-apiserver")
    # What the hub could not be told then, it is told later: no offer outlives its contribution.
    offering.wait(lambda: offering.offer("mine") is None, "the offer is withdrawn")


# Guests.


def test_a_guest_runs_isolated_and_its_end_is_reported(offering: World) -> None:
    spec = pod_spec()
    spec["containers"][0]["env"] = [{"name": "TESTBED_RUN_FOR", "value": "2s"}]
    offering.send("one", machine_of(offering), pod={"labels": {}, "annotations": {}, "spec": spec})

    running = offering.wait_phase("one", "Running")
    pod = offering.home_pod("one")
    assert pod is not None
    assert pod["metadata"]["labels"][names.LABEL_HUB_UID] == "one"
    assert pod["spec"]["nodeName"] in ("home-1-a", "home-1-b")
    assert pod["spec"]["priorityClassName"] == "homefed-guest"
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "podIP" not in str(running)

    done = offering.wait_phase("one", "Succeeded")
    assert done["containers"][0]["exitCode"] == 0
    assert done["finishedAt"] >= done["startedAt"]


def test_an_explicit_stop_ends_the_guest_with_a_terminal_status(offering: World) -> None:
    offering.send("two", machine_of(offering))
    offering.wait_phase("two", "Running")

    offering.stop("two")
    status = offering.wait(lambda: s if (s := offering.status("two")).get("finishedAt") else None, "an end")
    assert status["phase"] in ("Succeeded", "Failed")
    offering.wait(lambda: offering.home_pod("two") is None, "the home pod is gone")


def test_a_guest_stopped_before_it_started_is_never_created(world: World) -> None:
    world.contribute("mine", state="Paused")
    world.accept("mine")
    machine = machine_of(world)
    world.send("three", machine)
    world.wait(lambda: world.status("three").get("reason") == "Paused", "a refusal")

    world.stop("three")
    assert world.wait_phase("three", "Failed")["reason"] == "Stopped"
    assert world.home_pod("three") is None


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("hostNetwork", True, "ForbiddenField"),
        ("tolerations", [{"operator": "Exists"}], "FieldNotCarried"),
        ("serviceAccountName", "admin", "FieldNotCarried"),
        ("volumes", [{"name": "v", "secret": {"secretName": "other-12345678"}}], "ForeignCopy"),
        ("securityContext", {"runAsUser": 0}, "RunsAsRoot"),
    ],
)
def test_a_hostile_hub_gets_nothing_past_the_home(offering: World, field: str, value: object, reason: str) -> None:
    uid = f"evil-{field.lower()}"
    pod = {"labels": {}, "annotations": {}, "spec": pod_spec(**{field: value})}
    offering.send(uid, machine_of(offering), pod=pod)

    offering.wait(lambda: offering.status(uid).get("reason") == reason, f"reason {reason}: {offering.status(uid)}")
    assert "phase" not in offering.status(uid)
    assert offering.home_pod(uid) is None


def test_a_pod_that_is_not_what_its_digest_says_is_refused(offering: World) -> None:
    offering.send("forged", machine_of(offering), podDigest="0" * 64)

    offering.wait(lambda: offering.status("forged").get("reason") == "DigestMismatch", "a refusal")
    assert offering.home_pod("forged") is None


def test_a_taken_name_is_left_alone(offering: World) -> None:
    stranger = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": names.home_pod("five"), "namespace": names.GUESTS_NAMESPACE, "labels": {"whose": "mine"}},
        "spec": pod_spec(
            securityContext={"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        ),
    }
    stranger["spec"]["containers"][0]["securityContext"] = {  # type: ignore[index]
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    offering.home.apply([stranger])
    offering.send("five", machine_of(offering))

    offering.wait(lambda: offering.status("five").get("reason") == "NameTaken", "NameTaken")
    time.sleep(1)
    pod = offering.home_pod("five")
    assert pod is not None
    assert pod["metadata"]["labels"] == {"whose": "mine"}


def test_copies_arrive_before_the_guest_follow_changes_and_go_with_it(offering: World) -> None:
    copy = names.copy_name("six", "Secret", "password")
    secret = {"secretName": copy}
    spec = pod_spec(volumes=[{"name": "v", "secret": secret}])
    copies = [{"kind": "Secret", "name": "password", "copyName": copy}]
    offering.send("six", machine_of(offering), pod={"labels": {}, "annotations": {}, "spec": spec}, copies=copies)
    offering.wait(lambda: offering.status("six").get("reason") == "WaitingForCopies", "waiting for the Secret")

    metadata = {"name": copy, "namespace": offering.mailbox}
    source = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"p": _b64("one")}}
    offering.hub.apply([source])
    offering.wait_phase("six", "Running")
    path = f"/api/v1/namespaces/{names.GUESTS_NAMESPACE}/secrets/{copy}"
    assert offering.home.api.get(path)["data"] == {"p": _b64("one")}

    offering.hub.apply([{**source, "data": {"p": _b64("two")}}])
    offering.wait(lambda: offering.home.api.get(path)["data"] == {"p": _b64("two")}, "the change")

    offering.stop("six")
    offering.wait(lambda: offering.found(offering.home.api, path) is None, "the copy is gone")


def test_a_guest_that_does_not_fit_shows_the_home_schedulers_sentence(offering: World) -> None:
    offering.contribute("mine", resources={"cpu": {"sharePercent": 100, "reserve": "0"}})
    offering.wait(lambda: offering.quota().get("requests.cpu") == "16", "room for more than a machine has")
    send_large(offering, "seven", "9")

    status = offering.wait(
        lambda: s if (s := offering.status("seven")).get("reason") == "Unschedulable" else None, "Unschedulable"
    )
    assert "Insufficient cpu" in status["message"]


def send_large(world: World, uid: str, cpu: str) -> None:
    """A guest that requests so much CPU."""
    amounts = {"cpu": cpu, "memory": "64Mi", "ephemeral-storage": "64Mi"}
    spec = pod_spec()
    spec["containers"][0]["resources"] = {"requests": amounts, "limits": amounts}
    world.send(uid, machine_of(world), pod={"labels": {}, "annotations": {}, "spec": spec}, requests=amounts)


def test_guests_together_may_request_what_the_hub_has_accepted_and_no_more(offering: World) -> None:
    both = {"requests.cpu": "8", "requests.memory": "16Gi", "pods": "110", "services": "0"}
    offering.wait(lambda: both.items() <= offering.quota().items(), f"the quota: {offering.quota()}")

    offering.contribute("mine", resources={"cpu": {"sharePercent": 25}})
    offering.wait(lambda: offering.quota().get("requests.cpu") == "4", "a smaller offer, a smaller quota")
    assert offering.quota()["services"] == "0", "what the chart says is left alone"

    offering.answer(offering.offer("mine") or {}, {}, "False", "HomeNotAccepted")
    offering.wait(lambda: offering.quota().get("requests.cpu") == "0", "no word of the hub, no room")


def test_a_smaller_offer_stops_nobody_and_lets_nobody_in(offering: World) -> None:
    send_large(offering, "large", "3")
    offering.wait_phase("large", "Running")
    offering.contribute("mine", resources={"cpu": {"limit": "1"}})
    offering.wait(lambda: offering.quota().get("requests.cpu") == "3", "what runs, and no more")
    offering.send("late", machine_of(offering))

    offering.wait(lambda: offering.status("late").get("reason") == "QuotaExceeded", "a refusal for want of room")
    assert offering.home_pod("late") is None
    assert offering.status("large")["phase"] == "Running"
    offering.stop("large")
    offering.wait_phase("late", "Running")
    offering.wait(lambda: offering.quota().get("requests.cpu") == "2", "what is offered")


def test_a_home_pod_deleted_by_its_owner_fails_and_is_not_made_again(offering: World) -> None:
    offering.send("eight", machine_of(offering))
    offering.wait_phase("eight", "Running")
    offering.home.kubectl("delete", "pod", names.home_pod("eight"), "-n", names.GUESTS_NAMESPACE, "--force")

    assert offering.wait_phase("eight", "Failed")["reason"] in ("StoppedAtHome", "PodLost")
    time.sleep(2)
    assert offering.home_pod("eight") is None


def test_a_killed_agent_adopts_its_guests_and_reports_what_it_missed(offering: World) -> None:
    offering.send("nine", machine_of(offering))
    offering.send("ten", machine_of(offering, 1))
    offering.wait_phase("nine", "Running")
    offering.wait_phase("ten", "Running")
    before = offering.home_pod("nine")
    offering.stop_agent()
    offering.home.kubectl("delete", "pod", names.home_pod("ten"), "-n", names.GUESTS_NAMESPACE, "--force")
    offering.start_agent()

    assert offering.wait_phase("ten", "Failed")["reason"] == "PodLost"
    after = offering.home_pod("nine")
    assert before is not None
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert offering.status("nine")["phase"] == "Running"


def test_guests_outlive_a_hub_outage_and_a_guest_pod_that_is_gone_is_not_a_word_to_stop(offering: World) -> None:
    offering.send("eleven", machine_of(offering))
    offering.wait_phase("eleven", "Running")
    path = f"{GROUP}/namespaces/{offering.mailbox}/guestpods/eleven"
    offering.hub.api.request("DELETE", path)
    offering.beat()
    offering.hub.pause("kube-apiserver")
    try:
        time.sleep(5)
    finally:
        offering.hub.resume("kube-apiserver")
    offering.beat()
    time.sleep(5)

    pod = offering.home_pod("eleven")
    assert pod is not None
    assert "deletionTimestamp" not in pod["metadata"]


def test_an_unreachable_hub_is_told_to_the_contributor(offering: World) -> None:
    offering.hub.pause("kube-apiserver")
    try:
        condition = offering.wait_condition("mine", "Ready", "HubUnreachable")
        assert "guests run on" in condition["message"]
    finally:
        offering.hub.resume("kube-apiserver")
    offering.wait_condition("mine", "Ready", "Ready")


def test_a_revoked_token_names_the_remedy_and_a_new_invitation_mends_it(offering: World) -> None:
    path = f"/api/v1/namespaces/{offering.mailbox}/serviceaccounts/{names.AGENT_SERVICE_ACCOUNT}"
    fingerprint = (offering.contribution("mine") or {})["status"]["keyFingerprint"]
    offering.hub.api.request("DELETE", path)
    condition = offering.wait_condition("mine", "Ready", "TokenRefused")
    assert f"homefed invite {offering.name} --renew" in condition["message"]

    offering.hub.create_service_account(offering.mailbox, names.AGENT_SERVICE_ACCOUNT)
    offering.invite(offering.hub.token_for(offering.mailbox, names.AGENT_SERVICE_ACCOUNT))
    offering.wait_condition("mine", "Ready", "Ready")
    assert (offering.contribution("mine") or {})["status"]["keyFingerprint"] == fingerprint


def test_a_new_key_is_asked_for_offered_and_taken_with_the_agent_killed_between_all_steps(offering: World) -> None:
    """Asked by the command, as the owner asks; each step is found again by an agent that knows nothing of the last."""
    shown = (offering.offer("mine") or {})["spec"]["publicKey"]
    old = (offering.contribution("mine") or {})["status"]["keyFingerprint"]
    offering.stop_agent()
    assert NAMESPACE in cli(offering.home, "rotate-key", "--namespace", NAMESPACE, "-o", "json")

    def offered() -> dict[str, str] | None:
        spec = (offering.offer("mine") or {})["spec"]
        return spec if spec["publicKey"] != shown else None

    offering.start_agent()
    spec = offering.wait(offered, "an offer with the next key")
    pinned = PinnedKey(public_key=shown, fingerprint=old, pinned_at="2026-01-01T00:00:00Z")
    key_rotation.check(spec["keyRotation"], pinned, offering.home_uid, spec["publicKey"], datetime.now(UTC))
    offering.wait_condition("mine", "KeyRotation", "KeyRotating")
    assert (offering.contribution("mine") or {})["status"]["keyFingerprint"] == old, "until the hub believes the other"

    offering.stop_agent()
    offering.start_agent()
    time.sleep(2)
    assert (offering.offer("mine") or {})["spec"] == spec, "no third key"
    offering.stop_agent()
    offering.answer(offering.offer("mine") or {}, accepted_nodes(offering))
    offering.start_agent()

    new = key_rotation.fingerprint_of(spec["publicKey"])
    offering.wait(lambda: (offering.contribution("mine") or {})["status"]["keyFingerprint"] == new, "the new key")
    assert (offering.offer("mine") or {})["spec"] == spec, "what the hub has seen need not be written again"
    offering.wait(lambda: not rotating(offering), "no word of a change that is over")
    events = offering.wait(lambda: key_events(offering), "an event on the contribution")
    assert (old in events[0], new in events[0]) == (True, True)

    offering.stop_agent()
    version = secret_version(offering)
    offering.start_agent()
    time.sleep(3)
    assert secret_version(offering) == version, "one request, one key"


def rotating(world: World) -> bool:
    conditions = (world.contribution("mine") or {})["status"]["conditions"]
    return any(condition["type"] == "KeyRotation" for condition in conditions)


def accepted_nodes(world: World) -> dict[str, str]:
    return {each["id"]: each["node"] for each in (world.offer("mine") or {})["status"]["machines"]}


def key_events(world: World) -> list[str]:
    events = world.home.api.get(f"/api/v1/namespaces/{NAMESPACE}/events")["items"]
    return [event["message"] for event in events if event["reason"] == "KeyRotated"]


def secret_version(world: World) -> str:
    found = world.home.api.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/homefed-agent")
    return str(found["metadata"]["resourceVersion"])


def test_malformed_join_values_name_the_field(world: World) -> None:
    world.stop_agent()
    world.invite("t" * 40, url="hub.example")
    world.start_agent()
    world.contribute("mine")

    condition = world.wait_condition("mine", "Ready", "InvalidJoin")
    assert "home.join.url" in condition["message"]


def test_at_rest_nothing_but_leases_is_written(offering: World) -> None:
    offering.send("rest", machine_of(offering))
    offering.wait_phase("rest", "Running")
    begun = offering.hub.audit_log.stat().st_size
    offering.wait_still(lambda: [*offering.writes(begun), version_of(offering)], 5, "what is told of the guest's start")
    offset, at_home = offering.hub.audit_log.stat().st_size, offering.home.audit_log.stat().st_size
    version = version_of(offering)
    offering.hub.api.request(  # the hub notes its own observation: no reason to write back
        "PATCH",
        f"{GROUP}/namespaces/{offering.mailbox}/guestpods/rest",
        {"spec": {"observed": {"runningFrom": "2026-01-01T00:00:01Z"}}},
        content_type=MERGE_PATCH,
    )
    time.sleep(20)

    assert offering.writes(offset) == []
    assert version_of(offering) == version
    events = list(offering.home.audit_events(at_home))
    assert [e.path for e in events if e.is_write and e.resource == "resourcequotas"] == []
    assert [e for e in events if e.resource == "leases"], "the log was read"


def version_of(world: World) -> str:
    return str((world.contribution("mine") or {})["metadata"]["resourceVersion"])


def test_an_agent_that_is_told_to_end_ends_in_order_and_leaves_guests_alone(offering: World) -> None:
    offering.send("twelve", machine_of(offering))
    offering.wait_phase("twelve", "Running")
    agent = offering.agent
    assert agent is not None
    agent.signal(signal.SIGTERM)
    offering.wait(lambda: not agent.alive, "the agent has ended")

    assert agent.returncode == 0, offering.log()[-3000:]
    lease = offering.home.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/homefed-agent")
    assert not lease["spec"].get("holderIdentity"), "the next one need not wait"
    pod = offering.home_pod("twelve")
    assert pod is not None
    assert "deletionTimestamp" not in pod["metadata"]


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
