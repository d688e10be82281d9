"""The thread from end to end on real nodes: contribution, virtual node, pods at home, meter, claim, receipt, balance.

The consumer's work runs while the tests after the first few do theirs; the last ones look at what it came to.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from homefed.api import dsse
from homefed.core import evidence, recompute
from testbed.demo_story import CONSUMER, POOL, Story
from testbed.demo_verdict import TOLERANCE, Verdict, judge
from testbed.deployed import Deployed
from testbed.images import IMAGES
from testbed.installation import NAMESPACE, cli
from testbed.settled import SHARES, imbalances, metered, reports_of

GUESTS = "homefed-guests"
REQUESTS = {"cpu": "50m", "memory": "32Mi", "ephemeral-storage": "32Mi"}
USER = "user"
TOLD = {"cpu": ("cpu_seconds", 1e6, 0.05), "network-transmit": ("wire_bytes", 1.0, 50_000.0)}
"""What the workload calls it, units in one of those, and what a sample within its first half second may be off by."""
WHATEVER_ITS_EXIT_CODE = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'homefed', *sys.argv[1:]])"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def story(homefed_real: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Both homes contribute; a Deployment and a Job run; windows are 30 s long."""
    target = homefed_real.federation.hub.site.address
    folder = tmp_path_factory.mktemp("thread")
    story = Story(homefed_real, _silent, folder, real=True, target=target, window_seconds=30)
    story.offer()
    story.consume()
    _wait(lambda: _seen(story) >= 4, 120, "four pods of the consumer run")
    yield story
    story.stop()


@pytest.fixture(scope="module")
def user(homefed_real: Deployed, story: Story) -> str:
    """A second consumer's namespace, for pods that tests make and break."""
    homefed_real.hub.create_namespace(USER)
    cli(homefed_real.hub, "consumer", "enable", USER, "--pool", POOL)
    return USER


@pytest.fixture(scope="module")
def verdict(story: Story) -> Verdict:
    """When the Job is done and all its windows are settled."""
    story.run()
    return judge(story)


def _silent(_: str) -> None:
    """Nobody listens."""


def _seen(story: Story) -> int:
    story.look()
    return len(story.truths)


def _wait(holds: Callable[[], bool], within_s: float, what: str) -> None:
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < within_s, f"not within {within_s} s: {what}"
        time.sleep(0.2)


class Pods:
    """The user's pods on the hub, and what became of them at home."""

    def __init__(self, deployed: Deployed) -> None:
        self.deployed, self.hub = deployed, deployed.hub

    def run(self, name: str, *, spec: Json | None = None, image: str = "workload", **container: Any) -> Json:
        """Applies a pod of one container; as it is once bound."""
        main = {"name": "main", "image": IMAGES[image], "resources": {"requests": REQUESTS}} | container
        body = {"runtimeClassName": f"homefed-{POOL}", "restartPolicy": "Never", "containers": [main]} | (spec or {})
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body})
        _wait(lambda: bool(self.get(name)["spec"].get("nodeName")), 120, f"pod {name} bound")
        return self.get(name)

    def apply(self, manifest: Json) -> None:
        self.hub.kubectl("apply", "-n", USER, "-f", "-", stdin=json.dumps(manifest))

    def get(self, name: str) -> Json:
        return dict(self.hub.api.get(f"/api/v1/namespaces/{USER}/pods/{name}"))

    def exists(self, name: str) -> bool:
        return any(pod["metadata"]["name"] == name for pod in self.listed())

    def listed(self) -> list[Json]:
        return list(self.hub.api.get(f"/api/v1/namespaces/{USER}/pods")["items"])

    def await_phase(self, name: str, phase: str, within_s: float = 120) -> Json:
        def reached() -> bool:
            found = self.get(name)["status"].get("phase")
            assert found == phase or found not in ("Succeeded", "Failed"), self.said(name)
            return bool(found == phase)

        _wait(reached, within_s, f"pod {name} {phase}")
        return self.get(name)

    def said(self, name: str) -> str:
        """Status and log, for the message of an assertion."""
        pod = self.get(name)
        return json.dumps(pod["status"], indent=1) + "\n" + self.logs(pod)

    def home_of(self, pod: Json) -> str:
        return next(home for home in self.deployed.homes if pod["spec"]["nodeName"].startswith(f"hf-{home}-"))

    def at_home(self, pod: Json) -> Json:
        home = self.deployed.homes[self.home_of(pod)]
        return dict(home.api.get(f"/api/v1/namespaces/{GUESTS}/pods/hf-{pod['metadata']['uid']}"))

    def logs(self, pod: Json) -> str:
        home = self.deployed.homes[self.home_of(pod)]
        return home.kubectl("logs", "-n", GUESTS, f"hf-{pod['metadata']['uid']}")

    def guest(self, pod: Json) -> Json:
        mailbox = f"homefed-home-{self.home_of(pod)}"
        path = f"/apis/homefed.io/v1alpha1/namespaces/{mailbox}/guestpods/{pod['metadata']['uid']}"
        return dict(self.hub.api.get(path))


