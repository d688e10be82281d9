"""Contribution (home): which node pool a contributor shares, how much of it, and under which conditions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from homefed.api.meta import (
    AGE_COLUMN,
    READY_COLUMNS,
    Column,
    Conditions,
    Kind,
    LabelMap,
    Model,
    Name,
    Quantity,
    ResourceList,
    Rule,
    Short,
)
from homefed.api.rate_card import STANDARD, MachineClass, OwnPrice

State = Literal["Active", "Paused", "Draining"]
Egress = Literal["None", "DNS", "Internet"]

KIND = Kind(
    kind="Contribution",
    plural="contributions",
    scope="Namespaced",
    short_names=("hfc", "contrib"),
    role="home",
    columns=(
        Column("Pool", ".spec.poolName"),
        Column("State", ".spec.state"),
        *READY_COLUMNS,
        Column("Machines", ".status.machines", "integer"),
        Column("CPU", ".status.offered.cpu"),
        Column("Memory", ".status.offered.memory"),
        Column("Guests", ".status.guests", "integer"),
        AGE_COLUMN,
    ),
    name_rule=Rule("self.metadata.name.size() <= 63", "metadata.name: at most 63 characters"),
)


class Share(Model):
    """How much of one resource of each selected machine is offered:

    max(0, min(limit, ⌊sharePercent × allocatable⌋, allocatable − reserve − requests of the owner's own pods)).
    """

    share_percent: Annotated[int, Field(ge=1, le=100)] = 50
    """Of the machine's allocatable, in percent."""
    limit: Quantity | None = None
    """Upper bound per machine."""
    reserve: Quantity | None = None
    """Kept for the owner on each machine, beside what his pods request.

    Default: 500m of cpu, 1Gi of memory, 5Gi of ephemeral-storage."""


class Access(Model):
    """What consumers may do with their own guests beside running them."""

    logs: bool = True
    exec: bool = False
    port_forward: bool = False


class ContributionSpec(Model):
    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.poolName == oldSelf.poolName",
            "poolName is immutable: to move, create another Contribution",
            ".poolName",
        ),
        Rule(
            "!has(self.nodeSelector) || !('type' in self.nodeSelector)"
            " || self.nodeSelector['type'] != 'virtual-kubelet'",
            "nodeSelector: virtual nodes cannot be contributed; select machines of your own",
            ".nodeSelector",
        ),
    )

    node_selector: Annotated[LabelMap, Field(default_factory=dict)]
    """Labels that a machine must have; empty selects every machine of the home. Virtual nodes are never selected."""
    pool_name: Name
    """The SchedulingPool on the hub that the machines join."""
    resources: Annotated[dict[str, Share], Field(default_factory=dict, max_length=16)]
    """Per resource; cpu, memory, ephemeral-storage and pods are always offered, extended resources only when listed."""
    state: State = "Active"
    """Paused takes no new guests; Draining also stops those that run."""
    drain_timeout_seconds: Annotated[int, Field(ge=0, le=3600)] = 300
    """Seconds that guests get to end when the state is Draining or the Contribution is deleted."""
    egress: Egress = "DNS"
    """What guests may reach; consumers can select nodes by it."""
    consumers: Annotated[list[Short], Field(default_factory=list, max_length=64)]
    """Consumer namespaces of the hub that are welcome; empty means all that the organiser enabled."""
    access: Annotated[Access, Field(default_factory=Access)]
    machine_class: Annotated[MachineClass, Field(alias="class")] = STANDARD
    """By which the rate card prices the machines; another one than standard has to be granted by the organiser."""
    price: Annotated[OwnPrice, Field(default_factory=OwnPrice)]
    """A guest keeps the class and the percentage of the time when it was bound."""


class ContributionStatus(Model):
    observed_generation: Annotated[int, Field(ge=0)] = 0
    machines: Annotated[int, Field(ge=0)] = 0
    guests: Annotated[int, Field(ge=0)] = 0
    offered: Annotated[ResourceList, Field(default_factory=dict)]
    allocated: Annotated[ResourceList, Field(default_factory=dict)]
    key_fingerprint: Annotated[str, Field(max_length=80)] | None = None
    """Of the home's public key; compare with the hub's Home status."""
    conditions: Conditions


class Contribution(Model):
    spec: ContributionSpec
    status: ContributionStatus | None = None
