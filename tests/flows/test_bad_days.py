"""What goes wrong in life, on a whole federation: each time the reason is said with the field and the remedy, and
nothing is lost, orphaned or deleted on doubt.

Where one side alone is concerned the flows of that side have the case: test_agent.py (revoked token, malformed
invitation, taken names, hub away), test_hub_membership.py (foreign namespaces, nodes and keys, address blocks and a
restarted controller manager, forced deletion), test_hub_guests.py (refusals and back-off), test_settlement_flow.py
(foreign and conflicting claims, a restored hub), tests/chart (every admission rule), tests/contracts (quantities).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml
from corner import (
    GROUP,
    REQUESTS,
    Corner,
    condition,
    corner,
    delete,
    eventually,
    found,
    phase,
    whole_condition,
)
from scripted_servers import forgetful, refusing_ledger

from homefed.api import dsse, names
from homefed.core import signed_note
from homefed.core.times import from_rfc3339
from testbed.api import APPLY, MERGE_PATCH, STRATEGIC_PATCH, Api, ApiError
from testbed.federated import Json
from testbed.installation import NAMESPACE, ROOT, cli, invite
from testbed.processes import HomeFed

LATENESS = 38
"""Seconds: more than the 30 until missing data is told, by more than the 5 between two settlement passes."""
LIVES = 5
"""Seconds in which something is looked at that must not happen."""


@pytest.fixture(scope="module")
def garden(homefed: HomeFed) -> Iterator[Corner]:
    """All machines of both homes, offered by a Contribution `spare` each; a pod `long-…` runs on each home."""
    with corner(homefed, "garden", {"latenessSeconds": LATENESS}) as own:
        for home in own.homes:
            own.contribute(home, "spare")
        own.ready_nodes(4)
        for home in own.homes:
            own.pod(f"long-{home}", nodeSelector={names.LABEL_HOME: home})
        for home in own.homes:
            own.running(f"long-{home}")
        yield own


def on(home: str) -> Json:
    """For a pod that wants this home."""
    return {"nodeSelector": {names.LABEL_HOME: home}}


def of_contribution(own: Corner, home: str, name: str, type_: str) -> Json:
    return whole_condition(own.contribution(home, name), type_)


def settled(own: Corner, home: str) -> Json:
    return whole_condition(own.home(home), "Settled")


def unharmed(own: Corner, *names_: str) -> None:
    """These pods run, each as the one home pod it had from the beginning."""
    for name in names_:
        pod = own.running(name)
        home_pod = own.home_pod(pod["metadata"]["uid"])
        assert home_pod is not None, name
        assert phase(home_pod) == "Running", name
        assert "deletionTimestamp" not in home_pod["metadata"], name


def created_at_home(own: Corner, uid: str) -> int:
    """How often any home's API server created the pod of this guest."""
    name = names.home_pod(uid)
    events = [event for cluster in own.homes.values() for event in cluster.audit_events()]
    return sum(event.name == name and event.resource == "pods" and event.status == 201 for event in events)


# --- the contributor's mistakes and wishes


def test_a_selector_that_matches_no_machine_is_told_by_the_field(garden: Corner) -> None:
    garden.contribute("home-1", "nothing", nodeSelector={"room": "attic"})
    said = eventually(lambda: of_contribution(garden, "home-1", "nothing", "Available"), "a word about the selector")
    assert (said["status"], said["reason"]) == ("False", "SelectorMatchesNothing")
    assert "spec.nodeSelector room=attic" in said["message"]
    garden.withdraw("home-1", "nothing")
    eventually(lambda: garden.contribution("home-1", "nothing") is None, "it goes as easily as it came")


def test_an_unknown_pool_is_told_to_the_contributor_with_whom_to_ask(garden: Corner) -> None:
    garden.contribute("home-1", "astray", poolName="gardne", nodeSelector={"room": "attic"})
    said = eventually(
        lambda: _if(of_contribution(garden, "home-1", "astray", "Accepted"), "status", "False"), "the hub's refusal"
    )
    assert said["reason"] == "UnknownPool"
    assert "'gardne'" in said["message"]
    assert "ask its organiser" in said["message"]
    garden.withdraw("home-1", "astray")
    eventually(lambda: garden.contribution("home-1", "astray") is None, "it goes")


