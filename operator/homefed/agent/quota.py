"""The guests' ResourceQuota follows the accepted offers (core.quota).

The chart makes the object; the agent has a right to this one, by name, and applies its own part of `spec.hard` beside
what the chart says there. Helm's upgrades leave that part alone: it is in no manifest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from homefed.api import names
from homefed.api.errors import NotFound, Refused
from homefed.api.quantities import Quantities
from homefed.core import quota
from homefed.kube.client import KubeClient
from homefed.kube.queue import WorkQueue, periodic, run_workers
from homefed.kube.resources import RESOURCEQUOTAS

logger = logging.getLogger(__name__)

CHANGED: Final = "changed"
PASS: Final = "pass"  # noqa: S105 - a key of the queue
"""Reads the object anew whatever we remember: somebody else may have changed it."""
PASS_SECONDS: Final = 60.0

Json = dict[str, Any]


class GuestQuota:
    """Keeps the ResourceQuota of the guests' namespace."""

    def __init__(
        self,
        home: KubeClient,
        namespace: str,
        *,
        offers: Callable[[], Sequence[Quantities] | None],
        pods: Callable[[], Iterable[Json]],
        present: Callable[[], Iterable[str]],
        done: Callable[[], None],
    ) -> None:
        """`offers`: what of each Offer is accepted, None while that is not known; `pods`: those of the namespace,
        trimmed; `present`: resources of the home's machines. `done` is called after each look, however it ended."""
        self._home, self._namespace = home, namespace
        self._offers, self._pods, self._present, self._done = offers, pods, present, done
        self.queue: WorkQueue[str] = WorkQueue()
        self._kept: dict[str, str] | None = None

    def wake(self) -> None:
        """Offers or guests have changed: look now."""
        self.queue.add(CHANGED)

    async def run(self) -> None:
        """Until cancelled; the caller has waited until the home's Nodes and pods are known."""
        async with asyncio.TaskGroup() as group:
            group.create_task(run_workers(self.queue, self.reconcile, concurrency=1, name="quota"))
            group.create_task(periodic(self.queue, lambda: [PASS], PASS_SECONDS))

    async def reconcile(self, key: str) -> None:
        """Bring the quota to what is offered; nothing is concluded before the hub's word on the offers is known."""
        try:
            offers = self._offers()
            if offers is None:
                return
            wanted = quota.hard(offers, quota.requested(self._pods()), self._present())
            if key == PASS or wanted != self._kept:
                await self._keep(wanted)
        finally:
            self._done()

    async def _keep(self, wanted: dict[str, str]) -> None:
        self._kept = None
        name = names.GUESTS_QUOTA
        try:
            found = await self._home.get(RESOURCEQUOTAS, name, self._namespace)
        except NotFound as error:
            message = f"ResourceQuota {self._namespace}/{name} is missing: upgrade the chart, which makes it"
            raise Refused(message, reason="NoQuota") from error
        if not quota.is_kept(found, wanted):
            obj = {"metadata": {"name": name, "namespace": self._namespace}, "spec": {"hard": wanted}}
            await self._home.apply(RESOURCEQUOTAS, obj, field_manager=names.AGENT_MANAGER, force=True)
            logger.info("guests may request %s", ", ".join(f"{key} {value}" for key, value in wanted.items()))
        self._kept = wanted
