"""The meter on a real node against what workloads count for themselves, with nothing scraped for ten minutes.

    errors = node_errors(folder, say)     # "cpu" → the largest error of a guest in ppm; a quarter of an hour

Beside the outage: a container restart, a restart of Prometheus, an agent that moves to another machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from testbed.real import real_federation
from truth.nodes import Story

OUTAGE_S: Final = 600.0
GOAL_PPM: Final = 10_000


def node_errors(folder: Path, say: Callable[[str], None], *, outage_s: float = OUTAGE_S) -> dict[str, float]:
    """`<guest> <resource>` → error in ppm without its sign. Memory: over the time between readings that no gap parts,
    as what lies in an outage is not billed. Raises Unavailable where real nodes cannot run."""
    folder.mkdir(parents=True, exist_ok=True)
    with real_federation(folder / "clusters", homes=("home",)) as federation:
        story = Story(federation, folder, say)
        asyncio.run(story.run(outage_s=outage_s))
        found = story.errors() | {f"{name} memory": story.memory_error(name) for name in ("steady", "restarts")}
    return {name: round(abs(ppm), 1) for name, ppm in found.items()}