def test_of_two_contributions_that_claim_the_same_machines_the_younger_says_who_has_them(garden: Corner) -> None:
    before = sorted(node["metadata"]["uid"] for node in garden.nodes())
    garden.contribute("home-1", "younger")
    said = eventually(lambda: of_contribution(garden, "home-1", "younger", "Available"), "a word about the machines")
    assert (said["status"], said["reason"]) == ("False", "MachineClaimed")
    assert "home-1-a (by spare)" in said["message"]
    assert sorted(node["metadata"]["uid"] for node in garden.nodes()) == before
    garden.withdraw("home-1", "younger")
    eventually(lambda: garden.contribution("home-1", "younger") is None, "it goes")


def test_a_paused_contribution_keeps_its_guests_and_takes_no_new_ones(garden: Corner) -> None:
    garden.change("home-1", "spare", state="Paused")
    eventually(lambda: len(_cordoned(garden)) == 2, "both machines are cordoned")
    eventually(lambda: _if(of_contribution(garden, "home-1", "spare", "Available"), "reason", "Paused"), "it says so")
    garden.pod("patient", **on("home-1"))
    time.sleep(LIVES)
    patient = garden.get("patient")
    assert patient is not None
    assert not patient["spec"].get("nodeName"), "the scheduler keeps it"
    unharmed(garden, "long-home-1")
    garden.change("home-1", "spare", state="Active")
    unharmed(garden, "patient", "long-home-1")
    garden.delete("patient")
    eventually(lambda: garden.get("patient") is None, "it goes")


def test_a_drained_contribution_stops_its_guests_and_each_pod_says_why(garden: Corner) -> None:
    pod = garden.pod("drained", **on("home-1"))
    garden.running("drained")
    garden.change("home-1", "spare", state="Draining")
    over = eventually(lambda: _if_phase(garden.get("drained"), "Failed"), "the guest is stopped")
    assert "drain" in f"{over['status'].get('reason')} {over['status'].get('message')}".lower()
    eventually(lambda: _gone_or_over(garden, pod), "nothing of it runs at home")
    garden.change("home-1", "spare", state="Active")
    garden.ready_nodes(4)
    assert created_at_home(garden, pod["metadata"]["uid"]) == 1
    for name in ("drained", "long-home-1"):
        garden.delete(name)
    eventually(lambda: garden.get("long-home-1") is None, "the stopped pod goes")
    garden.pod("long-home-1", **on("home-1"))
    garden.running("long-home-1")


def test_a_contribution_deleted_while_guests_run_stops_them_first(garden: Corner) -> None:
    pod = garden.running("long-home-2")
    garden.withdraw("home-2", "spare")
    eventually(lambda: _if_phase(garden.get("long-home-2"), "Failed"), "the guest is stopped")
    eventually(lambda: garden.contribution("home-2", "spare") is None, "the contribution goes")
    eventually(lambda: len(garden.nodes()) == 2, "its virtual nodes go")
    eventually(lambda: _gone_or_over(garden, pod), "nothing of it runs at home")
    garden.delete("long-home-2")
    garden.contribute("home-2", "spare")
    garden.ready_nodes(4)
    eventually(lambda: garden.get("long-home-2") is None, "the stopped pod goes")
    garden.pod("long-home-2", **on("home-2"))
    garden.running("long-home-2")


# --- the consumer's


def test_a_controller_whose_pods_are_refused_makes_none_and_shows_the_field(garden: Corner) -> None:
    template = {"metadata": {"labels": {"app": "bold"}}, "spec": garden.pod_spec(hostNetwork=True)}
    spec = {"replicas": 3, "selector": {"matchLabels": {"app": "bold"}}, "template": template}
    path = f"/apis/apps/v1/namespaces/{garden.name}/replicasets"
    garden.hub.request("POST", path, {"metadata": {"name": "bold"}, "spec": spec})
    said = eventually(
        lambda: whole_condition(found(garden.hub, f"{path}/bold"), "ReplicaFailure"), "the controller's word"
    )
    assert "hostNetwork" in said["message"]
    time.sleep(LIVES)
    assert not [pod for pod in garden.pods() if pod["metadata"]["name"].startswith("bold")]
    delete(garden.hub, f"{path}/bold")


