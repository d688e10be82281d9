"""Who belongs, with what key, and which of its offers a pool takes. Pure: objects in, verdicts and conditions out.

A verdict names itself: a CamelCase reason and one sentence that says what a person has to change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from homefed.api import meta, names
from homefed.api.errors import Invalid
from homefed.api.home import FormerKey, HomeSpec, PinnedKey
from homefed.api.offer import Machine, OfferSpec
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import conditions, home_key, own_price, rates
from homefed.core.conditions import FALSE, TRUE, UNKNOWN, Condition
from homefed.core.home_key import Belief, Shown

ACCEPTED: Final = "Accepted"
AVAILABLE: Final = "Available"
MAILBOX: Final = "Mailbox"
KEY: Final = "Key"
ONLINE: Final = "Online"
HOME_CONDITIONS: Final = (ACCEPTED, MAILBOX, KEY, ONLINE)
OWN_HOME_CONDITIONS: Final = (*HOME_CONDITIONS, conditions.READY)
"""Others write conditions of a Home too: settlement writes Settled."""
OFFER_CONDITIONS: Final = (ACCEPTED, AVAILABLE)
MAX_OFFER_NAME: Final = 63
"""The name is a label of the virtual nodes."""


@dataclass(frozen=True)
class Verdict:
    """Whether something is so, why, and what to do about it."""

    holds: bool
    reason: str
    message: str


@dataclass(frozen=True)
class Member:
    """A Home as it was read."""

    name: str
    uid: str
    generation: int
    spec: HomeSpec
    key: PinnedKey | None
    deleting: bool = False
    since: str | None = None
    """When the Home was created: months of membership count from then."""

    @property
    def mailbox(self) -> str:
        return names.mailbox(self.name)


@dataclass(frozen=True)
class Offered:
    """An Offer as it was read; `spec` is None where it does not fit the schema, and `problem` says why."""

    name: str
    uid: str
    generation: int
    created: str
    spec: OfferSpec | None
    problem: str = ""
    deleting: bool = False


def member(home: Mapping[str, Any]) -> Member:
    """A Home object; Invalid where its spec or its stored key does not fit the schema."""
    metadata, status = home["metadata"], home.get("status") or {}
    key = meta.parse(PinnedKey, status["key"], where="status.key") if status.get("key") else None
    return Member(
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        spec=meta.parse(HomeSpec, home.get("spec") or {}, where="spec"),
        key=key,
        deleting="deletionTimestamp" in metadata,
        since=metadata.get("creationTimestamp"),
    )


def offered(offer: Mapping[str, Any]) -> Offered:
    """An Offer object. Its spec comes from a home: whatever is wrong with it becomes a sentence, not a failure."""
    metadata = offer["metadata"]
    spec, problem = None, ""
    try:
        spec = meta.parse(OfferSpec, offer.get("spec") or {}, where="spec")
    except Invalid as error:
        problem = error.message
    if len(metadata["name"]) > MAX_OFFER_NAME:
        spec, problem = None, f"metadata.name: at most {MAX_OFFER_NAME} characters"
    return Offered(
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        created=metadata["creationTimestamp"],
        spec=spec,
        problem=problem,
        deleting="deletionTimestamp" in metadata,
    )


def in_order(offers: Iterable[Offered]) -> list[Offered]:
    """The older first, then the smaller UID: who claims a machine or a key first keeps it."""
    return sorted(offers, key=lambda offer: (offer.created, offer.uid))


def belief(who: Member, key: PinnedKey | None) -> Belief:
    """What the hub goes by for this home's key; `key`: as it is pinned now."""
    return Belief(who.name, who.uid, who.spec.trusted_fingerprint, key)


def pinned_key(who: Member, offers: Iterable[Offered], now: datetime) -> PinnedKey | None:
    """The key to hold for this home from now on; see core.home_key."""
    return home_key.pin(belief(who, who.key), [_shown(offer.spec) for offer in in_order(offers) if offer.spec], now)


def _shown(spec: OfferSpec) -> Shown:
    return Shown(spec.public_key, spec.key_rotation)


def judge_offer(
    offer: Offered, who: Member, key: PinnedKey | None, pool: SchedulingPoolSpec | None, now: datetime
) -> Verdict:
    """Whether the hub takes this offer into its pool."""
    if offer.spec is None:
        return Verdict(False, "InvalidField", offer.problem)
    if who.deleting:
        return Verdict(False, "HomeLeaving", f"Home {who.name} is being deleted at the hub.")
    if not who.spec.accepted:
        return Verdict(False, "HomeNotAccepted", f"The organiser has not accepted Home {who.name} (spec.accepted).")
    if not home_key.matches(belief(who, key), offer.spec.public_key, now):
        return Verdict(False, "KeyMismatch", home_key.mismatch(belief(who, key), _shown(offer.spec), now))
    wanted = offer.spec.pool_name
    if who.spec.pools and wanted not in who.spec.pools:
        allowed = ", ".join(who.spec.pools)
        return Verdict(False, "PoolNotAllowed", f"poolName: Home {who.name} may join {allowed}, not {wanted}.")
    if pool is None:
        return Verdict(False, "UnknownPool", f"poolName: the hub has no SchedulingPool {wanted!r}; ask its organiser.")
    return _judge_price(offer.spec, who, pool, now)


