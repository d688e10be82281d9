"""From a bound Pod to a settled GuestPod: what is to be done next for one pod UID.

    Pod bound ──▶ refused ──▶ (back-off) Failed                  Pod deleted before: finished at once
         └─────▶ GuestPod created ──▶ status mirrored ──▶ terminal ──▶ settled and old: released
                        └── Pod Terminating, over or gone: spec.stop ──▶ the home reports a terminal phase ──┘

Invariants, whatever step was interrupted: a GuestPod is created at most once per UID, and never for a Pod that is over
or being deleted; a stop is never taken back; a Pod is finished (deleted with grace 0) only when no home runs it any
more, or none ever did; copies exist only while the home may need them; a GuestPod that may have cost something is
released only after settlement. Every action compares first: at rest there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from homefed.api import names
from homefed.api.errors import Invalid
from homefed.api.guest_pod import TERMINAL, GuestPodStatus, Observed, Stop
from homefed.api.meta import parse
from homefed.core import conditions, copy_objects, guest_status, pod_translation, refusals
from homefed.core.copy_objects import Source
from homefed.core.observation import Blind, observe
from homefed.core.placement import Accept, Fail, Pending, Site, Verdict, container_requests
from homefed.core.times import from_rfc3339

Json = dict[str, Any]
ANNOTATION_SETTLED: Final = names.ANNOTATION_SETTLED
RETENTION: Final = timedelta(hours=24)
PATIENCE: Final = timedelta(seconds=60)
LOOK_AGAIN_SECONDS: Final = 10.0
POD_CHANGED: Final = "PodChanged"


@dataclass(frozen=True)
class Inputs:
    """All that is known about one pod UID."""

    uid: str
    pod: Json | None
    """The Pod with this UID, bound to a virtual node. None: the hub certainly does not have it (any more)."""
    guest: Json | None
    verdict: Verdict | None = None
    """Of placement, where there is no GuestPod yet."""
    site: Site | None = None
    namespace_uid: str = ""
    node: Json | None = None
    sources: tuple[Source, ...] = ()
    """The objects that the pod names; empty where they were not needed."""
    copied: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Copies that lie in the mailbox for this UID: (kind, copy name) → content digest."""
    rounds: refusals.Rounds | None = None
    refused_since: datetime | None = None
    blind: Blind | None = None
    retention: timedelta = RETENTION
    patience: timedelta = PATIENCE
    """The pool's pendingTimeoutSeconds: how long a home may look for room."""


@dataclass(frozen=True)
class TellPod:
    """Patch the Pod's status; with an event where the reason is new."""

    patch: Json
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class FailPod(TellPod):
    """Like TellPod, and count a round of the controller's back-off."""


@dataclass(frozen=True)
class RecordEvent:
    reason: str
    message: str


@dataclass(frozen=True)
class FinishPod:
    """Delete the Pod with grace 0 and a UID precondition."""


@dataclass(frozen=True)
class WriteCopy:
    obj: Json


@dataclass(frozen=True)
class DropCopies:
    """Delete the copies of this UID in the mailbox."""


@dataclass(frozen=True)
class CreateGuest:
    obj: Json


@dataclass(frozen=True)
class PatchGuest:
    """Merge patch of the GuestPod's spec."""

    spec: Json


@dataclass(frozen=True)
class ReleaseGuest:
    """Delete the GuestPod and take our finalizer off."""


@dataclass(frozen=True)
class RefusedSince:
    """Remember since when this pod is refused; None: it is not (any more)."""

    since: datetime | None


@dataclass(frozen=True)
class LookAgain:
    seconds: float


Action = (
    TellPod | RecordEvent | FinishPod | WriteCopy | DropCopies | CreateGuest | PatchGuest | ReleaseGuest | RefusedSince
    | LookAgain
)  # fmt: skip


def decide(inputs: Inputs, now: datetime) -> list[Action]:
    """The next actions, in order; empty at rest."""
    if inputs.guest is None:
        return _without_guest(inputs, now)
    return _with_guest(inputs, inputs.guest, now)