def test_a_namespace_that_is_not_enabled_gets_the_command_and_no_way_round_it(garden: Corner) -> None:
    garden.homefed.hub.create_namespace("stranger")
    with pytest.raises(ApiError, match="homefed consumer enable stranger") as refused:
        garden.pod("uninvited", "stranger")
    assert refused.value.status == 403
    node = garden.nodes()[0]["metadata"]["name"]
    spec = {"nodeName": node, "runtimeClassName": None, "tolerations": [{"operator": "Exists"}]}
    pod = garden.pod("climber", "stranger", **spec)
    path = "/api/v1/namespaces/stranger/pods/climber"
    told = eventually(lambda: _if_reason(found(garden.hub, path)), "why it does not run")
    assert phase(told) == "Pending"
    assert "spec.runtimeClassName: set it to homefed-garden" in told["status"]["message"]
    assert garden.guest(pod["metadata"]["uid"]) is None
    delete(garden.hub, path)
    eventually(lambda: found(garden.hub, path) is None, "it can be deleted, though no kubelet is there")


def test_a_daemon_set_that_tolerates_everything_stays_pending_without_a_loop(garden: Corner) -> None:
    container = {"name": "agent", "image": "monitoring:1", "resources": {"requests": REQUESTS}}
    template = {
        "metadata": {"labels": {"app": "everywhere"}},
        "spec": {"containers": [container], "tolerations": [{"operator": "Exists"}]},
    }
    spec = {"selector": {"matchLabels": {"app": "everywhere"}}, "template": template}
    path = f"/apis/apps/v1/namespaces/{garden.name}/daemonsets"
    garden.hub.request("POST", path, {"metadata": {"name": "everywhere"}, "spec": spec})

    def told() -> list[Json]:
        mine = [pod for pod in garden.pods() if pod["metadata"]["name"].startswith("everywhere")]
        return mine if len(mine) == 4 and all(p["status"].get("reason") == "DaemonSetPod" for p in mine) else []

    before = eventually(told, "four pods, each told why")
    time.sleep(LIVES)
    assert [_version(pod) for pod in told()] == [_version(pod) for pod in before], "at rest nothing is written"
    assert {phase(pod) for pod in told()} == {"Pending"}
    assert "type=virtual-kubelet" in before[0]["status"]["message"]
    name = before[0]["metadata"]["name"]
    eventually(lambda: [event["count"] for event in garden.events(name) if _ours(event)] == [1], "one event")
    assert not {pod["metadata"]["uid"] for pod in before} & {guest["metadata"]["name"] for guest in garden.guests()}
    delete(garden.hub, f"{path}/everywhere")
    eventually(lambda: not told() and len(garden.pods()) == 2, "they go with their DaemonSet")


def test_a_pod_that_names_its_node_itself_is_checked_as_if_it_had_been_scheduled(garden: Corner) -> None:
    node = next(n for n in garden.nodes() if n["metadata"]["labels"][names.LABEL_HOME] == "home-1")
    name = node["metadata"]["name"]
    small = garden.pod("straight", nodeName=name)
    garden.running("straight")
    assert created_at_home(garden, small["metadata"]["uid"]) == 1
    spec = garden.pod_spec(nodeName=name)
    spec["containers"][0]["resources"] = {"requests": REQUESTS | {"cpu": "500"}}
    body = {"metadata": {"name": "stout"}, "spec": spec}
    stout = garden.hub.request("POST", f"/api/v1/namespaces/{garden.name}/pods", body)
    eventually(lambda: (garden.get("stout") or {})["status"].get("reason") == "OutOfcpu", "why it does not run")
    assert garden.guest(stout["metadata"]["uid"]) is None
    for name in ("straight", "stout"):
        garden.delete(name)
    eventually(lambda: not (garden.get("straight") or garden.get("stout")), "they go")


