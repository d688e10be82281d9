"""Simulated nodes: real API objects whose pods become Running, end and go, with nothing executed.

kwok may only ever touch the nodes that are labelled as its own. Virtual nodes of HomeFed live in the same kind of
cluster, and a simulator that marked them ready would hide that nobody else does.
"""

from collections.abc import Mapping
from pathlib import Path

from testbed import ports
from testbed.cluster import Cluster
from testbed.process import Process

LABEL = "kwok.x-k8s.io/node"
STAGES = Path(__file__).with_name("kwok-stages.yaml")
NODE_READY_WITHIN_S = 120.0


class Kwok:
    """kwok beside one cluster. `start` needs the cluster to be up."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._ports: list[int] = []
        self.process: Process | None = None

    def start(self) -> "Kwok":
        cluster = self.cluster
        stages = cluster.folder / "kwok-stages.yaml"
        stages.write_text(render_stages(STAGES.read_text()))
        self._ports = self._ports or ports.reserve(1)
        argv: list[str | Path] = [
            cluster.binaries.path("kwok"),
            f"--kubeconfig={cluster.kubeconfig}",
            f"--config={stages}",
            f"--manage-nodes-with-label-selector={LABEL}=fake",
            "--node-ip=192.0.2.1",  # an address for documentation: nothing answers there
            "--node-lease-duration-seconds=40",
            f"--cidr={cluster.spec.pod_cidr}",
            f"--server-address=127.0.0.1:{self._ports[0]}",
        ]
        log = cluster.folder / "kwok.log"
        self.process = Process(f"{cluster.name} kwok", argv, log, netns=cluster.netns).start()
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()

    def add_node(
        self,
        name: str,
        cpu: str = "8",
        memory: str = "16Gi",
        labels: Mapping[str, str] | None = None,
        extended: Mapping[str, str] | None = None,
    ) -> str:
        """A node of that size; returns its name. `await_node` waits until it takes pods. `extended` are further
        resources such as {"nvidia.com/gpu": "1"}."""
        size = {"cpu": cpu, "memory": memory, "ephemeral-storage": "100Gi", "pods": "110", **(extended or {})}
        own = {
            LABEL: "fake",
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
        }
        metadata = {"name": name, "labels": own | dict(labels or {})}
        status = {"capacity": size, "allocatable": size}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status}
        self.cluster.api.request("POST", "/api/v1/nodes", node)
        return name

    def await_node(self, name: str) -> None:
        """Waits until the node is ready and takes pods."""
        self.cluster.wait_for(lambda: self._is_schedulable(name), NODE_READY_WITHIN_S, f"node {name} ready")

    def _is_schedulable(self, name: str) -> bool:
        """Ready, and without the taint that the controller manager puts on a new node."""
        node = self.cluster.api.get(f"/api/v1/nodes/{name}")
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
        return ready and not node["spec"].get("taints")


def render_stages(text: str) -> str:
    """The stages with the expressions for a pod's settings filled in."""
    return text.replace("@RUN_FOR@", _setting("run-for", "TESTBED_RUN_FOR")).replace(
        "@STOP_TAKES@", f'({_setting("stop-takes", "TESTBED_STOP_TAKES")}) // "100ms"'
    )


def _setting(annotation: str, variable: str) -> str:
    """A jq expression: the pod's annotation, else the first container's environment variable, else null."""
    from_environment = f'(.spec.containers[0].env // [] | map(select(.name == "{variable}")) | .[0].value)'
    return f'.metadata.annotations["testbed.homefed.io/{annotation}"] // {from_environment}'
