"""HomeFed on a federation of simulated nodes: the chart installed by Helm, its processes beside the clusters.

Nothing runs on simulated nodes, so hub, ledger and agents are processes of this machine. They authenticate as the
chart's own ServiceAccounts, with its rights and admission policies in force: a missing right fails a test here too.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import requests
import yaml

from testbed.cluster import Cluster
from testbed.errors import TestbedError
from testbed.federated import Federated, Json, is_ready
from testbed.federation import Federation
from testbed.installation import NAMESPACE, ROOT, Release, invite, merge, values_for
from testbed.ports import reserve
from testbed.process import Process

FEDERATION = "testbed"
READY_WITHIN_S = 180.0

__all__ = ["FEDERATION", "HomeFed", "is_ready"]


class HomeFed(Federated):
    """Hub, ledger and one agent per home; a context manager. Processes can be killed and started again one by one."""

    def __init__(self, federation: Federation, folder: Path, *, prometheus_url: str = "http://127.0.0.1:9") -> None:
        self.federation, self.folder = federation, folder
        self.prometheus_url = prometheus_url
        self.processes: dict[str, Process] = {}
        self.ports: dict[str, int] = {}
        self.kubeconfigs: dict[str, Path] = {}
        """Name of a process → another way to its API server than the direct one, from its next start on."""
        self.environments: dict[str, dict[str, str]] = {}
        """Name of a process → further environment variables, from its next start on."""
        self.options: dict[str, list[str]] = {}
        """Name of a process → further arguments, from its next start on."""
        self.releases: dict[str, Release] = {}
        self.hub, self.homes = federation.hub, {home.name: home for home in federation.homes}

    def __enter__(self) -> HomeFed:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.install_hub()
            for home in self.homes:
                self.invite(home)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- installation

    def install_hub(self) -> None:
        """The chart with role hub; then the hub operator and the ledger."""
        self.install(self.hub, values_for("hub", federation_id=FEDERATION))
        self.ports |= dict(zip(("hub", "ledger"), reserve(2), strict=True))
        self.start_hub()
        self.hub.wait_for(self._publish_hub_key, READY_WITHIN_S, "the hub operator published its key")
        self.start_ledger()
        self.await_ready("hub", "ledger")

    def invite(self, home: str) -> None:
        """`homefed invite`, the chart with role home, the agent."""
        self.join(home, invite(self.hub, home))

    def join(self, home: str, values_file: Path) -> None:
        """The chart with role home from an invitation's values file; then the agent."""
        external = {"prometheus": {"enabled": False, "url": self.prometheus_url}}
        invitation = yaml.safe_load(values_file.read_text(encoding="utf-8"))
        self.install(self.homes[home], merge(values_for("home", join=invitation["home"]["join"]), external))
        (self.ports[home],) = reserve(1)
        self.start_agent(home)
        self.await_ready(home)

    def install(self, cluster: Cluster, values: Json) -> None:
        """`helm install` without waiting; our Deployments are then scaled to 0, as their processes run here."""
        self.releases[cluster.name] = Release(cluster, values).install("--take-ownership")
        cluster.kubectl("scale", "deployment", "--all", "--replicas=0", "-n", NAMESPACE)

    # --- processes

    def start_hub(self) -> None:
        token = self.folder / "ledger-token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": ["homefed-ledger"]},
        }
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/homefed-hub/token"
        token.write_text(self.hub.api.request("POST", path, request)["status"]["token"], encoding="utf-8")
        arguments = [f"--federation-id={FEDERATION}", f"--ledger-url={self.ledger_url}"]
        arguments += [f"--ledger-token-file={token}", *_health(self.ports["hub"])]
        self._start("hub", "hub", self.hub, "homefed-hub", arguments)

    def start_ledger(self) -> None:
        arguments = [f"--federation-id={FEDERATION}", f"--database={self.folder / 'ledger.db'}"]
        arguments += [f"--hub-key-dir={self.folder / 'hub-key'}", f"--home-key-dir={self.folder / 'home-keys'}"]
        arguments += [f"--port={self.ports['ledger']}"]
        arguments += [f"--submitter=system:serviceaccount:{NAMESPACE}:homefed-hub"]
        self._start("ledger", "ledger", self.hub, "homefed-ledger", arguments)

    def start_agent(self, home: str) -> None:
        arguments = [f"--prometheus-url={self.prometheus_url}", f"--evidence-dir={self.folder / home / 'evidence'}"]
        arguments += [*_health(self.ports[home]), "--image-pull-policy=Never"]
        self._start(home, "agent", self.homes[home], "homefed-agent", arguments)

    def restart(self, name: str) -> None:
        """Start a process that was killed or stopped, as it was started before."""
        {"hub": self.start_hub, "ledger": self.start_ledger}.get(name, lambda: self.start_agent(name))()

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self.processes[name].kill()

    def revive(self) -> list[str]:
        """Start again what has ended by itself, as a kubelet does; its names."""
        ended = [name for name, process in self.processes.items() if not process.alive]
        for name in ended:
            self.restart(name)
        return ended

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            process.stop()

    def _start(self, name: str, verb: str, cluster: Cluster, account: str, arguments: Sequence[str]) -> None:
        kubeconfig = self.kubeconfigs.get(name) or cluster.kubeconfig_for(NAMESPACE, account)
        argv = [sys.executable, "-m", "homefed", verb, f"--kubeconfig={kubeconfig}", "--log-level=info", *arguments]
        argv += (
            [] if verb == "ledger" else [f"--namespace={NAMESPACE}", "--release=homefed", f"--identity=testbed-{name}"]
        )
        argv += self.options.get(name, [])
        log = self.folder / f"{name}.log"
        self.processes[name] = Process(
            f"homefed {name}", argv, log, env=_environment() | self.environments.get(name, {})
        ).start()

    # --- use

    def await_ready(self, *names: str, within_s: float = READY_WITHIN_S) -> None:
        """Until /readyz of these processes says so; TestbedError with the end of the log when it does not."""
        for name in names:
            port, process = self.ports[name], self.processes[name]
            process.wait_until(lambda port=port: _answers(f"http://127.0.0.1:{port}/readyz"), within_s)  # type: ignore[misc]

    @property
    def ledger_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['ledger']}"

    def ledger(self, path: str) -> Json:
        """GET of the ledger's public API."""
        answer = requests.get(f"{self.ledger_url}{path}", timeout=60)
        answer.raise_for_status()
        return dict(answer.json())

    def wait(self, condition: Callable[[], bool], within_s: float, what: str) -> float:
        """Seconds until `condition` holds; TestbedError with the logs' ends when it does not."""
        started = time.monotonic()
        while not condition():
            if time.monotonic() - started > within_s:
                tails = "\n".join(f"--- {name}\n{process.tail()}" for name, process in self.processes.items())
                raise TestbedError(f"not within {within_s} s: {what}\n{tails}")
            time.sleep(0.05)
        return time.monotonic() - started

    def publish_home_keys(self) -> int:
        """Number of homes whose keys the ledger may read from now on."""
        return self._mount("homefed-home-keys", self.folder / "home-keys")

    def _publish_hub_key(self) -> bool:
        return self._mount("homefed-hub-key", self.folder / "hub-key") > 0

    def _mount(self, config_map: str, folder: Path) -> int:
        """As the kubelet does for the ledger's ConfigMap volumes."""
        found = self.get(self.hub, "configmap", config_map, NAMESPACE)
        data: Mapping[str, str] = found.get("data") or {}
        for name, value in data.items():
            folder.mkdir(exist_ok=True)
            (folder / name).write_text(value, encoding="utf-8")
        return len(data)


def _health(port: int) -> list[str]:
    return ["--health-host=127.0.0.1", f"--health-port={port}"]


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "PYTHONUNBUFFERED": "1"}
