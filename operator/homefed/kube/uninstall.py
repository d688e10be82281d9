"""What both sides' uninstallation shares: our processes end first (a running operator would put finalizers back)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from homefed.api.errors import NotFound, Stale
from homefed.kube.client import KubeClient
from homefed.kube.resources import PODS, Resource

logger = logging.getLogger(__name__)

DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
ATTEMPTS: Final = 5


class Deadline:
    """Seconds that are left of a bounded piece of work."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())


async def until_gone(count: Callable[[], Awaitable[int]], deadline: Deadline, what: str) -> bool:
    """Ask every half second until there is none; False, with a warning, when time runs out."""
    while (left := await count()) > 0:
        if deadline.left() <= 0:
            logger.warning("%d %s are left: going on without waiting", left, what)
            return False
        await asyncio.sleep(0.5)
    return True


async def stop_processes(kube: KubeClient, namespace: str, instance: str, deadline: Deadline) -> None:
    """Scale hub, agent and ledger of this release to 0 and wait until their pods are gone."""
    selector = f"app.kubernetes.io/instance={instance},app.kubernetes.io/component in (hub,agent,ledger)"
    for deployment in (await kube.list(DEPLOYMENTS, namespace, label_selector=selector)).items:
        name = deployment["metadata"]["name"]
        await kube.patch(DEPLOYMENTS, name, {"spec": {"replicas": 0}}, namespace, subresource="scale")
        logger.info("scaled %s to 0", name)

    async def running() -> int:
        return len((await kube.list(PODS, namespace, label_selector=selector)).items)

    await until_gone(running, deadline, "of our own pods")


async def strip_finalizer(kube: KubeClient, kind: Resource, obj: Mapping[str, Any], finalizer: str) -> None:
    """Take our finalizer off, and nobody else's; reads again when the object changes meanwhile."""
    name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace")
    current = obj
    for _ in range(ATTEMPTS):
        metadata = current["metadata"]
        kept = [item for item in metadata.get("finalizers") or [] if item != finalizer]
        if len(kept) == len(metadata.get("finalizers") or []):
            return
        patch = {"metadata": {"finalizers": kept, "resourceVersion": metadata["resourceVersion"]}}
        try:
            await kube.patch(kind, name, patch, namespace)
        except NotFound:
            return
        except Stale:
            current = await kube.get(kind, name, namespace)
