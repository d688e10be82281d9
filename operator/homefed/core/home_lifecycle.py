"""What to do about one guest at home: from the hub's GuestPod and the home's Pod to the next actions.

Invariants:
- A home pod is created at most once per UID: never when the status has a phase, nor where a pod was ever seen.
- Nothing is stopped without a word from the hub or the owner; absence speaks only after ABSENCE of direct answers
  "not found", from a hub that has worked since, and never for many guests at once.
- A terminal status is written once and stands. What a guest held is given back only after it is written.

Every action may be the last one before the process is killed: deciding again from what is then there goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from homefed.api.guest_pod import TERMINAL, GuestPodSpec
from homefed.core import home_pod, home_status
from homefed.core.home_admission import Host, Refusal, refuse
from homefed.core.home_pod import Isolation
from homefed.core.times import from_rfc3339

Json = Mapping[str, Any]

ABSENCE: Final = timedelta(minutes=10)
FEW: Final = 2
"""So many guests may be stopped for absence at once without further doubt."""
LOOK_AGAIN_SECONDS: Final = 30.0
CROWDED: Final = "QuotaExceeded"
CROWDED_AGAIN_SECONDS: Final = 2.0
"""A quota counts what has ended, or a raised bound, only moments later."""
GIVE_UP: Final = timedelta(seconds=60)
"""After its binding, a guest that the owner does not want (paused, drained, machine gone) fails."""


@dataclass(frozen=True)
class PutStatus:
    """Write GuestPod.status."""

    status: dict[str, Any]


@dataclass(frozen=True)
class CopyObjects:
    """Bring the guest's ConfigMaps and Secrets from the mailbox to the home, where they differ."""


@dataclass(frozen=True)
class DropObjects:
    """Delete the home's copies of the guest's ConfigMaps and Secrets."""


@dataclass(frozen=True)
class CreatePod:
    manifest: dict[str, Any]


@dataclass(frozen=True)
class DeletePod:
    """Stop the home pod of exactly this UID; `grace_seconds` None: the pod's own."""

    uid: str
    grace_seconds: int | None
    why: str


@dataclass(frozen=True)
class LookAgain:
    seconds: float


Action = PutStatus | CopyObjects | DropObjects | CreatePod | DeletePod | LookAgain


@dataclass(frozen=True)
class Absence:
    """A home pod whose GuestPod the hub no longer has."""

    since: datetime
    """Hub time of the first direct "not found"; every later answer said the same."""
    hub_pass: datetime | None
    """Start of the hub's last full pass (Lease homefed-hub)."""
    braked: bool = False
    """Too many at once: a hub that has lost its memory, rather than guests that have ended."""


@dataclass(frozen=True)
class Inputs:
    """All that is known of one guest. The shell has looked where a cache could lie."""

    name: str
    """The GuestPod's name: the UID of the hub's pod."""
    guest: GuestPodSpec | None
    """None: the mailbox has none (see `absence`), or it is not known (then `absence` is None too)."""
    status: Json | None
    generation: int
    pod: Json | None
    """The home pod as it is now; None: it is not there, by a direct answer where the status has a phase."""
    last: Json | None
    """The home pod as it was last seen, when it is gone."""
    host: Host
    isolation: Isolation = field(default_factory=Isolation)
    missing_copy: str | None = None
    """A ConfigMap or Secret, not optional, whose copy is not in the mailbox yet."""
    offset: timedelta = timedelta()
    absence: Absence | None = None
    hub_silent_seconds: float = 0.0

    @property
    def draining(self) -> bool:
        contribution = self.host.contribution
        return self.host.deleting or (contribution is not None and contribution.state == "Draining")


def may_conclude_absence(absence: Absence, now: datetime) -> bool:
    """Whether absence is a word to stop (`now`: hub time)."""
    worked_since = absence.hub_pass is not None and absence.hub_pass > absence.since
    return worked_since and not absence.braked and now - absence.since >= ABSENCE


