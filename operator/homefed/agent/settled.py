"""Adds to each window's evidence what the hub made of it: the claim, and what the home can see of its inputs.

settling = SettledEvidence(hub, mailbox, store, offers=…, guests=…)
await settling.run_pass(hub_now)          # every few seconds
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from homefed.api import dsse
from homefed.api.errors import HomefedError
from homefed.core import settled_evidence
from homefed.core.settled_evidence import Place
from homefed.kube.client import KubeClient
from homefed.kube.resources import REWARDCLAIMS
from homefed.metering.evidence import EvidenceStore

logger = logging.getLogger(__name__)
Json = dict[str, Any]

LEAST_SECONDS: Final = 60
"""Between two looks, which are one per window otherwise: claims stay in the mailbox for seven days."""


class SettledEvidence:
    """One home's, of all its pools."""

    def __init__(
        self,
        hub: KubeClient,
        mailbox: str,
        store: EvidenceStore,
        *,
        offers: Callable[[], Iterable[Json]],
        guests: Callable[[], Iterable[Json]],
    ) -> None:
        self._hub, self._mailbox, self._store = hub, mailbox, store
        self._offers, self._guests = offers, guests
        self._again = 0
        self._last: dict[str, Place] = {}
        """The newest claim of each pool that was looked at."""

    async def run_pass(self, hub_now: datetime) -> int:
        """How many bundles got their claim. Failures are logged: they cost an explanation, nothing else."""
        now = int(hub_now.timestamp())
        if now < self._again:
            return 0
        self._again = now + self._pause()
        try:
            return await self._look()
        except HomefedError as error:
            logger.warning("claims for the evidence: %s", error.message, extra={"reason": error.reason})
            return 0

    def _pause(self) -> int:
        windows = [int((offer.get("status") or {}).get("windowSeconds") or 0) for offer in self._offers()]
        return max(LEAST_SECONDS, min(filter(None, windows), default=0))

    async def _look(self) -> int:
        objects = (await self._hub.list(REWARDCLAIMS, self._mailbox)).items
        added = 0
        for offer in self._offers():
            pool = offer["spec"]["poolName"]
            own = [obj for obj in objects if obj["spec"]["poolName"] == pool]
            guests = [obj for obj in self._guests() if obj.get("spec", {}).get("poolName") == pool]
            try:
                added += await asyncio.to_thread(self._add, pool, offer.get("status") or {}, guests, own)
            except HomefedError as error:
                logger.warning("claims of pool %s: %s", pool, error.message, extra={"reason": error.reason})
        return added

    def _add(self, pool: str, offer: Mapping[str, Any], guests: Sequence[Json], objects: Sequence[Json]) -> int:
        done = set(self._store.ends(pool, settled=True))
        added = 0
        for place in settled_evidence.places(objects, self._last.get(pool)):
            header, end = place.claim.header, place.claim.window.end
            if not header.reverses and (end not in done or self._is_newer(pool, place)):
                earlier = self._earlier(pool, place)
                self._store.settle(pool, end, settled_evidence.settled(place, offer, guests, earlier))
                added += 1
            self._last[pool] = place
        return added

    def _is_newer(self, pool: str, place: Place) -> bool:
        """Whether this claim corrects the one that the bundle has."""
        if not place.claim.header.revision:
            return False
        known = self._store.read(pool, place.claim.window.end)
        return known is None or known.settled is None or known.settled.claim.envelope != place.envelope.to_json()

    def _earlier(self, pool: str, place: Place) -> list[dsse.Envelope]:
        end = place.claim.window.end
        known = self._store.read(pool, end)
        own = {settled_evidence.digest_of(one) for one in known.reports} if known is not None else set()
        wanted = place.claim.reports - own
        return settled_evidence.reports_among(self._store.reported(pool, end), wanted) if wanted else []
