"""The testbed itself, on real programs: what a tier promises, and that nothing of it stays behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.api import Api, ApiError
from testbed.audit import AuditEvent
from testbed.binaries import Binaries, load_versions
from testbed.cluster import APISERVER_ONLY, CONTROL_PLANE, Cluster, KubectlError, start_all
from testbed.errors import ProcessFailed, TestbedError
from testbed.federation import Federation
from testbed.process import pid_exists
from testbed.workspace import PREFIX, sweep

TESTS = Path(__file__).parents[1]
RUNNER = """
import signal, sys
from pathlib import Path
from testbed.binaries import Binaries, load_versions
from testbed.cluster import APISERVER_ONLY, Cluster
from testbed.workspace import workspace

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background
with workspace(Path(sys.argv[1])) as folder:
    cluster = Cluster("doomed", folder / "doomed", Binaries(), components=APISERVER_ONLY, netns=sys.argv[2] or None)
    try:
        cluster.start()
        print("up", flush=True)
        signal.pause()
    finally:
        cluster.stop()
"""


def pod(name: str, **environment: str) -> dict[str, object]:
    container = {"name": "main", "image": "none", "env": [{"name": k, "value": v} for k, v in environment.items()]}
    spec = {"restartPolicy": "Never", "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def cluster(binaries: Binaries, tmp_path: Path) -> Iterator[Cluster]:
    """An API server of the test's own, to be ill-treated; not started yet."""
    cluster = Cluster("own", tmp_path / "own", binaries, components=APISERVER_ONLY)
    yield cluster
    cluster.stop()


# --- apiserver


def test_the_api_server_is_of_the_pinned_version_and_takes_pods(apiserver: Cluster, namespace: str) -> None:
    assert apiserver.api.get("/version")["gitVersion"] == load_versions()["controlplane"]["kubernetes"]
    apiserver.api.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod("p"))
    assert apiserver.kubectl("get", "pods", "-n", namespace, "-o", "name") == "pod/p\n"


def test_a_service_account_has_its_own_rights_and_leaves_its_own_traces(apiserver: Cluster, namespace: str) -> None:
    apiserver.create_service_account(namespace, "meter")
    before = apiserver.audit_log.stat().st_size
    config = json.loads(apiserver.kubeconfig_for(namespace, "meter").read_text())
    api = Api(
        apiserver.host, apiserver.spec.ports.apiserver, apiserver.ca_path, token=config["users"][0]["user"]["token"]
    )
    with pytest.raises(ApiError, match="403: pods is forbidden"):
        api.get(f"/api/v1/namespaces/{namespace}/pods")
    user = f"system:serviceaccount:{namespace}:meter"
    events: list[AuditEvent] = []

    def told() -> bool:  # the answer may come before its trace
        events[:] = [e for e in apiserver.audit_events(before) if e.user == user]
        return bool(events)

    apiserver.wait_for(told, 120, "the trace of the request")
    [event] = events
    assert (event.verb, event.resource, event.namespace, event.denied) == ("list", "pods", namespace, True)


def test_kubectls_error_is_ours(apiserver: Cluster) -> None:
    with pytest.raises(KubectlError, match='pods "nothing" not found'):
        apiserver.kubectl("get", "pod", "nothing")


def test_a_folder_without_crds_is_an_error(apiserver: Cluster, tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match="holds no CRDs"):
        apiserver.install_crds(tmp_path)


def test_a_killed_component_comes_back_with_all_data(cluster: Cluster) -> None:
    cluster.start()
    cluster.create_namespace("kept")
    for component in ("kube-apiserver", "etcd"):
        before = cluster.processes[component].pid
        cluster.kill(component)
        assert not cluster.api.answers("/api/v1/namespaces/kept")
        cluster.restart(component)
        assert cluster.processes[component].pid != before
        assert cluster.api.get("/api/v1/namespaces/kept")["status"]["phase"] == "Active"


def test_a_paused_api_server_answers_nothing_until_it_goes_on(cluster: Cluster) -> None:
    cluster.start()
    cluster.pause("kube-apiserver")
    with pytest.raises(TimeoutError):
        cluster.api.request("GET", "/version", timeout_s=0.3)
    cluster.resume("kube-apiserver")
    cluster.wait_for(cluster.api.answers, 120, "answers again")