def test_a_bound_pod_keeps_its_size_and_its_image(garden: Corner) -> None:
    """API servers that know nodes without resize refuse it themselves; for older ones see test_guest_lifecycle.py."""
    pod = garden.pod("fixed", **on("home-1"))
    garden.running("fixed")
    path = f"/api/v1/namespaces/{garden.name}/pods/fixed"
    grown = {"spec": {"containers": [{"name": "app", "resources": {"requests": {"cpu": "400m"}}}]}}
    with pytest.raises(ApiError, match="without support for resize"):
        garden.hub.request("PATCH", f"{path}/resize", grown, content_type=STRATEGIC_PATCH)
    other = {"spec": {"containers": [{"name": "app", "image": "else:1"}]}}
    with pytest.raises(ApiError, match="image"):
        garden.hub.request("PATCH", path, other, content_type=STRATEGIC_PATCH)
    home_pod = garden.home_pod(pod["metadata"]["uid"]) or {}
    (container,) = home_pod["spec"]["containers"]
    assert (container["resources"]["requests"]["cpu"], container["image"]) == ("100m", "workload:test")
    guest = garden.guest(pod["metadata"]["uid"])
    assert guest is not None
    assert guest["spec"]["requests"]["cpu"] == "100m", "what is billed is what runs"
    garden.delete("fixed")
    eventually(lambda: garden.get("fixed") is None, "it goes")


# --- a hostile home


@pytest.fixture
def hostile(garden: Corner) -> Iterator[Api]:
    """The API of the hub with the token of home-1's agent, while that agent itself is silent."""
    hub = garden.homefed.hub
    token = hub.token_for(names.mailbox("home-1"), names.AGENT_SERVICE_ACCOUNT)
    agent = garden.homefed.processes["home-1"]
    agent.pause()
    try:
        yield Api(hub.host, hub.spec.ports.apiserver, hub.ca_path, token=token)
    finally:
        before = _own_lease(garden, "home-1")
        agent.resume()  # and ends, where it was silent for so long that another might hold its Lease
        eventually(lambda: not agent.alive or _own_lease(garden, "home-1") != before, "the agent is itself again")
        if garden.homefed.revive():
            garden.homefed.await_ready("home-1")


