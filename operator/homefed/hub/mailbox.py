"""What a member needs at the hub beside its virtual nodes: namespace, identity, and the rights of both sides."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from homefed.api import names
from homefed.api.errors import AlreadyExists, NotFound
from homefed.core.compare import contains
from homefed.core.lease import micro_time, next_renew_time
from homefed.core.membership import Member, Verdict
from homefed.core.times import from_rfc3339
from homefed.hub.config import Config
from homefed.kube.client import KubeClient
from homefed.kube.resources import GUESTPODS, LEASES, NAMESPACES, ROLEBINDINGS, ROLES, SERVICEACCOUNTS, Resource
from homefed.kube.transport import Json

RBAC: Final = "rbac.authorization.k8s.io"
HUB_LEASE_SECONDS: Final = 180


class Mailboxes:
    """Makes, keeps and removes mailboxes. Every method compares before it writes and may be repeated."""

    def __init__(self, client: KubeClient, config: Config) -> None:
        self._client, self._config = client, config

    async def ensure(self, who: Member) -> Verdict:
        """Namespace, ServiceAccount and RoleBindings. A namespace of somebody else's is left alone, and said so."""
        namespace = await self._namespace(who)
        if not _belongs(namespace, who):
            return Verdict(
                False,
                "NamespaceTaken",
                f"Namespace {who.mailbox} exists and is not of this Home: delete it, or give the Home another name.",
            )
        if "deletionTimestamp" in namespace["metadata"]:
            return Verdict(False, "NamespaceTerminating", f"Namespace {who.mailbox} is being deleted.")
        await asyncio.gather(*(self.apply(kind, wanted) for kind, wanted in self._contents(who)))
        return Verdict(True, "Created", f"The mailbox is {who.mailbox}.")

    async def grant_leases(self, who: Member, leases: Sequence[str]) -> None:
        """The agent may get and update exactly these Leases. Without any there is no rule: an empty list means all."""
        rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "update"]}
        rules = [{**rule, "resourceNames": sorted(leases)}] if leases else []
        metadata = {"name": who.mailbox, "namespace": names.NODE_LEASE_NAMESPACE, "labels": _labels(who)}
        await self.apply(ROLES, {"metadata": metadata, "rules": rules})
        await self.apply(ROLEBINDINGS, _binding(metadata, "Role", who.mailbox, _agent(who)))

    async def create_lease(self, who: Member, name: str) -> None:
        """The Lease of a virtual node, never renewed yet. One that is there is left as it is."""
        metadata = {"name": name, "namespace": names.NODE_LEASE_NAMESPACE, "labels": _labels(who)}
        try:
            await self._client.create(LEASES, {"metadata": metadata, "spec": {"holderIdentity": name}})
        except AlreadyExists:
            return

    async def tell_pass(self, mailbox: str, started: datetime) -> None:
        """Renew the mailbox's Lease `homefed-hub`: a full pass that began at `started` is done."""
        try:
            lease = await self._client.get(LEASES, names.HUB_LEASE, mailbox)
        except NotFound:
            metadata = {"name": names.HUB_LEASE, "namespace": mailbox}
            await self._client.create(LEASES, {"metadata": metadata, "spec": self._pass(None, started)})
            return
        renewed = (lease.get("spec") or {}).get("renewTime")
        previous = from_rfc3339(renewed) if renewed else None
        await self._client.update(LEASES, {**lease, "spec": self._pass(previous, started)})

    async def remove(self, who: Member) -> None:
        """Everything of this Home but its Nodes: rights first, then Leases, guest pods' finalizers, the namespace."""
        lease_namespace = names.NODE_LEASE_NAMESPACE
        await self._client.delete(ROLEBINDINGS, who.mailbox, lease_namespace)
        await self._client.delete(ROLES, who.mailbox, lease_namespace)
        selector = f"{names.LABEL_HOME_UID}={who.uid}"
        for lease in (await self._client.list(LEASES, lease_namespace, label_selector=selector)).items:
            await self._client.delete(LEASES, lease["metadata"]["name"], lease_namespace, uid=lease["metadata"]["uid"])
        try:
            namespace = await self._client.get(NAMESPACES, who.mailbox)
        except NotFound:
            return
        if _belongs(namespace, who):
            await self._release_guests(who.mailbox)
            await self._client.delete(NAMESPACES, who.mailbox, uid=namespace["metadata"]["uid"])

    async def apply(self, kind: Resource, wanted: Json) -> None:
        """Server-side apply, unless what is there says the same already."""
        metadata = wanted["metadata"]
        try:
            found = await self._client.get(kind, metadata["name"], metadata.get("namespace"))
        except NotFound:
            found = {}
        if not contains(found, wanted):
            await self._client.apply(kind, wanted, field_manager=names.HUB_MANAGER, force=True)

    async def _namespace(self, who: Member) -> Json:
        try:
            return await self._client.get(NAMESPACES, who.mailbox)
        except NotFound:
            return await self._client.create(NAMESPACES, {"metadata": {"name": who.mailbox, "labels": _labels(who)}})

    def _contents(self, who: Member) -> list[tuple[Resource, Json]]:
        namespace = {"namespace": who.mailbox, "labels": _labels(who)}
        hub = {
            "kind": "ServiceAccount",
            "name": self._config.service_account,
            "namespace": self._config.namespace,
        }
        agent_binding = {"name": names.MAILBOX_AGENT_ROLE, **namespace}
        hub_binding = {"name": names.MAILBOX_HUB_ROLE, **namespace}
        return [
            (ROLEBINDINGS, _binding(hub_binding, "ClusterRole", names.MAILBOX_HUB_ROLE, hub)),
            (SERVICEACCOUNTS, {"metadata": {"name": names.AGENT_SERVICE_ACCOUNT, **namespace}}),
            (ROLEBINDINGS, _binding(agent_binding, "ClusterRole", names.MAILBOX_AGENT_ROLE, _agent(who))),
        ]

    async def _release_guests(self, mailbox: str) -> None:
        for guest in (await self._client.list(GUESTPODS, mailbox)).items:
            metadata = guest["metadata"]
            kept = [finalizer for finalizer in metadata.get("finalizers", []) if finalizer != names.FINALIZER_GUEST]
            if kept != metadata.get("finalizers", []):
                patch = {"metadata": {"finalizers": kept, "resourceVersion": metadata["resourceVersion"]}}
                await self._client.patch(GUESTPODS, metadata["name"], patch, mailbox)

    def _pass(self, previous: datetime | None, started: datetime) -> Json:
        return {
            "holderIdentity": self._config.identity,
            "leaseDurationSeconds": HUB_LEASE_SECONDS,
            "renewTime": micro_time(next_renew_time(previous, started)),
        }


def _labels(who: Member) -> dict[str, str]:
    return {
        names.LABEL_HOME: who.name,
        names.LABEL_HOME_UID: who.uid,
        names.LABEL_MANAGED_BY: names.HUB_MANAGER,
    }


def _belongs(namespace: Json, who: Member) -> bool:
    return (namespace["metadata"].get("labels") or {}).get(names.LABEL_HOME_UID) == who.uid


def _agent(who: Member) -> Json:
    return {"kind": "ServiceAccount", "name": names.AGENT_SERVICE_ACCOUNT, "namespace": who.mailbox}


def _binding(metadata: Json, kind: str, role: str, subject: Json) -> Json:
    return {
        "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
        "subjects": [subject],
    }