def test_a_cluster_that_cannot_start_says_why_and_leaves_nothing(binaries: Binaries, tmp_path: Path) -> None:
    extra = {"kube-apiserver": ["--no-such-flag"]}
    cluster = Cluster("bad", tmp_path / "bad", binaries, components=APISERVER_ONLY, extra=extra)
    with pytest.raises(ProcessFailed, match=r"(?s)bad kube-apiserver ended with 1 .*unknown flag: --no-such-flag"):
        cluster.start()
    assert not any(process.alive for process in cluster.processes.values())


def test_when_one_of_several_fails_all_are_stopped(cluster: Cluster, binaries: Binaries, tmp_path: Path) -> None:
    extra = {"etcd": ["--no-such-flag"]}
    bad = Cluster("bad", tmp_path / "bad", binaries, components=APISERVER_ONLY, extra=extra)
    with pytest.raises(ProcessFailed, match="bad etcd ended with"):
        start_all([cluster, bad])
    assert not any(process.alive for one in (cluster, bad) for process in one.processes.values())


def test_an_unknown_component_is_refused_by_name(binaries: Binaries, tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match="kube-dns: no such component, there are etcd, kube-apiserver"):
        Cluster("x", tmp_path, binaries, components={"kube-dns"})


# --- nothing stays


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that runs a cluster below tmp_path, and does nothing else."""
    environ = os.environ | {"PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", RUNNER, str(tmp_path), ""]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == b"up\n"
        yield runner
        runner.kill()


def pids_below(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in folder.rglob("*.pid")]


def await_end(pids: list[int], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while alive := [pid for pid in pids if pid_exists(pid)]:
        assert time.monotonic() < deadline, f"still running: {alive}"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_nothing_runs_after_the_runner_was_ended(
    doomed: "subprocess.Popen[bytes]", tmp_path: Path, number: signal.Signals
) -> None:
    pids = pids_below(tmp_path)
    assert len(pids) == 2
    assert all(map(pid_exists, pids))
    doomed.send_signal(number)
    doomed.wait(120)
    await_end(pids, 60)
    left = list(tmp_path.glob(f"{PREFIX}*"))
    assert left == [] or (number != signal.SIGINT and sweep(tmp_path) == left)
    assert list(tmp_path.glob(f"{PREFIX}*")) == []


def test_a_cluster_in_a_network_namespace_uses_its_usual_ports_and_is_driven_from_outside(
    binaries: Binaries, tmp_path: Path
) -> None:
    netns = f"hftest{os.getpid()}"
    subprocess.run(["ip", "netns", "add", netns], check=True)
    try:
        subprocess.run(["ip", "-n", netns, "link", "set", "lo", "up"], check=True)
        cluster = Cluster("inside", tmp_path / "inside", binaries, netns=netns, components=APISERVER_ONLY)
        try:
            cluster.start()
            assert cluster.url == "https://127.0.0.1:6443"
            assert "default" in cluster.kubectl("get", "namespaces")
            with pytest.raises(OSError):
                Api(cluster.host, 6443, cluster.ca_path).get("/version")
        finally:
            cluster.stop()
        assert subprocess.run(["ip", "netns", "pids", netns], check=True, capture_output=True).stdout == b""
    finally:
        subprocess.run(["ip", "netns", "delete", netns], check=True)


# --- federation


def test_a_federation_has_a_hub_without_nodes_and_homes_with_two_each(federation: Federation) -> None:
    assert [len(c.api.get("/api/v1/nodes")["items"]) for c in (federation.hub, *federation.homes)] == [0, 2, 2]
    for cluster in (federation.hub, *federation.homes):
        assert set(cluster.processes) == CONTROL_PLANE
        assert "contributions.homefed.io" in cluster.kubectl("get", "crds")
        assert 300 < sum(cluster.rss_mib().values()) < 1500


def test_simulated_pods_run_end_and_go(federation: Federation) -> None:
    home = federation.homes[0]
    namespace = home.create_namespace("simulated")
    path = f"/api/v1/namespaces/{namespace}/pods"
    for one in (
        pod("runs"),
        pod("ends", TESTBED_RUN_FOR="100ms"),
        pod("fails", TESTBED_RUN_FOR="1ms", TESTBED_EXIT_CODE="3"),
    ):
        home.api.request("POST", path, one)
    expected = {"runs": "Running", "ends": "Succeeded", "fails": "Failed"}
    home.wait_for(lambda: phases(home, path) == expected, 120, f"phases {expected}")
    failed = home.api.get(f"{path}/fails")["status"]["containerStatuses"][0]
    assert failed["state"]["terminated"]["exitCode"] == 3
    home.api.request("DELETE", f"{path}/runs")
    home.wait_for(lambda: "runs" not in phases(home, path), 120, "the deleted pod is gone")


def phases(cluster: Cluster, path: str) -> dict[str, str]:
    return {item["metadata"]["name"]: item["status"]["phase"] for item in cluster.api.get(path)["items"]}


def test_the_simulator_leaves_other_nodes_alone(federation: Federation) -> None:
    """A virtual node's readiness is HomeFed's to write, and must not come from the testbed."""
    home = federation.homes[0]
    home.api.request("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "foreign"}})
    try:
        federation.kwok(home).add_node("own")
        federation.kwok(home).await_node("own")
        foreign = home.api.get("/api/v1/nodes/foreign")
        assert "capacity" not in foreign["status"]
        assert {c["status"] for c in foreign["status"].get("conditions", [])} <= {"Unknown"}
    finally:
        home.api.request("DELETE", "/api/v1/nodes/foreign")
        home.api.request("DELETE", "/api/v1/nodes/own")


# --- kind


def kind_config_check(binaries: Binaries, text: str) -> subprocess.CompletedProcess[str]:
    program = str(binaries.path("kind-config-check"))
    return subprocess.run([program], input=text, capture_output=True, text=True, check=False)


def test_a_right_kind_configuration_passes(binaries: Binaries) -> None:
    text = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes: [{role: control-plane}, {role: worker}]\n"
    assert kind_config_check(binaries, text).returncode == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodez: []\n", "field nodez not found"),
        ("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes: 3\n", "cannot unmarshal"),
        ("kind: Cluster\napiVersion: kind.x-k8s.io/v1\n", "want kind Cluster of kind.x-k8s.io/v1alpha4"),
        ("kind: Cluster\n---\nkind: Cluster\n", "a single document"),
        ("", "cannot decode: EOF"),
    ],
)
def test_a_wrong_kind_configuration_is_refused(binaries: Binaries, text: str, message: str) -> None:
    done = kind_config_check(binaries, text)
    assert done.returncode == 1
    assert message in done.stderr


# --- tiers as pytest runs them


def run_pytest(folder: Path, body: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A test run of its own, with one test that takes `apiserver` and has `body`; temporary folders are below
    `folder`, the pids of its processes in `folder`/pids."""
    (folder / "conftest.py").write_text('pytest_plugins = ["testbed.fixtures"]\n')
    (folder / "test_inner.py").write_text(
        "import os, pathlib, signal\n"
        "def test_inner(apiserver):\n"
        "    pids = ' '.join(str(process.pid) for process in apiserver.processes.values())\n"
        f"    pathlib.Path({str(folder / 'pids')!r}).write_text(pids)\n"
        f"    {body}\n"
    )
    (folder / "tmp").mkdir()
    environ = os.environ | {"PYTHONPATH": str(TESTS), "TMPDIR": str(folder / "tmp")} | environment
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(folder), "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


