"""What can be seen and done in any installed federation, whether its processes are pods or run beside the clusters."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from testbed.cluster import Cluster
from testbed.installation import NAMESPACE

Json = dict[str, Any]
CONTRIBUTION = "spare"


class Federated(ABC):
    """A hub and homes with HomeFed installed. `homes` is by name of the Home."""

    hub: Cluster
    homes: Mapping[str, Cluster]

    @abstractmethod
    def ledger(self, path: str) -> Json:
        """GET of the ledger's public API, such as `/v1/totals`."""

    def get(self, cluster: Cluster, kind: str, name: str = "", namespace: str = "") -> Json:
        """An object, or a list of all where no name is given, as kubectl prints it."""
        where = ["-n", namespace] if namespace else ([] if name else ["-A"])
        return dict(json.loads(cluster.kubectl("get", kind, *([name] if name else []), *where, "-o", "json")))

    def contribute(self, home: str, pool: str, **spec: Any) -> None:
        """A Contribution `spare` of every machine of a home."""
        metadata = {"name": CONTRIBUTION, "namespace": NAMESPACE}
        contribution = {"apiVersion": "homefed.io/v1alpha1", "kind": "Contribution", "metadata": metadata}
        self.homes[home].apply([contribution | {"spec": {"poolName": pool} | spec}])

    def virtual_nodes(self) -> list[Json]:
        return [node for node in self.get(self.hub, "nodes")["items"] if _is_virtual(node)]

    def ready_nodes(self) -> list[str]:
        """Names of the virtual nodes that are Ready."""
        return [node["metadata"]["name"] for node in self.virtual_nodes() if is_ready(node)]


def is_ready(obj: Json) -> bool:
    """Whether condition Ready is True."""
    found = (obj.get("status") or {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in found)


def _is_virtual(node: Json) -> bool:
    return bool((node["metadata"].get("labels") or {}).get("type") == "virtual-kubelet")