def _judge_price(spec: OfferSpec, who: Member, pool: SchedulingPoolSpec, now: datetime) -> Verdict:
    """Whether the card in force suits the owner, and he the card; a card to come that does not is told ahead."""
    at = int(now.timestamp())
    asked = (spec.machine_class, spec.price, who.spec.classes)
    if found := own_price.objection(rates.in_force(pool, at), *asked):
        return Verdict(False, found.reason, found.message)
    message = f"Accepted into pool {spec.pool_name}."
    for card in rates.to_come(pool, at):
        if found := own_price.objection(card, *asked):
            return Verdict(True, "Accepted", f"{message} From {card.valid_from} on not any more: {found.message}")
    return Verdict(True, "Accepted", message)


def machines_of(offers: Sequence[Offered]) -> dict[str, list[Machine]]:
    """Machines by offer name (offers in order, accepted ones only): one that two offers claim goes to the first."""
    taken: set[str] = set()
    found: dict[str, list[Machine]] = {}
    for offer in offers:
        own = {
            machine.id: machine for machine in (offer.spec.machines if offer.spec else []) if machine.id not in taken
        }
        taken |= own.keys()
        found[offer.name] = list(own.values())
    return found


def cordon_reason(machine: Machine, spec: OfferSpec, who: Member) -> str:
    """Why a virtual node takes no new guests; empty where it does."""
    if who.spec.suspended:
        return "HomeSuspended"
    if spec.state != "Active":
        return spec.state
    return "" if machine.ready else "MachineNotReady"


def availability(spec: OfferSpec, who: Member, machines: int, ready: int) -> Verdict:
    """Whether the offer gives the pool something now. `ready`: of its virtual nodes, how many are Ready."""
    if who.spec.suspended:
        return Verdict(False, "HomeSuspended", "The organiser has suspended this home: no new guests.")
    if spec.state != "Active":
        return Verdict(False, spec.state, f"The contribution is {spec.state.lower()}: no new guests.")
    if machines == 0:
        return Verdict(False, "NoMachines", "The contribution selects no machine.")
    if ready == 0:
        return Verdict(False, "NoReadyMachine", "No virtual node is Ready: the agent renews no Lease.")
    return Verdict(True, "Available", f"{ready} of {machines} machines are ready.")


def offer_conditions(
    before: Sequence[Mapping[str, Any]] | None, offer: Offered, accepted: Verdict, available: Verdict, now: datetime
) -> list[Condition]:
    after = _set(before, ACCEPTED, accepted, offer.generation, now)
    after = _set(after, AVAILABLE, available, offer.generation, now)
    return conditions.summarise(after, OFFER_CONDITIONS, offer.generation, now, message=available.message)


def home_conditions(
    before: Sequence[Mapping[str, Any]] | None,
    who: Member,
    mailbox: Verdict,
    key: Verdict | None,
    online: Verdict | None,
    now: datetime,
) -> list[Condition]:
    """`key` and `online` are None while there is nothing to say about them yet."""
    accepted = Verdict(True, "Accepted", "The home is a member.")
    if not who.spec.accepted:
        accepted = Verdict(False, "NotAccepted", "spec.accepted is false: its offers stay out of every pool.")
    after = _set(before, ACCEPTED, accepted, who.generation, now)
    after = _set(after, MAILBOX, mailbox, who.generation, now)
    waiting = Verdict(False, "WaitingForAgent", "Nothing has come from the home yet: install HomeFed there.")
    after = _set(after, KEY, key or waiting, who.generation, now, UNKNOWN if key is None else None)
    after = _set(after, ONLINE, online or waiting, who.generation, now, UNKNOWN if online is None else None)
    return conditions.summarise(after, HOME_CONDITIONS, who.generation, now, message="The home is connected.")


def key_verdict(who: Member, key: PinnedKey | None, offers: Iterable[Offered], now: datetime) -> Verdict | None:
    """What to say of the home's key; None before there is one."""
    known = belief(who, key)
    specs = [offer.spec for offer in in_order(offers) if offer.spec is not None]
    wrong = [spec for spec in specs if not home_key.matches(known, spec.public_key, now)]
    if wrong:
        return Verdict(False, "KeyMismatch", home_key.mismatch(known, _shown(wrong[0]), now))
    if key is None:
        return None
    if former := home_key.former_until(key, now):
        return Verdict(True, "Rotated", rotated(key, former))
    return Verdict(True, "Pinned", f"Compare with the home: {key.fingerprint}")


def rotated(key: PinnedKey, former: FormerKey) -> str:
    """A sentence on a change of key."""
    return (
        f"The home has replaced its key {former.fingerprint} by {key.fingerprint}, as a statement signed by the old one"
        f" says, at {key.pinned_at}; what the old one has signed counts until {former.valid_until}."
    )


def online_verdict(machines: int, ready: int) -> Verdict | None:
    """Whether the home is reachable, as its virtual nodes show it; None while it has none."""
    if machines == 0:
        return None
    if ready == 0:
        return Verdict(False, "NoLease", "The home renews none of its Leases: its agent or its link is down.")
    return Verdict(True, "LeaseRenewed", "The home renews its Leases.")


def _set(
    before: Sequence[Mapping[str, Any]] | None,
    type_: str,
    verdict: Verdict,
    generation: int,
    now: datetime,
    status: conditions.Status | None = None,
) -> list[Condition]:
    status = status or (TRUE if verdict.holds else FALSE)
    return conditions.set_condition(before, type_, status, verdict.reason, verdict.message, generation, now)