# a run in the background of a shell has inherited that SIGINT is ignored
INTERRUPTED = "signal.signal(signal.SIGINT, signal.default_int_handler); os.kill(os.getpid(), signal.SIGINT)"


@pytest.mark.parametrize(
    ("body", "outcome"),
    [("assert False", "1 failed"), (INTERRUPTED, "KeyboardInterrupt")],
    ids=["failed", "interrupted"],
)
def test_nothing_stays_after_a_test_that_failed_or_was_interrupted(tmp_path: Path, body: str, outcome: str) -> None:
    done = run_pytest(tmp_path, body)
    assert outcome in done.stdout
    await_end([int(pid) for pid in (tmp_path / "pids").read_text().split()], 60)
    assert list((tmp_path / "tmp").glob(f"{PREFIX}*")) == []


def test_a_tier_that_cannot_run_fails_and_says_what_is_missing(tmp_path: Path) -> None:
    nothing = {"HOMEFED_TESTBED_CACHE": str(tmp_path / "empty"), "HOMEFED_TESTBED_BIN": "", "KUBEBUILDER_ASSETS": ""}
    done = run_pytest(tmp_path, "pass", **nothing)
    assert done.returncode == 1
    assert "the testbed cannot run: etcd is not built: run `make testbed`" in done.stdout
    assert "skipped" not in done.stdout
