"""The figures with their goals, and how a run is shown: as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final


@dataclass(frozen=True)
class Goal:
    """`limit` is what a figure must stay under, or may reach where `inclusive`."""

    name: str
    limit: float
    what: str
    inclusive: bool = False

    def met_by(self, value: float) -> bool:
        return value <= self.limit if self.inclusive else value < self.limit

    @property
    def text(self) -> str:
        return f"{'' if self.inclusive else '< '}{self.limit:g}"


NODE_READY: Final = "node_ready_p50_s"
POD_P50: Final = "pod_added_latency_p50_s"
POD_P99: Final = "pod_added_latency_p99_s"
METER_CPU: Final = "meter_cpu_error_ppm"
METER_NETWORK: Final = "meter_network_error_ppm"
AGENT_RSS: Final = "agent_rss_mib"
IDLE_WRITES: Final = "idle_writes_per_minute"

GOALS: Final = {
    goal.name: goal
    for goal in (
        Goal(NODE_READY, 1.0, "Contribution applied → virtual node Ready, P50 of 20"),
        Goal(POD_P50, 0.3, "pod created → Running at the hub, less the same in the home, 10 pods/s, P50"),
        Goal(POD_P99, 1.0, "the same, P99"),
        Goal(AGENT_RSS, 120, "resident memory of the agent with 100 guest pods"),
        Goal(IDLE_WRITES, 0, "writes of hub, ledger and agent at rest, Leases aside", inclusive=True),
        Goal(METER_CPU, 10_000, "CPU metered against the workload's truth, 5 windows"),
        Goal(METER_NETWORK, 10_000, "network bytes metered against the workload's truth, 5 windows"),
    )
}


@dataclass
class Results:
    """What one run found. `details` say how each figure came about; load is that of the machine, not of the run."""

    goals: Mapping[str, Goal] = field(default_factory=lambda: GOALS)
    values: dict[str, float] = field(default_factory=dict)
    others: dict[str, float] = field(default_factory=dict)
    """Figures without a goal, beside which ours are seen."""
    broken: list[str] = field(default_factory=list)
    """Goals in words, which no figure tells, that were missed."""
    details: dict[str, Any] = field(default_factory=dict)
    load_before: Sequence[float] = field(default_factory=os.getloadavg)
    started: float = field(default_factory=time.time)

    def put(self, name: str, value: float, **details: Any) -> None:
        """Raises KeyError for a figure without a goal."""
        assert self.goals[name]
        self.values[name] = round(value, 4)
        if details:
            self.details[name] = details

    def missed(self) -> list[str]:
        missed = [name for name, value in self.values.items() if not self.goals[name].met_by(value)]
        return missed + self.broken

    def document(self, wanted: Collection[str]) -> dict[str, Any]:
        """The figures by name, then how to read them."""
        return {
            **{name: self.values.get(name) for name in self.goals if name in wanted},
            **self.others,
            "goals": {name: self.goals[name].text for name in self.goals if name in wanted},
            "missed": self.missed(),
            "details": self.details,
            "machine": {
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "load_before": list(self.load_before),
                "load_after": list(os.getloadavg()),
            },
            "seconds": round(time.time() - self.started, 1),
        }


def table(values: Mapping[str, float], wanted: Iterable[str], goals: Mapping[str, Goal] = GOALS) -> str:
    """Figures beside their goals, one line each."""
    rows = [("figure", "value", "goal", "", "what")]
    chosen = set(wanted)
    for name in (name for name in goals if name in chosen):
        goal, value = goals[name], values.get(name)
        verdict = "not measured" if value is None else "met" if goal.met_by(value) else "MISSED"
        rows.append((name, "–" if value is None else f"{value:g}", goal.text, verdict, goal.what))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:<{widths[3]}}  {row[4]}"
        for row in rows
    )


def write(document: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{json.dumps(document, indent=2)}\n", encoding="utf-8")


class Progress:
    """Lines with the seconds since the start, on standard error: standard output is for the table."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self._started:6.1f} s  {text}", file=sys.stderr, flush=True)
