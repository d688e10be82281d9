"""Conditions: what stays, what changes, and what the summary says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from homefed.api.errors import Invalid
from homefed.core import conditions, times

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(minutes=5)


def accepted(status: conditions.Status = "True", now: datetime = NOON) -> list[conditions.Condition]:
    return conditions.set_condition([], "Accepted", status, "Known", "The pool is known.", 1, now)


def test_a_condition_keeps_its_transition_time_while_its_status_is_unchanged() -> None:
    (after,) = conditions.set_condition(accepted(), "Accepted", "True", "StillKnown", "Other words.", 2, LATER)
    assert after["lastTransitionTime"] == "2026-01-31T12:00:00Z"
    assert (after["reason"], after["message"], after["observedGeneration"]) == ("StillKnown", "Other words.", 2)


def test_a_condition_that_changes_its_status_says_when() -> None:
    (after,) = conditions.set_condition(accepted(), "Accepted", "False", "UnknownPool", "No such pool.", 1, LATER)
    assert after["lastTransitionTime"] == "2026-01-31T12:05:00Z"


def test_setting_the_same_condition_again_changes_nothing_at_all() -> None:
    assert (
        conditions.set_condition(accepted(), "Accepted", "True", "Known", "The pool is known.", 1, LATER) == accepted()
    )


def test_conditions_keep_their_order_and_the_given_list_is_not_touched() -> None:
    before = conditions.set_condition(accepted(), "Online", "True", "LeaseRenewed", "", 1, NOON)
    after = conditions.set_condition(before, "Accepted", "False", "Gone", "", 1, LATER)
    assert [condition["type"] for condition in after] == ["Accepted", "Online"]
    assert before[0]["status"] == "True"


def test_long_messages_are_cut_to_what_the_schema_takes() -> None:
    (cut,) = conditions.set_condition([], "Accepted", "False", "Long", "x" * 5000, 1, NOON)
    assert len(cut["message"]) == conditions.MAX_MESSAGE


def test_the_summary_is_the_first_false_condition() -> None:
    both = conditions.set_condition(accepted("Unknown"), "Online", "False", "NoLease", "Offline for 60 s.", 1, NOON)
    ready = conditions.get(conditions.summarise(both, ("Accepted", "Online"), 3, NOON), "Ready")
    assert ready is not None
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "NoLease", "Offline for 60 s.")
    assert ready["observedGeneration"] == 3


def test_the_summary_is_unknown_while_a_required_condition_is_missing() -> None:
    ready = conditions.get(conditions.summarise(accepted(), ("Accepted", "Online"), 1, NOON), "Ready")
    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("Unknown", "Pending")


def test_the_summary_is_true_when_all_required_conditions_are() -> None:
    summary = conditions.summarise(accepted(), ("Accepted",), 1, NOON, message="2 machines are offered.")
    assert conditions.is_true(summary, "Ready")


def test_a_condition_that_no_longer_applies_is_dropped() -> None:
    assert conditions.drop(accepted(), "Accepted") == []
    assert not conditions.is_true(conditions.drop(accepted(), "Accepted"), "Accepted")
    assert not conditions.is_true(None, "Accepted")


def test_times_are_written_in_utc_and_read_back() -> None:
    in_berlin = NOON.astimezone(timezone(timedelta(hours=1)))
    assert times.to_rfc3339(in_berlin) == "2026-01-31T12:00:00Z"
    precise = NOON + timedelta(microseconds=7)
    assert times.to_rfc3339(precise) == "2026-01-31T12:00:00Z"
    assert times.from_rfc3339("2026-01-31T13:00:00.000007+01:00") == precise


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-31T12:00:00", None])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        times.from_rfc3339(text)


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(Invalid):
        times.to_rfc3339(datetime(2026, 1, 31, 12, 0))
