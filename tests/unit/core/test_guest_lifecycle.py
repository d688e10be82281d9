"""What is done next for one pod UID; and that every interrupted sequence still ends as it should."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api import names
from homefed.api.guest_pod import Copy
from homefed.core import copy_objects, guest_lifecycle
from homefed.core.copy_objects import Source
from homefed.core.field_rules import Fault
from homefed.core.guest_lifecycle import (
    ANNOTATION_SETTLED,
    Action,
    CreateGuest,
    DropCopies,
    FailPod,
    FinishPod,
    Inputs,
    LookAgain,
    PatchGuest,
    RecordEvent,
    RefusedSince,
    ReleaseGuest,
    TellPod,
    WriteCopy,
    decide,
)
from homefed.core.observation import Blind
from homefed.core.placement import Accept, Fail, Pending
from homefed.core.pod_translation import guest_pod, named_objects
from homefed.core.refusals import Rounds, failed
from unit.core.guest_builders import IN_BYTES, NOON, UID, a_node, a_pod, a_site, after, of_replica_set

Json = dict[str, Any]
ROOT_CA = {"data": {"ca.crt": "PEM"}}


def sources(pod: Json) -> tuple[Source, ...]:
    return tuple(Source(one, ROOT_CA) for one in named_objects(pod))


def inputs(pod: Json | None = None, guest: Json | None = None, **more: Any) -> Inputs:
    given: Json = {"site": a_site(), "namespace_uid": "shop-uid", "node": a_node()}
    if pod is not None:
        given |= {"sources": sources(pod)}
        given |= {"verdict": Accept(IN_BYTES)} if guest is None else {}
    return Inputs(**({"uid": UID, "pod": pod, "guest": guest} | given | more))


def a_guest(*, metadata: Json | None = None, status: Json | None = None, **spec: Any) -> Json:
    obj, _ = guest_pod(a_pod(), "shop-uid", a_site(), IN_BYTES, NOON)
    obj["metadata"] |= {"uid": "g", "resourceVersion": "1"} | (metadata or {})
    obj["spec"] |= spec
    return obj | ({"status": status} if status else {})


def copied() -> dict[tuple[str, str], str]:
    (one,) = sources(a_pod())
    obj = copy_objects.copy_object(one, "homefed-home-anna", UID)
    assert obj is not None
    return {("ConfigMap", one.copy.copy_name): copy_objects.content_digest(obj)}


def terminating(pod: Json, grace: int = 30) -> Json:
    changed = copy.deepcopy(pod)
    changed["metadata"] |= {"deletionTimestamp": "2026-01-31T12:01:00Z", "deletionGracePeriodSeconds": grace}
    return changed


def kinds(actions: list[Action]) -> list[str]:
    return [type(action).__name__ for action in actions]


def one(actions: list[Action], kind: type[Any]) -> Any:
    (found,) = [action for action in actions if type(action) is kind]
    return found


RUNNING = {"phase": "Running", "startedAt": "2026-01-31T12:00:05Z"}
SUCCEEDED = RUNNING | {"phase": "Succeeded", "finishedAt": "2026-01-31T12:00:09Z"}


def test_an_accepted_pod_gets_its_copies_and_then_its_guest() -> None:
    assert kinds(decide(inputs(a_pod()), NOON)) == ["WriteCopy", "CreateGuest"]
    assert kinds(decide(inputs(a_pod(), copied=copied()), NOON)) == ["CreateGuest"]


def test_a_warning_is_an_event_and_no_obstacle() -> None:
    verdict = Accept(IN_BYTES, (Fault("spec", "LimitAboveRequest", "gets 100m"),))
    assert kinds(decide(inputs(a_pod(), verdict=verdict, copied=copied()), NOON)) == ["CreateGuest", "RecordEvent"]


def test_a_missing_object_keeps_the_pod_waiting_and_is_named() -> None:
    wanted = Copy(kind="Secret", name="login", copy_name=names.copy_name(UID, "Secret", "login"))
    actions = decide(inputs(a_pod(), sources=(Source(wanted),)), NOON)
    assert one(actions, TellPod).message == 'secret "login" not found'
    assert one(actions, LookAgain).seconds == 10


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ({"found": {"type": "kubernetes.io/service-account-token", "data": {}}}, "ObjectRefused"),
        ({"found": {"type": "kubernetes.io/dockerconfigjson", "data": {}}}, "ObjectRefused"),
        ({"reason": "ObjectForbidden", "message": "ask"}, "ObjectForbidden"),
    ],
)
def test_secrets_that_may_not_leave_are_refused(source: Json, reason: str) -> None:
    wanted = Copy(kind="Secret", name="s", copy_name="x-1")
    actions = decide(inputs(a_pod(), sources=(Source(wanted, **source),)), NOON)
    assert one(actions, TellPod).reason == reason
    assert "CreateGuest" not in kinds(actions)


def test_an_optional_object_that_is_missing_is_no_obstacle() -> None:
    wanted = Copy(kind="Secret", name="s", copy_name="x-1", optional=True)
    assert kinds(decide(inputs(a_pod(), sources=(Source(wanted),)), NOON)) == ["CreateGuest"]


def test_a_refused_pod_is_told_once() -> None:
    verdict = Pending("NamespaceNotEnabled", "ask the organiser")
    (tell,) = decide(inputs(a_pod(), verdict=verdict), NOON)
    assert isinstance(tell, TellPod)
    told = a_pod(status=tell.patch["status"])
    assert decide(inputs(told, verdict=verdict), after(600)) == []


def test_a_pod_that_another_node_could_take_fails_after_ten_seconds_and_not_before() -> None:
    pod, verdict = of_replica_set(a_pod()), Fail("OutOfcpu", "full")
    first = decide(inputs(pod, verdict=verdict), NOON)
    assert kinds(first) == ["RefusedSince", "TellPod", "LookAgain"]
    assert one(first, LookAgain).seconds == 10
    told = of_replica_set(a_pod(status={"reason": "OutOfcpu", "message": "full"}))
    assert kinds(decide(inputs(told, verdict=verdict, refused_since=NOON), after(9))) == ["LookAgain"]
    last = decide(inputs(told, verdict=verdict, refused_since=NOON), after(10))
    assert one(last, FailPod).patch["status"]["phase"] == "Failed"
    slower = decide(inputs(told, verdict=verdict, refused_since=NOON, rounds=Rounds(3, NOON)), after(10))
    assert one(slower, LookAgain).seconds == 70


def test_a_pod_that_fits_meanwhile_is_accepted() -> None:
    actions = decide(inputs(a_pod(), refused_since=NOON, copied=copied()), after(5))
    assert kinds(actions) == ["RefusedSince", "CreateGuest"]
    assert one(actions, RefusedSince).since is None


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_is_over_gets_no_guest(phase: str) -> None:
    assert decide(inputs(a_pod(status={"phase": phase})), NOON) == []


def test_a_deleted_pod_without_a_guest_is_finished_at_once_and_leaves_no_copies() -> None:
    assert kinds(decide(inputs(terminating(a_pod()), copied=copied()), NOON)) == ["DropCopies", "FinishPod"]
    assert kinds(decide(inputs(None, copied=copied()), NOON)) == ["DropCopies"]


def test_a_pod_that_only_finalizers_keep_is_not_deleted_again() -> None:
    assert decide(inputs(terminating(a_pod(), grace=0)), NOON) == []


def test_a_running_guest_at_rest_needs_nothing() -> None:
    guest = a_guest(status=RUNNING)
    actions = decide(inputs(a_pod(), guest, copied=copied()), after(20))
    assert kinds(actions) == ["PatchGuest", "TellPod"]
    guest["spec"] |= one(actions, PatchGuest).spec
    pod = a_pod(status=one(actions, TellPod).patch["status"])
    assert decide(inputs(pod, guest, copied=copied()), after(900)) == []


def test_a_copy_follows_its_source_and_stays_when_the_source_goes() -> None:
    stale = dict.fromkeys(copied(), "another digest")
    guest = a_guest(status={"phase": "Pending"})
    pod = a_pod(status={"startTime": "2026-01-31T12:00:00Z"})
    assert "WriteCopy" in kinds(decide(inputs(pod, guest, copied=stale), after(20)))
    (source,) = sources(pod)
    lost = (Source(source.copy, None),)
    assert "DropCopies" not in kinds(decide(inputs(pod, guest, copied=stale, sources=lost), after(20)))


def test_deletion_stops_the_guest_with_the_grace_of_the_deletion() -> None:
    patch = one(decide(inputs(terminating(a_pod(), 7), a_guest(), copied=copied()), after(60)), PatchGuest)
    assert patch.spec["stop"] == {"gracePeriodSeconds": 7, "reason": "Deleted"}


def test_a_stop_is_only_ever_shortened() -> None:
    stopped = a_guest(stop={"gracePeriodSeconds": 30, "reason": "Deleted"})
    shorter = one(decide(inputs(terminating(a_pod(), 5), stopped, copied=copied()), NOON), PatchGuest)
    assert shorter.spec["stop"]["gracePeriodSeconds"] == 5
    assert decide(inputs(terminating(a_pod(), 90), stopped, copied=copied()), NOON) == []


def test_a_pod_is_not_finished_before_its_home_says_so() -> None:
    stopped = a_guest(status=RUNNING, stop={"gracePeriodSeconds": 30, "reason": "Deleted"})
    assert "FinishPod" not in kinds(decide(inputs(terminating(a_pod()), stopped, copied=copied()), after(4000)))
    ended = a_guest(status=SUCCEEDED, stop={"gracePeriodSeconds": 30, "reason": "Deleted"})
    actions = kinds(decide(inputs(terminating(a_pod()), ended, copied=copied()), after(60)))
    assert actions.index("TellPod") < actions.index("FinishPod"), "controllers see how it ended"
    assert "DropCopies" in actions


def test_a_pod_whose_end_was_mirrored_before_a_crash_is_finished_after_it() -> None:
    pod = terminating(a_pod(status={"phase": "Succeeded"}))
    assert "FinishPod" in kinds(decide(inputs(pod, a_guest(status=SUCCEEDED)), after(60)))


@pytest.mark.parametrize(("pod", "reason"), [(None, "PodGone"), (a_pod(status={"phase": "Failed"}), "PodEnded")])
def test_a_guest_that_the_hub_holds_no_more_is_stopped_and_not_paid_any_longer(pod: Json | None, reason: str) -> None:
    patch = one(decide(inputs(pod, a_guest(status=RUNNING), copied=copied()), after(60)), PatchGuest)
    assert patch.spec["stop"] == {"gracePeriodSeconds": 30, "reason": reason}
    assert patch.spec["observed"]["endedAt"] == "2026-01-31T12:01:00Z"


def test_a_guest_that_its_home_cannot_place_fails_with_the_homes_words_and_is_stopped() -> None:
    status = {"phase": "Pending", "reason": "Unschedulable", "message": "0/1 nodes are available"}
    first = decide(inputs(a_pod(), a_guest(status=status), copied=copied()), after(60))
    assert one(first, TellPod).message == "0/1 nodes are available"
    assert "PatchGuest" not in kinds(first)
    patient = inputs(a_pod(), a_guest(status=status), copied=copied(), refused_since=after(60))
    assert "FailPod" not in kinds(decide(patient, after(71))), "the pool waits pendingTimeoutSeconds for room"
    late = decide(patient, after(121))
    assert one(late, FailPod).reason == "Unschedulable"
    assert one(late, PatchGuest).spec["stop"]["reason"] == "PodEnded"


def test_a_guest_that_failed_without_ever_running_is_not_failed_in_a_hot_loop() -> None:
    status = {"phase": "Failed", "reason": "ForeignCopy", "message": "no"}
    first = decide(inputs(a_pod(), a_guest(status=status)), after(60))
    assert "Failed" not in [action.patch["status"].get("phase") for action in first if isinstance(action, TellPod)]
    late = decide(inputs(a_pod(), a_guest(status=status), refused_since=after(60)), after(70))
    assert one(late, FailPod).reason == "ForeignCopy"


def test_why_a_home_does_not_start_a_guest_yet_is_shown() -> None:
    status = {"reason": "Paused", "message": "the contributor takes no new guests"}
    actions = decide(inputs(a_pod(), a_guest(status=status), copied=copied()), after(60))
    assert one(actions, TellPod).patch["status"]["reason"] == "Paused"


def test_a_changed_image_has_no_effect_and_is_said() -> None:
    pod = a_pod()
    pod["spec"]["containers"][0]["image"] = "registry.example/app:2"
    event = one(decide(inputs(pod, a_guest(), copied=copied()), NOON), RecordEvent)
    assert event.reason == "PodChanged"


def test_a_resize_is_infeasible() -> None:
    pod = a_pod()
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "200m"
    tell = one(decide(inputs(pod, a_guest(), copied=copied()), NOON), TellPod)
    assert tell.patch["status"]["conditions"][0]["type"] == "PodResizePending"


ENDED = {"boundAt": "2026-01-31T12:00:00Z", "runningFrom": "2026-01-31T12:00:05Z", "endedAt": "2026-01-31T12:00:09Z"}


@pytest.mark.parametrize(
    ("annotations", "hours", "released"),
    [
        ({}, 100, False),
        ({ANNOTATION_SETTLED: "2026-01-31T12:00:08Z"}, 100, False),
        ({ANNOTATION_SETTLED: "2026-01-31T13:00:00Z"}, 24, False),
        ({ANNOTATION_SETTLED: "2026-01-31T13:00:00Z"}, 25, True),
    ],
)
def test_a_guest_that_ran_is_released_a_day_after_its_settlement(annotations: Json, hours: int, released: bool) -> None:
    guest = a_guest(metadata={"annotations": annotations}, status=SUCCEEDED, observed=ENDED)
    assert (decide(inputs(None, guest), after(3600 * hours)) == [ReleaseGuest()]) is released


def test_a_guest_that_never_ran_needs_no_settlement() -> None:
    never = {key: value for key, value in ENDED.items() if key != "runningFrom"}
    status = {"phase": "Failed", "reason": "ForeignCopy"}
    guest = a_guest(status=status, observed=never)
    assert decide(inputs(None, guest), after(3600 * 23)) == []
    assert decide(inputs(None, guest), after(3600 * 25)) == [ReleaseGuest()]


def test_a_settled_guest_that_somebody_deleted_is_let_go_at_once() -> None:
    metadata = {"annotations": {ANNOTATION_SETTLED: "2026-01-31T13:00:00Z"}, "deletionTimestamp": "x"}
    assert decide(inputs(None, a_guest(metadata=metadata, status=SUCCEEDED, observed=ENDED)), after(60)) == [
        ReleaseGuest()
    ]


@dataclass
class World:
    """A hub and a home in a few dictionaries. `act` may be killed after any number of actions."""

    pod: Json | None = field(default_factory=lambda: of_replica_set(a_pod()))
    guest: Json | None = None
    copies: dict[tuple[str, str], str] = field(default_factory=dict)
    now: datetime = NOON
    created: int = 0
    finished_early: bool = False
    refused_since: datetime | None = None
    rounds: Rounds | None = None
    verdict: Any = field(default_factory=lambda: Accept(IN_BYTES))

    def look(self) -> list[Action]:
        wanted = sources(self.pod) if self.pod else ()
        return decide(
            inputs(
                self.pod, self.guest, verdict=self.verdict if self.guest is None else None, sources=wanted,
                copied=dict(self.copies), refused_since=self.refused_since, rounds=self.rounds,
            ),
            self.now,
        )  # fmt: skip

    def act(self, at_most: int) -> None:
        self.now += timedelta(seconds=1)
        for action in self.look()[:at_most]:
            self._one(action)

    def _one(self, action: Action) -> None:
        match action:
            case TellPod(patch):
                assert self.pod is not None
                self.pod["status"] = {**self.pod["status"], **patch["status"]}
                if isinstance(action, FailPod):
                    self.rounds = failed(self.rounds, self.now)
            case WriteCopy(obj):
                self.copies[obj["kind"], obj["metadata"]["name"]] = copy_objects.content_digest(obj)
            case DropCopies():
                self.copies.clear()
            case CreateGuest(obj):
                assert self.guest is None
                self.created += 1
                self.guest = copy.deepcopy(obj)
                self.guest["metadata"] |= {"uid": "g", "resourceVersion": "1"}
            case PatchGuest(spec):
                assert self.guest is not None
                had = self.guest["spec"].get("stop")
                self.guest["spec"] |= spec
                assert had is None or self.guest["spec"]["stop"], "a stop is never taken back"
            case FinishPod():
                alive = self.guest is not None and not guest_lifecycle.has_ended(self.guest)
                self.finished_early |= alive
                self.pod = None
            case RefusedSince(since):
                self.refused_since = since
            case ReleaseGuest():
                self.guest = None

    def home_runs(self) -> None:
        if self.guest is not None and not guest_lifecycle.has_ended(self.guest) and "stop" not in self.guest["spec"]:
            self.guest["status"] = {"phase": "Running", "startedAt": self.now.isoformat()}

    def home_obeys(self) -> None:
        if self.guest is not None and "stop" in self.guest["spec"] and not guest_lifecycle.has_ended(self.guest):
            self.guest["status"] = (self.guest.get("status") or {}) | {"phase": "Failed"}

    def work_ends(self) -> None:
        if self.guest is not None and (self.guest.get("status") or {}).get("phase") == "Running":
            self.guest["status"] |= {"phase": "Succeeded", "finishedAt": self.now.isoformat()}

    def user_deletes(self) -> None:
        if self.pod is not None and not guest_lifecycle.is_terminating(self.pod):
            self.pod = terminating(self.pod)

    def user_deletes_by_force(self) -> None:
        self.pod = None

    def operator_restarts(self) -> None:
        self.refused_since, self.rounds = None, None


EVENTS = st.sampled_from(
    ["home_runs", "home_obeys", "work_ends", "user_deletes", "user_deletes_by_force", "operator_restarts"]
)
STEPS = st.lists(st.tuples(EVENTS, st.integers(0, 3)), max_size=12)


@given(STEPS)
def test_from_every_interrupted_step_the_pod_comes_to_its_end(steps: list[tuple[str, int]]) -> None:
    world = World()
    for event, at_most in steps:
        world.act(at_most)
        getattr(world, event)()
    world.user_deletes()
    for _ in range(40):
        world.act(99)
        world.home_obeys()
    assert world.created <= 1, "a GuestPod is created at most once per UID"
    assert not world.finished_early, "no pod is finished while its home may run it"
    assert world.pod is None
    assert world.copies == {}
    assert world.guest is None or guest_lifecycle.has_ended(world.guest)
    assert world.guest is None or world.guest["spec"]["observed"].get("endedAt")
    assert world.look() == [], "at rest nothing is written"


@pytest.mark.parametrize(
    ("status", "observed", "expected"),
    [
        (None, {}, True),
        ({"phase": "Pending"}, {}, True),
        ({"phase": "Running", "startedAt": "2026-01-31T12:00:05Z"}, {}, False),
        ({"phase": "Running", "startedAt": "2026-01-31T12:00:05Z"}, {"runningFrom": "2026-01-31T12:00:05Z"}, True),
        (
            {"phase": "Failed", "startedAt": "2026-01-31T12:00:05Z", "finishedAt": "2026-01-31T12:00:09Z"},
            {"runningFrom": "2026-01-31T12:00:05Z"},
            False,
        ),
    ],
)
def test_a_guest_is_settled_only_when_the_hub_has_taken_in_what_its_home_says(
    status: Json | None, observed: Json, expected: bool
) -> None:
    guest = a_guest(status=status, observed={"boundAt": "2026-01-31T12:00:00Z", **observed})
    assert guest_lifecycle.is_observed(guest, None, after(3600)) is expected


def test_a_guest_is_not_settled_before_the_time_is_noted_in_which_the_hub_was_blind() -> None:
    running = {"phase": "Running", "startedAt": "2026-01-31T12:00:00Z"}
    seen = {"boundAt": "2026-01-31T12:00:00Z", "runningFrom": "2026-01-31T12:00:00Z"}
    guest = a_guest(status=running, observed=seen)
    blind = Blind(after(100), after(2000))
    assert not guest_lifecycle.is_observed(guest, blind, after(2001))
    noted = next(
        action for action in decide(inputs(a_pod(), guest, blind=blind), after(2001)) if isinstance(action, PatchGuest)
    )
    guest["spec"] |= noted.spec
    assert guest_lifecycle.is_observed(guest, blind, after(2001))
