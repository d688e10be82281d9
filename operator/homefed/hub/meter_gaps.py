"""How far the homes' meters and the hub's own lie apart, for whoever watches the hub."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from prometheus_client import Histogram

from homefed.api.claim_document import Line
from homefed.api.rate_card import PPM
from homefed.core import meter_agreement

BUCKETS: Final = (0.0, 0.001, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
GAP: Final = Histogram(
    "homefed_hub_meter_gap_ratio",
    "Of every used line: share of what the home has reported of a guest that is above what the hub itself saw run.",
    ["home"],
    buckets=BUCKETS,
)
"""One series per home and bucket: homes are as many as there are Home objects, and are forgotten with them."""


class MeterGaps:
    """One per hub operator."""

    def __init__(self) -> None:
        self._homes: set[str] = set()

    def observe(self, home: str, lines: Iterable[Line]) -> None:
        """The lines of a new claim of the home."""
        found = GAP.labels(home)
        self._homes.add(home)
        for ppm in meter_agreement.shares(lines):
            found.observe(ppm / PPM)

    def keep(self, homes: Collection[str]) -> None:
        """Forget homes that there are no more."""
        for home in self._homes.difference(homes):
            GAP.remove(home)
        self._homes.intersection_update(homes)
