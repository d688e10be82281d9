"""GuestPod.status from the home's Pod: mirrored level-triggered, bounded, and of a home's state only what a guest is.

Invariants: a terminal phase is final; restartCount never falls; a start time once reported stands; no address, name or
condition of the home leaves it beyond Initialized, ContainersReady and Ready. Times are the hub's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from homefed.api.errors import Invalid
from homefed.api.guest_pod import TERMINAL, GuestPodSpec, GuestPodStatus
from homefed.core import conditions
from homefed.core.home_admission import ROOT_REMEDY, Refusal
from homefed.core.times import from_rfc3339, to_rfc3339

Json = Mapping[str, Any]
Status = dict[str, Any]

MAX_TEXT: Final = 1024
MAX_REASON: Final = 63
MAX_ENDS: Final = 16
MIRRORED: Final = ("Initialized", "ContainersReady", "Ready")
LOST_EXIT_CODE: Final = 137
"""As Kubernetes reports a container whose end nobody saw (ContainerStatusUnknown)."""
_STEADY: Final = timedelta(seconds=10)
"""The hub's clock is known to about a second: the same event must not be reported at two times."""
_PULL_FAILURES: Final = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")


@dataclass(frozen=True)
class View:
    """With which eyes a home pod is looked at."""

    guest: GuestPodSpec
    previous: Json | None
    """GuestPod.status as last written."""
    generation: int
    now: datetime
    """Hub time."""
    offset: timedelta
    """Hub's clock − home's clock."""
    image_pull_policy: str = "Always"
    draining: bool = False


def mirror(pod: Json, view: View) -> Status:
    """The status to report while the home pod exists (or as it was last seen, when it had ended)."""
    if is_terminal(view.previous):
        return dict(view.previous or {})
    status = pod.get("status") or {}
    containers = _containers(status, view)
    phase = _phase(pod, view)
    reason, message = _explain(pod, view, phase, containers)
    starts = [time for c in containers if (time := c.get("startedAt")) is not None]
    built: Status = {
        "phase": phase,
        "reason": reason[:MAX_REASON],
        "message": message[:MAX_TEXT],
        "containers": containers,
        "conditions": _conditions(status, view),
        "startedAt": (view.previous or {}).get("startedAt") or min(starts, default=None),
    }
    if phase in TERMINAL:
        ends = [time for c in containers if (time := c.get("finishedAt")) is not None]
        built["finishedAt"] = max(ends, default=to_rfc3339(view.now))
    return _complete(built, view)


def vanished(last: Json | None, view: View) -> Status:
    """The terminal status of a pod that is gone from the home; `last` is how it was last seen, None if never."""
    if is_terminal(view.previous):
        return dict(view.previous or {})
    if last is not None and (last.get("status") or {}).get("phase") in TERMINAL:
        return mirror(last, view)
    shown = mirror(last, view) if last is not None else dict(view.previous or {})
    reason, message = _why_gone(last, view)
    ended = [_ended(container, view.now) for container in shown.get("containers") or ()]
    unready = [{**c, "status": "False"} if c.get("type") in MIRRORED[1:] else c for c in shown.get("conditions") or ()]
    shown |= {
        "phase": "Failed",
        "reason": reason,
        "message": message,
        "containers": ended,
        "conditions": unready,
        "finishedAt": to_rfc3339(view.now),
    }
    return _complete(shown, view)


def never_started(view: View) -> Status:
    """Stopped before the home pod was made."""
    stop = view.guest.stop
    word = stop.reason if stop is not None else "Stopped"
    status = {"phase": "Failed", "reason": "Stopped", "message": f"stopped before it started ({word})"}
    return _complete(status | {"finishedAt": to_rfc3339(view.now)}, view)


def waiting(reason: str, message: str, view: View) -> Status:
    """Not created (yet): no phase, but a reason and a sentence."""
    return _complete({"reason": reason[:MAX_REASON], "message": message[:MAX_TEXT]}, view)


def refused(refusal: Refusal, view: View) -> Status:
    return waiting(refusal.reason, refusal.message, view)


def given_up(refusal: Refusal, view: View) -> Status:
    """Never made, and never to be: the guest's controller may place it elsewhere."""
    status = {"phase": "Failed", "reason": refusal.reason, "message": refusal.message[:MAX_TEXT]}
    return _complete(status | {"finishedAt": to_rfc3339(view.now)}, view)