@pytest.fixture
def pods(homefed_real: Deployed, user: str) -> Iterator[Pods]:
    pods = Pods(homefed_real)
    yield pods
    homefed_real.hub.kubectl("delete", "deployments,pods", "--all", "-n", user, "--wait=false")


# --- contribution, nodes, work


def test_a_contribution_becomes_one_ready_virtual_node_per_machine(homefed_real: Deployed, story: Story) -> None:
    nodes = homefed_real.virtual_nodes()
    assert sorted(node["metadata"]["labels"]["homefed.io/home"] for node in nodes) == ["home-1", "home-2"]
    assert sorted(homefed_real.ready_nodes()) == sorted(node["metadata"]["name"] for node in nodes)


def test_a_deployment_and_a_job_run_in_both_homes(homefed_real: Deployed, story: Story) -> None:
    where = sorted((story.home_of(pod), pod["metadata"]["labels"]["app"]) for pod in story.pods.values())
    assert where == [(home, app) for home in ("home-1", "home-2") for app in ("count", "hello")]
    for pod in story.pods.values():
        home = homefed_real.homes[story.home_of(pod)]
        own = home.api.get(f"/api/v1/namespaces/{GUESTS}/pods/hf-{pod['metadata']['uid']}")
        assert own["spec"]["nodeName"] == f"{home.name}-machine"


# --- what pods may have


CHECKS = """
set -e
test "$GREETING" = hello; test "$FROM_MAP" = mapped; test "$SECRET_WORD" = sesame
test "$(cat /config/file.txt)" = "in a file"; test "$(cat /secret/word)" = sesame
test "$POD_NAME" = reads; test "$NAMESPACE" = user
echo kept > /scratch/file; test "$(cat /scratch/file)" = kept
test "$(id -u)" = 65531
echo all there
"""


def test_env_command_configmap_secret_emptydir_and_downward_fields_are_as_the_consumer_wrote_them(pods: Pods) -> None:
    data = {"mapped": "mapped", "file.txt": "in a file"}
    pods.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": data})
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "password"}, "stringData": {"word": "sesame"}}
    pods.apply(secret)
    env = [
        {"name": "GREETING", "value": "hello"},
        {"name": "FROM_MAP", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mapped"}}},
        {"name": "SECRET_WORD", "valueFrom": {"secretKeyRef": {"name": "password", "key": "word"}}},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
    ]
    volumes = [
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "secret", "secret": {"secretName": "password"}},
        {"name": "scratch", "emptyDir": {}},
    ]
    mounts = [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in volumes]
    spec = {"volumes": volumes}
    pod = pods.run("reads", spec=spec, command=["sh", "-c", CHECKS], env=env, volumeMounts=mounts)
    pods.await_phase("reads", "Succeeded")
    assert pods.logs(pod) == "all there\n"


def test_a_readiness_probe_makes_the_pod_ready_when_it_succeeds_and_not_before(pods: Pods) -> None:
    probe = {"exec": {"command": ["cat", "/tmp/ready"]}, "periodSeconds": 1}
    spec = {"terminationGracePeriodSeconds": 1}
    pod = pods.run("slow", command=["sleep", "600"], readinessProbe=probe, spec=spec)
    pods.await_phase("slow", "Running")
    time.sleep(2)
    assert not _is_ready(pods.get("slow"))
    home = pods.deployed.homes[pods.home_of(pod)]
    home.kubectl("exec", "-n", GUESTS, f"hf-{pod['metadata']['uid']}", "--", "touch", "/tmp/ready")
    _wait(lambda: _is_ready(pods.get("slow")), 120, "the pod is Ready")


