"""SchedulingPool (hub): admission, rate card, settlement window; the pool's capacity in its status."""

from __future__ import annotations

from typing import Annotated, ClassVar

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
    Rule,
)
from homefed.api.rate_card import CARD_RULES, MAX_NEXT_CARDS, RateCard
from homefed.api.settlement_terms import Settlement

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


class ClusterQueueRef(Model):
    """A flavor of a Kueue ClusterQueue, of which this pool sets the nominalQuota."""

    name: ObjectName
    flavor: ObjectName


class SchedulingPoolSpec(Model):
    cel_rules: ClassVar[tuple[Rule, ...]] = CARD_RULES

    rate_card: RateCard
    """In force for the windows that begin before the first of `nextRateCards` is valid."""
    next_rate_cards: Annotated[
        list[RateCard],
        Field(
            default_factory=list,
            max_length=MAX_NEXT_CARDS,
            json_schema_extra={
                "default": [],
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["version"],
            },
        ),
    ]
    """Announced cards. Of all cards the newest one whose validFrom is not after a window's start prices the window."""
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