def brake(absent: int, living: int) -> bool:
    """Whether so many absent guests, of so many that live here, are a sign of the hub's loss and not of theirs."""
    return absent > max(FEW, living // 2)


def decide(inputs: Inputs, now: datetime) -> list[Action]:
    """The next actions, in order; `now` is hub time. An action that fails ends the round."""
    if inputs.guest is None:
        return _without_guest(inputs, now)
    view = _view(inputs, inputs.guest, now)
    if home_status.is_terminal(inputs.status):
        return _ended(inputs, inputs.guest)
    if inputs.pod is not None and not home_pod.is_ours(inputs.pod, inputs.guest):
        message = f"a pod that is not this guest's has the name {inputs.pod['metadata']['name']} in the home"
        return _put(home_status.waiting("NameTaken", message, view), inputs) if not _was_created(inputs) else []
    if inputs.pod is not None:
        return _with_pod(inputs, inputs.guest, inputs.pod, view)
    if _was_created(inputs) or inputs.last is not None:
        return [*_put(home_status.vanished(inputs.last, view), inputs), DropObjects()]
    if inputs.guest.stop is not None:
        return [*_put(home_status.never_started(view), inputs), DropObjects()]
    return _create(inputs, inputs.guest, view)


def _view(inputs: Inputs, guest: GuestPodSpec, now: datetime) -> home_status.View:
    return home_status.View(
        guest=guest,
        previous=inputs.status,
        generation=inputs.generation,
        now=now,
        offset=inputs.offset,
        image_pull_policy=inputs.isolation.image_pull_policy,
        draining=inputs.draining,
    )


def _was_created(inputs: Inputs) -> bool:
    return bool((inputs.status or {}).get("phase"))


def _put(status: dict[str, Any], inputs: Inputs) -> list[Action]:
    return [PutStatus(status)] if home_status.changed(inputs.status, status) else []


def _create(inputs: Inputs, guest: GuestPodSpec, view: home_status.View) -> list[Action]:
    refusal = refuse(inputs.name, guest, inputs.host)
    if refusal is not None:
        return _refused(refusal, inputs, guest, view)
    if inputs.missing_copy is not None:
        message = f"{inputs.missing_copy} has not arrived from the hub yet"
        return [*_put(home_status.waiting("WaitingForCopies", message, view), inputs), LookAgain(LOOK_AGAIN_SECONDS)]
    return [CopyObjects(), CreatePod(home_pod.build(guest, inputs.host.machine or "", inputs.isolation))]


def _refused(refusal: Refusal, inputs: Inputs, guest: GuestPodSpec, view: home_status.View) -> list[Action]:
    """What is wrong with the pod stays so and is told. What the owner does not want now another home may take: after a
    while the guest fails, so that its controller places it anew."""
    if refusal.final:
        return _put(home_status.refused(refusal, view), inputs)
    left = from_rfc3339(guest.observed.bound_at) + GIVE_UP - view.now
    if left <= timedelta():
        return [*_put(home_status.given_up(refusal, view), inputs), DropObjects()]
    seconds = min(LOOK_AGAIN_SECONDS, left.total_seconds())
    return [*_put(home_status.refused(refusal, view), inputs), LookAgain(seconds)]


def crowded_out(inputs: Inputs, now: datetime) -> list[Action]:
    """The home's quota had no room for the pod: soon again, then another home may take it; never at the first try."""
    if inputs.guest is None:
        return []
    message = "the guests of this home request all that it offers; there is room again when one ends"
    refusal, view = Refusal(CROWDED, message, final=False), _view(inputs, inputs.guest, now)
    if (inputs.status or {}).get("reason") != CROWDED:
        return [*_put(home_status.refused(refusal, view), inputs), LookAgain(CROWDED_AGAIN_SECONDS)]
    actions = _refused(refusal, inputs, inputs.guest, view)
    return [LookAgain(CROWDED_AGAIN_SECONDS) if isinstance(action, LookAgain) else action for action in actions]


def _with_pod(inputs: Inputs, guest: GuestPodSpec, pod: Json, view: home_status.View) -> list[Action]:
    status = home_status.mirror(pod, view)
    actions = _put(status, inputs)
    if home_status.is_terminal(status):
        return [*actions, DropObjects()]
    stop = _stop(inputs, guest, pod)
    return [*actions, stop] if stop is not None else [*actions, CopyObjects()]


def _stop(inputs: Inputs, guest: GuestPodSpec, pod: Json) -> DeletePod | None:
    """Who wants it stopped: the hub, the owner, or the bargain that a fenced workload made."""
    uid, own = pod["metadata"]["uid"], guest.pod["spec"].get("terminationGracePeriodSeconds", 30)
    deleting = bool(pod["metadata"].get("deletionTimestamp"))
    if guest.stop is not None:
        asked = guest.stop.grace_period_seconds
        left = pod["metadata"].get("deletionGracePeriodSeconds")
        hurry = not deleting or (left is not None and asked < left)
        return DeletePod(uid, asked, guest.stop.reason) if hurry else None
    if deleting:
        return None
    if inputs.draining:
        contribution = inputs.host.contribution
        timeout = contribution.drain_timeout_seconds if contribution is not None else own
        return DeletePod(uid, min(own, timeout), "Drained")
    deadline = guest.disconnect_deadline_seconds
    if deadline is not None and inputs.hub_silent_seconds >= deadline:
        return DeletePod(uid, None, "Fenced")
    return None


def _ended(inputs: Inputs, guest: GuestPodSpec) -> list[Action]:
    """The status stands. The pod of a guest that the hub has let go is no longer needed for its logs."""
    actions: list[Action] = [DropObjects()]
    pod = inputs.pod
    if pod is None or not home_pod.is_ours(pod, guest) or pod["metadata"].get("deletionTimestamp"):
        return actions
    finished = (pod.get("status") or {}).get("phase") in TERMINAL
    if guest.stop is not None or not finished:
        actions.append(DeletePod(pod["metadata"]["uid"], None, "Ended"))
    return actions


def _without_guest(inputs: Inputs, now: datetime) -> list[Action]:
    """A pod of ours without GuestPod. Its copies go with it, when it is gone or the hub has certainly let it go."""
    if inputs.absence is None:
        return []
    if inputs.pod is None:
        return [DropObjects()]
    if not may_conclude_absence(inputs.absence, now):
        return [LookAgain(LOOK_AGAIN_SECONDS)]
    if inputs.pod["metadata"].get("deletionTimestamp"):
        return []
    return [DeletePod(inputs.pod["metadata"]["uid"], None, "Absent")]
