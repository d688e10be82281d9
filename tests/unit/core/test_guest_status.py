"""What a home reports and what of it the hub believes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api.guest_pod import ContainerState, GuestPodStatus
from homefed.api.meta import Condition
from homefed.core.guest_status import failed, mirrored, pending, resize_infeasible
from unit.core.guest_builders import NOON, a_pod, after, container

Json = dict[str, Any]
STARTED = "2026-01-31T12:00:05Z"
FINISHED = "2026-01-31T12:00:09Z"


def condition(type_: str, status: Any = "True") -> Condition:
    return Condition(type=type_, status=status, last_transition_time=STARTED, reason="Reported", message="words")


def report(phase: Any = "Running", *states: ContainerState, **fields: Any) -> GuestPodStatus:
    listed = [condition(kind) for kind in ("Initialized", "ContainersReady", "Ready")]
    return GuestPodStatus(**({"phase": phase, "containers": list(states), "conditions": listed} | fields))


def running(name: str = "app", **fields: Any) -> ContainerState:
    given: Json = {"name": name, "state": "running", "ready": True, "started": True, "started_at": STARTED}
    return ContainerState(**(given | fields))


def terminated(code: int = 0, **fields: Any) -> ContainerState:
    given: Json = {"state": "terminated", "exit_code": code, "started_at": STARTED, "finished_at": FINISHED}
    return ContainerState(**({"name": "app"} | given | fields))


def merged(pod: Json, patch: Json | None) -> Json:
    """The pod after a strategic merge: conditions by type, everything else replaced, null removed."""
    assert patch is not None, "a patch was expected"
    status = dict(pod["status"])
    for key, value in patch["status"].items():
        if key == "conditions":
            by_type = {one["type"]: one for one in status.get("conditions", [])}
            for one in value:
                whole = {**by_type.get(one["type"], {}), **one}
                by_type[one["type"]] = {name: inner for name, inner in whole.items() if inner is not None}
            status[key] = list(by_type.values())
        elif value is None:
            status.pop(key, None)
        else:
            status[key] = value
    return pod | {"status": status}


def mirror(pod: Json, status: GuestPodStatus, seconds: float = 20, **more: Any) -> Json | None:
    return mirrored(pod, status, NOON, after(seconds), **more)


def test_a_running_guest_is_a_running_pod() -> None:
    pod = merged(a_pod(), mirror(a_pod(), report("Running", running())))
    status = pod["status"]
    assert status["phase"] == "Running"
    assert status["startTime"] == "2026-01-31T12:00:00Z"
    assert {one["type"]: one["status"] for one in status["conditions"]} == {
        "Initialized": "True", "ContainersReady": "True", "Ready": "True",
    }  # fmt: skip
    (app,) = status["containerStatuses"]
    assert app["state"] == {"running": {"startedAt": STARTED}}
    assert (app["ready"], app["started"], app["image"]) == (True, True, "registry.example/app:1")


def test_what_is_mirrored_already_is_not_written_again() -> None:
    status = report("Running", running())
    pod = merged(a_pod(), mirror(a_pod(), status))
    assert mirror(pod, status, 500) is None


@pytest.mark.parametrize("started", [None, "nonsense", "2026-01-31T18:00:00Z"])
def test_a_time_that_cannot_be_believed_is_the_moment_it_was_first_seen_and_stays(started: str | None) -> None:
    status = report("Running", running(started_at=started))
    pod = merged(a_pod(), mirror(a_pod(), status, 20))
    assert pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"] == "2026-01-31T12:00:20Z"
    assert mirror(pod, status, 30) is None


def test_a_time_before_the_binding_is_the_binding() -> None:
    pod = merged(a_pod(), mirror(a_pod(), report("Running", running(started_at="2020-01-01T00:00:00Z"))))
    assert pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"] == "2026-01-31T12:00:00Z"


def test_a_container_that_was_restarted_has_its_new_start() -> None:
    pod = merged(a_pod(), mirror(a_pod(), report("Running", running())))
    again = running(started_at="2026-01-31T12:00:50Z", restart_count=1, last_exit_code=1, last_finished_at=FINISHED)
    pod = merged(pod, mirror(pod, report("Running", again), 60))
    (app,) = pod["status"]["containerStatuses"]
    assert app["state"]["running"]["startedAt"] == "2026-01-31T12:00:50Z"
    assert app["lastState"]["terminated"] == {"exitCode": 1, "finishedAt": FINISHED}
    assert app["restartCount"] == 1


def test_addresses_and_foreign_conditions_never_arrive() -> None:
    hostile = report("Running", running(), conditions=[condition("Ready"), condition("PodScheduled", "False")])
    patch = mirror(a_pod(), hostile)
    assert patch is not None
    assert not {"podIP", "podIPs", "hostIP", "hostIPs", "resources"} & patch["status"].keys()
    assert [one["type"] for one in patch["status"]["conditions"]] == ["Ready"]


def test_containers_that_the_pod_does_not_have_are_dropped() -> None:
    pod = merged(a_pod(), mirror(a_pod(), report("Running", running("bogus"), running())))
    assert [one["name"] for one in pod["status"]["containerStatuses"]] == ["app"]


def test_a_container_of_which_nothing_is_reported_is_being_created() -> None:
    pod = merged(a_pod(), mirror(a_pod(), report("Pending")))
    assert pod["status"]["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}


def test_an_init_container_is_not_mistaken_for_a_container_of_the_same_name() -> None:
    pod = a_pod(initContainers=[container("app")])
    pod = merged(pod, mirror(pod, report("Pending", terminated(init=True))))
    assert "terminated" in pod["status"]["initContainerStatuses"][0]["state"]
    assert "waiting" in pod["status"]["containerStatuses"][0]["state"]


def test_restart_counts_never_fall() -> None:
    pod = merged(a_pod(), mirror(a_pod(), report("Running", running(restart_count=5))))
    assert mirror(pod, report("Running", running(restart_count=2))) is None


def test_the_phase_never_goes_back() -> None:
    pod = merged(a_pod(), mirror(a_pod(), report("Running", running())))
    back = merged(pod, mirror(pod, report("Pending", running(ready=False))))
    assert back["status"]["phase"] == "Running"


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_terminal_phase_is_final(phase: str) -> None:
    pod = merged(a_pod(), mirror(a_pod(), report(phase, terminated())))
    assert mirror(pod, report("Running", running())) is None
    assert pending(pod, "Reason", "") is None
    assert failed(pod, "Reason", "") is None
    assert resize_infeasible(pod, "", NOON) is None


def test_a_pod_that_is_over_is_not_ready_and_its_containers_have_ended() -> None:
    pod = merged(a_pod(), mirror(a_pod(), report("Failed", running())))
    assert {one["type"]: one["status"] for one in pod["status"]["conditions"]}["Ready"] == "False"
    (app,) = pod["status"]["containerStatuses"]
    assert app["state"]["terminated"]["exitCode"] == 137
    assert not app["ready"]


def test_what_ended_for_good_stays_as_the_api_server_demands() -> None:
    pod = a_pod(restartPolicy="OnFailure")
    pod = merged(pod, mirror(pod, report("Running", terminated(0))))
    assert mirror(pod, report("Running", running())) is None
    failing = a_pod(restartPolicy="OnFailure")
    failing = merged(failing, mirror(failing, report("Running", terminated(1))))
    assert mirror(failing, report("Running", running(restart_count=1))) is not None


def test_while_the_node_is_unknown_ready_is_left_to_the_node_controller() -> None:
    patch = mirror(a_pod(), report("Running", running()), node_ready=False)
    assert patch is not None
    assert "Ready" not in [one["type"] for one in patch["status"]["conditions"]]


def test_a_reason_is_shown_and_goes_when_it_is_over() -> None:
    pod = merged(a_pod(), pending(a_pod(), "NamespaceNotEnabled", "ask"))
    assert pending(pod, "NamespaceNotEnabled", "ask") is None
    cleared = merged(pod, pending(pod, "", ""))
    assert "reason" not in cleared["status"]
    assert "message" not in cleared["status"]


def test_every_patch_is_for_this_pod_only() -> None:
    uid = a_pod()["metadata"]["uid"]
    for patch in (mirror(a_pod(), report()), pending(a_pod(), "R", ""), failed(a_pod(), "R", "")):
        assert patch is not None
        assert patch["metadata"] == {"uid": uid}


def test_a_resize_is_infeasible_and_said_once() -> None:
    patch = resize_infeasible(a_pod(), "no", NOON)
    assert patch is not None
    (said,) = patch["status"]["conditions"]
    assert (said["type"], said["reason"]) == ("PodResizePending", "Infeasible")
    assert resize_infeasible(merged(a_pod(), patch), "no", NOON) is None


STATES = st.builds(
    ContainerState,
    name=st.sampled_from(["app", "bogus"]),
    init=st.booleans(),
    ready=st.booleans(),
    started=st.booleans(),
    restart_count=st.integers(0, 1000),
    state=st.sampled_from(["waiting", "running", "terminated"]),
    reason=st.text(max_size=20),
    message=st.text(max_size=20),
    exit_code=st.none() | st.integers(-10, 300),
    started_at=st.none() | st.sampled_from([STARTED, FINISHED, "x", "2030-01-01T00:00:00Z"]),
    finished_at=st.none() | st.sampled_from([STARTED, FINISHED, "x", "1990-01-01T00:00:00Z"]),
    last_exit_code=st.none() | st.integers(0, 3),
)
REPORTS = st.builds(
    GuestPodStatus,
    phase=st.none() | st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
    reason=st.text(max_size=10),
    message=st.text(max_size=10),
    containers=st.lists(STATES, max_size=3),
    conditions=st.just([]) | st.just([condition("Ready")]) | st.just([condition("Ready", "False")]),
)


@given(reports=st.lists(REPORTS, max_size=6), policy=st.sampled_from(["Always", "OnFailure", "Never"]))
def test_whatever_a_home_reports_the_mirror_settles_and_never_goes_back(
    reports: list[GuestPodStatus], policy: str
) -> None:
    pod, order, restarts, last = a_pod(restartPolicy=policy), ["Pending", "Running", "Succeeded", "Failed"], 0, 0
    for number, status in enumerate(reports):
        now = 20 + 10 * number
        if (patch := mirror(pod, status, now)) is not None:
            pod = merged(pod, patch)
        assert mirror(pod, status, now + 5) is None, "a second look writes nothing"
        rank = min(order.index(pod["status"]["phase"]), 2)
        assert rank >= last
        last = rank
        for one in pod["status"].get("containerStatuses", []):
            assert one["name"] == "app"
            assert one["restartCount"] >= restarts
            restarts = one["restartCount"]
