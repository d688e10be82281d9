"""The tier with real nodes: what a home can and cannot reach, that pods truly run there, that the yardstick agrees with
what the kubelet counts, and that nothing is left behind, however a run ends."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from testbed.api import connect
from testbed.cluster import Cluster
from testbed.images import IMAGES
from testbed.leftovers import Record, records, remains, remove, start_time, sweep
from testbed.process import pid_exists
from testbed.real import RealCluster, RealFederation
from testbed.services import Prometheus

numbers = itertools.count(1)

RESTRICTED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture
def home(federation_real: RealFederation) -> RealCluster:
    return federation_real.homes[0]


@pytest.fixture
def namespace(home: RealCluster) -> Iterator[str]:
    name = home.cluster.create_namespace(f"testbed-real-{next(numbers)}")
    yield name
    home.kubectl("delete", "namespace", name, "--wait=false")


def pod(name: str, *args: str, image: str = "workload", **container: Any) -> dict[str, Any]:
    """A pod of one container that is restarted never. `args` go to the image's entry point."""
    main = {"name": "main", "image": IMAGES[image], "imagePullPolicy": "Never", "args": list(args)} | container
    spec = {"containers": [main], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def shell(name: str, script: str) -> dict[str, Any]:
    return pod(name, command=["sh", "-c", script])


class Pods:
    """Runs pods in one namespace of a cluster."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def run(self, manifest: dict[str, Any]) -> str:
        self.cluster.kubectl("apply", "-n", self.namespace, "-f", "-", stdin=json.dumps(manifest))
        return str(manifest["metadata"]["name"])

    def get(self, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.cluster.api.get(f"/api/v1/namespaces/{self.namespace}/pods/{name}")
        return answer

    def status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = self.get(name)["status"]
        return status

    def await_phase(self, name: str, *phases: str, within_s: float = 120) -> dict[str, Any]:
        self.cluster.wait_for(
            lambda: self.status(name)["phase"] in phases, within_s, f"pod {name} {' or '.join(phases)}"
        )
        return self.status(name)

    def logs(self, name: str) -> str:
        return self.cluster.kubectl("logs", "-n", self.namespace, name)

    def output(self, manifest: dict[str, Any]) -> str:
        """Runs a pod to its end; what it wrote. Fails when it failed."""
        name = self.run(manifest)
        status = self.await_phase(name, "Succeeded", "Failed")
        assert status["phase"] == "Succeeded", self.logs(name)
        return self.logs(name)


@pytest.fixture
def pods(home: RealCluster, namespace: str) -> Pods:
    return Pods(home.cluster, namespace)


# --- the network


def reaches(here: RealCluster, there: RealCluster, port: int = 6443) -> bool:
    """Whether a TCP connection from one site to another's ports opens. False means that it hangs, as at a router: a
    refusal is an error."""
    try:
        connect(there.site.address, port, 1.0, here.site.netns).close()
    except TimeoutError:
        return False
    return True


def test_homes_reach_the_hub(federation_real: RealFederation) -> None:
    assert [reaches(home, federation_real.hub) for home in federation_real.homes] == [True, True]


def test_the_hub_reaches_no_home(federation_real: RealFederation) -> None:
    hub = federation_real.hub
    assert [reaches(hub, home, port) for home in federation_real.homes for port in (6443, 10250)] == [False] * 4


def test_homes_do_not_reach_each_other(federation_real: RealFederation) -> None:
    first, second = federation_real.homes
    assert not reaches(first, second)
    assert not reaches(second, first)


def test_a_pod_at_home_reaches_the_hub_by_the_address_of_its_home(federation_real: RealFederation, pods: Pods) -> None:
    hub = federation_real.hub
    pods.output(shell("asks", f"nc -w 20 {hub.site.address} 6443 </dev/null"))
    own = federation_real.homes[0].site.address
    seen = hub.site.run("conntrack", "-L", "-p", "tcp", "--orig-src", own, "--orig-port-dst", "6443")
    assert own in seen.stdout


def test_an_unplugged_home_does_not_reach_the_hub_until_it_is_plugged_in_again(
    federation_real: RealFederation,
) -> None:
    home, hub = federation_real.homes[1], federation_real.hub
    federation_real.unplug(home)
    try:
        assert not reaches(home, hub)
    finally:
        federation_real.plug(home)
    home.cluster.wait_for(lambda: reaches(home, hub), 120, "the hub reached again")


# --- pods


def test_every_cluster_has_one_ready_node(federation_real: RealFederation) -> None:
    for cluster in federation_real.clusters:
        (node,) = cluster.cluster.api.get("/api/v1/nodes")["items"]
        assert node["metadata"]["name"] == cluster.node.name == f"{cluster.name}-machine"
        assert cluster.node.is_ready()


def test_a_pod_runs_and_answers_to_logs_and_exec(pods: Pods, home: RealCluster, namespace: str) -> None:
    pods.run(pod("talks", "burn", "--log-every", "0.1", securityContext=RESTRICTED))
    pods.await_phase("talks", "Running")
    assert "uid=65531" in home.kubectl("exec", "-n", namespace, "talks", "--", "id")
    assert json.loads(pods.logs("talks").splitlines()[0])["reason"] == "running"


def test_a_failing_pod_fails(pods: Pods) -> None:
    pods.run(shell("fails", "exit 7"))
    status = pods.await_phase("fails", "Failed")
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7


def test_a_service_is_reached_by_name(pods: Pods, home: RealCluster, namespace: str) -> None:
    pods.run(shell("web", "mkdir -p /tmp/www; echo at home > /tmp/www/index.html; httpd -f -p 8080 -h /tmp/www"))
    service = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    metadata = {"name": "web", "namespace": namespace}
    home.cluster.apply([{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service}])
    pods.await_phase("web", "Running")
    ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 web 80 | grep home"
    assert "at home" in pods.output(shell("asks", f"for i in $(seq 200); do {ask} && exit; sleep .2; done; false"))


def test_a_pod_reaches_its_api_server_with_its_own_token(pods: Pods) -> None:
    pods.output(
        shell("asks", "test -s /var/run/secrets/kubernetes.io/serviceaccount/token && nc -w 20 kubernetes.default 443")
    )


def test_a_claim_finds_a_volume_that_a_non_root_pod_writes_and_another_reads(
    pods: Pods, home: RealCluster, namespace: str
) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": "data", "namespace": namespace}
    home.cluster.apply([{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}])

    def with_data(manifest: dict[str, Any]) -> dict[str, Any]:
        manifest["spec"]["securityContext"] = {"fsGroup": 65531}
        manifest["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
        manifest["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        return manifest

    pods.output(with_data(shell("writes", "echo kept > /data/file")))
    assert pods.output(with_data(shell("reads", "cat /data/file"))) == "kept\n"


def test_the_operators_image_runs_restricted_and_holds_all_that_it_imports(
    federation_real: RealFederation, pods: Pods, home: RealCluster
) -> None:
    assert federation_real.homes[0].load_image("operator") == IMAGES["operator"]
    script = "import sqlite3, ssl, kopf, kubernetes, cryptography, homefed.api.meta; print(homefed.__path__[0])"
    manifest = pod("imports", image="operator", command=["python3", "-c", script], securityContext=RESTRICTED)
    assert pods.output(manifest).strip() == "/app/homefed"
    assert pods.get("imports")["spec"]["containers"][0]["image"] == IMAGES["operator"]


# --- accidents


def test_pods_outlive_their_kubelet(pods: Pods, home: RealCluster) -> None:
    pods.run(pod("steady", "burn"))
    before = pods.await_phase("steady", "Running")["containerStatuses"][0]["containerID"]
    home.node.restart_kubelet()
    after = pods.await_phase("steady", "Running")["containerStatuses"][0]
    assert (after["containerID"], after["restartCount"]) == (before, 0)


def test_after_a_power_cut_the_machine_comes_back_and_starts_its_pods_anew(pods: Pods, home: RealCluster) -> None:
    manifest = pod("phoenix", "burn")
    manifest["spec"]["restartPolicy"] = "Always"
    pods.run(manifest)
    pods.await_phase("phoenix", "Running")
    victims = home.node.processes()
    assert "workload" in victims.values()
    home.node.kill()
    home.cluster.wait_for(lambda: not any(map(pid_exists, victims)), 120, "everything on the machine ended")
    home.node.start()
    home.cluster.wait_for(
        lambda: pods.status("phoenix")["containerStatuses"][0]["restartCount"] > 0, 120, "the pod started anew"
    )
    pods.await_phase("phoenix", "Running")


# --- the yardstick


def sampled(prometheus: Prometheus, expression: str) -> list[tuple[float, float]]:
    """(time, value) of the one series of an instant query of a range vector."""
    series = prometheus.query(expression)
    return [(float(at), float(value)) for at, value in series[0]["values"]] if series else []


def told_at(lines: list[dict[str, Any]], key: str, wall: float) -> float:
    """The truth at a moment, between the two lines around it."""
    before, after = next(pair for pair in itertools.pairwise(lines) if pair[0]["wall"] <= wall <= pair[1]["wall"])
    share = (wall - before["wall"]) / (after["wall"] - before["wall"])
    return float(before[key] + share * (after[key] - before[key]))


def between(lines: list[dict[str, Any]], samples: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those samples that lie within what the workload told."""
    return [sample for sample in samples if lines[0]["wall"] < sample[0] < lines[-1]["wall"]]


def test_the_workloads_truth_is_what_the_kubelet_counts(pods: Pods, home: RealCluster) -> None:
    prometheus = home.prometheus(scrape_interval_s=5)
    pods.run(pod("sink", "sink", "--port", "9000"))
    target = pods.await_phase("sink", "Running")["podIP"]
    load = ["--millicores", "250", "--mib", "48", "--send-to", f"{target}:9000", "--byte-rate", "200000"]
    pods.run(pod("burns", "burn", *load, "--log-every", "0.5", "--duration", "40"))
    ended = pods.await_phase("burns", "Succeeded")
    lines = [json.loads(line) for line in pods.logs("burns").splitlines()]
    selector = f'pod="burns",namespace="{pods.namespace}"'
    cpu = between(lines, sampled(prometheus, f'container_cpu_usage_seconds_total{{{selector},container="main"}}[5m]'))
    sent = between(
        lines, sampled(prometheus, f'container_network_transmit_bytes_total{{{selector},interface="eth0"}}[5m]')
    )
    held = between(lines, sampled(prometheus, f'container_memory_working_set_bytes{{{selector},container="main"}}[5m]'))

    for samples, key in ((cpu, "cpu_seconds"), (sent, "wire_bytes")):
        (first, opening), (last, closing) = samples[0], samples[-1]
        assert last > first, "two readings are needed"
        truth = told_at(lines, key, last) - told_at(lines, key, first)
        assert closing - opening == pytest.approx(truth, rel=0.03)
    assert held[-1][1] / 2**20 == pytest.approx(48, abs=8)

    message = ended["containerStatuses"][0]["state"]["terminated"]["message"]
    assert json.loads(message) == lines[-1]
    assert lines[-1]["reason"] == "duration"


# --- the end of a run

RUNNER = """
import json, sys
from pathlib import Path
from testbed.interruption import Interruption
from testbed.real import real_federation
interruption = Interruption().listen()
with real_federation(Path(sys.argv[1]), homes=sys.argv[3:]) as federation:
    last = federation.clusters[-1]
    last.kubectl("run", "burns", "--image=homefed-workload:testbed", "--restart=Never", "--", "burn")
    last.cluster.wait_for(lambda: "workload" in last.node.processes().values(), 120, "workload")
    pids = [pid for member in federation.clusters for pid in member.node.processes()]
    pids += [process.pid for c in federation.clusters for process in (*c.cluster.processes.values(), c.dns)]
    print(json.dumps({"run": federation.run.id, "pids": pids}), flush=True)
    if sys.argv[2] == "end":
        sys.exit(0)
    if sys.argv[2] == "fail":
        raise RuntimeError("as a failing test does")
    interruption.wait(600)
"""


@contextlib.contextmanager
def runner(folder: Path, mode: str, *homes: str) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """A test run of its own with a hub and homes, and what it said once all was up."""
    tests = str(Path(__file__).resolve().parents[1])
    errors = folder / "stderr"
    with errors.open("w") as file:
        command = [sys.executable, "-c", RUNNER, str(folder), mode, *homes]
        environment = os.environ | {"PYTHONPATH": tests}
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment)
    with child:
        try:
            assert child.stdout is not None
            said = child.stdout.readline()
            assert said, errors.read_text()
            yield child, json.loads(said)
        finally:
            child.kill()


