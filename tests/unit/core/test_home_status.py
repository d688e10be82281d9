"""What a home says of a guest: bounded, steady, final."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.core import home_status
from homefed.core.home_status import View
from unit.core.home_guests import a_guest, a_home_pod, running, terminated, waiting

NOW = datetime(2026, 1, 31, 10, tzinfo=UTC)
STOPPED = {"stop": {"gracePeriodSeconds": 5}}


def view(previous: dict[str, Any] | None = None, guest: Any = None, **more: Any) -> View:
    fields: dict[str, Any] = {"generation": 1, "now": NOW, "offset": timedelta(), **more}
    return View(guest=guest or a_guest(), previous=previous, **fields)


def a_pod(phase: str = "Running", *containers: dict[str, Any], **changes: Any) -> dict[str, Any]:
    status = {"containerStatuses": list(containers), **changes.pop("status", {})}
    return a_home_pod(a_guest(), phase, status=status, **changes)


def test_a_running_guest_is_mirrored() -> None:
    found = home_status.mirror(a_pod("Running", running()), view())
    assert (found["phase"], found["startedAt"]) == ("Running", "2026-01-31T09:30:00Z")
    assert found["containers"][0]["state"] == "running"
    assert found["podDigest"] == a_guest().pod_digest


def test_no_address_and_no_condition_of_the_home_leaves_it() -> None:
    conditions = [
        {"type": "Ready", "status": "True"},
        {"type": "PodScheduled", "status": "True"},
        {"type": "example.com/inner", "status": "True"},
    ]
    status = {"podIP": "10.96.0.1", "hostIP": "192.168.1.2", "qosClass": "Guaranteed", "conditions": conditions}
    found = home_status.mirror(a_pod("Running", running(imageID="x", containerID="y"), status=status), view())
    assert [c["type"] for c in found["conditions"]] == ["Ready"]
    assert "10.96" not in str(found)
    assert "192.168" not in str(found)
    assert set(found["containers"][0]) <= {
        "name", "init", "ready", "started", "restartCount", "state", "reason", "message", "startedAt", "lastReason",
    }  # fmt: skip


def test_a_terminal_status_is_final() -> None:
    before = home_status.mirror(a_pod("Failed", terminated(3)), view())
    for pod in (a_pod("Running", running()), a_pod("Succeeded", terminated())):
        assert home_status.mirror(pod, view(before)) == before
        assert home_status.vanished(pod, view(before)) == before


def test_restarts_never_fall() -> None:
    before = home_status.mirror(a_pod("Running", running(restartCount=5)), view())
    after = home_status.mirror(a_pod("Running", running(restartCount=2)), view(before))
    assert after["containers"][0]["restartCount"] == 5


def test_the_ends_of_earlier_instances_are_kept_as_long_as_there_is_room() -> None:
    before, ends = None, []
    for number in range(1, home_status.MAX_ENDS + 3):
        ends.append(f"2026-01-31T09:{30 + number}:00Z")
        again = running(restartCount=number, lastState={"terminated": {"finishedAt": ends[-1], "exitCode": 1}})
        for _ in range(2):  # seen twice, counted once
            before = home_status.mirror(a_pod("Running", again), view(before))
    assert before is not None
    assert before["containers"][0]["earlierEnds"] == ends[-home_status.MAX_ENDS :]


def test_times_are_the_hubs_and_do_not_shiver_with_its_clock() -> None:
    pod = a_pod("Running", running())
    first = home_status.mirror(pod, view(offset=timedelta(seconds=300)))
    assert first["startedAt"] == "2026-01-31T09:35:00Z"
    second = home_status.mirror(pod, view(first, offset=timedelta(seconds=301)))
    assert not home_status.changed(first, second)


def test_containers_are_those_of_the_spec() -> None:
    statuses = [running(), running(name="smuggled"), *[running(name=f"c{i}") for i in range(500)]]
    found = home_status.mirror(a_pod("Running", *statuses), view())
    assert [c["name"] for c in found["containers"]] == ["main"]


@given(st.text(max_size=5000), st.text(max_size=500), st.integers(-5, 2**40))
def test_whatever_a_kubelet_says_fits_the_schema(message: str, reason: str, restarts: int) -> None:
    container = waiting(reason, message) | {"restartCount": restarts}
    found = home_status.mirror(a_pod("Pending", container, status={"reason": reason, "message": message}), view())
    assert len(found.get("message", "")) <= 1024
    assert not home_status.changed(found, found)


@pytest.mark.parametrize(
    ("reason", "message", "expected", "remedy"),
    [
        ("CreateContainerConfigError", "container has runAsNonRoot and image will run as root (pod…)", "RunsAsRoot",
         "runAsUser: 1000"),
        ("CreateContainerConfigError", "container has runAsNonRoot and image has non-numeric user (app), cannot",
         "UserNotNumeric", "runAsUser: 1000"),
        ("ErrImagePull", "not found", "ErrImagePull", "home.guests.imagePullPolicy"),
        ("ErrImageNeverPull", "not present", "ErrImageNeverPull", "home.guests.imagePullPolicy"),
    ],
)  # fmt: skip
def test_what_a_person_must_change_is_said(reason: str, message: str, expected: str, remedy: str) -> None:
    found = home_status.mirror(a_pod("Pending", waiting(reason, message)), view())
    assert found["reason"] == expected
    assert remedy in found["message"]


def test_an_unschedulable_guest_shows_the_schedulers_sentence() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: full"}
    found = home_status.mirror(a_pod("Pending", status={"conditions": [condition]}), view())
    assert (found["phase"], found["reason"], found["message"]) == ("Pending", "Unschedulable", "0/3 nodes: full")


DELETED = {"deletionTimestamp": "2026-01-31T09:44:30Z", "deletionGracePeriodSeconds": 30}


def test_exit_code_0_on_the_homes_signal_is_not_success() -> None:
    found = home_status.mirror(a_pod("Succeeded", terminated(), **DELETED), view())
    assert (found["phase"], found["reason"]) == ("Failed", "StoppedAtHome")
    assert home_status.mirror(a_pod("Succeeded", terminated(), **DELETED), view(draining=True))["reason"] == "Drained"


def test_a_failure_on_the_homes_signal_says_whose_wish_it_was() -> None:
    found = home_status.mirror(a_pod("Failed", terminated(143), **DELETED), view(draining=True))
    assert (found["phase"], found["reason"], found["containers"][0]["exitCode"]) == ("Failed", "Drained", 143)


def test_what_ended_in_the_second_of_the_request_was_stopped() -> None:
    same = terminated(finished="2026-01-31T09:44:00Z")
    assert home_status.mirror(a_pod("Succeeded", same, **DELETED), view())["phase"] == "Failed"


def test_what_ended_before_the_home_stopped_it_has_succeeded() -> None:
    early = terminated(finished="2026-01-31T09:43:59Z")
    assert home_status.mirror(a_pod("Succeeded", early, **DELETED), view())["phase"] == "Succeeded"


def test_what_the_hub_stopped_ends_as_it_ended() -> None:
    guest = a_guest(**STOPPED)
    assert home_status.mirror(a_pod("Succeeded", terminated(), **DELETED), view(guest=guest))["phase"] == "Succeeded"


@pytest.mark.parametrize(
    ("last", "more", "reason"),
    [
        (None, {}, "PodLost"),
        (a_pod("Running", running()), {}, "PodLost"),
        (a_pod("Running", running(), **DELETED), {}, "StoppedAtHome"),
        (a_pod("Running", running(), **DELETED), {"draining": True}, "Drained"),
        (a_pod("Running", running(), **DELETED), {"guest": a_guest(**STOPPED)}, "Stopped"),
        (
            a_pod(
                "Running",
                running(),
                status={
                    "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]
                },
            ),
            {},
            "Preempted",
        ),
    ],
)
def test_a_pod_that_is_gone_has_failed_for_a_reason(last: Any, more: dict[str, Any], reason: str) -> None:
    before = home_status.mirror(a_pod("Running", running()), view())
    found = home_status.vanished(last, view(before, **more))
    assert (found["phase"], found["reason"]) == ("Failed", reason)
    assert found["containers"][0]["state"] == "terminated"
    assert found["containers"][0]["exitCode"] == 137
    assert found["startedAt"] == "2026-01-31T09:30:00Z"


def test_a_pod_last_seen_at_its_end_keeps_its_result() -> None:
    found = home_status.vanished(a_pod("Failed", terminated(7)), view())
    assert (found["phase"], found["containers"][0]["exitCode"]) == ("Failed", 7)
    assert found["finishedAt"] == "2026-01-31T09:45:00Z"


def test_a_new_generation_alone_is_nothing_to_write() -> None:
    before = home_status.mirror(a_pod("Running", running()), view())
    after = home_status.mirror(a_pod("Running", running()), view(before, generation=9))
    assert not home_status.changed(before, after)


def test_an_unknown_phase_keeps_the_last_one() -> None:
    before = home_status.mirror(a_pod("Running", running()), view())
    assert home_status.mirror(a_pod("Unknown", running()), view(before))["phase"] == "Running"


def test_a_time_that_is_none_breaks_nothing() -> None:
    found = home_status.mirror(a_pod("Running", running("soon")), view())
    assert "startedAt" not in found