def is_terminal(status: Json | None) -> bool:
    return (status or {}).get("phase") in TERMINAL


def changed(before: Json | None, after: Json) -> bool:
    """Whether there is anything to write. A new generation alone is not: the hub notes its own observations there."""
    return _comparable(before or {}) != _comparable(after)


def _comparable(status: Json) -> Status:
    return GuestPodStatus.model_validate({**status, "observedGeneration": 0}).dump()


def _complete(status: Status, view: View) -> Status:
    """Bounded by the schema, whatever the home's kubelet said."""
    status |= {"observedGeneration": view.generation, "podDigest": view.guest.pod_digest}
    return GuestPodStatus.model_validate(status).dump()


def _phase(pod: Json, view: View) -> str:
    phase = (pod.get("status") or {}).get("phase")
    if phase == "Succeeded" and _cut_short(pod, view):
        return "Failed"
    if phase in ("Pending", "Running", *TERMINAL):
        return str(phase)
    return (view.previous or {}).get("phase") or "Pending"


def _cut_short(pod: Json, view: View) -> bool:
    """Stopped by the home before it was done: exit code 0 on a signal is not success, and a Job must run it again.

    deletionTimestamp lies the grace period after the request, so that what ended earlier had ended by itself. Times
    are whole seconds: what ended in the second of the request is taken as stopped, as work done twice beats work lost.
    """
    metadata = pod["metadata"]
    if view.guest.stop is not None or not metadata.get("deletionTimestamp"):
        return False
    asked = from_rfc3339(metadata["deletionTimestamp"]) - timedelta(
        seconds=metadata.get("deletionGracePeriodSeconds") or 0
    )
    ends = [
        from_rfc3339(end)
        for container in _raw_containers(pod.get("status") or {})
        if (end := ((container.get("state") or {}).get("terminated") or {}).get("finishedAt"))
    ]
    return not ends or max(ends) >= asked


def _why_gone(last: Json | None, view: View) -> tuple[str, str]:
    if view.guest.stop is not None:
        return "Stopped", f"stopped as the hub asked ({view.guest.stop.reason})"
    if view.draining:
        return "Drained", "the contributor took his machine back"
    if last is not None and (target := _disruption(last)) is not None:
        return target
    if last is not None and last["metadata"].get("deletionTimestamp"):
        return "StoppedAtHome", "the pod was deleted in the home"
    return "PodLost", "the pod is gone from the home, and nobody saw how it ended"


def _disruption(pod: Json) -> tuple[str, str] | None:
    found = conditions.get((pod.get("status") or {}).get("conditions"), "DisruptionTarget")
    if found is None or found.get("status") != "True":
        return None
    if found.get("reason") == "PreemptionByScheduler":
        return "Preempted", "the owner of the home needed the room for his own pods"
    return "Disrupted", "the home ended the pod: " + str(found.get("message") or found.get("reason"))[:900]


def _explain(pod: Json, view: View, phase: str, containers: Iterable[Json]) -> tuple[str, str]:
    """The pod's reason and sentence: the scheduler's or the kubelet's own, with the remedy where one is known."""
    status = pod.get("status") or {}
    if phase == "Failed" and _cut_short(pod, view):
        return _why_gone(pod, view)
    if status.get("reason"):
        return str(status["reason"]), str(status.get("message") or "")
    if phase == "Failed" and (target := _disruption(pod)) is not None:
        return target
    if phase != "Pending":
        return "", ""
    scheduled = conditions.get(status.get("conditions"), "PodScheduled")
    if scheduled is not None and scheduled.get("status") == "False":
        return str(scheduled.get("reason") or "Unschedulable"), str(scheduled.get("message") or "")
    for container in containers:
        if container["state"] == "waiting" and container["reason"] not in ("", "ContainerCreating", "PodInitializing"):
            return container["reason"], f"container {container['name']}: {container['message']}"
    return "", ""


def _hint(reason: str, message: str, view: View) -> tuple[str, str]:
    """What a person must change, in the place of what the kubelet says to the owner of the machine."""
    if "image will run as root" in message:
        return "RunsAsRoot", ROOT_REMEDY
    if "non-numeric user" in message:
        return "UserNotNumeric", f"the home cannot tell whether the image's named user is root: {ROOT_REMEDY}"
    if reason in _PULL_FAILURES:
        policy = f"(this home pulls with policy {view.image_pull_policy}: chart value home.guests.imagePullPolicy)"
        return reason, f"{message[: MAX_TEXT - len(policy) - 1]} {policy}"
    return reason, message


