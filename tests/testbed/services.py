"""What a home has beside its node: DNS and (on request) a Prometheus, as processes in its network namespace; volumes.

Neither takes up room on the node, so that capacity and metering see guests only. HomeFed's chart can bring a Prometheus
of its own as a pod; this one stands for the Prometheus that a home already has.
"""

import json
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.cluster import Cluster
from testbed.errors import TestbedError
from testbed.network import Site
from testbed.process import Process

READY_WITHIN_S = 120.0
PROMETHEUS_PORT = 9090
VOLUMES = 12
MONITORING = "testbed-prometheus"  # ServiceAccount (in kube-system), ClusterRole and its binding

COREFILE = """
.:53 {{
    bind {address}
    errors
    ready {address}:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        ttl 5
    }}
    cache 5
}}
"""


def dns(cluster: Cluster, site: Site) -> Process:
    """CoreDNS for the cluster's Services on the site's address; not started. It knows no other names: homes of the
    testbed have no internet."""
    corefile = cluster.folder / "Corefile"
    corefile.write_text(COREFILE.format(address=site.address, kubeconfig=cluster.kubeconfig))
    argv = [str(cluster.binaries.path("coredns")), f"-conf={corefile}"]
    return Process(f"{cluster.name} coredns", argv, cluster.folder / "coredns.log", netns=site.netns)


def await_dns(process: Process, site: Site) -> None:
    """Waits until it answers with the cluster's Services. Raises ProcessFailed."""
    url = f"http://{site.address}:8181/ready"
    process.wait_until(lambda: _answers(url), READY_WITHIN_S)


class Prometheus:
    """A Prometheus that scrapes the kubelets' /metrics/cadvisor with a ServiceAccount that may do just that.

    `url` is reachable from inside the home and from the testbed, from nowhere else."""

    def __init__(self, cluster: Cluster, site: Site, scratch: Path, *, scrape_interval_s: int = 15) -> None:
        self.url = f"http://{site.address}:{PROMETHEUS_PORT}"
        self._cluster = cluster
        self._interval = scrape_interval_s
        self._config = cluster.folder / "prometheus.json"
        argv = [
            str(cluster.binaries.path("prometheus")),
            f"--config.file={self._config}",
            f"--storage.tsdb.path={scratch}",
            f"--web.listen-address={site.address}:{PROMETHEUS_PORT}",
            "--storage.tsdb.retention.time=1d",
            "--log.level=warn",
        ]
        self.process = Process(f"{cluster.name} prometheus", argv, cluster.folder / "prometheus.log", netns=site.netns)

    def start(self) -> "Prometheus":
        """Starts it and waits until it answers. Raises ProcessFailed."""
        self._cluster.apply(_monitoring_rights())
        token = self._cluster.folder / "prometheus.token"
        token.touch(mode=0o600)
        token.write_text(self._cluster.token_for("kube-system", MONITORING, 86400))
        self._config.write_text(json.dumps(self._configuration(token)))
        self.process.start()
        self.process.wait_until(lambda: _answers(f"{self.url}/-/ready"), READY_WITHIN_S)
        return self

    def stop(self) -> None:
        self.process.kill()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query: series with `metric` and `value` or `values`. Raises TestbedError."""
        url = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 — the URL is the testbed's own
            answer = json.load(response)
        if answer["status"] != "success" or answer.get("warnings"):
            raise TestbedError(f"{self.url}: {answer}")
        return list(answer["data"]["result"])

    def _configuration(self, token: Path) -> Mapping[str, Any]:
        kubelet = {
            "scheme": "https",
            "metrics_path": "/metrics/cadvisor",
            "authorization": {"credentials_file": str(token)},
            "tls_config": {"ca_file": str(self._cluster.ca_path)},
            "kubernetes_sd_configs": [{"role": "node", "kubeconfig_file": str(self._cluster.kubeconfig)}],
            # Virtual nodes of a hub have no kubelet to ask.
            "relabel_configs": [
                {"source_labels": ["__meta_kubernetes_node_label_type"], "regex": "virtual-kubelet", "action": "drop"}
            ],
        }
        return {
            "global": {"scrape_interval": f"{self._interval}s", "scrape_timeout": f"{min(self._interval, 10)}s"},
            "scrape_configs": [{"job_name": "kubelet-cadvisor", **kubelet}],
        }


def volumes(node: str, folder: Path) -> list[Mapping[str, Any]]:
    """A default StorageClass and local volumes for it, folders on the node: what local-path storage is to kind and k3s,
    but made beforehand. A volume serves one claim and is not used again."""
    meta = {"name": "testbed", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    storage_class: Mapping[str, Any] = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": meta,
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    return [storage_class, *(_volume(node, folder / f"volume-{number}") for number in range(VOLUMES))]


def _volume(node: str, folder: Path) -> Mapping[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    on_the_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": folder.name},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "testbed",
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_the_node]}]}},
        },
    }


def _monitoring_rights() -> list[Mapping[str, Any]]:
    rbac = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": MONITORING, "namespace": "kube-system"},
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": MONITORING},
            "rules": [{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": MONITORING},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": MONITORING},
            "subjects": [{"kind": "ServiceAccount", "name": MONITORING, "namespace": "kube-system"}],
        },
    ]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310 — the URL is the testbed's own
            return bool(response.status == 200)
    except OSError:
        return False
