"""What of a guest's status, as its home reports it, becomes the status of the hub's Pod.

A home may report anything. So addresses, resources and foreign conditions are never taken over (a reported podIP would
get into a Service's endpoints), containers are those of the Pod's own spec, times lie between binding and now, counts
never fall, and a terminal phase is final.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from homefed.api.errors import Invalid
from homefed.api.guest_pod import TERMINAL, ContainerState, GuestPodStatus
from homefed.core import conditions
from homefed.core.times import from_rfc3339, to_rfc3339

Json = dict[str, Any]
MIRRORED: Final = ("Initialized", "ContainersReady", "Ready")
MAX_TEXT: Final = 1024
MAX_REASON: Final = 63
_ORDER: Final = {"Pending": 0, "Running": 1, "Succeeded": 2, "Failed": 2}


def is_over(pod: Mapping[str, Any]) -> bool:
    """Succeeded or Failed: final, nothing of it is written any more."""
    return (pod.get("status") or {}).get("phase") in TERMINAL


def mirrored(
    pod: Mapping[str, Any], status: GuestPodStatus, bound_at: datetime, now: datetime, *, node_ready: bool = True
) -> Json | None:
    """Strategic merge patch of the Pod's status; None where nothing differs or the Pod is over.

    `bound_at`: earliest time that is believed. While the node is not Ready the condition Ready is left to the node
    lifecycle controller, which has set it to False.
    """
    if is_over(pod) or status.phase is None:
        return None
    before = pod.get("status") or {}
    phase = max(before.get("phase") or "Pending", status.phase, key=_ORDER.__getitem__)
    wanted: Json = {"phase": phase} | _said(before, status.reason[:MAX_REASON], status.message[:MAX_TEXT])
    if not before.get("startTime"):
        wanted["startTime"] = to_rfc3339(bound_at)
    types = MIRRORED if node_ready else tuple(kind for kind in MIRRORED if kind != conditions.READY)
    if found := _conditions(before, status, types, phase, now):
        wanted["conditions"] = found
    clock = _Clamp(bound_at, now)
    for listed, spec_key, init in (
        ("initContainerStatuses", "initContainers", True),
        ("containerStatuses", "containers", False),
    ):
        if pod["spec"].get(spec_key):
            wanted[listed] = _containers(pod, before.get(listed), spec_key, status, init, phase, clock)
    return _patch(pod, before, wanted)


def pending(pod: Mapping[str, Any], reason: str, message: str) -> Json | None:
    """Patch that shows why a pod is not run; None where it says so already."""
    before = pod.get("status") or {}
    return None if is_over(pod) else _patch(pod, before, _said(before, reason, message[:MAX_TEXT]))


def failed(pod: Mapping[str, Any], reason: str, message: str) -> Json | None:
    """Patch that ends a pod which no home ran."""
    if is_over(pod):
        return None
    wanted = {"phase": "Failed", "reason": reason[:MAX_REASON], "message": message[:MAX_TEXT]}
    return _patch(pod, pod.get("status") or {}, wanted)


def resize_infeasible(pod: Mapping[str, Any], message: str, now: datetime) -> Json | None:
    """Patch with condition PodResizePending: Infeasible, as a kubelet sets it; None where it is set already."""
    before = pod.get("status") or {}
    if is_over(pod) or conditions.is_true(before.get("conditions"), "PodResizePending"):
        return None
    condition = {
        "type": "PodResizePending",
        "status": "True",
        "reason": "Infeasible",
        "message": message,
        "lastTransitionTime": to_rfc3339(now),
    }
    return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"conditions": [condition]}}


def _said(before: Mapping[str, Any], reason: str, message: str) -> Json:
    """reason and message, null where they have to go."""
    wanted = {"reason": reason, "message": message}
    return {key: text or None for key, text in wanted.items() if text or before.get(key)}


def _patch(pod: Mapping[str, Any], before: Mapping[str, Any], wanted: Json) -> Json | None:
    changed = {key: value for key, value in wanted.items() if not _covers(before.get(key), value)}
    if not changed:
        return None
    return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": changed}


def _covers(current: Any, wanted: Any) -> bool:
    """Whether `current` says all that `wanted` says; what the server adds does not count."""
    if isinstance(wanted, Mapping):
        return isinstance(current, Mapping) and all(_covers(current.get(key), inner) for key, inner in wanted.items())
    if isinstance(wanted, list):
        if wanted and "type" in wanted[0]:
            by_type = {one.get("type"): one for one in current or ()}
            return all(_covers(by_type.get(one["type"]), one) for one in wanted)
        same = isinstance(current, list) and len(current) == len(wanted)
        return same and all(
            _covers(left, right) and _states_equal(left, right) for left, right in zip(current, wanted, strict=True)
        )
    return bool(current == wanted)


def _states_equal(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """A container in another state is another, though {} is covered by everything."""
    return all(set(current.get(key) or {}) == set(wanted.get(key) or {}) for key in ("state", "lastState"))


def _conditions(
    before: Mapping[str, Any], status: GuestPodStatus, types: tuple[str, ...], phase: str, now: datetime
) -> list[Json]:
    """The mirrored conditions; their transition times are the hub's. A pod that is over is not Ready."""
    found: list[Json] = []
    for reported in status.conditions:
        if reported.type not in types:
            continue
        over = phase in TERMINAL and reported.type != "Initialized"
        value: conditions.Status = "False" if over else reported.status
        old = conditions.get(before.get("conditions"), reported.type)
        unchanged = old is not None and old.get("status") == value
        silent = value == "True"
        condition = {
            "type": reported.type,
            "status": value,
            "lastTransitionTime": old.get("lastTransitionTime") if old and unchanged else to_rfc3339(now),
            "reason": None if silent else reported.reason[:MAX_REASON],
            "message": None if silent else reported.message[:MAX_TEXT] or None,
        }
        found.append(condition)
    return found


