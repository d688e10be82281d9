"""What the contributor reads in his Contribution's status, and when the agent may let go of a deleted one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from homefed.api import quantities
from homefed.api.contribution import ContributionSpec, ContributionStatus
from homefed.api.offer import Machine, OfferSpec
from homefed.api.quantities import Quantities
from homefed.core import conditions
from homefed.core.findings import Finding
from homefed.core.times import from_rfc3339

Json = Mapping[str, Any]

ACCEPTED: Final = "Accepted"
AVAILABLE: Final = "Available"
CONNECTED: Final = "Connected"
METER_READY: Final = "MeterReady"
HOME_ISOLATED: Final = "HomeIsolated"
_NOT_PROVEN: Final = Finding(
    conditions.UNKNOWN,
    "NotProven",
    "policies for guests are installed; whether the network enforces them is not tried yet",
)
CLOCK_SKEWED: Final = "ClockSkewed"
KEY_ROTATION: Final = "KeyRotation"
LEDGER_WITNESSED: Final = "LedgerWitnessed"
SUMMARISED: Final = (CONNECTED, AVAILABLE, ACCEPTED)
"""Ready follows these. A meter that does not work does not keep guests away: what is reserved is still paid."""
_SHOWN: Final = 5


@dataclass(frozen=True)
class Inputs:
    """What the agent knows of one contribution."""

    spec: ContributionSpec
    generation: int
    status: Json | None
    """As stored."""
    selected: Sequence[str]
    """Names of the Nodes that it has won."""
    lost: Mapping[str, str]
    """Node name → the other contribution that has it."""
    machines: Sequence[Machine]
    connection: Finding
    offer: Json | None
    """The Offer object at the hub, None while there is none."""
    meter: Finding
    skew: timedelta | None = None
    """Hub's clock − ours, where it is beyond what is tolerated."""
    guests: int = 0
    allocated: Quantities = field(default_factory=dict)
    """What running guests of this contribution request."""
    fingerprint: str | None = None
    rotation: Finding | None = None
    """Where a change of the home's key stands; None while there is none."""
    ledger: Finding | None = None
    """What this home sees as a witness of the ledger; None where it is none."""
    deleting: bool = False
    invalid: str | None = None
    """What is wrong with the spec, where it cannot be read."""
    refused: Finding | None = None
    """What the hub's API server said to the Offer, where it did not take it."""


def offer_spec(
    uid: str,
    spec: ContributionSpec,
    machines: Sequence[Machine],
    public_key: str,
    agent_version: str,
    deleting: bool,
    key_rotation: str | None = None,
) -> OfferSpec:
    """The Offer of a contribution; one that is being deleted drains. `key_rotation`: the statement for the key."""
    return OfferSpec(
        contribution_uid=uid,
        pool_name=spec.pool_name,
        public_key=public_key,
        key_rotation=key_rotation,
        state="Draining" if deleting else spec.state,
        egress=spec.egress,
        consumers=list(spec.consumers),
        access=spec.access,
        machine_class=spec.machine_class,
        price=spec.price,
        machines=list(machines),
        agent_version=agent_version,
    )


def status(inputs: Inputs, now: datetime) -> dict[str, Any]:
    """The status to show; equal to the stored one when nothing has changed."""
    total: dict[str, int] = {}
    for machine in inputs.machines:
        total = quantities.add(total, quantities.parse_all(machine.allocatable))
    shown: dict[str, Any] = {
        "observedGeneration": inputs.generation,
        "machines": len(inputs.machines),
        "guests": inputs.guests,
        "offered": quantities.render_all(total),
        "allocated": quantities.render_all({name: inputs.allocated.get(name, 0) for name in total}),
        "conditions": _conditions(inputs, now),
    }
    return shown | ({"keyFingerprint": inputs.fingerprint} if inputs.fingerprint else {})


def changed(before: Json | None, after: Json) -> bool:
    """Whether there is anything to write, defaults of the schema aside."""
    return ContributionStatus.model_validate(before or {}) != ContributionStatus.model_validate(after)


def _conditions(inputs: Inputs, now: datetime) -> list[dict[str, Any]]:
    found = [dict(condition) for condition in (inputs.status or {}).get("conditions") or ()]
    findings = {
        CONNECTED: inputs.connection,
        AVAILABLE: availability(inputs),
        ACCEPTED: inputs.refused or acceptance(inputs.offer),
        METER_READY: inputs.meter,
        HOME_ISOLATED: _NOT_PROVEN,
    }
    for type_, finding in findings.items():
        found = conditions.set_condition(
            found, type_, finding.status, finding.reason, finding.message, inputs.generation, now
        )
    found = _skew(found, inputs, now)
    found = _while_it_lasts(found, KEY_ROTATION, inputs.rotation, inputs.generation, now)
    found = _while_it_lasts(found, LEDGER_WITNESSED, inputs.ledger, inputs.generation, now)
    return conditions.summarise(found, SUMMARISED, inputs.generation, now, message=_summary(inputs))


def _skew(found: list[dict[str, Any]], inputs: Inputs, now: datetime) -> list[dict[str, Any]]:
    """The message names no seconds, which would change at every look."""
    finding = None
    if inputs.skew is not None:
        word = "behind" if inputs.skew > timedelta() else "ahead of"
        message = f"the home's clock is more than 10 s {word} the hub's; usage is still metered: set up NTP there"
        finding = Finding(conditions.TRUE, "ClockSkewed", message)
    return _while_it_lasts(found, CLOCK_SKEWED, finding, inputs.generation, now)