def _raw_containers(status: Json) -> list[Json]:
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _containers(status: Json, view: View) -> list[Status]:
    """As many as the guest's spec names, and under its names only; those without a state yet are left out."""
    spec = view.guest.pod.get("spec") or {}
    before = {c.get("name"): c for c in (view.previous or {}).get("containers") or ()}
    found: list[Status] = []
    for kind, init in (("initContainers", True), ("containers", False)):
        raw = {c.get("name"): c for c in status.get(f"{'initC' if init else 'c'}ontainerStatuses") or ()}
        for container in spec.get(kind) or ():
            name = container.get("name")
            if name in raw:
                found.append(_container(raw[name], init, before.get(name) or {}, view))
    return found


def _container(raw: Json, init: bool, before: Json, view: View) -> Status:
    state = raw.get("state") or {}
    word = next((word for word in ("running", "terminated") if state.get(word) is not None), "waiting")
    now, last = state.get(word) or {}, (raw.get("lastState") or {}).get("terminated") or {}
    reason, message = str(now.get("reason") or ""), str(now.get("message") or "")
    if word == "waiting":
        reason, message = _hint(reason, message, view)
    restarts = max(raw.get("restartCount") or 0, before.get("restartCount") or 0)
    steady = before if restarts == (before.get("restartCount") or 0) else {}
    last_finished = _hub_time(last.get("finishedAt"), steady.get("lastFinishedAt"), view.offset)
    mirrored = {
        "name": raw["name"],
        "init": init,
        "ready": raw.get("ready") is True,
        "started": raw.get("started") is True,
        "restartCount": min(restarts, 1_000_000),
        "state": word,
        "reason": reason[:MAX_REASON],
        "message": message[:MAX_TEXT],
        "exitCode": now.get("exitCode"),
        "startedAt": _hub_time(now.get("startedAt"), steady.get("startedAt"), view.offset),
        "finishedAt": _hub_time(now.get("finishedAt"), steady.get("finishedAt"), view.offset),
        "lastExitCode": last.get("exitCode"),
        "lastReason": str(last.get("reason") or "")[:MAX_REASON],
        "lastFinishedAt": last_finished,
        "earlierEnds": _earlier_ends(before, last_finished),
    }
    return {key: value for key, value in mirrored.items() if value is not None}


def _earlier_ends(before: Json, newest: str | None) -> list[str] | None:
    """With that of the instance which ended last; the oldest of too many are forgotten."""
    known = list(before.get("earlierEnds") or ())
    if newest is not None and (not known or from_rfc3339(newest) > from_rfc3339(known[-1])):
        known.append(newest)
    return known[-MAX_ENDS:] or None


def _hub_time(text: str | None, reported: str | None, offset: timedelta) -> str | None:
    """A time of the home on the hub's clock; what was reported already, where the clocks' error explains the rest."""
    if text is None:
        return None
    try:
        converted = from_rfc3339(text) + offset
    except (Invalid, OverflowError):
        return reported
    if reported is not None and abs(converted - from_rfc3339(reported)) <= _STEADY:
        return reported
    return to_rfc3339(converted)


def _ended(container: Json, now: datetime) -> Status:
    if container.get("state") == "terminated":
        return dict(container)
    kept = {
        key: container[key] for key in ("name", "init", "restartCount", "startedAt", "earlierEnds") if key in container
    }
    return kept | {
        "state": "terminated",
        "reason": "ContainerStatusUnknown",
        "message": "the end of the container was not seen",
        "exitCode": LOST_EXIT_CODE,
        "finishedAt": to_rfc3339(now),
    }


def _conditions(status: Json, view: View) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [dict(c) for c in (view.previous or {}).get("conditions") or ()]
    for condition in status.get("conditions") or ():
        if condition.get("type") in MIRRORED and condition.get("status") in ("True", "False", "Unknown"):
            reason = str(condition.get("reason") or "Observed")[:MAX_REASON]
            message = str(condition.get("message") or "")
            found = conditions.set_condition(
                found, condition["type"], condition["status"], reason, message, 0, view.now
            )
    return found
