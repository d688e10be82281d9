"""What the meter is told beside samples: lives of pods and containers, limits, the scrape's interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from homefed.api import quantities
from homefed.core.windows import Window

KUBELET_MS: Final = 15_000
"""On average the kubelet reads a container so often (10 to 20 s): scraping more often brings no more samples."""


@dataclass(frozen=True)
class Span:
    """Life of a container's newest instance, or of the pod, ms on the hub's clock; None: not begun, not ended.

    `ends`: when instances before it ended, as far as that is known.
    """

    start: int | None = None
    end: int | None = None
    ends: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends", tuple(self.ends))  # a list, where it was written down

    def running_ms(self, window: Window) -> int:
        return window.overlap_ms(self.start, self.end)


@dataclass(frozen=True)
class Guest:
    """What the meter knows of one guest pod: requests in base units, the pod's life, and its containers'."""

    uid: str
    requests: quantities.Quantities
    life: Span
    containers: Mapping[str, Span] = field(default_factory=dict)

    def span(self, container: str) -> Span:
        """Of a container; of the pod for the sandbox and for containers that the status does not name."""
        return self.containers.get(container, self.life) if container else self.life


@dataclass(frozen=True)
class Settings:
    """`offset_ms`: hub's clock − home's clock, which start times of instances are on."""

    scrape_ms: int
    offset_ms: int = 0

    @cached_property
    def interval_ms(self) -> int:
        """Between two samples, as expected: the scrape's interval, or the kubelet's where that is longer."""
        return max(self.scrape_ms, KUBELET_MS)

    @cached_property
    def hold_ms(self) -> int:
        return 2 * self.interval_ms