def _while_it_lasts(
    found: list[dict[str, Any]], type_: str, finding: Finding | None, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """A condition that exists only while there is something to say."""
    if finding is None:
        return conditions.drop(found, type_)
    return conditions.set_condition(found, type_, finding.status, finding.reason, finding.message, generation, now)


def _summary(inputs: Inputs) -> str:
    return f"{len(inputs.machines)} machine(s) offered to pool {inputs.spec.pool_name}"


def acceptance(offer: Json | None) -> Finding:
    """The hub's word on the Offer, in its own reason and sentence (UnknownPool, HomeSuspended, …)."""
    found = conditions.get(((offer or {}).get("status") or {}).get("conditions"), ACCEPTED)
    if found is None:
        return Finding(conditions.UNKNOWN, "WaitingForHub", "the hub has not looked at the offer yet")
    status = found.get("status", conditions.UNKNOWN)
    return Finding(status, str(found.get("reason") or "Unknown"), str(found.get("message") or ""))


def availability(inputs: Inputs) -> Finding:
    """Whether guests find room here, and if not, which field to change."""
    if inputs.invalid is not None:
        return Finding(conditions.FALSE, "InvalidSpec", inputs.invalid)
    if inputs.deleting:
        return Finding(conditions.FALSE, "Draining", "the contribution is being deleted; its guests are stopped first")
    if inputs.spec.state != "Active":
        effect = "no new guests come" if inputs.spec.state == "Paused" else "guests are stopped"
        return Finding(
            conditions.FALSE, inputs.spec.state, f"spec.state is {inputs.spec.state}: {effect}; set Active to go on"
        )
    if not inputs.selected:
        return _nothing_selected(inputs)
    if not inputs.machines:
        return Finding(
            conditions.FALSE,
            "ShareTooSmall",
            f"nothing is left to offer of {_some(inputs.selected)} after reserve and the owner's own pods;"
            " raise spec.resources.<name>.sharePercent or limit, or lower reserve",
        )
    if not any(machine.ready for machine in inputs.machines):
        return Finding(
            conditions.FALSE, "MachinesNotReady", f"no machine is Ready and schedulable: {_some(inputs.selected)}"
        )
    return _available(inputs)


def _nothing_selected(inputs: Inputs) -> Finding:
    if inputs.lost:
        return Finding(conditions.FALSE, "MachineClaimed", _claimed(inputs.lost))
    labels = ", ".join(f"{key}={value}" for key, value in sorted(inputs.spec.node_selector.items())) or "(empty)"
    return Finding(
        conditions.FALSE, "SelectorMatchesNothing", f"spec.nodeSelector {labels} matches no machine of this home"
    )


def _available(inputs: Inputs) -> Finding:
    """Available, with what is nevertheless worth saying."""
    notes = [_claimed(inputs.lost)] if inputs.lost else []
    unready = sum(not machine.ready for machine in inputs.machines)
    notes += [f"{unready} of {len(inputs.machines)} machines not Ready"] if unready else []
    withheld = len(inputs.selected) - len(inputs.machines)
    notes += [f"{withheld} machine(s) with nothing left to offer"] if withheld > 0 else []
    notes += [f"nothing of {name} is offered: share or limit too small" for name in _empty(inputs)]
    reason = "MachineClaimed" if inputs.lost else "Offering"
    return Finding(conditions.TRUE, reason, "; ".join([_summary(inputs), *notes]))


def _empty(inputs: Inputs) -> list[str]:
    """Resources that the spec lists and of which no machine offers anything."""
    return [
        name
        for name in sorted(inputs.spec.resources)
        if not any(quantities.parse_all(machine.allocatable).get(name) for machine in inputs.machines)
    ]


def _claimed(lost: Mapping[str, str]) -> str:
    names = [f"{node} (by {winner})" for node, winner in sorted(lost.items())]
    return f"claimed by an older contribution: {_some(names)}"


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(sorted(names)[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def uninstalled(contribution: Json, now: datetime) -> dict[str, Any]:
    """The last status of a Contribution whose home has no agent any more; an agent that comes back says more."""
    before: Json = contribution.get("status") or {}
    generation = contribution["metadata"].get("generation", 0)
    message = "HomeFed was uninstalled in this home: nothing is offered; install the chart again to go on"
    found = conditions.set_condition(
        before.get("conditions"), CONNECTED, conditions.FALSE, "Uninstalled", message, generation, now
    )
    allocated = dict.fromkeys(before.get("allocated") or {}, "0")
    found = conditions.summarise(found, SUMMARISED, generation, now)
    return {**before, "guests": 0, "allocated": allocated, "conditions": found}


def may_release(
    deletion_timestamp: str, drain_timeout_seconds: int, guests: int, offer_gone: bool, now: datetime
) -> bool:
    """Whether the finalizer may go: guests ended and the hub told, or the drain timeout over, with or without the hub.

    `now` is the home's clock, as is deletionTimestamp.
    """
    over = now - from_rfc3339(deletion_timestamp) >= timedelta(seconds=drain_timeout_seconds)
    return over or (guests == 0 and offer_gone)