def await_nothing_left(said: dict[str, Any]) -> None:
    deadline = time.monotonic() + 120
    while (left := [*remains(said["run"]), *(f"process {pid}" for pid in said["pids"] if pid_exists(pid))]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.1)
    assert left == []


def watchdog_of(run_id: str) -> int:
    """The pid of the process that waits for the end of a run."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if (
                "--watch" in (arguments := path.read_text().split("\0"))
                and f"/run/homefed-testbed/{run_id}.json" in arguments
            ):
                return int(path.parent.name)
    raise AssertionError(f"run {run_id} has no watchdog")


def end(child: "subprocess.Popen[str]", said: dict[str, Any]) -> None:
    child.wait(240)


def interrupt(child: "subprocess.Popen[str]", said: dict[str, Any]) -> None:
    child.send_signal(signal.SIGINT)
    child.wait(240)


def kill(child: "subprocess.Popen[str]", said: dict[str, Any]) -> None:
    child.kill()
    child.wait(240)


def kill_with_its_watchdog(child: "subprocess.Popen[str]", said: dict[str, Any]) -> None:
    os.kill(watchdog_of(said["run"]), signal.SIGKILL)
    kill(child, said)
    sweep()  # without a watchdog the next run has to clean up


@pytest.mark.parametrize(
    ("mode", "homes", "ending"),
    [
        ("end", [], end),
        ("fail", [], end),
        ("stay", [], interrupt),
        ("stay", ["home"], kill),
        ("stay", [], kill_with_its_watchdog),
    ],
)
def test_nothing_is_left_of_a_run(
    tmp_path: Path,
    mode: str,
    homes: Sequence[str],
    ending: Callable[["subprocess.Popen[str]", dict[str, Any]], None],
) -> None:
    """What is left would be alike for every member: one run has a home, too."""
    with runner(tmp_path, mode, *homes) as (child, said):
        assert len(said["pids"]) > 7 * (1 + len(homes))
        ending(child, said)
        await_nothing_left(said)
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    assert [mount for mount in mounts if f"-{said['run']}" in mount or str(tmp_path) in mount] == []


def test_a_sweep_leaves_living_runs_alone(federation_real: RealFederation, home: RealCluster) -> None:
    assert federation_real.run.id not in sweep()
    assert federation_real.run.id in [record.id for record in records()]
    assert home.node.is_ready()


def test_what_bears_a_pid_that_came_again_is_swept() -> None:
    own = start_time(os.getpid())
    assert own is not None
    record = Record("zzzzz0", os.getpid(), own - 1, "/tmp/homefed-testbed-zzzzz0")
    record.path().parent.mkdir(exist_ok=True)
    record.path().write_text(json.dumps(vars(record)))
    sweep()
    assert remains("zzzzz0") == []


def test_removing_twice_does_no_harm() -> None:
    remove(Record("zzzzz1", 1, 0, "/tmp/homefed-testbed-zzzzz1"))
    remove(Record("zzzzz1", 1, 0, "/tmp/homefed-testbed-zzzzz1"))
    assert remains("zzzzz1") == []
