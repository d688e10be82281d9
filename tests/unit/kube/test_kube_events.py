"""Events: one object per message, written rarely, never in the way."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from homefed.api.errors import Forbidden
from homefed.kube.events import MAX_REMEMBERED, EventRecorder
from unit.kube.memory import MemoryClient

HOME = {"apiVersion": "homefed.io/v1alpha1", "kind": "Home", "metadata": {"name": "alice", "uid": "u1"}}
GUEST = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns", "uid": "u2"}}


class Setting:
    def __init__(self) -> None:
        self.now = 0.0
        self.client = MemoryClient()
        self.recorder = EventRecorder(self.client, "homefed-hub", instance="pod-1", clock=lambda: self.now)

    @property
    def events(self) -> list[dict[str, Any]]:
        return list(self.client.objects.values())


@pytest.fixture
def setting() -> Setting:
    return Setting()


async def test_an_event_says_who_what_and_why(setting: Setting) -> None:
    await setting.recorder.record(GUEST, "NotEnabled", "Namespace ns may not use pool x.", "Warning")
    (event,) = setting.events
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "p",
        "namespace": "ns",
        "uid": "u2",
    }
    assert (event["reason"], event["type"], event["count"]) == ("NotEnabled", "Warning", 1)
    assert event["message"] == "Namespace ns may not use pool x."
    assert event["source"] == {"component": "homefed-hub", "host": "pod-1"}
    assert event["metadata"]["namespace"] == "ns"


async def test_events_of_cluster_wide_objects_are_in_default(setting: Setting) -> None:
    await setting.recorder.record(HOME, "Accepted", "Home alice is accepted.")
    assert [event["metadata"]["namespace"] for event in setting.events] == ["default"]


async def test_a_repeated_event_is_written_at_most_every_five_minutes_and_counts_on(setting: Setting) -> None:
    for second in range(0, 601, 10):
        setting.now = float(second)
        await setting.recorder.record(HOME, "Accepted", "Home alice is accepted.")
    assert [verb for verb, _ in setting.client.writes] == ["create", "patch", "patch"]
    assert [event["count"] for event in setting.events] == [61]


async def test_another_message_is_another_event(setting: Setting) -> None:
    await setting.recorder.record(HOME, "Accepted", "one")
    await setting.recorder.record(HOME, "Accepted", "two")
    await setting.recorder.record(HOME, "Suspended", "two")
    assert len({event["metadata"]["name"] for event in setting.events}) == 3


async def test_a_restarted_process_takes_up_the_same_event(setting: Setting) -> None:
    await setting.recorder.record(HOME, "Accepted", "one")
    await EventRecorder(setting.client, "homefed-hub").record(HOME, "Accepted", "one")
    assert len(setting.events) == 1


async def test_an_event_that_expired_is_written_anew(setting: Setting) -> None:
    await setting.recorder.record(HOME, "Accepted", "one")
    setting.client.objects.clear()
    setting.now = 301.0
    await setting.recorder.record(HOME, "Accepted", "one")
    assert [event["count"] for event in setting.events] == [2]


async def test_a_refused_event_is_logged_and_harms_nothing(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    setting.client.trouble = [Forbidden("events is forbidden")]
    with caplog.at_level(logging.WARNING):
        await setting.recorder.record(HOME, "Accepted", "one")
        await setting.recorder.record(HOME, "Accepted", "one")
    assert len(caplog.records) == 1
    assert setting.events == []


async def test_names_and_messages_are_bounded_and_the_memory_too(setting: Setting) -> None:
    long = GUEST | {"metadata": {"name": "x" * 253, "namespace": "ns", "uid": "u"}}
    for number in range(MAX_REMEMBERED + 5):
        await setting.recorder.record(long, "Noisy", f"{number} " + "y" * 5000)
    assert max(len(event["metadata"]["name"]) for event in setting.events) <= 253
    assert {len(event["message"]) for event in setting.events} == {1024}
    assert len(setting.recorder._remembered) == MAX_REMEMBERED