def _own_lease(own: Corner, home: str) -> str:
    """When the agent last renewed the Lease that makes it the only one of its home."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/homefed-agent"
    return str(own.homes[home].api.get(path)["spec"]["renewTime"])


def test_a_home_cannot_get_an_address_into_the_hubs_services(garden: Corner, hostile: Api) -> None:
    labels = {"metadata": {"labels": {"app": "prey"}}}
    pod = garden.running("long-home-1")
    path = f"/api/v1/namespaces/{garden.name}/pods/long-home-1"
    garden.hub.request("PATCH", path, labels, content_type=MERGE_PATCH)
    service = {"metadata": {"name": "prey"}, "spec": {"selector": {"app": "prey"}, "ports": [{"port": 443}]}}
    garden.hub.request("POST", f"/api/v1/namespaces/{garden.name}/services", service)
    report = {"phase": "Running", "podIP": "10.96.0.1", "podIPs": [{"ip": "10.96.0.1"}], "hostIP": "10.96.0.1"}
    container = {"name": "app", "state": "running", "ready": True, "restartCount": 7, "podIP": "10.96.0.1"}
    ready = {"type": "Ready", "status": "True", "reason": "x", "message": "", "lastTransitionTime": _now()}
    forged = {"status": report | {"containers": [container], "conditions": [ready]}}
    hostile.request("PATCH", _status("home-1", pod["metadata"]["uid"]), forged, content_type=MERGE_PATCH)
    eventually(lambda: _restarts(garden.get("long-home-1")) == 7, "the hub has taken in the report")
    after = garden.get("long-home-1") or {}
    assert not {"podIP", "podIPs", "hostIP"} & after["status"].keys()
    selector = "labelSelector=kubernetes.io%2Fservice-name%3Dprey"
    slices = garden.hub.get(f"/apis/discovery.k8s.io/v1/namespaces/{garden.name}/endpointslices?{selector}")["items"]
    assert not [endpoint for one in slices for endpoint in one.get("endpoints") or []]
    delete(garden.hub, f"/api/v1/namespaces/{garden.name}/services/prey")


@pytest.mark.parametrize("size", [2_000, 1_500_000])
def test_a_home_cannot_fill_the_hub_with_text(garden: Corner, hostile: Api, size: int) -> None:
    pod = garden.running("long-home-1")
    forged = {"status": {"phase": "Running", "message": "x" * size}}
    with pytest.raises(ApiError) as refused:
        hostile.request("PATCH", _status("home-1", pod["metadata"]["uid"]), forged, content_type=MERGE_PATCH)
    assert refused.value.status in (413, 422)
    assert not (garden.get("long-home-1") or {})["status"].get("message")


def test_a_home_cannot_speak_for_guests_that_are_not_its_own(garden: Corner, hostile: Api) -> None:
    foreign = garden.running("long-home-2")["metadata"]["uid"]
    failed = {"status": {"phase": "Failed"}}
    for mailbox, status in (("home-2", 403), ("home-1", 404)):
        with pytest.raises(ApiError) as refused:
            hostile.request("PATCH", _status(mailbox, foreign), failed, content_type=MERGE_PATCH)
        assert refused.value.status == status
    invented = {
        "apiVersion": names.API_VERSION,
        "kind": "GuestPod",
        "metadata": {"name": foreign, "namespace": names.mailbox("home-1")},
    }
    path = f"{GROUP}/namespaces/{names.mailbox('home-1')}/guestpods/{foreign}?fieldManager=homefed-agent"
    with pytest.raises(ApiError) as refused:
        hostile.request("PATCH", path, invented, content_type=APPLY)
    assert refused.value.status == 403
    for path in ("/api/v1/nodes", f"/api/v1/namespaces/{garden.name}/pods", f"{GROUP}/homes"):
        with pytest.raises(ApiError, match="forbidden"):
            hostile.get(path)
    unharmed(garden, "long-home-2")


# --- machines and links


def test_a_home_whose_api_is_away_is_told_and_its_guests_are_the_same_afterwards(garden: Corner) -> None:
    pod = garden.running("long-home-1")
    garden.homes["home-1"].pause("kube-apiserver")
    try:
        eventually(lambda: _ready(garden) == {"home-1": 0, "home-2": 2}, "home-1's machines are Unknown")
        said = eventually(lambda: _if(whole_condition(garden.home("home-1"), "Online"), "status", "False"), "the Home")
        assert "renews none of its Leases" in said["message"]
        assert phase(garden.get("long-home-1") or {}) == "Running", "it may well run: nothing is deleted on doubt"
        agent = garden.homefed.processes["home-1"]
        eventually(lambda: not agent.alive, "without its Lease an agent ends, so that another may work")
    finally:
        garden.homes["home-1"].resume("kube-apiserver")
    assert "home-1" in garden.homefed.revive()
    garden.ready_nodes(4)
    unharmed(garden, "long-home-1", "long-home-2")
    assert created_at_home(garden, pod["metadata"]["uid"]) == 1
    unseen = eventually(lambda: _last_unseen(garden, pod), "the end of what the hub did not see")
    assert unseen["end"] > unseen["start"], "it is not reserved time"


def _last_unseen(own: Corner, pod: Json) -> Json | None:
    """The last interval in which the hub did not see the guest, once it is over."""
    intervals = (own.guest(pod["metadata"]["uid"]) or {})["spec"]["observed"].get("intervals")
    return intervals[-1] if intervals and intervals[-1].get("end") else None


def test_guests_outlive_a_hub_that_is_down_for_longer_than_its_leases(garden: Corner) -> None:
    before = {name: garden.running(name)["metadata"]["uid"] for name in ("long-home-1", "long-home-2")}
    hub = garden.homefed.processes["hub"]
    garden.homefed.hub.pause("kube-apiserver")
    try:
        eventually(lambda: not hub.alive, "the operator has lost its Lease and ends, so that another may work")
        assert "could not be renewed" in hub.tail()
        said = eventually(
            lambda: _if(of_contribution(garden, "home-1", "spare", "Connected"), "status", "False"), "the contributor"
        )
        assert "guests run on" in said["message"]
    finally:
        garden.homefed.hub.resume("kube-apiserver")
    revived = garden.homefed.revive()
    assert "hub" in revived
    garden.homefed.await_ready(*revived)
    garden.ready_nodes(4)
    unharmed(garden, "long-home-1", "long-home-2")
    assert {name: (garden.get(name) or {})["metadata"]["uid"] for name in before} == before
    assert {created_at_home(garden, uid) for uid in before.values()} == {1}


@pytest.fixture
def five_minutes_ahead(garden: Corner, tmp_path: Path) -> Iterator[None]:
    """The agent of home-2 on a machine whose clock is five minutes ahead."""
    source, library = tmp_path / "ahead.c", tmp_path / "ahead.so"
    source.write_text(AHEAD)
    command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    homefed = garden.homefed
    homefed.environments["home-2"] = {"LD_PRELOAD": str(library)}
    homefed.kill("home-2")
    homefed.restart("home-2")
    try:
        yield
    finally:
        del homefed.environments["home-2"]
        homefed.kill("home-2")
        homefed.restart("home-2")
        homefed.await_ready("home-2")


AHEAD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *found) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, found);
    if (clock == CLOCK_REALTIME) found->tv_sec += 300;
    return result;
}
"""


