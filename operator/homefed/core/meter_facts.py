"""What is known of a home's Prometheus when its meter is examined: gathered by `metering.doctor`, judged by
`core.meter_doctor`. All times are milliseconds; None means that it could not be learned, never that there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

CPU_NAME: Final = "container_cpu_usage_seconds_total"
NETWORK_NAMES: Final = ("container_network_receive_bytes_total", "container_network_transmit_bytes_total")
NAMES: Final = (CPU_NAME, "container_memory_working_set_bytes", *NETWORK_NAMES, "container_start_time_seconds")
"""What the meter reads."""
CADVISOR_PATH: Final = "/metrics/cadvisor"
RESOURCE_PATH: Final = "/metrics/resource"


@dataclass(frozen=True)
class Series:
    """One series with the times of its newest samples, ascending; `values` beside them."""

    labels: Mapping[str, str]
    times: Sequence[int]
    values: Sequence[str] = ()

    @property
    def name(self) -> str:
        return self.labels.get("__name__", "")

    @property
    def target(self) -> tuple[str, str]:
        """(job, instance) of what was scraped."""
        return self.labels.get("job", ""), self.labels.get("instance", "")


@dataclass(frozen=True)
class Target:
    """One address that is scraped."""

    job: str
    instance: str
    path: str
    node: str = ""
    """Of Kubernetes; empty where nothing tells."""
    is_virtual: bool = False
    healthy: bool = True
    error: str = ""
    interval: int | None = None

    @property
    def is_cadvisor(self) -> bool:
        return self.path.endswith(CADVISOR_PATH)

    @property
    def machine(self) -> str:
        return self.node or self.instance

    @property
    def text(self) -> str:
        return f"job {self.job}, {self.machine}"


@dataclass(frozen=True)
class Job:
    """One entry of scrape_configs."""

    name: str
    honor_timestamps: bool = True


@dataclass(frozen=True)
class Node:
    name: str
    is_virtual: bool = False


@dataclass(frozen=True)
class Guest:
    """A guest's pod that runs."""

    pod: str
    node: str
    since: int


@dataclass(frozen=True)
class Facts:
    now: int
    """Of the machine that asks, at the moment for which `server` was answered."""
    server: int
    """Prometheus' own clock."""
    interval: int
    """That the agent is told: its --scrape-interval."""
    namespace: str
    series: Sequence[Series] = ()
    """Of NAMES, of all pods."""
    up: Sequence[Series] = ()
    kept: Sequence[Series] = ()
    """How many samples of each scrape relabelling let through."""
    targets: Sequence[Target] | None = None
    jobs: Sequence[Job] | None = None
    nodes: Sequence[Node] | None = None
    guests: Sequence[Guest] | None = None

    @property
    def cadvisor(self) -> list[Target]:
        """The targets that matter, those of virtual nodes left out."""
        return [one for one in self.targets or () if one.is_cadvisor and not self.is_virtual(one)]

    def is_virtual(self, target: Target) -> bool:
        return target.is_virtual or target.node in {node.name for node in self.nodes or () if node.is_virtual}

    def sources(self) -> list[tuple[str, str]]:
        """(job, instance) of what cAdvisor's series come from: the targets, or where they are not told, the series."""
        if self.targets is not None:
            return [(one.job, one.instance) for one in self.cadvisor]
        return sorted({one.target for one in self.series if one.labels.get("id")})

    def up_of(self, source: tuple[str, str]) -> Series | None:
        """The scrapes of a source."""
        return _of_cadvisor(self.up, source)

    def kept_of(self, source: tuple[str, str]) -> int:
        """Samples that its newest scrape stored, or tried to."""
        found = _of_cadvisor(self.kept, source)
        return round(float(found.values[-1])) if found is not None and found.values else 0

    def lost(self) -> list[tuple[str, str]]:
        """Targets whose newest scrape had samples of which none can be read."""
        sources = self.sources() if self.targets is not None else []
        return [one for one in sources if self.kept_of(one) > 0 and not self.series_of(one)]

    def series_of(self, source: tuple[str, str]) -> list[Series]:
        """cAdvisor's series of a source; /metrics/resource has no ids."""
        found = [one for one in self.series if one.target == source]
        return [one for one in found if one.labels.get("id")] or found


def _of_cadvisor(series: Sequence[Series], source: tuple[str, str]) -> Series | None:
    """A job may scrape several paths of one kubelet, told apart by label metrics_path."""
    found = [one for one in series if one.target == source]
    exact = [one for one in found if one.labels.get("metrics_path") == CADVISOR_PATH]
    return next(iter(exact or found), None)
