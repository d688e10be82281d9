"""GuestPod (mailbox): one hub pod bound to one of the home's virtual nodes; the unit of metering, kept until settled.

Its name is the hub pod's UID. The hub operator writes the spec, the agent the status.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from homefed.api.contribution import Egress
from homefed.api.meta import (
    AGE_COLUMN,
    Bounded,
    Column,
    Conditions,
    Digest,
    Kind,
    Model,
    Name,
    ObjectName,
    ResourceList,
    Rule,
    Short,
    Time,
    Uid,
)
from homefed.api.rate_card import Terms

KIND = Kind(
    kind="GuestPod",
    plural="guestpods",
    scope="Namespaced",
    short_names=("hfg", "guest"),
    columns=(
        Column("Namespace", ".spec.podNamespace"),
        Column("Pod", ".spec.podName"),
        Column("Node", ".spec.nodeName"),
        Column("Phase", ".status.phase"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Reason", ".status.reason"),
        AGE_COLUMN,
    ),
    name_rule=Rule("self.metadata.name == self.spec.podUid", "metadata.name: is the UID of the hub's pod"),
)

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]
TERMINAL: tuple[Phase, ...] = ("Succeeded", "Failed")


class Copy(Model):
    """A ConfigMap or Secret that the pod names, and the name of its copy in the mailbox and at home."""

    kind: Literal["ConfigMap", "Secret"]
    name: ObjectName
    copy_name: ObjectName
    optional: bool = False


class Stop(Model):
    """An explicit word to stop; absence of a GuestPod is not one."""

    grace_period_seconds: Annotated[int, Field(ge=0, le=86_400)]
    reason: Annotated[str, Field(max_length=63)] = "Deleted"


class Interval(Model):
    """(start, end]: time that is not reserved time, because the node was Unknown or the hub operator blind."""

    start: Time
    end: Time | None = None
    """None while it lasts: the node is still Unknown."""


class Observed(Model):
    """The hub's own meter: its clock, its eyes. Only the hub writes it."""

    bound_at: Time
    running_from: Time | None = None
    """The home's startedAt, clamped to [boundAt, first seen Running]."""
    ended_at: Time | None = None
    """The home's finishedAt, clamped to [runningFrom, first seen terminal]."""
    intervals: Annotated[list[Interval], Field(default_factory=list, max_length=256)]


class GuestPodSpec(Model):
    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.podUid == oldSelf.podUid", "podUid is immutable", ".podUid"),
        Rule("self.podDigest == oldSelf.podDigest", "what runs and is billed is immutable", ".podDigest"),
        Rule("self.nodeName == oldSelf.nodeName", "nodeName is immutable", ".nodeName"),
        Rule("self.machineId == oldSelf.machineId", "machineId is immutable", ".machineId"),
        Rule("self.terms == oldSelf.terms", "terms are immutable: a guest keeps the price it was bound at", ".terms"),
        Rule("!has(oldSelf.stop) || has(self.stop)", "a stop cannot be taken back", ".stop"),
    )

    pod_uid: Uid
    pod_name: Short
    pod_namespace: Short
    namespace_uid: Uid
    """Of the consumer's namespace: names the account that pays."""
    pool_name: Name
    node_name: ObjectName
    machine_id: Digest
    offer_name: ObjectName
    egress: Egress = "DNS"
    requests: ResourceList
    """Sum over the pod; what is scheduled, bounded and billed as reserved."""
    terms: Annotated[Terms, Field(default_factory=Terms)]
    """What it is priced by beside the rate card: class of the machine, share of the card's price."""
    pod: Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
    """{labels, annotations, spec}: the translated pod. The home refuses one that podDigest does not fit."""
    pod_digest: Digest
    copies: Annotated[list[Copy], Field(default_factory=list, max_length=64)]
    stop: Stop | None = None
    disconnect_deadline_seconds: Annotated[int, Field(ge=0, le=604_800)] | None = None
    observed: Observed


class ContainerState(Model):
    """The part of v1.ContainerStatus that is mirrored; strings are cut, nothing else of a home leaves it."""

    name: Short
    init: bool = False
    ready: bool = False
    started: bool = False
    restart_count: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    state: Literal["waiting", "running", "terminated"] = "waiting"
    reason: Annotated[str, Field(max_length=63)] = ""
    message: Bounded = ""
    exit_code: Annotated[int, Field(ge=-2147483648, le=2147483647)] | None = None
    started_at: Time | None = None
    finished_at: Time | None = None
    last_exit_code: Annotated[int, Field(ge=-2147483648, le=2147483647)] | None = None
    last_reason: Annotated[str, Field(max_length=63)] = ""
    last_finished_at: Time | None = None
    earlier_ends: Annotated[list[Time], Field(max_length=16)] | None = None
    """When instances before this one ended, the newest last: so far the meter counts each of them."""


class GuestPodStatus(Model):
    observed_generation: Annotated[int, Field(ge=0)] = 0
    phase: Phase | None = None
    """Once set, the home pod of this UID has been created, and is never created again. Terminal is final."""
    reason: Annotated[str, Field(max_length=63)] = ""
    message: Bounded = ""
    pod_digest: Digest | None = None
    started_at: Time | None = None
    finished_at: Time | None = None
    containers: Annotated[list[ContainerState], Field(default_factory=list, max_length=64)]
    conditions: Conditions


class GuestPod(Model):
    spec: GuestPodSpec
    status: GuestPodStatus | None = None