def is_terminating(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def status_of(guest: Mapping[str, Any]) -> GuestPodStatus | None:
    """What the home reports; None where nothing, or nothing that can be read."""
    try:
        return parse(GuestPodStatus, guest["status"], where="status") if guest.get("status") else None
    except Invalid:
        return None


def observed_of(guest: Mapping[str, Any]) -> Observed:
    return parse(Observed, guest["spec"]["observed"], where="spec.observed")


def is_observed(guest: Mapping[str, Any], blind: Blind | None, now: datetime) -> bool:
    """Whether the hub's own meter has taken in what the home reports and what the hub missed: only then is it settled.

    After an outage the home may have told of ends long ago, and time in which the hub was blind is not reserved time.
    """
    observed = observed_of(guest)
    return observe(observed, status_of(guest), None, blind, now, gone=False) == observed


def has_ended(guest: Mapping[str, Any]) -> bool:
    """The home has reported a terminal phase: nothing runs, nothing is reserved."""
    return (guest.get("status") or {}).get("phase") in TERMINAL


def _without_guest(inputs: Inputs, now: datetime) -> list[Action]:
    pod, forget = inputs.pod, _forget_refusal(inputs)
    if pod is None or is_terminating(pod) or guest_status.is_over(pod):
        finish = [FinishPod()] if pod is not None and is_terminating(pod) and not _is_finished(pod) else []
        return [*forget, *_drop_copies(inputs), *finish]
    match inputs.verdict:
        case Accept() as accepted:
            return _admit(inputs, pod, accepted, now)
        case Fail(reason, message):
            return _fail_after_backoff(inputs, pod, reason, message, now)
        case Pending(reason, message):
            return [*forget, *_tell(pod, reason, message)]
    return forget


def _admit(inputs: Inputs, pod: Json, accepted: Accept, now: datetime) -> list[Action]:
    """Copies first, then the GuestPod: the home finds everything when it looks."""
    assert inputs.site is not None, "accepted without a site"  # noqa: S101 - placement refuses such pods
    problems = [
        found
        for source in inputs.sources
        if (found := copy_objects.problem(source, pull_secrets=copy_objects.copies_pull_secrets(pod)))
    ]
    if problems:
        message = "; ".join(text for _, text in problems)
        return [*_forget_refusal(inputs), *_tell(pod, problems[0][0], message), LookAgain(LOOK_AGAIN_SECONDS)]
    try:
        obj, _ = pod_translation.guest_pod(pod, inputs.namespace_uid, inputs.site, accepted.requests, now)
    except Invalid as error:
        return [*_forget_refusal(inputs), *_tell(pod, error.reason, error.message)]
    warnings = [RecordEvent(warning.reason, warning.message) for warning in accepted.warnings[:1]]
    return [*_forget_refusal(inputs), *_write_copies(inputs, obj["metadata"]["namespace"]), CreateGuest(obj), *warnings]


def _fail_after_backoff(
    inputs: Inputs, pod: Json, reason: str, message: str, now: datetime, *, at_least: timedelta = timedelta(0)
) -> list[Action]:
    """Pending with the reason until the controller's delay, and `at_least` so long, is over; then Failed."""
    since = inputs.refused_since or now
    remember: list[Action] = [] if inputs.refused_since else [RefusedSince(now)]
    wait = (since + max(at_least, refusals.delay(inputs.rounds, now)) - now).total_seconds()
    if wait > 0:
        return [*remember, *_tell(pod, reason, message), LookAgain(wait)]
    patch = guest_status.failed(pod, reason, message)
    return [FailPod(patch, reason, message), RefusedSince(None)] if patch else []


def _with_guest(inputs: Inputs, guest: Json, now: datetime) -> list[Action]:
    pod, status = inputs.pod, status_of(guest)
    before = observed_of(guest)
    unplaced: list[Action] = []
    gone = pod is None or guest_status.is_over(pod)
    if pod is not None and not gone and status is not None and not is_terminating(pod):
        unplaced = _unplaced(inputs, pod, status, now)
        gone = any(isinstance(action, FailPod) for action in unplaced)
    observed = observe(before, status, inputs.node, inputs.blind, now, gone=gone)
    actions = [*unplaced, *_spec_changes(guest, before, observed, _wanted_stop(pod, guest, gone=gone))]
    if pod is not None and not gone:
        held = any(isinstance(action, LookAgain) for action in unplaced)
        actions += [] if held else _mirror(inputs, pod, status, observed, now)
        actions += _changed(pod, guest, now)
    if pod is not None and is_terminating(pod) and has_ended(guest) and not _is_finished(pod):
        actions.append(FinishPod())
    if has_ended(guest):
        return [*actions, *_drop_copies(inputs), *_release(inputs, guest, observed, now)]
    return [*actions, *_renew_copies(inputs, guest)]


def _unplaced(inputs: Inputs, pod: Json, status: GuestPodStatus, now: datetime) -> list[Action]:
    """A guest that its home cannot place, or refused, fails like one that was refused here: after the back-off."""
    never_ran = status.phase == "Failed" and status.started_at is None
    no_room = status.phase in (None, "Pending") and status.reason == refusals.UNSCHEDULABLE
    if never_ran or no_room:
        reason = (status.reason or "Failed")[: guest_status.MAX_REASON]
        patience = inputs.patience if no_room else timedelta(0)
        return _fail_after_backoff(inputs, pod, reason, status.message, now, at_least=patience)
    return _forget_refusal(inputs)


def _wanted_stop(pod: Json | None, guest: Json, *, gone: bool) -> Stop | None:
    """The stop that the guest should have; None where it may run on, or has ended."""
    if has_ended(guest):
        return None
    grace = guest["spec"]["pod"].get("spec", {}).get("terminationGracePeriodSeconds", 30)
    if pod is None:
        return Stop(grace_period_seconds=grace, reason="PodGone")
    if is_terminating(pod):
        return Stop(grace_period_seconds=_deletion_grace(pod), reason="Deleted")
    if gone:
        return Stop(grace_period_seconds=grace, reason="PodEnded")
    if "deletionTimestamp" in guest["metadata"]:
        return Stop(grace_period_seconds=grace, reason="GuestPodDeleted")
    return None


def _deletion_grace(pod: Json) -> int:
    seconds = pod["metadata"].get("deletionGracePeriodSeconds")
    return max(0, min(86_400, pod_translation.grace_seconds(pod) if seconds is None else int(seconds)))


def _spec_changes(guest: Json, before: Observed, observed: Observed, stop: Stop | None) -> list[Action]:
    """One patch for what differs. A stop is only ever added, or its grace shortened."""
    changes: Json = {}
    if observed != before:
        changes["observed"] = observed.dump()
    has = guest["spec"].get("stop")
    if stop is not None and (has is None or stop.grace_period_seconds < has["gracePeriodSeconds"]):
        changes["stop"] = stop.dump()
    return [PatchGuest(changes)] if changes else []


def _mirror(
    inputs: Inputs, pod: Json, status: GuestPodStatus | None, observed: Observed, now: datetime
) -> list[Action]:
    """What the home reports; before it has created its pod, only why it has not."""
    if status is None or status.phase is None:
        patch = guest_status.pending(pod, status.reason if status else "", status.message if status else "")
    else:
        ready = conditions.get(((inputs.node or {}).get("status") or {}).get("conditions"), conditions.READY)
        node_ready = ready is not None and ready.get("status") == conditions.TRUE
        patch = guest_status.mirrored(pod, status, from_rfc3339(observed.bound_at), now, node_ready=node_ready)
    return [TellPod(patch)] if patch else []


def _changed(pod: Json, guest: Json, now: datetime) -> list[Action]:
    """What was changed at the bound Pod has no effect: the guest is immutable. It is said."""
    runs = {container["name"]: container for container in _all_containers(guest["spec"]["pod"].get("spec") or {})}
    images, sizes = [], []
    for container in _all_containers(pod["spec"]):
        running = runs.get(container["name"], {})
        if running.get("image") != container.get("image"):
            images.append(container["name"])
        if container_requests(running) != container_requests(container):
            sizes.append(container["name"])
    actions: list[Action] = []
    if images:
        text = f"image of {', '.join(images)}: a guest runs the image it was created with; delete the pod to change it"
        actions.append(RecordEvent(POD_CHANGED, text))
    if sizes:
        message = f"resources of {', '.join(sizes)}: guests are not resized; delete the pod to change them"
        patch = guest_status.resize_infeasible(pod, message, now)
        actions += [TellPod(patch, POD_CHANGED, message)] if patch else []
    return actions


def _all_containers(spec: Mapping[str, Any]) -> list[Json]:
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def _renew_copies(inputs: Inputs, guest: Json) -> list[Action]:
    """Copies follow their sources while the guest runs; one whose source vanished stays as it was."""
    if inputs.pod is None:
        return []
    allowed = copy_objects.copies_pull_secrets(inputs.pod)
    good = tuple(s for s in inputs.sources if copy_objects.problem(s, pull_secrets=allowed) is None)
    return _writes(good, inputs, guest["metadata"]["namespace"])


def _write_copies(inputs: Inputs, mailbox: str) -> list[Action]:
    return _writes(inputs.sources, inputs, mailbox)


def _writes(sources: tuple[Source, ...], inputs: Inputs, mailbox: str) -> list[Action]:
    actions: list[Action] = []
    for source in sources:
        wanted = copy_objects.copy_object(source, mailbox, inputs.uid)
        if wanted is None:
            continue
        has = inputs.copied.get((source.copy.kind, source.copy.copy_name))
        if has != copy_objects.content_digest(wanted):
            actions.append(WriteCopy(wanted))
    return actions


def _drop_copies(inputs: Inputs) -> list[Action]:
    return [DropCopies()] if inputs.copied else []


def _release(inputs: Inputs, guest: Json, observed: Observed, now: datetime) -> list[Action]:
    """A guest that never ran owes nothing; any other is kept until it is settled. Then 24 h, unless it is deleted."""
    if observed.ended_at is None:
        return []
    ended = from_rfc3339(observed.ended_at)
    if observed.running_from is not None:
        settled = (guest["metadata"].get("annotations") or {}).get(ANNOTATION_SETTLED)
        if settled is None or from_rfc3339(settled) < ended:
            return []
        ended = max(ended, from_rfc3339(settled))
    if "deletionTimestamp" in guest["metadata"] or now >= ended + inputs.retention:
        return [ReleaseGuest()]
    return []


def _tell(pod: Json, reason: str, message: str) -> list[Action]:
    patch = guest_status.pending(pod, reason, message)
    return [TellPod(patch, reason, message)] if patch else []


def _forget_refusal(inputs: Inputs) -> list[Action]:
    return [RefusedSince(None)] if inputs.refused_since is not None else []


def _is_finished(pod: Json) -> bool:
    """Deleted with grace 0 already: only finalizers of others keep it."""
    return pod["metadata"].get("deletionGracePeriodSeconds") in (0,)
