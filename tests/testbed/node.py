"""A real Kubernetes node: containerd, kubelet and kube-proxy in namespaces of their own.

The node is one process tree under one PID namespace, with a mount namespace of its own: killing its process 1 ends
containerd, every shim, every container, kubelet and kube-proxy, and drops every mount, as a power cut does. Only its
cgroups remain, and `stop` removes them. The network namespace is given (a `Site`).
"""

import contextlib
import ipaddress
import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed import kubeconfig, leftovers
from testbed.api import ApiError
from testbed.cluster import Cluster
from testbed.errors import ProcessFailed, TestbedError
from testbed.images import IMAGES, Images
from testbed.leftovers import Run
from testbed.network import Site
from testbed.process import PAGE_KIB, Process

CONTAINERD_SOCKET = Path("/run/containerd/containerd.sock")  # where cAdvisor looks: elsewhere, no labels and no network
PROGRAMS = ("containerd", "ctr", "runc", "nft", "ip", "nsenter", "unshare", "mount", "busybox")
READY_WITHIN_S = 180.0
REMOVED_WITHIN_S = 60.0

PRIVATE_FOLDERS = ("/run", "/var/log", "/var/lib/kubelet", "/var/lib/cni")
"""Each node has these to itself, in memory. With an own /run the pods' network namespaces stay out of the machine's."""

INIT = """
mkdir -p {folders}
for folder in {folders}; do mount -t tmpfs -o mode=755 node "$folder"; done
mkdir -p /run/netns /run/lock
touch {ready}
exec {pause}
"""
"""Process 1 of the node: makes the mounts and then only reaps."""

