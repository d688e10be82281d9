"""How far meters are from a day's known truth, on a real Prometheus: ours, and the usual ways of others beside it.

table = truth_table(folder, say)      # 15, 30 and 60 s between scrapes; minutes
table.ppm                             # error_ppm.<way>.<class> of CPU, memory_error_ppm.<way>.<class>; at 30 s
table.text, table.missed
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from testbed.binaries import Binaries
from truth.classes import day
from truth.table import GOAL_SCRAPE_S, Day, measure_day, text

SEED: Final = 2026
PODS: Final = 3
SHORT_PODS: Final = 900
INTERVALS_S: Final = (15, 30, 60)


@dataclass(frozen=True)
class TruthTable:
    """`ppm`: amounts of errors without their sign. `missed`: goals of our meter that it missed, in words."""

    ppm: dict[str, float]
    text: str
    missed: list[str]


def truth_table(folder: Path, say: Callable[[str], None]) -> TruthTable:
    """Measures in subfolders of `folder`. Raises Unavailable where Prometheus is not built."""
    cases = day(SEED, pods=PODS, short_pods=SHORT_PODS)
    days = []
    for scrape_s in INTERVALS_S:
        say(f"truth: a day of {sum(len(case.pods) for case in cases)} pods, scraped every {scrape_s} s")
        days.append(measure_day(Binaries(), folder / f"truth-{scrape_s}", cases, scrape_s, seed=SEED))
    return TruthTable(
        ppm={key: value for one in days if one.scrape_s == GOAL_SCRAPE_S for key, value in _keys(one).items()},
        text=text(days),
        missed=[f"every {one.scrape_s} s: {missed}" for one in days for missed in one.missed()],
    )


def _keys(day: Day) -> dict[str, float]:
    return {
        f"{prefix}.{way}.{name}": round(abs(ppm), 1)
        for prefix, errors in (("error_ppm", day.cpu), ("memory_error_ppm", day.memory))
        for way, found in errors.items()
        for name, ppm in found.items()
    }
