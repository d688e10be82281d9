"""A pool's terms of settlement: when a window is settled, what is kept as a fee, and what is held back for how long."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from homefed.api.meta import Model, Rule

HELD_BACK: Final = (750_000,) * 3 + (500_000,) * 3 + (250_000,) * 3
"""75 % in the first three months of membership, then 50 %, then 25 %; nothing from the tenth month on."""
Ppm = Annotated[int, Field(ge=0, le=1_000_000)]


class Settlement(Model):
    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "86400 % self.windowSeconds == 0",
            "windowSeconds: a day must be a whole number of windows",
            ".windowSeconds",
        ),
        Rule("self.latenessSeconds >= self.graceSeconds", "latenessSeconds: at least graceSeconds", ".latenessSeconds"),
    )

    window_seconds: Annotated[int, Field(ge=10, le=86_400)] = 3600
    """Length of the settlement window, aligned to UTC, (start, end]."""
    grace_seconds: Annotated[int, Field(ge=0, le=3600)] = 60
    """Wait after a window's end before it is settled; homes use max(30 s, 2 × scrape interval) when 0."""
    lateness_seconds: Annotated[int, Field(ge=0, le=86_400)] = 900
    """After this, reserved lines are settled without the home's report; what was used enters a later claim."""
    fee_ppm: Annotated[int, Field(ge=0, le=500_000)] = 0
    held_back: Annotated[tuple[Ppm, ...], Field(max_length=60)] = HELD_BACK
    """Millionths held back of what is left after the fee, by month of membership, counted from the Home's creation;
    nothing after the last. [] holds nothing back."""
    release_after_months: Annotated[int, Field(ge=1, le=60)] = 9
    """So many calendar months after the one in which it was held, a share is released; all of it when a Home leaves
    with everything settled. Holds for what is held from now on."""