def test_a_failing_liveness_probe_restarts_the_container_and_the_hub_sees_it(pods: Pods) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 1}
    spec = {"restartPolicy": "Always", "terminationGracePeriodSeconds": 1}
    pods.run("sick", command=["sleep", "600"], livenessProbe=probe, spec=spec)
    _wait(lambda: _restarts(pods.get("sick")) > 0, 120, "the hub sees a restart")


def test_what_fails_at_home_fails_at_the_hub_with_its_exit_code(pods: Pods) -> None:
    pods.run("fails", command=["sh", "-c", "exit 7"])
    _wait(lambda: pods.get("fails")["status"].get("phase") == "Failed", 120, "the pod failed")
    assert pods.get("fails")["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7


# --- as people write it


def test_what_kubectl_run_writes_runs_with_the_line_that_names_the_pool(pods: Pods) -> None:
    made = pods.hub.kubectl(
        "run", "plain", "-n", USER, f"--image={IMAGES['workload']}", "--dry-run=client", "-o", "json"
    )
    manifest = json.loads(made)
    manifest["spec"]["runtimeClassName"] = f"homefed-{POOL}"
    manifest["spec"]["containers"][0]["resources"] = {"requests": REQUESTS}
    manifest["spec"]["containers"][0]["args"] = ["burn", "--millicores", "10"]
    pods.apply(manifest)
    pods.await_phase("plain", "Running")


def test_what_kubectl_create_deployment_writes_runs_with_default_requests(pods: Pods) -> None:
    arguments = ["-n", USER, f"--image={IMAGES['workload']}", "--dry-run=client", "-o", "yaml", "--", "sleep", "600"]
    manifest = yaml.safe_load(pods.hub.kubectl("create", "deployment", "web", *arguments))
    manifest["spec"]["template"]["spec"]["runtimeClassName"] = f"homefed-{POOL}"
    pods.apply(manifest)
    path = f"/apis/apps/v1/namespaces/{USER}/deployments/web"
    _wait(lambda: pods.hub.api.get(path)["status"].get("readyReplicas") == 1, 120, "the Deployment is ready")


# --- refusals, stops, restarts


@pytest.mark.parametrize("asks", ["image", "pod"])
def test_what_wants_root_is_told_the_line_to_add(pods: Pods, homefed_real: Deployed, asks: str) -> None:
    name = f"root-{asks}"
    if asks == "image":
        homefed_real.federation.load_image("root-workload")
        pods.run(name, image="root-workload", args=["burn"])
    else:
        pods.run(name, spec={"securityContext": {"runAsUser": 0}}, args=["burn"])
    _wait(lambda: "RunsAsRoot" in json.dumps(pods.get(name)["status"]), 120, "the pod's status says RunsAsRoot")
    status = json.dumps(pods.get(name)["status"])
    assert "runAsUser: 1000" in status


def test_an_image_that_wants_root_runs_with_the_line_added(pods: Pods, homefed_real: Deployed) -> None:
    homefed_real.federation.load_image("root-workload")
    pods.run("rooted", image="root-workload", args=["burn"], spec={"securityContext": {"runAsUser": 1000}})
    pods.await_phase("rooted", "Running")


def test_a_pod_of_a_namespace_that_is_not_enabled_is_refused_with_the_remedy(homefed_real: Deployed, user: str) -> None:
    hub = homefed_real.hub
    hub.create_namespace("stranger")
    spec = {"runtimeClassName": f"homefed-{POOL}", "containers": [{"name": "main", "image": IMAGES["workload"]}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "intrudes"}, "spec": spec}
    with pytest.raises(Exception, match="homefed consumer enable"):
        hub.kubectl("apply", "-n", "stranger", "-f", "-", stdin=json.dumps(pod))


def test_a_deleted_pod_gets_its_grace_and_ends_by_itself(pods: Pods) -> None:
    script = "trap 'sleep 4; echo done; exit 0' TERM; echo up; while true; do sleep 0.2; done"
    pod = pods.run("tidies", command=["sh", "-c", script], spec={"terminationGracePeriodSeconds": 25})
    pods.await_phase("tidies", "Running")
    _wait(lambda: "up" in pods.logs(pod), 120, "the trap is set")
    started = time.monotonic()
    pods.hub.kubectl("delete", "pod", "tidies", "-n", USER, "--wait=false")
    _wait(lambda: not pods.exists("tidies"), 120, "the pod is gone")
    assert time.monotonic() - started >= 4
    (ended,) = pods.guest(pod)["status"]["containers"]
    assert ended["exitCode"] == 0
    _wait(lambda: not _at_home(pods, pod), 120, "the home's pod is gone too")


def test_what_does_not_end_by_itself_is_killed_after_its_grace(pods: Pods) -> None:
    script = "trap '' TERM; echo up; while true; do sleep 0.2; done"
    pod = pods.run("stubborn", command=["sh", "-c", script], spec={"terminationGracePeriodSeconds": 3})
    pods.await_phase("stubborn", "Running")
    _wait(lambda: "up" in pods.logs(pod), 120, "the trap is set")
    started = time.monotonic()
    pods.hub.kubectl("delete", "pod", "stubborn", "-n", USER, "--wait=false")
    _wait(lambda: not pods.exists("stubborn"), 120, "the pod is gone")
    assert time.monotonic() - started >= 3
    (ended,) = pods.guest(pod)["status"]["containers"]
    assert ended["exitCode"] == 137


def test_an_agent_started_anew_adopts_its_guests(pods: Pods, homefed_real: Deployed) -> None:
    pod = pods.run("stays", args=["burn"])
    pods.await_phase("stays", "Running")
    before = pods.at_home(pod)
    home = homefed_real.homes[pods.home_of(pod)]
    selector = "--selector=app.kubernetes.io/component=agent"
    home.kubectl("delete", "pod", "-n", NAMESPACE, selector, "--grace-period=0", "--force")
    home.kubectl("rollout", "status", "deployment/homefed-agent", "-n", NAMESPACE, "--timeout=240s", timeout_s=300)
    after = pods.at_home(pod)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    pods.hub.kubectl("delete", "pod", "stays", "-n", USER, "--wait=false", "--grace-period=1")
    _wait(lambda: not pods.exists("stays"), 120, "the new agent stops what the old one started")
    _wait(lambda: not _at_home(pods, pod), 120, "the home's pod is gone too")


def test_the_doctor_finds_nothing_to_change_in_the_charts_own_prometheus(homefed_real: Deployed, story: Story) -> None:
    """In the agent's pod, with its rights and its environment; a scrape may have failed while a node came up."""
    in_the_pod = ("exec", "-n", NAMESPACE, "deployment/homefed-agent", "--", "python3", "-c", WHATEVER_ITS_EXIT_CODE)
    home = next(iter(homefed_real.homes.values()))
    said: Json = {}

    def nothing() -> bool:
        said.update(json.loads(home.kubectl(*in_the_pod, "doctor", "meter", "-o", "json", timeout_s=400)))
        return said["advice"] == []

    try:
        _wait(nothing, 500, "nothing to change")
    except AssertionError as error:
        raise AssertionError(f"{error}: {said}") from error
    assert said["ok"] is True


# --- usage, claims, balances


def test_every_window_is_reported_claimed_and_receipted(homefed_real: Deployed, verdict: Verdict) -> None:
    assert all(claim.receipt for claim in verdict.claims)
    for home in homefed_real.homes:
        own = [claim for claim in verdict.claims if claim.home == home]
        assert [claim.header["sequence"] for claim in own] == list(range(1, len(own) + 1))
        assert len(own) >= 3
        reported = [report["windowEnd"] for report in reports_of(homefed_real, home, POOL)]
        assert {claim.window_end for claim in own} <= set(reported)


def test_metered_and_paid_usage_is_what_the_workloads_say_that_they_used(verdict: Verdict) -> None:
    measured = {(row.home, row.workload, row.resource) for row in verdict.rows}
    assert measured >= {
        (home, workload, resource)
        for home in ("home-1", "home-2")
        for workload in ("count", "hello")
        for resource in ("cpu", "memory", "network-transmit")
    }
    assert measured >= {(home, "count as read", "cpu") for home in ("home-1", "home-2")}
    assert [row for row in verdict.rows if not row.holds] == []


def test_cpu_and_network_of_running_pods_are_right_to_one_percent_at_every_window(
    homefed_real: Deployed, story: Story, verdict: Verdict
) -> None:
    compared = 0
    for home in homefed_real.homes:
        own = [claim for claim in verdict.claims if claim.home == home]
        for count in range(1, len(own) + 1):
            for (uid, resource), used in metered(own[:count], reports_of(homefed_real, home, POOL)).items():
                key, scale, at_start = TOLD.get(resource, ("", 1.0, 0.0))
                if not key or used.ended or uid not in story.truths:
                    continue
                truth = story.truths[uid].told(key, used.at_ms / 1000)
                assert abs(used.reported / scale - truth) <= TOLERANCE * truth + at_start, (home, count, resource)
                compared += 1
    assert compared >= 12


def test_every_claim_comes_out_again_from_the_bundle_that_its_home_keeps(
    homefed_real: Deployed, verdict: Verdict, tmp_path: Path
) -> None:
    """The claims as the hub shows them, compared with what follows from the files on the agents' volumes."""
    for home, member in homefed_real.members.items():
        folder = member.node.root / "volumes" / NAMESPACE / "homefed-evidence" / "evidence"
        names = {claim.id: claim.obj["metadata"]["name"] for claim in verdict.claims if claim.home == home}
        bundles = {one: folder / f"{POOL}-{name.rsplit('-', 2)[1]}.bundle.json.gz" for one, name in names.items()}
        _wait(lambda found=bundles: all(map(Path.exists, found.values())), 240, f"{home} sees its claims: {bundles}")
        for claim in (one for one in verdict.claims if one.home == home):
            bundle = evidence.read(bundles[claim.id].read_bytes())
            assert bundle.settled is not None
            assert dsse.from_json(bundle.settled.claim.envelope).encode() == claim.obj["spec"]["envelope"]
            compared = [*recompute.report(bundle).documents, *recompute.claim(bundle).documents]
            assert {one.document: one.fields for one in compared if not one.same} == {}
            assert len(compared) >= 3, "report, header, lines"
        shown = tmp_path / f"{home}.json"
        shown.write_text(cli(homefed_real.hub, "claims", "show", claim.id, "-o", "json"), encoding="utf-8")
        said = cli(homefed_real.hub, "claims", "recompute", str(bundles[claim.id]), "--claim", str(shown))
        assert said.endswith("all bytes are the same\n"), said


def test_balances_are_the_sum_of_the_claims(homefed_real: Deployed, verdict: Verdict) -> None:
    assert imbalances(verdict.claims, verdict.totals) == []
    assert sum(claim.amount(name) for claim in verdict.claims for name in SHARES) == int(verdict.totals["charged"]) > 0
    for home in homefed_real.homes:
        own = [claim for claim in verdict.claims if claim.home == home]
        account = own[0].header["account"]
        balance = int(homefed_real.ledger(f"/v1/accounts/{account}/balance")["balance"])
        assert balance >= sum(claim.amount("paid") for claim in own) > 0


def test_the_consumer_of_the_work_pays_for_it(homefed_real: Deployed, verdict: Verdict) -> None:
    uid = homefed_real.hub.api.get(f"/api/v1/namespaces/{CONSUMER}")["metadata"]["uid"]
    consumer = f"consumer:{homefed_real.federation_id}/{uid}"
    charged = sum(
        int(one["charged"])
        for claim in verdict.claims
        for one in claim.header["consumers"]
        if one["account"] == consumer
    )
    assert -int(homefed_real.ledger(f"/v1/accounts/{consumer}/balance")["balance"]) >= charged > 0


def test_claims_are_shown_with_their_lines_by_the_cli(homefed_real: Deployed, verdict: Verdict) -> None:
    claim = verdict.claims[0]
    shown = json.loads(cli(homefed_real.hub, "claims", "show", claim.id[:12], "-o", "json"))
    assert shown["lines"] == list(claim.lines)
    listed = json.loads(cli(homefed_real.hub, "claims", "list", "-o", "json"))
    assert claim.id in {row["claim"] for row in listed}


def _is_ready(pod: Json) -> bool:
    conditions = pod["status"].get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _restarts(pod: Json) -> int:
    return sum(int(one["restartCount"]) for one in pod["status"].get("containerStatuses") or ())


def _at_home(pods: Pods, pod: Json) -> bool:
    """Whether the guest's pod is still there."""
    home = pods.deployed.homes[pods.home_of(pod)]
    found = home.api.get(f"/api/v1/namespaces/{GUESTS}/pods")["items"]
    return any(one["metadata"]["name"] == f"hf-{pod['metadata']['uid']}" for one in found)
