"""HomeFed's own chart, installed by real Helm with what a testbed needs: local images, volumes, short intervals.

    hub = install_hub(federation.hub, "garden-lane")
    home = install_home(federation.homes[0], invite(federation.hub.cluster, "home-1"))
    home.upgrade({"logLevel": "debug"})
    home.uninstall()

`helm`, `values_for` and `cli` also serve the tier with simulated nodes, where the processes run beside the cluster.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from testbed.cluster import Cluster
from testbed.errors import TestbedError
from testbed.images import IMAGES
from testbed.process import in_netns
from testbed.real import RealCluster

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "homefed"
NAMESPACE = "homefed"
RELEASE = "homefed"
HELM_WITHIN_S = 300
SCRAPE_INTERVAL = "5s"
OWNER = 65532  # the user of the chart's pods

Values = dict[str, Any]


class HelmError(TestbedError):
    """Helm ended with an error; `stderr` says why."""

    def __init__(self, arguments: Sequence[str], stderr: str) -> None:
        super().__init__(f"helm {' '.join(arguments)}: {stderr.strip()}")
        self.stderr = stderr


class CliError(TestbedError):
    """`homefed` ended with an error; `stderr` says why."""

    def __init__(self, arguments: Sequence[str], stderr: str) -> None:
        super().__init__(f"homefed {' '.join(arguments)}: {stderr.strip()}")
        self.stderr = stderr


def helm(cluster: Cluster, *arguments: str, version: int = 4, timeout_s: float = HELM_WITHIN_S + 60) -> str:
    """The standard output of Helm 3 or 4, run as administrator. Raises HelmError.

    Its cache and configuration lie in the cluster's folder: nothing of the machine's own is read or written."""
    program = str(cluster.binaries.path(f"helm{version}"))
    folder = cluster.folder / f"helm{version}"
    places = {f"HELM_{what}_HOME": str(folder / what.lower()) for what in ("CACHE", "CONFIG", "DATA")}
    command = in_netns(cluster.netns, [program, *arguments, f"--kubeconfig={cluster.kubeconfig}"])
    done = subprocess.run(
        command, env=os.environ | places, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode:
        raise HelmError(arguments, done.stderr or done.stdout)
    return done.stdout


def cli(cluster: Cluster, *arguments: str, timeout_s: float = 300) -> str:
    """The standard output of `homefed …` as a person runs it: with the administrator's kubeconfig. Raises CliError."""
    command = in_netns(cluster.netns, [sys.executable, "-m", "homefed", *arguments])
    environment = os.environ | {"PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": str(cluster.kubeconfig)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise CliError(arguments, done.stderr or done.stdout)
    return done.stdout


def invite(hub: Cluster, name: str, *arguments: str) -> Path:
    """`homefed invite NAME`: the values file that it wrote. Raises CliError."""
    path = hub.folder / f"{name}-values.yaml"
    cli(hub, "invite", name, "--file", str(path), "--force", *arguments)
    return path


def values_for(
    role: str,
    *,
    federation_id: str = "",
    join: Mapping[str, str] | None = None,
    volumes: bool = False,
    changes: Mapping[str, Any] | None = None,
) -> Values:
    """Chart values for a testbed: images that the nodes hold, guests' images never pulled, samples every 5 s.

    - `federation_id`: for role hub and both. `join`: `home.join` for role home and both.
    - `volumes`: claims bound to volumes made by hand (`provide_volumes`); else everything lasts as long as its pod.
    - `changes`: merged over all that, member by member.
    """
    volume: Values = {"storageClassName": ""} if volumes else {"ephemeral": True}
    values: Values = {
        "role": role,
        "image": _image(IMAGES["operator"]),
        "ledger": {"persistence": dict(volume)},
        "home": {"evidence": dict(volume), "guests": {"imagePullPolicy": "Never"}},
        "prometheus": {
            "image": _image(IMAGES["prometheus"]),
            "scrapeInterval": SCRAPE_INTERVAL,
            "persistence": dict(volume),
        },
    }
    if federation_id:
        values["federation"] = {"id": federation_id}
    if join is not None:
        values["home"]["join"] = dict(join)
    return merge(values, changes or {})


def merge(values: Values, changes: Mapping[str, Any]) -> Values:
    """`changes` over `values`, as Helm merges one values file over another."""
    merged = dict(values)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


@dataclass
class Release:
    """One installed release. `values` are those of its last installation or upgrade."""

    cluster: Cluster
    values: Values
    name: str = RELEASE
    namespace: str = NAMESPACE
    version: int = 4
    """Of Helm: 3 or 4."""
    chart: Path = field(default=CHART)

    @property
    def full_name(self) -> str:
        """What the chart's own names begin with."""
        return self.name if "homefed" in self.name else f"{self.name}-homefed"

    def install(self, *arguments: str) -> "Release":
        """`helm install`, into a namespace that Pod Security holds to `restricted`. Raises HelmError."""
        self._make_namespace()
        self._run("install", self.name, str(self.chart), *self._values_file(), *arguments)
        return self

    def upgrade(self, changes: Mapping[str, Any], *arguments: str) -> None:
        """`helm upgrade` with changed values. Raises HelmError."""
        self.values = merge(self.values, changes)
        self._run("upgrade", self.name, str(self.chart), *self._values_file(), *arguments)

    def uninstall(self, *arguments: str) -> str:
        """`helm uninstall`, which runs the chart's hook; what Helm printed. Raises HelmError."""
        return self._run("uninstall", self.name, f"--timeout={HELM_WITHIN_S}s", *arguments)

    def status(self) -> Mapping[str, Any]:
        """What Helm knows of the release."""
        found: Mapping[str, Any] = json.loads(self._run("status", self.name, "--output=json"))
        return found

    def pods(self) -> list[Mapping[str, Any]]:
        """The chart's own pods."""
        listed = self.cluster.api.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        return [pod for pod in listed if pod["metadata"].get("labels", {}).get("app.kubernetes.io/name") == "homefed"]

    def _make_namespace(self) -> None:
        """Restricted, so that a pod of the chart's that is not would never be made."""
        metadata = {
            "name": self.namespace,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        }
        self.cluster.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}])
        self.cluster.create_service_account(self.namespace, "default")

    def _values_file(self) -> list[str]:
        path = self.cluster.folder / f"{self.namespace}.{self.name}.values.yaml"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(self.values))
        return [f"--values={path}"]

    def _run(self, *arguments: str) -> str:
        return helm(self.cluster, *arguments, f"--namespace={self.namespace}", version=self.version)


