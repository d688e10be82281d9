"""Liveness of the home's virtual nodes: one Lease each at the hub, renewed only while it is true.

A Lease says "what runs here runs on, and what you send is looked after". That needs both API servers and the machine's
own Node; where one is missing the Lease stops, and Kubernetes itself marks the virtual node.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from homefed.agent.identity import Connection
from homefed.api.errors import HomefedError, NotFound
from homefed.kube.client import KubeClient
from homefed.kube.lease import renew
from homefed.kube.resources import LEASES

logger = logging.getLogger(__name__)

EVERY_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 1.0
DURATION_SECONDS: Final = 40
HOME_PROBE_SECONDS: Final = 4.0
HOME_SILENT_SECONDS: Final = 12.0
CONCURRENCY: Final = 8


class HomeProbe:
    """Whether the home's API server (and its store) answers: a real read of our own Lease, not an open connection."""

    def __init__(
        self, home: KubeClient, lease: str, namespace: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._home, self._lease, self._namespace, self._monotonic = home, lease, namespace, monotonic
        self._answered: float | None = None

    @property
    def alive(self) -> bool:
        return self._answered is not None and self._monotonic() - self._answered < HOME_SILENT_SECONDS

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(HOME_PROBE_SECONDS)

    async def look(self) -> None:
        """One read; a failure leaves the last answer's time as it is."""
        try:
            await self._home.get(LEASES, self._lease, self._namespace)
        except NotFound:
            self._answered = self._monotonic()
        except HomefedError as error:
            logger.warning("home API: %s", error.message, extra={"reason": error.reason})
        else:
            self._answered = self._monotonic()


class NodeLeases:
    """Renews the Lease of each virtual node whose machine is alive; the first renewal comes at once.

    `alive` gives virtual node → whether its machine's Node is Ready, anew at each look.
    """

    def __init__(
        self,
        connection: Connection,
        probe: HomeProbe,
        alive: Callable[[], Mapping[str, bool]],
        namespace: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._connection, self._probe, self._alive, self._namespace = connection, probe, alive, namespace
        self._monotonic, self._every = monotonic, every_seconds
        self._due: dict[str, float] = {}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something about machines or offers has changed: look now."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            await self.renew_due()
            wait = min(self._due.values(), default=self._monotonic() + self._every) - self._monotonic()
            try:
                async with asyncio.timeout(max(0.05, min(wait, self._every))):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def renew_due(self) -> None:
        """One round over the Leases that are due."""
        living = {node for node, alive in self._alive().items() if alive}
        self._due = {node: due for node, due in self._due.items() if node in living}
        if self._connection.client is None or not self._probe.alive:
            return
        now = self._monotonic()
        due = [node for node in sorted(living) if self._due.get(node, now) <= now]
        gate = asyncio.Semaphore(CONCURRENCY)
        await asyncio.gather(*(self._renew(node, gate) for node in due))

    async def _renew(self, node: str, gate: asyncio.Semaphore) -> None:
        """The hub may not have made a new Lease yet, or not given the right to it: soon again."""
        async with gate:
            connection = self._connection
            try:
                await renew(
                    connection.hub,
                    node,
                    self._namespace,
                    node,
                    connection.hub_now(),
                    duration_seconds=DURATION_SECONDS,
                )
            except HomefedError as error:
                logger.info("lease of %s: %s", node, error.message, extra={"reason": error.reason})
                self._due[node] = self._monotonic() + RETRY_SECONDS
            else:
                self._due[node] = self._monotonic() + self._every
