"""Offer (mailbox): what one contribution offers now, one entry per machine.

Written by the agent, answered by the hub.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from homefed.api.contribution import Access, Egress, State
from homefed.api.key_rotation import MAX_STATEMENT, PublicKey
from homefed.api.meta import (
    AGE_COLUMN,
    READY_COLUMNS,
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
from homefed.api.rate_card import STANDARD, MachineClass, OwnPrice

KIND = Kind(
    kind="Offer",
    plural="offers",
    scope="Namespaced",
    short_names=("hfo",),
    columns=(
        Column("Pool", ".spec.poolName"),
        Column("State", ".spec.state"),
        *READY_COLUMNS,
        Column("Machines", ".status.readyMachines", "integer"),
        AGE_COLUMN,
    ),
)


class Machine(Model):
    """One contributed machine: no host name, no address, no image list."""

    id: Digest
    """SHA-256 of the home Node's UID with a salt that stays at home."""
    allocatable: ResourceList
    """What is offered of it."""
    arch: Annotated[str, Field(max_length=32, pattern=r"^[a-z0-9]{1,32}$")]
    os: Annotated[str, Field(max_length=32, pattern=r"^[a-z0-9]{1,32}$")] = "linux"
    kubelet_version: Annotated[str, Field(max_length=64, pattern=r"^v[0-9][0-9A-Za-z.+-]{0,62}$")] = "v0.0.0"
    ready: bool = True
    """The home Node is Ready and schedulable."""


class OfferSpec(Model):
    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.poolName == oldSelf.poolName", "poolName is immutable", ".poolName"),
        Rule("self.contributionUid == oldSelf.contributionUid", "contributionUid is immutable", ".contributionUid"),
    )

    contribution_uid: Uid
    pool_name: Name
    public_key: PublicKey
    """The home's raw Ed25519 public key, base64; the hub pins it at first use."""
    key_rotation: Annotated[str, Field(max_length=MAX_STATEMENT, pattern=r"^[A-Za-z0-9+/]+={0,2}$")] | None = None
    """Where publicKey replaces another key: the statement that the other one has signed (base64 of a DSSE envelope)."""
    state: State = "Active"
    egress: Egress = "DNS"
    consumers: Annotated[list[Short], Field(default_factory=list, max_length=64)]
    access: Annotated[Access, Field(default_factory=Access)]
    machine_class: Annotated[MachineClass, Field(alias="class")] = STANDARD
    price: Annotated[OwnPrice, Field(default_factory=OwnPrice)]
    machines: Annotated[
        list[Machine],
        Field(
            default_factory=list,
            max_length=256,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"]},
        ),
    ]
    agent_version: Annotated[str, Field(max_length=64)] = ""


class AcceptedMachine(Model):
    id: Digest
    node: ObjectName
    """Name of its virtual Node, and of the Lease that the agent renews for it."""


class OfferStatus(Model):
    """What the agent must know of the hub; written by the hub operator."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    federation_id: Annotated[str, Field(max_length=63)] | None = None
    home_uid: Uid | None = None
    key_fingerprint: Annotated[str, Field(max_length=80)] | None = None
    """Of the key that the hub believes to be the home's."""
    machines: Annotated[list[AcceptedMachine], Field(default_factory=list, max_length=256)]
    ready_machines: Annotated[int, Field(ge=0)] = 0
    window_seconds: Annotated[int, Field(ge=0)] = 0
    grace_seconds: Annotated[int, Field(ge=0)] = 0
    pending_timeout_seconds: Annotated[int, Field(ge=0)] = 0
    rate_card_digest: Digest | None = None
    """Of the card in force."""
    terms: Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})] | None = (
        None
    )
    """What decides over pay, of the pool's spec: rateCard, nextRateCards, settlement, maxBandwidthMbps."""
    member_since: Time | None = None
    """From when the months of membership count."""
    conditions: Conditions


class Offer(Model):
    spec: OfferSpec
    status: OfferStatus | None = None