class _Clamp:
    """Times of a home, between binding and now. One missing or ahead is now, and stays what it was first."""

    def __init__(self, earliest: datetime, now: datetime) -> None:
        self._earliest, self._now = earliest, now

    def text(self, reported: str | None, before: str | None) -> str:
        moment = clamp(reported, self._earliest, self._now)
        return before if before and moment == self._now else to_rfc3339(moment)


def clamp(reported: str | None, earliest: datetime, latest: datetime) -> datetime:
    """A reported time within [earliest, latest]; latest where none, or no time, is reported."""
    try:
        moment = from_rfc3339(reported) if reported else latest
    except Invalid:
        moment = latest
    return max(earliest, min(moment, latest))


def _containers(
    pod: Mapping[str, Any],
    old: list[Json] | None,
    spec_key: str,
    status: GuestPodStatus,
    init: bool,
    phase: str,
    clock: _Clamp,
) -> list[Json]:
    reported = {state.name: state for state in status.containers if state.init == init}
    before = {one["name"]: one for one in old or ()}
    policy = pod["spec"].get("restartPolicy") or "Always"
    return [
        _container(
            spec,
            reported.get(spec["name"]),
            before.get(spec["name"], {}),
            spec.get("restartPolicy") or policy,
            phase,
            clock,
        )
        for spec in pod["spec"][spec_key]
    ]


def _container(
    spec: Mapping[str, Any], state: ContainerState | None, before: Json, restart_policy: str, phase: str, clock: _Clamp
) -> Json:
    """One v1.ContainerStatus. What ended for good stays as it was: the API server accepts nothing else."""
    if _ended_for_good(before, restart_policy):
        return before
    restarts = max(before.get("restartCount", 0), state.restart_count if state else 0)
    found: Json = {
        "name": spec["name"],
        "image": spec.get("image", ""),
        "imageID": "",
        "ready": bool(state and state.ready and phase not in TERMINAL),
        "started": bool(state and state.started and phase not in TERMINAL),
        "restartCount": restarts,
        "state": _state(state, before.get("state") or {}, phase, clock),
        "lastState": before.get("lastState") or {},
    }
    if state is not None and state.last_exit_code is not None:
        last = found["lastState"].get("terminated") or {}
        found["lastState"] = {
            "terminated": _without_empty(
                {
                    "exitCode": state.last_exit_code,
                    "reason": state.last_reason[:MAX_REASON],
                    "finishedAt": clock.text(state.last_finished_at, last.get("finishedAt")),
                }
            )
        }
    return found


def _ended_for_good(before: Json, restart_policy: str) -> bool:
    terminated = (before.get("state") or {}).get("terminated")
    if terminated is None or restart_policy == "Always":
        return False
    return restart_policy == "Never" or terminated.get("exitCode") == 0


def _state(state: ContainerState | None, before: Json, phase: str, clock: _Clamp) -> Json:
    ended = before.get("terminated") or {}
    if state is not None and state.state == "terminated":
        terminated = {
            "exitCode": 137 if state.exit_code is None else state.exit_code,
            "reason": state.reason[:MAX_REASON],
            "message": state.message[:MAX_TEXT],
            "startedAt": clock.text(state.started_at, ended.get("startedAt")),
            "finishedAt": clock.text(state.finished_at, ended.get("finishedAt")),
        }
        return {"terminated": _without_empty(terminated)}
    if phase in TERMINAL:
        finished = clock.text(None, ended.get("finishedAt"))
        return {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "finishedAt": finished}}
    if state is not None and state.state == "running":
        started = (before.get("running") or {}).get("startedAt")
        return {"running": {"startedAt": clock.text(state.started_at, started)}}
    reason, message = (state.reason, state.message) if state is not None else ("ContainerCreating", "")
    return {"waiting": _without_empty({"reason": reason[:MAX_REASON], "message": message[:MAX_TEXT]})}


def _without_empty(values: Json) -> Json:
    return {key: value for key, value in values.items() if value != ""}