def install_hub(
    member: RealCluster,
    federation_id: str,
    *,
    version: int = 4,
    release: str = RELEASE,
    namespace: str = NAMESPACE,
    changes: Mapping[str, Any] | None = None,
) -> Release:
    """Role hub on a cluster with a real node, by `helm install --wait`. Raises HelmError."""
    values = values_for("hub", federation_id=federation_id, volumes=True, changes=changes)
    return _install(member, Release(member.cluster, values, release, namespace, version))


def install_home(
    member: RealCluster,
    values_file: Path,
    *,
    version: int = 4,
    release: str = RELEASE,
    namespace: str = NAMESPACE,
    changes: Mapping[str, Any] | None = None,
) -> Release:
    """Role home on a cluster with a real node, with the values file of `homefed invite`. Raises HelmError."""
    invited = yaml.safe_load(values_file.read_text())
    values = merge(merge(values_for("home", volumes=True), invited), changes or {})
    return _install(member, Release(member.cluster, values, release, namespace, version))


def _install(member: RealCluster, release: Release) -> Release:
    load_images(member, release.values["role"])
    provide_volumes(member, release)
    return release.install("--wait", f"--timeout={HELM_WITHIN_S}s")


def load_images(member: RealCluster, role: str) -> None:
    """What the chart's pods need on the node: the operator's image, and Prometheus' where the chart brings one."""
    member.load_image("operator")
    if role != "hub":
        member.load_image("prometheus")