CONTAINERD_CONFIG = """
version = 2
root = "{root}/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


class RealNode:
    """The node of one cluster. `name` is the Node's; logs and configuration lie in the cluster's folder."""

    def __init__(self, name: str, cluster: Cluster, site: Site, run: Run, images: Images) -> None:
        self.name, self.cluster, self.site = name, cluster, site
        self.folder = cluster.folder / "node"
        self.root = run.scratch / name
        self.cgroup = run.name(name)
        self._images = images
        self._ready_file = self.folder / "mounted"
        self._init = self._outside("init", self._init_command())
        self._inside: dict[str, Process] = {}
        self._loaded: set[Path] = set()  # archives that the node's store holds; it outlasts a power cut

    # --- life

    def start(self) -> "RealNode":
        """Starts the node and waits until it is Ready. Again after `kill`, it is the same machine after a power cut.

        Raises ProcessFailed with the log of what failed; nothing is left running then."""
        try:
            self._write_files()
            self._remove_cgroups()  # a machine that boots has none
            self._make_cgroups()
            self._start_init()
            self._start_containerd()
            self._import("pause")
            self._start("kubelet", self._kubelet_command())
            self._start("kube-proxy", self._kube_proxy_command())
            self._import("workload")
            self._inside["kubelet"].wait_until(self._kubelet_is_healthy, READY_WITHIN_S, "registered as a Ready node")
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """A power cut: everything on the node ends at once, containers included."""
        self._init.kill()
        for process in self._inside.values():
            process.kill()
        self._inside.clear()

    def stop(self) -> None:
        """The end: a power cut, then the cgroups are removed. Raises TestbedError when they are busy after 10 s."""
        self.kill()
        self._remove_cgroups()

    def restart_kubelet(self) -> None:
        """SIGKILL of the kubelet and a new one; containers go on. Returns when its own endpoint answers again."""
        kubelet = self._inside["kubelet"]
        kubelet.kill()
        kubelet.start()
        kubelet.wait_until(self._kubelet_is_healthy, READY_WITHIN_S)

    def kill_kubelet(self) -> None:
        """SIGKILL of the kubelet; containers go on. `restart_kubelet` brings it back."""
        self._inside["kubelet"].kill()

    # --- use

    def is_ready(self) -> bool:
        """Whether the API server says that the node is Ready and takes pods."""
        try:
            node = self.cluster.api.get(f"/api/v1/nodes/{self.name}")
        except (ApiError, OSError):
            return False
        conditions = node.get("status", {}).get("conditions", [])
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        return ready and not any(taint["effect"] == "NoSchedule" for taint in node["spec"].get("taints", []))

    def load_image(self, role: str) -> str:
        """Imports an image of IMAGES, making it first where its inputs changed; its name for a pod's `image`."""
        self._import(role)
        return IMAGES[role]

    def run(self, *command: str, timeout_s: float = 120) -> str:
        """The standard output of a command run inside the node's namespaces. Raises TestbedError."""
        argv = self._enter([*command])
        done = self.site.run(*argv, timeout_s=timeout_s)
        if done.returncode:
            raise TestbedError(f"{self.name}: {' '.join(command)}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def processes(self) -> dict[int, str]:
        """What runs on the node now, containers included: pid (as this process sees it) → program."""
        if not self._init.alive:
            return {}
        table = _process_table()
        found, to_visit = {}, [self._init_pid()]
        while to_visit:
            pid = to_visit.pop()
            found[pid] = table.get(pid, (0, "?"))[1]
            to_visit += [child for child, (parent, _) in table.items() if parent == pid]
        return found

    def rss_mib(self) -> float:
        """Resident memory of all that runs on the node, in MiB; shared pages count for each."""
        return sum(_resident_kib(pid) for pid in self.processes()) / 1024

    def logs(self) -> dict[str, Path]:
        """The log files by program."""
        return {path.stem: path for path in sorted(self.folder.glob("*.log"))}

    # --- processes

    def _outside(self, name: str, argv: list[str]) -> Process:
        self.folder.mkdir(parents=True, exist_ok=True)
        return Process(f"{self.name} {name}", argv, self.folder / f"{name}.log", netns=self.site.netns)

    def _enter(self, argv: list[str]) -> list[str]:
        return ["nsenter", f"--target={self._init_pid()}", "--mount", "--pid", "--", *argv]

    def _init_command(self) -> list[str]:
        script = INIT.format(
            folders=" ".join(PRIVATE_FOLDERS), ready=self._ready_file, pause=self._images.program("pause")
        )
        namespaces = ["--mount", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL", "--propagation=private"]
        return ["unshare", *namespaces, "--", "/bin/sh", "-ec", script]

    def _start_init(self) -> None:
        self._ready_file.unlink(missing_ok=True)
        self._init.start()
        self._init.wait_until(self._ready_file.exists, READY_WITHIN_S, "mounted")

    def _init_pid(self) -> int:
        """The pid of the node's process 1, as seen from here."""
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
        if not children:
            raise ProcessFailed(f"{self.name} does not run\n{self._init.tail()}")
        return int(children[0])

    def _start(self, name: str, argv: list[str]) -> Process:
        process = self._outside(name, self._enter(argv))
        self._inside[name] = process
        return process.start()

    def _start_containerd(self) -> None:
        containerd = self._start("containerd", ["containerd", "--config", str(self.folder / "containerd.toml")])
        containerd.wait_until(self._containerd_answers, READY_WITHIN_S)

    def _containerd_answers(self) -> bool:
        if not Path(f"/proc/{self._init_pid()}/root{CONTAINERD_SOCKET}").exists():
            return False
        try:
            self.run("ctr", "version", timeout_s=10)
        except (TestbedError, subprocess.TimeoutExpired):
            return False
        return True

    def _import(self, role: str) -> None:
        archive = self._images.archive(role)
        if archive not in self._loaded:
            self.run("ctr", "--namespace=k8s.io", "images", "import", str(archive))
            self._loaded.add(archive)

    def _kubelet_is_healthy(self) -> bool:
        answer = self.site.run("busybox", "nc", "-w", "1", "127.0.0.1", "10248", stdin="GET /healthz HTTP/1.0\r\n\r\n")
        return "200 OK" in answer.stdout and self.is_ready()

    def _kubelet_command(self) -> list[str]:
        return [
            str(self.cluster.binaries.path("kubelet")),
            f"--config={self.folder / 'kubelet.json'}",
            f"--kubeconfig={self.folder / 'kubelet.kubeconfig'}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.site.address}",
            f"--root-dir={self.root / 'kubelet'}",
            f"--cert-dir={self.folder / 'kubelet-certificates'}",
        ]

    def _kube_proxy_command(self) -> list[str]:
        return [str(self.cluster.binaries.path("kube-proxy")), f"--config={self.folder / 'kube-proxy.json'}"]

    # --- cgroups

    def _cgroup_folders(self) -> list[Path]:
        return [folder / self.cgroup for folder in leftovers.hierarchies().values()]

    def _remove_cgroups(self) -> None:
        deadline = time.monotonic() + REMOVED_WITHIN_S
        while left := [path for path in self._cgroup_folders() if path.exists()]:
            for path in left:
                leftovers.remove_cgroup(path)
            if time.monotonic() > deadline:
                raise TestbedError(f"{self.name}: still busy: {', '.join(map(str, left))}")
            time.sleep(0.02)

    def _make_cgroups(self) -> None:
        """The kubelet refuses a cgroupRoot that does not exist in every hierarchy."""
        for path in self._cgroup_folders():
            path.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):  # version 1: empty in a new cgroup, and then nothing may enter
                if (path / name).exists() and (path.parent / name).exists():
                    (path / name).write_text((path.parent / name).read_text())

    # --- configuration

    def _write_files(self) -> None:
        for folder in (self.folder / "cni", self.root / "kubelet", self.root / "plugins"):
            folder.mkdir(parents=True, exist_ok=True)
        pause = IMAGES["pause"]
        config = CONTAINERD_CONFIG.format(folder=self.folder, root=self.root, socket=CONTAINERD_SOCKET, pause=pause)
        (self.folder / "containerd.toml").write_text(config)
        (self.folder / "cni" / "10-pods.conflist").write_text(json.dumps(cni_config(self.cluster.spec.pod_cidr)))
        (self.folder / "resolv.conf").write_text(f"nameserver {self.site.address}\n")
        (self.folder / "kubelet.json").write_text(json.dumps(self._kubelet_config()))
        (self.folder / "kube-proxy.json").write_text(json.dumps(self._kube_proxy_config()))
        user = self.cluster.pki.issue_client("kubelet", f"system:node:{self.name}", "system:nodes")
        path = self.folder / "kubelet.kubeconfig"
        kubeconfig.write_kubeconfig(path, self.cluster.url, self.cluster.ca_path, kubeconfig.certificate_user(user))

    def _kubelet_config(self) -> Mapping[str, Any]:
        serving = self.cluster.pki.issue_server("kubelet-serving", self.name, [self.name, self.site.address])
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True, "cacheTTL": "2s"},
                "x509": {"clientCAFile": str(self.cluster.ca_path)},
            },
            "authorization": {"mode": "Webhook", "webhook": {"cacheAuthorizedTTL": "2s", "cacheUnauthorizedTTL": "2s"}},
            "tlsCertFile": str(serving.cert),
            "tlsPrivateKeyFile": str(serving.key),
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "clusterDomain": "cluster.local",
            "clusterDNS": [self.site.address],
            "resolvConf": str(self.folder / "resolv.conf"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "makeIPTablesUtilChains": False,
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "100Mi",
                **{f"{place}.{what}": "0%" for place in ("nodefs", "imagefs") for what in ("available", "inodesFree")},
            },
            "volumePluginDir": str(self.root / "plugins"),
        }

    def _kube_proxy_config(self) -> Mapping[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "hostnameOverride": self.name,
            "clusterCIDR": self.cluster.spec.pod_cidr,
            "clientConnection": {"kubeconfig": str(self.cluster.spec.kubeconfig("kube-proxy"))},
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "nodePortAddresses": ["primary"],
        }


def cni_config(pod_cidr: str) -> Mapping[str, Any]:
    """A bridge with addresses from the first /24 of the cluster's range; leases are forgotten when the node ends."""
    subnet = next(ipaddress.ip_network(pod_cidr).subnets(new_prefix=24))
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-addresses",
                    "ranges": [[{"subnet": str(subnet)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }


def _process_table() -> dict[int, tuple[int, str]]:
    """Every process of the machine: pid → (parent's pid, program). Containers have PID namespaces of their own below
    the node's, so that only descent tells what runs on a node; orphans fall to its process 1."""
    table = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, _, rest = (path / "stat").read_text().partition("(")[2].rpartition(")")
            table[int(path.name)] = (int(rest.split()[1]), name)
    return table


def _resident_kib(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_KIB
    except OSError:
        return 0
