"""SchedulingPool (hub): admission, rate card, settlement window; the pool's capacity in its status."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from homefed.api import names
from homefed.api.meta import (
    AGE_COLUMN,
    READY_COLUMNS,
    Column,
    Conditions,
    Digest,
    Kind,
    Model,
    ObjectName,
    ResourceList,
    ResourceName,
    Rule,
    Time,
)

KIND = Kind(
    kind="SchedulingPool",
    plural="schedulingpools",
    scope="Cluster",
    short_names=("hfp", "pool"),
    columns=(
        *READY_COLUMNS,
        Column("Homes", ".status.homes", "integer"),
        Column("Machines", ".status.readyMachines", "integer"),
        Column("CPU", ".status.capacity.cpu"),
        Column("Memory", ".status.capacity.memory"),
        Column("Rate-Card", ".spec.rateCard.version", priority=1),
        AGE_COLUMN,
    ),
    name_rule=Rule(
        f"self.metadata.name.matches('{names.NAME_PATTERN}')", "metadata.name: a DNS label of at most 40 characters"
    ),
)

Basis = Literal["reserved", "used"]
Per = Literal["core-hour", "GiB-hour", "GiB", "gpu-hour"]


class Price(Model):
    """amount = ⌊units × microCredits ÷ units of `per`⌋, once per line."""

    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.resource == 'cpu' ? self.per == 'core-hour' : (self.resource in ['memory', 'ephemeral-storage']"
            " ? self.per == 'GiB-hour' : (self.resource in ['network-receive', 'network-transmit']"
            " ? self.per == 'GiB' && self.basis == 'used' : self.per == 'gpu-hour'))",
            "per: cpu is priced per core-hour, memory and ephemeral-storage per GiB-hour,"
            " network per GiB used, devices per gpu-hour",
            ".per",
        ),
    )

    resource: ResourceName
    """cpu, memory, ephemeral-storage, network-receive, network-transmit, or an extended resource."""
    basis: Basis
    """reserved: requested × running time as the hub saw it; used: what the home's meter read, bounded by the hub."""
    micro_credits: Annotated[int, Field(ge=0, le=10**15)]
    per: Per


class RateCard(Model):
    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.prices.all(p, oldSelf.prices.exists(o, o.resource == p.resource && o.basis == p.basis))",
            "prices: what had no price cannot get one later, since amounts count from a guest's start;"
            " price it at 0 from the beginning, or make another pool",
            ".prices",
        ),
    )

    version: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][-A-Za-z0-9._]*$")]
    valid_from: Time
    prices: Annotated[
        list[Price],
        Field(
            max_length=64,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["resource", "basis"]},
        ),
    ]


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


class ClusterQueueRef(Model):
    """A flavor of a Kueue ClusterQueue, of which this pool sets the nominalQuota."""

    name: ObjectName
    flavor: ObjectName


class SchedulingPoolSpec(Model):
    rate_card: RateCard
    settlement: Annotated[Settlement, Field(default_factory=Settlement)]
    machine_limits: Annotated[ResourceList, Field(default_factory=dict)]
    """The most that the pool accepts of one machine, per resource; what is not listed is not limited."""
    max_bandwidth_mbps: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Megabits per second; bounds what network usage of one pod can be paid."""
    pending_timeout_seconds: Annotated[int, Field(ge=5, le=86_400)] = 60
    """A guest that its home cannot place for so long fails, so that its controller places it elsewhere."""
    set_os_label: bool = False
    """Label virtual nodes kubernetes.io/os too: lets pods that select it land, and the hub's DaemonSets as well."""
    cluster_queue: ClusterQueueRef | None = None
    """Where Kueue is installed: the flavor that is to have the pool's accepted, Ready capacity as its quota."""


class SchedulingPoolStatus(Model):
    observed_generation: Annotated[int, Field(ge=0)] = 0
    homes: Annotated[int, Field(ge=0)] = 0
    machines: Annotated[int, Field(ge=0)] = 0
    ready_machines: Annotated[int, Field(ge=0)] = 0
    capacity: Annotated[ResourceList, Field(default_factory=dict)]
    """Sum over accepted, Ready virtual nodes."""
    rate_card_digest: Digest | None = None
    conditions: Conditions


class SchedulingPool(Model):
    spec: SchedulingPoolSpec
    status: SchedulingPoolStatus | None = None
