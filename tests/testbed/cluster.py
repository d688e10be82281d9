"""A Kubernetes control plane as plain processes: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.

    with workspace() as folder:
        cluster = Cluster("hub", folder / "hub", Binaries())
        cluster.start()
        cluster.kubectl("get", "namespaces")
        cluster.stop()

Everything is synchronous and may be called by `asyncio.to_thread`; `start_all` starts several clusters side by side.
"""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from testbed import audit, kubeconfig, ports
from testbed.api import APPLY, Api, connect
from testbed.audit import AuditEvent, read_audit
from testbed.binaries import Binaries
from testbed.errors import ProcessFailed, TestbedError
from testbed.flags import (
    APISERVER,
    APISERVER_ONLY,
    CONTROL_PLANE,
    CONTROLLER_MANAGER,
    ETCD,
    SCHEDULER,
    Ports,
    Spec,
    command_line,
    first_service_ip,
)
from testbed.pki import Pki
from testbed.process import Process, in_netns
from testbed.workspace import workspace

__all__ = ["APISERVER_ONLY", "CONTROL_PLANE", "Cluster", "KubectlError", "Startable", "start_all", "workspace"]

USUAL_PORTS = Ports(etcd_client=2379, etcd_peer=2380, apiserver=6443, controller_manager=10257, scheduler=10259)
READY_WITHIN_S = 180.0
ORDER = (ETCD, APISERVER, CONTROLLER_MANAGER, SCHEDULER)
ESTABLISHED_WITHIN_S = 120.0


class KubectlError(TestbedError):
    """kubectl ended with an error; `stderr` says why."""

    def __init__(self, arguments: Sequence[str], stderr: str) -> None:
        super().__init__(f"kubectl {' '.join(arguments)}: {stderr.strip()}")
        self.stderr = stderr


