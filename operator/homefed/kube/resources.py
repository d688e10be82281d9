"""Which resources HomeFed speaks of, and where the API server serves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from homefed.api import names
from homefed.api.errors import Invalid


@dataclass(frozen=True)
class Resource:
    """One kind as the API server serves it. `group` is empty for the core API."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection, the object or its subresource.

        No namespace on a namespaced kind means the collection over all namespaces. Raises Invalid where a part is
        missing, superfluous, or would change the meaning of the path.
        """
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if namespace is not None and not self.namespaced:
            raise Invalid(f"{self.kind} has no namespace, but {namespace!r} was given")
        if namespace is None and self.namespaced and name is not None:
            raise Invalid(f"{self.kind} {name!r}: the namespace is missing")
        parts = [*(("namespaces", namespace) if namespace is not None else ()), self.plural]
        parts += [] if name is None else [name]
        parts += [] if subresource is None else [subresource]
        return "/".join([root, *map(_segment, parts)])


def _segment(part: str) -> str:
    """One path segment, quoted. Dots alone would be resolved by the HTTP library to another path."""
    if part in ("", ".", "..") or "/" in part:
        raise Invalid(f"{part!r} is not a name of an object or namespace")
    return quote(part, safe="")


PODS: Final = Resource("", "v1", "pods", "Pod")
NODES: Final = Resource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
CONFIGMAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
SERVICEACCOUNTS: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount")
EVENTS: Final = Resource("", "v1", "events", "Event")
RESOURCEQUOTAS: Final = Resource("", "v1", "resourcequotas", "ResourceQuota")
LIMITRANGES: Final = Resource("", "v1", "limitranges", "LimitRange")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
ROLES: Final = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLEBINDINGS: Final = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
CLUSTERROLES: Final = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
RUNTIMECLASSES: Final = Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", namespaced=False)
CLUSTERQUEUES: Final = Resource("kueue.x-k8s.io", "v1beta1", "clusterqueues", "ClusterQueue", namespaced=False)
CUSTOMRESOURCEDEFINITIONS: Final = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)


def _own(plural: str, kind: str, *, namespaced: bool = True) -> Resource:
    return Resource(names.GROUP, names.VERSION, plural, kind, namespaced)


CONTRIBUTIONS: Final = _own("contributions", "Contribution")
SCHEDULINGPOOLS: Final = _own("schedulingpools", "SchedulingPool", namespaced=False)
HOMES: Final = _own("homes", "Home", namespaced=False)
OFFERS: Final = _own("offers", "Offer")
GUESTPODS: Final = _own("guestpods", "GuestPod")
USAGEREPORTS: Final = _own("usagereports", "UsageReport")
REWARDCLAIMS: Final = _own("rewardclaims", "RewardClaim")
CONSUMERBUDGETS: Final = _own("consumerbudgets", "ConsumerBudget")