def test_a_home_whose_clock_is_off_is_told_and_serves_on(garden: Corner, five_minutes_ahead: None) -> None:
    said = eventually(lambda: of_contribution(garden, "home-2", "spare", "ClockSkewed"), "a word about the clock")
    assert "ahead of the hub's" in said["message"]
    assert "NTP" in said["message"]
    started = time.time()
    pod = garden.pod("timely", env={"TESTBED_RUN_FOR": "3s"}, restartPolicy="Never", **on("home-2"))
    over = eventually(lambda: _if_phase(garden.get("timely"), "Succeeded"), "the guest runs and ends")
    lease = garden.hub.get(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{over['spec']['nodeName']}")
    assert abs(_epoch(lease["spec"]["renewTime"]) - time.time()) < 120, "renewed on the hub's clock"
    observed = eventually(lambda: _if_ended(garden.guest(pod["metadata"]["uid"])), "the hub has seen the end")
    times = [_epoch(observed[key]) for key in ("boundAt", "runningFrom", "endedAt")]
    assert started - 2 <= times[0] <= times[1] <= times[2] <= time.time() + 1, "all on the hub's clock"
    assert len(garden.ready_nodes(4)) == 4
    garden.delete("timely")


def _if_ended(guest: Json | None) -> Json | None:
    """What the hub has observed, once that is complete."""
    observed: Json = (guest or {"spec": {"observed": {}}})["spec"]["observed"]
    return observed if observed.get("endedAt") else None


def test_an_empty_list_where_pods_are_ends_nothing_at_the_hub(garden: Corner) -> None:
    homefed = garden.homefed
    with forgetful(homefed.hub, {"pods", "guestpods", "nodes"}, NAMESPACE, "homefed-hub") as kubeconfig:
        restarted(homefed, "hub", kubeconfig)
        time.sleep(LIVES)
        unharmed(garden, "long-home-1", "long-home-2")
        assert all("stop" not in guest["spec"] for guest in garden.guests() if phase(guest) == "Running")
        homefed.kill("hub")
    restarted(homefed, "hub", None)
    garden.ready_nodes(4)
    unharmed(garden, "long-home-1", "long-home-2")


def test_an_empty_list_where_pods_are_ends_nothing_at_home(garden: Corner) -> None:
    homefed, home = garden.homefed, garden.homes["home-1"]
    uid = garden.running("long-home-1")["metadata"]["uid"]
    with forgetful(home, {"pods"}, NAMESPACE, "homefed-agent") as kubeconfig:
        restarted(homefed, "home-1", kubeconfig)
        time.sleep(LIVES)
        unharmed(garden, "long-home-1")
        homefed.kill("home-1")
    restarted(homefed, "home-1", None)
    time.sleep(2)
    unharmed(garden, "long-home-1")
    assert created_at_home(garden, uid) == 1


def test_a_process_with_a_malformed_kubeconfig_says_which_file_and_ends(tmp_path: Path) -> None:
    broken = tmp_path / "config.yaml"
    cases = {
        "clusters: [": ["hub", "--federation-id=x"],
        "kind: Config\nclusters: []\n": ["agent", f"--evidence-dir={tmp_path}"],
        "\x00": ["status"],
    }
    for text, arguments in cases.items():
        broken.write_text(text)
        argv = [sys.executable, "-m", "homefed", *arguments, f"--kubeconfig={broken}"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "operator")}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode not in (0, -signal.SIGKILL), arguments
        assert str(broken) in done.stderr, (arguments, done.stderr[-500:])
        assert "Traceback" not in done.stderr, arguments


# --- meter and money


