"""What is done about a guest, from every state in which a killed agent may find it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api.guest_pod import GuestPodSpec
from homefed.core import home_lifecycle, home_status
from homefed.core.home_admission import Host
from homefed.core.home_lifecycle import (
    ABSENCE,
    GIVE_UP,
    Absence,
    Action,
    CopyObjects,
    CreatePod,
    DeletePod,
    DropObjects,
    Inputs,
    LookAgain,
    PutStatus,
    brake,
    crowded_out,
    decide,
)
from unit.core.home_guests import UID, a_guest, a_home_pod, a_host, running, terminated

NOW = datetime(2026, 1, 31, 10, tzinfo=UTC)
STOP = {"stop": {"gracePeriodSeconds": 7}}


def inputs(guest: GuestPodSpec | None = None, **changes: Any) -> Inputs:
    known: dict[str, Any] = {
        "guest": guest or a_guest(),
        "status": None,
        "generation": 1,
        "pod": None,
        "last": None,
        "host": a_host(),
        **changes,
    }
    return Inputs(name=UID, **known)


def kinds(actions: list[Action]) -> list[str]:
    return [type(action).__name__ for action in actions]


def status_of(actions: list[Action]) -> dict[str, Any]:
    (found,) = [action.status for action in actions if isinstance(action, PutStatus)]
    return found


def deletion_of(actions: list[Action]) -> DeletePod:
    (found,) = [action for action in actions if isinstance(action, DeletePod)]
    return found


def a_running_pod(guest: GuestPodSpec | None = None, **changes: Any) -> dict[str, Any]:
    return a_home_pod(guest or a_guest(), "Running", status={"containerStatuses": [running()]}, **changes)


def reported(pod: dict[str, Any]) -> dict[str, Any]:
    return status_of(decide(inputs(pod=pod), NOW))


def test_a_new_guest_gets_its_objects_then_its_pod() -> None:
    assert kinds(decide(inputs(), NOW)) == ["CopyObjects", "CreatePod"]


@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_a_guest_whose_status_has_a_phase_is_never_created_again(phase: str) -> None:
    actions = decide(inputs(status={"phase": phase}), NOW)
    assert kinds(actions) == ["PutStatus", "DropObjects"]
    assert (status_of(actions)["phase"], status_of(actions)["reason"]) == ("Failed", "PodLost")


def test_a_guest_whose_pod_was_ever_seen_is_never_created_again() -> None:
    actions = decide(inputs(last=a_running_pod()), NOW)
    assert status_of(actions)["phase"] == "Failed"
    assert "CreatePod" not in kinds(actions)


def test_a_refusal_is_told_once_and_looked_at_again_only_if_it_can_change() -> None:
    first = decide(inputs(host=a_host(state="Paused")), NOW)
    assert (status_of(first)["reason"], "phase" in status_of(first)) == ("Paused", False)
    again = decide(inputs(host=a_host(state="Paused"), status=status_of(first)), NOW)
    assert again == [LookAgain(home_lifecycle.LOOK_AGAIN_SECONDS)]

    forged = a_guest(podDigest="0" * 64)
    first = decide(inputs(forged), NOW)
    assert decide(inputs(forged, status=status_of(first)), NOW) == []


def test_a_refused_guest_is_created_once_the_owner_is_ready() -> None:
    refused = status_of(decide(inputs(host=a_host(state="Paused")), NOW))
    assert "CreatePod" in kinds(decide(inputs(status=refused), NOW))


def test_a_guest_that_the_owner_does_not_want_fails_after_a_while_to_be_placed_elsewhere() -> None:
    refused = status_of(decide(inputs(host=a_host(state="Paused")), NOW))
    later = decide(inputs(host=a_host(state="Paused"), status=refused), NOW + GIVE_UP)
    assert (status_of(later)["phase"], status_of(later)["reason"]) == ("Failed", "Paused")
    again = decide(inputs(status=status_of(later)), NOW + 2 * GIVE_UP)
    assert again == [DropObjects()], "final, though the owner is ready now"

    forged = a_guest(podDigest="0" * 64)
    assert "phase" not in status_of(decide(inputs(forged), NOW + GIVE_UP))


def test_a_guest_waits_for_its_objects() -> None:
    actions = decide(inputs(missing_copy="Secret password"), NOW)
    assert status_of(actions)["reason"] == "WaitingForCopies"
    assert "CreatePod" not in kinds(actions)


def test_a_running_guest_at_rest_needs_no_write() -> None:
    pod = a_running_pod()
    assert decide(inputs(pod=pod, status=reported(pod)), NOW + timedelta(hours=1)) == [CopyObjects()]


def test_an_explicit_stop_stops_with_the_hubs_grace() -> None:
    guest = a_guest(**STOP)
    pod = a_running_pod(guest)
    deletion = deletion_of(decide(inputs(guest, pod=pod), NOW))
    assert (deletion.uid, deletion.grace_seconds) == ("home-uid", 7)


@pytest.mark.parametrize(("left", "again"), [(7, False), (5, False), (30, True)])
def test_a_pod_that_ends_already_is_only_hurried(left: int, again: bool) -> None:
    guest = a_guest(**STOP)
    pod = a_running_pod(guest, deletionTimestamp="2026-01-31T10:00:30Z", deletionGracePeriodSeconds=left)
    assert ("DeletePod" in kinds(decide(inputs(guest, pod=pod), NOW))) is again


def test_a_guest_stopped_before_it_started_ends_without_a_pod() -> None:
    actions = decide(inputs(a_guest(**STOP)), NOW)
    assert (status_of(actions)["phase"], status_of(actions)["reason"]) == ("Failed", "Stopped")
    assert "CreatePod" not in kinds(actions)


def test_draining_stops_guests_within_the_timeout() -> None:
    host = a_host(state="Draining", drainTimeoutSeconds=10)
    deletion = deletion_of(decide(inputs(pod=a_running_pod(), host=host), NOW))
    assert (deletion.grace_seconds, deletion.why) == (10, "Drained")
    deletion = deletion_of(decide(inputs(pod=a_running_pod(), host=a_host(deleting=True)), NOW))
    assert deletion.grace_seconds == 30


def test_pausing_stops_nobody() -> None:
    assert "DeletePod" not in kinds(decide(inputs(pod=a_running_pod(), host=a_host(state="Paused")), NOW))


def test_a_contribution_that_is_not_known_stops_nobody() -> None:
    assert "DeletePod" not in kinds(decide(inputs(pod=a_running_pod(), host=Host(None)), NOW))


@pytest.mark.parametrize(("silent", "stopped"), [(99.0, False), (100.0, True)])
def test_a_fenced_guest_ends_at_its_deadline_without_the_hub(silent: float, stopped: bool) -> None:
    guest = a_guest(disconnectDeadlineSeconds=100)
    actions = decide(inputs(guest, pod=a_running_pod(guest), hub_silent_seconds=silent), NOW)
    assert ("DeletePod" in kinds(actions)) is stopped


def test_silence_stops_no_other_guest() -> None:
    assert "DeletePod" not in kinds(decide(inputs(pod=a_running_pod(), hub_silent_seconds=10**6), NOW))


def test_what_a_guest_held_is_given_back_after_its_end_is_written() -> None:
    pod = a_home_pod(a_guest(), "Succeeded", status={"containerStatuses": [terminated()]})
    assert kinds(decide(inputs(pod=pod), NOW)) == ["PutStatus", "DropObjects"]


def test_an_ended_pod_is_kept_for_its_logs_until_the_hub_lets_it_go() -> None:
    pod = a_home_pod(a_guest(), "Succeeded", status={"containerStatuses": [terminated()]})
    status = reported(pod)
    assert kinds(decide(inputs(pod=pod, status=status), NOW)) == ["DropObjects"]
    guest = a_guest(**STOP)
    assert kinds(decide(inputs(guest, pod=pod, status=status), NOW)) == ["DropObjects", "DeletePod"]


def test_a_pod_that_runs_after_its_guest_has_ended_is_stopped() -> None:
    actions = decide(inputs(pod=a_running_pod(), status={"phase": "Failed"}), NOW)
    assert deletion_of(actions).uid == "home-uid"


def test_a_strangers_pod_is_left_alone_in_every_state() -> None:
    stranger = a_running_pod() | {"metadata": {"name": f"hf-{UID}", "uid": "theirs", "labels": {}}}
    for guest in (a_guest(), a_guest(**STOP)):
        for status in (None, {"phase": "Running"}, {"phase": "Failed"}):
            actions = decide(inputs(guest, pod=stranger, status=status, host=a_host(state="Draining")), NOW)
            assert "DeletePod" not in kinds(actions)
            assert "CreatePod" not in kinds(actions)
    assert status_of(decide(inputs(pod=stranger), NOW))["reason"] == "NameTaken"


# Absence.


def without_guest(absence: Absence | None, pod: dict[str, Any] | None) -> list[Action]:
    found = Inputs(
        name=UID, guest=None, status=None, generation=0, pod=pod, last=None, host=Host(None), absence=absence
    )
    return decide(found, NOW)


LONG_AGO = NOW - ABSENCE


@pytest.mark.parametrize(
    ("absence", "stopped"),
    [
        (None, False),
        (Absence(LONG_AGO, NOW), True),
        (Absence(LONG_AGO + timedelta(seconds=1), NOW), False),
        (Absence(LONG_AGO, None), False),
        (Absence(LONG_AGO, LONG_AGO), False),
        (Absence(LONG_AGO, LONG_AGO - timedelta(hours=1)), False),
        (Absence(LONG_AGO, NOW, braked=True), False),
    ],
    ids=["unknown", "certain", "too-soon", "hub-never-worked", "hub-not-since", "hub-asleep", "too-many"],
)
def test_absence_stops_a_guest_only_when_it_is_certain(absence: Absence | None, stopped: bool) -> None:
    assert ("DeletePod" in kinds(without_guest(absence, a_running_pod()))) is stopped


def test_an_unknown_guest_without_pod_is_nothing() -> None:
    assert without_guest(None, None) == []


def test_many_absent_guests_at_once_are_the_hubs_loss() -> None:
    assert not brake(1, 1)
    assert not brake(2, 2)
    assert brake(3, 3)
    assert not brake(5, 10)
    assert brake(6, 10)


# Killed after any action.


class Simulated:
    """A home and a hub that do what actions say, and an agent that is killed after any of them."""

    def __init__(self, guest: GuestPodSpec) -> None:
        self.guest, self.status, self.pod = guest, None, None
        self.creations = 0
        self.written: list[str] = []

    def perform(self, action: Action) -> None:
        match action:
            case PutStatus(status):
                self.status = status  # type: ignore[assignment]
                self.written.append(status.get("phase", ""))
            case CreatePod():
                assert self.pod is None
                self.creations += 1
                self.pod = a_home_pod(self.guest, "Pending")  # type: ignore[assignment]
            case DeletePod():
                self.pod = None

    def step(self, action: str, performed: int) -> None:
        """The world moves (`action`), then the agent performs so many of its actions and is killed."""
        if action == "run" and self.pod is not None:
            self.pod = a_running_pod(self.guest)  # type: ignore[assignment]
        elif action == "end" and self.pod is not None:
            status = {"containerStatuses": [terminated()]}
            self.pod = a_home_pod(self.guest, "Succeeded", status=status)  # type: ignore[assignment]
        elif action == "lose" and self.written[-1:] not in ([], [""]):
            self.pod = None
        elif action == "stop":
            self.guest = self.guest.model_copy(update={"stop": a_guest(**STOP).stop})
        found = inputs(self.guest, status=self.status, pod=self.pod)
        for done in decide(found, NOW)[:performed]:
            self.perform(done)


@given(st.lists(st.tuples(st.sampled_from(["", "run", "end", "lose", "stop"]), st.integers(0, 3)), max_size=12))
def test_a_guest_is_created_once_and_ends_once_wherever_the_agent_is_killed(steps: list[tuple[str, int]]) -> None:
    world = Simulated(a_guest())
    for action, performed in [*steps, *[("", 9)] * 3]:
        world.step(action, performed)

    assert world.creations <= 1
    terminal = [phase for phase in world.written if phase in ("Succeeded", "Failed")]
    assert len(terminal) <= 1
    assert not terminal or world.written[-1] == terminal[0]
    settled = decide(inputs(world.guest, status=world.status, pod=world.pod), NOW)
    assert "PutStatus" not in kinds(settled), "at rest nothing is left to write"
    assert world.guest.stop is None or home_status.is_terminal(world.status)
    assert DropObjects() in settled or world.guest.stop is None


# A home whose quota is full.


def test_a_guest_that_the_quota_has_no_room_for_is_tried_again_soon() -> None:
    actions = crowded_out(inputs(), NOW)
    assert kinds(actions) == ["PutStatus", "LookAgain"]
    status = status_of(actions)
    assert (status["reason"], "phase" in status) == ("QuotaExceeded", False)
    assert actions[-1] == LookAgain(2.0)


def test_while_it_waits_for_room_nothing_is_written_again() -> None:
    said = status_of(crowded_out(inputs(), NOW))
    assert crowded_out(inputs(status=said), NOW) == [LookAgain(2.0)]


def test_a_guest_that_finds_no_room_for_a_minute_fails_and_may_be_placed_elsewhere() -> None:
    said = status_of(crowded_out(inputs(), NOW))
    actions = crowded_out(inputs(status=said), NOW + GIVE_UP)
    assert kinds(actions) == ["PutStatus", "DropObjects"]
    assert (status_of(actions)["phase"], status_of(actions)["reason"]) == ("Failed", "QuotaExceeded")


def test_a_guest_that_was_bound_long_ago_is_not_failed_at_the_first_try() -> None:
    assert "phase" not in status_of(crowded_out(inputs(), NOW + GIVE_UP * 10))
