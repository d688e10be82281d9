"""Rights granted to ServiceAccounts against rights used, from an API server's audit log.

    used = rights_used(cluster, "homefed", release="homefed")
    assert not used.denied
    assert used.unused.keys() <= ALLOWED_UNUSED.keys()

What is granted is read from the cluster's own Roles and bindings, so that what the hub operator binds by itself (the
mailboxes' rights) counts as well as what the chart renders.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from testbed.audit import AuditEvent
from testbed.cluster import Cluster

RBAC = "/apis/rbac.authorization.k8s.io/v1"
PREFIX = "system:serviceaccount:"
ALWAYS_GRANTED = frozenset({"authentication.k8s.io", "authorization.k8s.io"})
"""Groups in which every authenticated user may review himself."""


_DOUBT = "a single object is read anew only in doubt: it exists already, or is missing where it should not be"
_INTERFACE = (
    "what a home may read of its mailbox is fixed for agents of later versions: hubs and homes are upgraded apart"
)
_RETENTION = "objects are deleted 24 hours (claims: 7 days) after their receipt"
_BINDING = "asked within the making of a RoleBinding, never by itself"
_STATEMENT = "asked when a consumer reads the statement of a namespace"
_GRANTED_ON = "held so that it may be granted: RBAC lets nobody grant what he has not"

EXPLAINED: Mapping[str, str] = {
    "homefed-hub: bind rbac.authorization.k8s.io/clusterroles[homefed-mailbox-agent]": _BINDING,
    "homefed-hub: bind rbac.authorization.k8s.io/clusterroles[homefed-mailbox-hub]": _BINDING,
    "homefed-hub: delete node.k8s.io/runtimeclasses": "of a pool that is deleted",
    "homefed-hub: patch node.k8s.io/runtimeclasses": "of a pool whose RuntimeClass somebody has changed",
    "homefed-hub: create /events": "only what went wrong is told by an event",
    "homefed-hub: patch /events": "what went wrong again",
    "homefed-hub: delete /pods": "what an unreachable home does not finish, or ended there",
    "homefed-hub: get /nodes": _DOUBT,
    "homefed-hub: get /pods": _DOUBT,
    "homefed-hub: get homefed.io/guestpods": _DOUBT,
    "homefed-hub: get homefed.io/rewardclaims": _DOUBT,
    "homefed-mailbox-hub: delete homefed.io/guestpods": _RETENTION,
    "homefed-mailbox-hub: delete homefed.io/rewardclaims": _RETENTION,
    "homefed-mailbox-hub: delete homefed.io/usagereports": _RETENTION,
    "kube-node-lease/homefed-hub: get coordination.k8s.io/leases": _GRANTED_ON,
    "kube-node-lease/homefed-hub: update coordination.k8s.io/leases": _GRANTED_ON,
    "homefed-mailbox-agent: create /serviceaccounts/token[homefed-agent]": "at two thirds of a token's 30 days",
    "homefed-mailbox-agent: get /configmaps": _INTERFACE,
    "homefed-mailbox-agent: get /secrets": _INTERFACE,
    "homefed-mailbox-agent: get homefed.io/offers": _INTERFACE,
    "homefed-mailbox-agent: get homefed.io/rewardclaims": _INTERFACE,
    "homefed-mailbox-agent: list homefed.io/rewardclaims": _INTERFACE,
    "homefed-mailbox-agent: watch homefed.io/rewardclaims": _INTERFACE,
    "homefed-mailbox-agent: list coordination.k8s.io/leases": _INTERFACE,
    "homefed-mailbox-agent: watch coordination.k8s.io/leases": _INTERFACE,
    "homefed-mailbox-agent: watch homefed.io/usagereports": _INTERFACE,
    "homefed-mailbox-agent: get homefed.io/guestpods": _DOUBT,
    "homefed-mailbox-agent: get homefed.io/usagereports": _DOUBT,
    "homefed-guests/homefed-agent: get /pods": _DOUBT,
    "homefed/homefed-agent: create /events": "only a change of the home's key is told by an event",
    "homefed/homefed-agent: get homefed.io/contributions": _DOUBT,
    "homefed/homefed-agent: patch /events": "what was told before",
    "homefed-ledger: create authorization.k8s.io/subjectaccessreviews": _STATEMENT,
    "homefed-ledger: get /namespaces": _STATEMENT,
    "homefed-prometheus: list /nodes": "servers that stream lists answer a watch instead",
    "homefed-prometheus: get /nodes/metrics": "asked by the kubelet, in its own name",
}
"""Rights that a run of everything may leave unused, and why they are given all the same."""


@dataclass(frozen=True, order=True)
class Right:
    """One verb on one resource (with its subresource after a slash), for one role in one place.

    `where`: a namespace, or empty for the whole cluster. `name`: of the one object that it is limited to, or empty."""

    role: str
    where: str
    group: str
    resource: str
    verb: str
    name: str = ""

    def covers(self, event: AuditEvent) -> bool:
        if self.where and self.where != event.namespace:
            return False
        if self.name and self.name != event.name:
            return False
        return (self.group, self.resource) == (event.group, event.resource) and self.verb in _verbs(event)

    def __str__(self) -> str:
        """As the table of allowed exceptions names it: without the place, which for mailboxes varies."""
        name = f"[{self.name}]" if self.name else ""
        return f"{self.role}: {self.verb} {self.group}/{self.resource}{name}"


@dataclass
class RightsUsed:
    """What came out, per user."""

    denied: dict[str, list[str]] = field(default_factory=dict)
    """User → requests that authorisation refused."""
    unused: dict[str, set[str]] = field(default_factory=dict)
    """Right → users that have it and none of whom ever used it."""
    requests: int = 0


def _verbs(event: AuditEvent) -> tuple[str, ...]:
    """A server-side apply that makes an object is a patch, and needs the right to create as well."""
    return ("patch", "create") if event.verb == "patch" and event.status == 201 else (event.verb,)


def rights_used(cluster: Cluster, users: Iterable[str], *, since: int = 0) -> RightsUsed:
    """`users`: ServiceAccounts as NAMESPACE/NAME. `since`: an earlier size of the audit log.

    A role that several accounts have (the mailboxes') counts as used where one of them used it. Refusals by admission
    are not counted: only the authoriser's."""
    wanted = {PREFIX + user.replace("/", ":"): user for user in users}
    granted = {user: list(_granted(cluster, user)) for user in wanted.values()}
    found = RightsUsed()
    used: set[str] = set()
    for event in cluster.audit_events(since):
        user = wanted.get(event.user)
        if user is None:
            continue
        found.requests += 1
        covering = [right for right in granted[user] if right.covers(event)]
        if event.denied and not covering and event.resource and event.group not in ALWAYS_GRANTED:
            found.denied.setdefault(user, []).append(f"{event.verb} {event.path}")
        used |= {str(right) for right in covering}
    for user, rights in granted.items():
        for right in rights:
            if str(right) not in used:
                found.unused.setdefault(str(right), set()).add(user)
    return found


def accounts_of(cluster: Cluster, release: str) -> list[str]:
    """The ServiceAccounts of a Helm release, and those of the mailboxes on a hub: NAMESPACE/NAME."""
    listed = cluster.api.get("/api/v1/serviceaccounts")["items"]
    return [
        f"{item['metadata']['namespace']}/{item['metadata']['name']}"
        for item in listed
        if _belongs(item["metadata"], release)
    ]


def _belongs(metadata: Mapping[str, Any], release: str) -> bool:
    labels = metadata.get("labels") or {}
    return labels.get("app.kubernetes.io/instance") == release or "homefed.io/home-uid" in labels


def _granted(cluster: Cluster, user: str) -> Iterator[Right]:
    namespace, _, name = user.partition("/")
    subject = {"kind": "ServiceAccount", "namespace": namespace, "name": name}
    for kind in ("clusterrolebindings", "rolebindings"):
        for binding in cluster.api.get(f"{RBAC}/{kind}")["items"]:
            if any(subject.items() <= each.items() for each in binding.get("subjects") or []):
                yield from _rights(cluster, binding)


def _rights(cluster: Cluster, binding: Mapping[str, Any]) -> Iterator[Right]:
    where, reference = binding["metadata"].get("namespace", ""), binding["roleRef"]
    if reference["kind"] == "ClusterRole":
        path, role = f"{RBAC}/clusterroles/{reference['name']}", reference["name"]
    else:
        path, role = f"{RBAC}/namespaces/{where}/roles/{reference['name']}", f"{where}/{reference['name']}"
    for rule in cluster.api.get(path).get("rules") or []:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    for name in rule.get("resourceNames") or [""]:
                        yield Right(role, where, group, resource, verb, name)