def provide_volumes(member: RealCluster, release: Release) -> None:
    """A volume by hand for each claim that the chart may make: folders of the node, owned by the chart's user.

    Folders are new ones: a release installed again with kept claims finds those bound already."""
    volumes = [
        volume
        for claim, size in _claims(release)
        if (volume := _volume(member, release, f"{release.full_name}-{claim}", size)) is not None
    ]
    if volumes:
        member.cluster.apply(volumes)


def _claims(release: Release) -> Iterator[tuple[str, str]]:
    role = release.values["role"]
    if role in ("hub", "both"):
        yield "ledger", "1Gi"
    if role in ("home", "both"):
        yield "evidence", "1Gi"
        yield "prometheus", "4Gi"


def _volume(member: RealCluster, release: Release, claim: str, size: str) -> Mapping[str, Any] | None:
    folder = member.node.root / "volumes" / release.namespace / claim
    if folder.exists():
        return None
    folder.mkdir(parents=True)
    shutil.chown(folder, OWNER, OWNER)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{release.namespace}-{claim}"},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"name": claim, "namespace": release.namespace},
            "hostPath": {"path": str(folder), "type": "Directory"},
        },
    }


def wipe(member: RealCluster) -> None:
    """Everything of HomeFed's goes, whatever state it is in: hooks are left out, finalizers stripped, volumes emptied.

    For the end of tests; a person's way is `helm uninstall`. Some of it may be going by itself meanwhile."""
    cluster = member.cluster
    for release in helm(cluster, "list", "--short", f"--namespace={NAMESPACE}").split():
        helm(cluster, "uninstall", release, f"--namespace={NAMESPACE}", "--no-hooks", "--ignore-not-found")
    crds = cluster.kubectl("get", "crds", "-l", "homefed.io/role", "-o", "name").split()
    for crd in crds:
        _strip_finalizers(cluster, crd.partition("/")[2])
    for name in _ours(cluster, "namespaces", ("homefed",)):
        cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
    for name in _ours(cluster, "nodes", ("hf-",)):
        cluster.kubectl("delete", "node", name, "--ignore-not-found")
    for name in _ours(cluster, "leases.coordination.k8s.io", ("hf-",), "--namespace=kube-node-lease"):
        cluster.kubectl("delete", "lease", name, "--namespace=kube-node-lease", "--ignore-not-found")
    for name in _ours(cluster, "runtimeclasses", ("homefed-",)):
        cluster.kubectl("delete", "runtimeclass", name, "--ignore-not-found")
    if crds:
        cluster.kubectl("delete", *crds, "--ignore-not-found", timeout_s=300)
    cluster.wait_for(lambda: not _ours(cluster, "namespaces", ("homefed",)), 240, "HomeFed's namespaces are gone")
    for name in _ours(cluster, "persistentvolumes", (f"{NAMESPACE}-",)):
        cluster.kubectl("delete", "persistentvolume", name, "--ignore-not-found")
    shutil.rmtree(member.node.root / "volumes", ignore_errors=True)


def _ours(cluster: Cluster, kind: str, prefixes: tuple[str, ...], *arguments: str) -> list[str]:
    names = cluster.kubectl("get", kind, *arguments, "-o", "jsonpath={.items[*].metadata.name}").split()
    return [name for name in names if name.startswith(prefixes)]


def _strip_finalizers(cluster: Cluster, resource: str) -> None:
    for item in json.loads(cluster.kubectl("get", resource, "-A", "-o", "json"))["items"]:
        metadata = item["metadata"]
        if metadata.get("finalizers"):
            place = [f"--namespace={metadata['namespace']}"] if "namespace" in metadata else []
            patch = '{"metadata":{"finalizers":null}}'
            cluster.kubectl("patch", resource, metadata["name"], *place, "--type=merge", f"--patch={patch}")


def _image(name: str) -> Values:
    repository, _, tag = name.rpartition(":")
    return {"repository": repository, "tag": tag, "pullPolicy": "Never"}