class Cluster:
    """One control plane. In a network namespace of its own (`netns`) it listens on the usual ports, else on reserved
    ones.

    - `bind_ip`: what the API server listens on (`0.0.0.0` is allowed).
    - `advertise_ip`: how others reach it, also pods through the `kubernetes` Service; None: over loopback only.
    - `components`: names of programs; APISERVER_ONLY is enough where nothing is scheduled or collected.
    - `extra`: more flags per component, which win over the defaults.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        binaries: Binaries,
        *,
        netns: str | None = None,
        bind_ip: str = "127.0.0.1",
        advertise_ip: str | None = None,
        serving_names: Sequence[str] = (),
        service_cidr: str = "10.96.0.0/16",
        pod_cidr: str = "10.244.0.0/16",
        allocate_node_cidrs: bool = False,
        components: Collection[str] = CONTROL_PLANE,
        extra: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        if unknown := set(components) - CONTROL_PLANE:
            raise TestbedError(f"{', '.join(sorted(unknown))}: no such component, there are {', '.join(ORDER)}")
        self.name, self.folder, self.binaries, self.netns = name, folder, binaries, netns
        self.components = tuple(component for component in ORDER if component in {*components, *APISERVER_ONLY})
        folder.mkdir(parents=True, exist_ok=True)
        loopback = "127.0.0.1" if bind_ip == "0.0.0.0" else bind_ip
        self.host = advertise_ip or loopback
        names = {*_serving_names(service_cidr), self.host, loopback, *serving_names}
        self.pki = Pki.create(folder / "pki", name, sorted(names))
        self.spec = Spec(
            folder=folder,
            pki=self.pki,
            ports=USUAL_PORTS if netns else Ports(*ports.reserve(5, loopback)),
            bind_ip=bind_ip,
            advertise_ip=advertise_ip,
            service_cidr=service_cidr,
            pod_cidr=pod_cidr,
            allocate_node_cidrs=allocate_node_cidrs,
            extra=extra or {},
        )
        self._write_files()
        self.api = self._api("admin")
        self.processes: dict[str, Process] = {component: self._process(component) for component in self.components}

    # --- facts

    @property
    def url(self) -> str:
        """https://HOST:PORT as clients reach it (from inside `netns`, where there is one)."""
        return f"https://{self.host}:{self.spec.ports.apiserver}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.spec.kubeconfig("admin")

    @property
    def ca_path(self) -> Path:
        return self.pki.ca.cert

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.log"

    def audit_events(self, offset: int = 0) -> Iterator[AuditEvent]:
        """Who did what; `offset` is an earlier `audit_log.stat().st_size`."""
        return read_audit(self.audit_log, offset)

    def rss_mib(self) -> dict[str, float]:
        """Resident memory per component, in MiB."""
        return {name: process.rss_mib() for name, process in self.processes.items()}

    # --- life

    def start(self) -> "Cluster":
        """Starts all components and waits until they are ready and namespace `default` takes pods.

        Raises ProcessFailed with the log of what failed; nothing is left running then."""
        try:
            self.processes[ETCD].start()
            self.processes[APISERVER].start()
            self._await_ready(APISERVER)
            for component in self.components[2:]:
                self.processes[component].start()
            # The controller manager makes this ServiceAccount only seconds later, and pods are refused before.
            self.create_service_account("default", "default")
            for component in self.components[2:]:
                self._await_ready(component)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Kills every component; folder and ports stay, so that `start` goes on with the same data. (An API server
        would take 15 s to end by itself.)"""
        for process in self.processes.values():
            process.kill()

    def restart(self, component: str) -> None:
        """Kills one component, starts it with the same flags and waits until it is ready."""
        self.kill(component)
        self.processes[component].start()
        self._await_ready(component)

    def kill(self, component: str) -> None:
        """SIGKILL."""
        self.processes[component].kill()

    def pause(self, component: str) -> None:
        """SIGSTOP: as a machine that hangs. Connections stay, answers do not come."""
        self.processes[component].pause()

    def resume(self, component: str) -> None:
        self.processes[component].resume()

    # --- use

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        """The standard output of kubectl, run as administrator. Raises KubectlError."""
        program = str(self.binaries.path("kubectl"))
        command = in_netns(self.netns, [program, f"--kubeconfig={self.kubeconfig}", *arguments])
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode:
            raise KubectlError(arguments, done.stderr)
        return done.stdout

    def apply(self, manifest: str | Sequence[Mapping[str, Any]]) -> str:
        """Applies YAML text, or objects, on the server's side; raises KubectlError."""
        text = (
            manifest
            if isinstance(manifest, str)
            else json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifest)})
        )
        return self.kubectl("apply", "--server-side", "--field-manager=testbed", "-f", "-", stdin=text)

    def kubeconfig_for(self, namespace: str, name: str, lifetime_s: int = 3600) -> Path:
        """A kubeconfig with a fresh token of an existing ServiceAccount, as TokenRequest gives it (at least 600 s)."""
        path = self.folder / f"{namespace}.{name}.kubeconfig"
        user = kubeconfig.token_user(self.token_for(namespace, name, lifetime_s))
        return kubeconfig.write_kubeconfig(path, self.url, self.ca_path, user, namespace)

    def token_for(self, namespace: str, name: str, lifetime_s: int = 3600) -> str:
        """A token of a ServiceAccount for the API server's own audience."""
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": lifetime_s},
        }
        answer = self.api.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", request)
        return str(answer["status"]["token"])

    def create_namespace(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        """A namespace that takes pods at once: with its `default` ServiceAccount. Returns the name."""
        metadata = {"name": name, "labels": dict(labels or {})}
        self.api.request("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        self.create_service_account(name, "default")
        return name

    def create_service_account(self, namespace: str, name: str) -> None:
        """A ServiceAccount; none the worse if it exists."""
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}?fieldManager=testbed&force=true"
        self.api.request("PATCH", path, account, content_type=APPLY)

    def install_crds(self, folder: Path) -> list[str]:
        """Applies every CRD of a folder (*.yaml) and waits until each is established. Returns their names."""
        if not (files := sorted(folder.glob("*.yaml"))):
            raise TestbedError(f"{folder} holds no CRDs (*.yaml): run `make crds`")
        arguments = [argument for file in files for argument in ("-f", str(file))]
        applied = self.kubectl("apply", "--server-side", "--field-manager=testbed", "-o", "name", *arguments).split()
        names = [line.partition("/")[2] for line in applied]
        self.wait_for(
            lambda: all(self._established(name) for name in names),
            ESTABLISHED_WITHIN_S,
            f"{', '.join(names)} established",
        )
        return names

    def wait_for(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Polls until `condition` holds. Raises TestbedError, naming `what`, when it does not in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise TestbedError(f"{self.name}: not within {timeout_s} s: {what}")
            time.sleep(0.05)

    # --- inside

    def _established(self, crd: str) -> bool:
        found = self.api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd}")
        conditions = found.get("status", {}).get("conditions", [])
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    def _write_files(self) -> None:
        (self.folder / "audit-policy.json").write_text(json.dumps(audit.POLICY))
        for user in ("admin", CONTROLLER_MANAGER, SCHEDULER, "kube-proxy"):
            certificate = kubeconfig.certificate_user(self.pki.pair(user))
            kubeconfig.write_kubeconfig(self.spec.kubeconfig(user), self.url, self.ca_path, certificate)

    def _api(self, user: str) -> Api:
        port = self.spec.ports.apiserver
        return Api(self.host, port, self.ca_path, cert=self.pki.pair(user), netns=self.netns)

    def _process(self, component: str) -> Process:
        argv: list[str | Path] = [self.binaries.path(component), *command_line(component, self.spec)]
        return Process(f"{self.name} {component}", argv, self.folder / f"{component}.log", netns=self.netns)

    def _await_ready(self, component: str) -> None:
        self.processes[component].wait_until(lambda: self._is_ready(component), READY_WITHIN_S)

    def _is_ready(self, component: str) -> bool:
        if component == APISERVER:
            self._fail_if_etcd_ended()
            return self.api.answers("/readyz")
        if component == ETCD:
            # Of a single object, for that is read from etcd itself, whereas /readyz remembers.
            return self._listens(self.spec.ports.etcd_client) and self.api.answers("/api/v1/namespaces/default")
        listeners = {CONTROLLER_MANAGER: self.spec.ports.controller_manager, SCHEDULER: self.spec.ports.scheduler}
        return Api("127.0.0.1", listeners[component], self.ca_path, netns=self.netns).answers("/healthz")

    def _listens(self, port: int) -> bool:
        with contextlib.suppress(OSError), connect("127.0.0.1", port, 1, self.netns):
            return True
        return False

    def _fail_if_etcd_ended(self) -> None:
        etcd = self.processes[ETCD]
        if not etcd.alive:
            raise ProcessFailed(f"{etcd.name} ended with {etcd.returncode}\n{etcd.tail()}")


class Startable(Protocol):
    """What can be started and stopped."""

    def start(self) -> object: ...

    def stop(self) -> None: ...


def start_all(startables: Sequence[Startable]) -> None:
    """Starts all side by side. When one fails, all are stopped, and the first error is raised."""
    pool = ThreadPoolExecutor(len(startables) or 1, thread_name_prefix="testbed-start")
    try:
        for future in [pool.submit(startable.start) for startable in startables]:
            future.result()
    except BaseException:
        _stop_all(startables)  # what is still starting fails now …
        pool.shutdown(cancel_futures=True)
        _stop_all(startables)  # … and may have started one more process meanwhile
        raise
    pool.shutdown()


def _stop_all(startables: Sequence[Startable]) -> None:
    for startable in startables:
        startable.stop()


def _serving_names(service_cidr: str) -> list[str]:
    """What pods and people call an API server."""
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    return ["localhost", "127.0.0.1", first_service_ip(service_cidr), *names]
