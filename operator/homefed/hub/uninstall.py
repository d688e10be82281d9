"""Leaving: the hub's half of `helm uninstall`. No kubelet is left to finish pods of virtual nodes, so they end here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from homefed.api import names
from homefed.kube.client import KubeClient
from homefed.kube.resources import (
    GUESTPODS,
    HOMES,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    REWARDCLAIMS,
    RUNTIMECLASSES,
    Resource,
)
from homefed.kube.uninstall import Deadline, strip_finalizer, until_gone

logger = logging.getLogger(__name__)


async def leave_hub(kube: KubeClient, deadline: Deadline) -> None:
    """Pods on virtual nodes, the nodes, Leases, RuntimeClasses, finalizers, and the mailboxes that are settled."""
    await _delete_pods(kube, deadline)
    nodes = (await kube.list(NODES, label_selector=names.LABEL_HOME_UID)).items
    for node in nodes:
        if node["metadata"]["name"].startswith(names.NODE_PREFIX):
            await _delete(kube, NODES, node)
    for lease in (await kube.list(LEASES, names.NODE_LEASE_NAMESPACE)).items:
        if lease["metadata"]["name"].startswith(names.NODE_PREFIX):
            await _delete(kube, LEASES, lease)
    for runtime_class in (await kube.list(RUNTIMECLASSES)).items:
        if runtime_class["metadata"]["name"].startswith(names.runtime_class("")):
            await _delete(kube, RUNTIMECLASSES, runtime_class)
    unsettled = await _unsettled(kube)
    for guest in (await kube.list(GUESTPODS)).items:
        await strip_finalizer(kube, GUESTPODS, guest, names.FINALIZER_GUEST)
    for home in (await kube.list(HOMES)).items:
        await strip_finalizer(kube, HOMES, home, names.FINALIZER_HOME)
    await _delete_mailboxes(kube, unsettled)


async def _delete_pods(kube: KubeClient, deadline: Deadline) -> None:
    async def on_virtual_nodes() -> list[Mapping[str, Any]]:
        found = (await kube.list(PODS)).items
        return [pod for pod in found if (pod["spec"].get("nodeName") or "").startswith(names.NODE_PREFIX)]

    async def left() -> int:
        return len(await on_virtual_nodes())

    for pod in await on_virtual_nodes():
        metadata = pod["metadata"]
        await kube.delete(PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"], grace_seconds=0)
    # Their controllers may make new ones; those stay Pending, as the nodes go next.
    await until_gone(left, Deadline(min(10.0, deadline.left())), "pods on virtual nodes")


async def _delete(kube: KubeClient, kind: Resource, obj: Mapping[str, Any]) -> None:
    metadata = obj["metadata"]
    await kube.delete(kind, metadata["name"], metadata.get("namespace"), uid=metadata["uid"])


async def _unsettled(kube: KubeClient) -> dict[str, int]:
    """Mailbox → claims that have no receipt yet: deleting them would lose what homes earned."""
    counts: dict[str, int] = {}
    for claim in (await kube.list(REWARDCLAIMS)).items:
        if claim["spec"]["part"] == "Header" and not (claim.get("status") or {}).get("receiptedAt"):
            mailbox = claim["metadata"]["namespace"]
            counts[mailbox] = counts.get(mailbox, 0) + 1
    return counts


async def _delete_mailboxes(kube: KubeClient, unsettled: Mapping[str, int]) -> None:
    for mailbox in (await kube.list(NAMESPACES, label_selector=names.LABEL_HOME_UID)).items:
        name = mailbox["metadata"]["name"]
        if not name.startswith(names.MAILBOX_PREFIX):
            continue
        if name in unsettled:
            logger.warning("mailbox %s stays: %d claims without a receipt", name, unsettled[name])
            continue
        await _delete(kube, NAMESPACES, mailbox)
