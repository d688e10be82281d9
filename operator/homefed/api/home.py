"""Home (hub): a member of the federation. From this object the hub operator makes everything that the member needs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from homefed.api import names
from homefed.api.meta import AGE_COLUMN, READY_COLUMNS, Column, Conditions, Kind, Model, Name, ObjectName, Rule, Time
from homefed.api.rate_card import MachineClass

KIND = Kind(
    kind="Home",
    plural="homes",
    scope="Cluster",
    short_names=("hfh",),
    columns=(
        *READY_COLUMNS,
        Column("Machines", ".status.machines", "integer"),
        Column("Guests", ".status.guests", "integer"),
        Column("Fingerprint", ".status.key.fingerprint", priority=1),
        AGE_COLUMN,
    ),
    name_rule=Rule(
        f"self.metadata.name.matches('{names.NAME_PATTERN}')", "metadata.name: a DNS label of at most 40 characters"
    ),
)


class HomeSpec(Model):
    accepted: bool = True
    """False: the home's offers stay out of every pool."""
    suspended: bool = False
    """True: no new guests; what runs is left alone and paid."""
    pools: Annotated[list[Name], Field(default_factory=list, max_length=16)]
    """Pools that the home may join; empty means every pool."""
    classes: Annotated[list[MachineClass], Field(default_factory=list, max_length=16)]
    """Classes of machines that the home may declare beside standard: the organiser's word, since classes are priced."""
    trusted_fingerprint: Annotated[str, Field(max_length=80, pattern=r"^SHA256:[0-9a-f]{64}$")] | None = None
    """Re-pins the home's key: only a key with this fingerprint is accepted from now on."""


class FormerKey(Model):
    """A key that the home has replaced by a statement signed with it."""

    public_key: Annotated[str, Field(max_length=64)]
    """Raw Ed25519 public key, base64."""
    fingerprint: Annotated[str, Field(max_length=80)]
    valid_until: Time
    """Reports that it has signed are settled until then."""


class PinnedKey(Model):
    public_key: Annotated[str, Field(max_length=64)]
    """Raw Ed25519 public key, base64."""
    fingerprint: Annotated[str, Field(max_length=80)]
    pinned_at: Time
    former: Annotated[list[FormerKey], Field(default_factory=list, max_length=4)]
    """The newest first."""


class HomeStatus(Model):
    observed_generation: Annotated[int, Field(ge=0)] = 0
    mailbox: ObjectName | None = None
    key: PinnedKey | None = None
    machines: Annotated[int, Field(ge=0)] = 0
    guests: Annotated[int, Field(ge=0)] = 0
    conditions: Conditions


class Home(Model):
    spec: Annotated[HomeSpec, Field(default_factory=HomeSpec)]
    status: HomeStatus | None = None
