"""Says aloud that settlement of a home stands still: a Warning event on the Home, and a gauge to alert on."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

from prometheus_client import Gauge

from homefed.core.findings import Finding
from homefed.kube.events import EventRecorder
from homefed.kube.transport import Json

STOPPED: Final = Gauge(
    "homefed_hub_settlement_stopped",
    "1 while settlement of a home in a pool stands still until a person acts.",
    ["home", "pool", "reason"],
)
UNRECEIPTED: Final = Gauge(
    "homefed_hub_claims_unreceipted",
    "Claims of a home in a pool that the ledger has not receipted.",
    ["home", "pool"],
)


class Alarms:
    """One per hub operator. What is raised stays until it is cleared."""

    def __init__(self, recorder: EventRecorder) -> None:
        self._recorder = recorder
        self._raised: dict[tuple[str, str], str] = {}
        self._waiting: set[tuple[str, str]] = set()

    async def raise_(self, home: Json, pool: str, finding: Finding) -> None:
        """`home`: the Home. The event is written once per reason and sentence, the gauge is 1 until `clear`."""
        name = str(home["metadata"]["name"])
        if self._raised.get((name, pool)) != finding.reason:
            self.clear(name, pool)
            STOPPED.labels(name, pool, finding.reason).set(1)
            self._raised[name, pool] = finding.reason
        await self.tell(home, finding.reason, f"pool {pool}: {finding.message}", "Warning")

    async def tell(self, home: Json, reason: str, message: str, type_: Literal["Normal", "Warning"] = "Normal") -> None:
        """An event on the Home."""
        involved = {"apiVersion": "homefed.io/v1alpha1", "kind": "Home", "metadata": home["metadata"]}
        await self._recorder.record(involved, reason, message, type_)

    def clear(self, home: str, pool: str) -> None:
        """Settlement goes on."""
        reason = self._raised.pop((home, pool), None)
        if reason is not None:
            STOPPED.remove(home, pool, reason)

    def waiting(self, home: str, pool: str, claims: int) -> None:
        """So many claims have no receipt."""
        self._waiting.add((home, pool))
        UNRECEIPTED.labels(home, pool).set(claims)

    def keep(self, homes: Collection[str]) -> None:
        """Forget what is raised of homes that there are no more."""
        for home, pool in [key for key in self._raised if key[0] not in homes]:
            self.clear(home, pool)
        for home, pool in [key for key in self._waiting if key[0] not in homes]:
            self._waiting.discard((home, pool))
            UNRECEIPTED.remove(home, pool)