def test_while_prometheus_is_down_windows_wait_for_data_and_reserved_amounts_are_settled_then(garden: Corner) -> None:
    eventually(lambda: _if(of_contribution(garden, "home-1", "spare", "MeterReady"), "reason", "PrometheusDown"), "why")
    waiting = eventually(lambda: _if(settled(garden, "home-1"), "reason", "WaitingForData"), "the waiting window")
    assert "UsageReport" in waiting["message"]
    assert "reserved amounts are settled without it" in waiting["message"]
    claims = eventually(lambda: garden.claims("home-1"), "a claim after the lateness limit")
    assert int(claims[-1]["spec"]["charged"]) > 0
    assert conserved(garden)


def test_a_ledger_that_is_down_or_hangs_delays_receipts_and_loses_nothing(garden: Corner) -> None:
    homefed = garden.homefed
    homefed.kill("ledger")
    eventually(lambda: unreceipted(garden), "claims are made without a ledger")
    said = eventually(lambda: _if(settled(garden, "home-1"), "status", "False"), "the Home says so")
    assert said["reason"] in ("Unavailable", "Unreachable", "WaitingForData")
    homefed.restart("ledger")
    homefed.await_ready("ledger")
    eventually(lambda: not unreceipted(garden), "every claim has its receipt")
    homefed.processes["ledger"].pause()
    try:
        eventually(lambda: unreceipted(garden), "claims are made while the ledger hangs")
    finally:
        homefed.processes["ledger"].resume()
    eventually(lambda: not unreceipted(garden), "every claim has its receipt")
    assert chained(garden)
    assert conserved(garden)


def test_after_a_409_the_claim_is_not_sent_again_before_the_organiser_says_so(garden: Corner) -> None:
    homefed = garden.homefed
    homefed.kill("ledger")
    with refusing_ledger(homefed.ports["ledger"]) as sent:
        said = eventually(lambda: _if(settled(garden, "home-1"), "reason", "ClaimConflict"), "the incident")
        assert "409" in said["message"]
        assert "homefed claims resume" in said["message"]
        time.sleep(LIVES)
        assert len(sent) == len(set(sent)), "each claim at most once"
    homefed.restart("ledger")
    homefed.await_ready("ledger")
    restarted(homefed, "hub", None)
    time.sleep(LIVES)
    assert settled(garden, "home-1")["reason"] == "ClaimConflict", "neither the ledger nor a new hub ends it"
    for home in garden.homes:
        cli(homefed.hub, "claims", "resume", home)
    eventually(lambda: not unreceipted(garden), "every claim has its receipt from the true ledger")
    assert chained(garden)
    assert conserved(garden)


def test_homes_that_are_told_of_the_ledger_cosign_what_it_signs(garden: Corner) -> None:
    homefed = garden.homefed
    for home in garden.homes:
        homefed.options[home] = [f"--ledger-url={homefed.ledger_url}", "--ledger-interval=1s"]
        restarted(homefed, home, None)
    eventually(lambda: homefed.publish_home_keys() == 2, "the hub publishes the homes' keys")
    for home in garden.homes:
        eventually(
            lambda home=home: _if(of_contribution(garden, home, "spare", "LedgerWitnessed"), "reason", "Cosigned"),
            f"{home} cosigns",
        )
    uids = {garden.home(home)["metadata"]["uid"] for home in garden.homes}
    eventually(lambda: _cosigners(homefed) >= {f"homefed.io/home/{uid}" for uid in uids}, "both stand below it")
    for home in garden.homes:
        homefed.options.pop(home)
        restarted(homefed, home, None)


def _cosigners(homefed: HomeFed) -> set[str]:
    note = requests.get(f"{homefed.ledger_url}/checkpoint", timeout=10)
    note.raise_for_status()
    return {signature.name for signature in signed_note.parse(note.text).signatures}


def test_a_deleted_home_stops_its_guests_settles_them_and_then_goes(garden: Corner) -> None:
    """And may come back by a new invitation, as another member, who starts at zero."""
    homefed, mailbox = garden.homefed, names.mailbox("home-2")
    pod = garden.running("long-home-2")
    old = garden.home("home-2")["metadata"]["uid"]
    delete(garden.hub, f"{GROUP}/homes/home-2")
    eventually(lambda: _if_phase(garden.get("long-home-2"), "Failed"), "the guest is stopped")
    eventually(lambda: _gone_or_over(garden, pod), "nothing of it runs at home")
    eventually(lambda: found(garden.hub, f"{GROUP}/homes/home-2") is None, "the Home goes")
    eventually(lambda: found(garden.hub, f"/api/v1/namespaces/{mailbox}") is None, "and its mailbox")
    eventually(lambda: len(garden.nodes()) == 2, "and its virtual nodes")
    account = names.contributor_account("testbed", old)
    ended = _epoch(pod["status"]["startTime"])
    newest = homefed.ledger(f"/v1/chains/garden/{account}")
    assert _epoch(dsse.document_of(dsse.from_json(newest["envelope"]))["windowEnd"]) > ended
    balance = homefed.ledger(f"/v1/accounts/{account}/balance")
    assert int(balance["balance"]) > 0, "what it earned it keeps"
    assert conserved(garden)
    garden.delete("long-home-2")
    rejoin(homefed, "home-2")
    garden.ready_nodes(4)
    garden.pod("again", **on("home-2"))
    garden.running("again")
    assert garden.home("home-2")["metadata"]["uid"] != old


def rejoin(homefed: HomeFed, home: str) -> None:
    """A new invitation, taken up by an upgrade of the home's release."""
    invitation = yaml.safe_load(invite(homefed.hub, home).read_text(encoding="utf-8"))
    homefed.releases[home].upgrade({"home": {"join": invitation["home"]["join"]}})
    homefed.homes[home].kubectl("scale", "deployment", "--all", "--replicas=0", "-n", NAMESPACE)
    homefed.kill(home)
    homefed.restart(home)
    homefed.await_ready(home)


def restarted(homefed: HomeFed, name: str, kubeconfig: Path | None) -> None:
    """The process anew, through another way to its API server or the direct one."""
    homefed.kubeconfigs.pop(name, None)
    if kubeconfig is not None:
        homefed.kubeconfigs[name] = kubeconfig
    homefed.kill(name)
    homefed.restart(name)
    homefed.await_ready(name)


def unreceipted(own: Corner) -> list[str]:
    claims = [claim for home in own.homes for claim in own.claims(home)]
    return [claim["metadata"]["name"] for claim in claims if not (claim.get("status") or {}).get("receiptedAt")]


def chained(own: Corner) -> bool:
    """Each home's claims are numbered 1, 2, 3 …; read once, since new ones come all the time."""
    numbers = [[int(claim["spec"]["sequence"]) for claim in own.claims(home)] for home in own.homes]
    return all(found == [*range(1, len(found) + 1)] for found in numbers)


def conserved(own: Corner) -> bool:
    return bool(own.homefed.ledger("/v1/totals")["conserved"])


def _if(obj: Json, key: str, value: str) -> Json | None:
    return obj if obj.get(key) == value else None


def _if_not(obj: Json, status: str) -> Json | None:
    return obj if obj.get("status") not in (None, status, "Unknown") else None


def _if_phase(pod: Json | None, wanted: str) -> Json | None:
    return pod if pod is not None and phase(pod) == wanted else None


def _if_reason(pod: Json | None) -> Json | None:
    return pod if pod is not None and pod["status"].get("reason") else None


def _cordoned(own: Corner) -> list[str]:
    return [node["metadata"]["name"] for node in own.nodes() if node["spec"].get("unschedulable")]


def _ready(own: Corner) -> dict[str, int]:
    """Home → how many of its machines are Ready."""
    counts = dict.fromkeys(own.homes, 0)
    for node in own.nodes():
        counts[node["metadata"]["labels"][names.LABEL_HOME]] += condition(node, "Ready") == "True"
    return counts


def _gone_or_over(own: Corner, pod: Json) -> bool:
    home_pod = own.home_pod(pod["metadata"]["uid"])
    return home_pod is None or phase(home_pod) in ("Succeeded", "Failed")


def _status(home: str, uid: str) -> str:
    return f"{GROUP}/namespaces/{names.mailbox(home)}/guestpods/{uid}/status?fieldManager=homefed-agent"


def _restarts(pod: Json | None) -> int:
    listed = ((pod or {}).get("status") or {}).get("containerStatuses") or [{}]
    return int(listed[0].get("restartCount", 0))


def _version(pod: Json) -> str:
    return str(pod["metadata"]["resourceVersion"])


def _ours(event: Json) -> bool:
    return bool(event["reason"] == "DaemonSetPod")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _epoch(text: str) -> float:
    return from_rfc3339(text).timestamp()
