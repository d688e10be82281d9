"""The hub's own meter: what is reserved time, by the hub's clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api.guest_pod import GuestPodStatus, Interval, Observed
from homefed.core.observation import MAX_INTERVALS, Blind, observe
from unit.core.guest_builders import a_node, after

BOUND = Observed(bound_at="2026-01-31T12:00:00Z")
RUNNING = Observed(bound_at="2026-01-31T12:00:00Z", running_from="2026-01-31T12:00:05Z")


def text(seconds: int) -> str:
    return f"2026-01-31T12:{seconds // 60:02d}:{seconds % 60:02d}Z"


def report(phase: Any, started: int | None = 5, finished: int | None = None) -> GuestPodStatus:
    times = {"started_at": None if started is None else text(started)}
    return GuestPodStatus(phase=phase, finished_at=None if finished is None else text(finished), **times)


def look(before: Observed, status: GuestPodStatus | None, seconds: int, **more: Any) -> Observed:
    given: dict[str, Any] = {"node": a_node(), "blind": None, "gone": False} | more
    return observe(before, status, given["node"], given["blind"], after(seconds), gone=given["gone"])


@pytest.mark.parametrize(
    ("started", "from_"),
    [(5, 5), (None, 20), (0, 0), (30, 20)],
)
def test_running_counts_from_the_homes_start_within_binding_and_first_sight(started: int | None, from_: int) -> None:
    assert look(BOUND, report("Running", started), 20).running_from == text(from_)


def test_pending_is_not_running_and_a_guest_that_never_started_never_ran() -> None:
    assert look(BOUND, report("Pending"), 20) == BOUND
    assert look(BOUND, None, 20) == BOUND
    ended = look(BOUND, report("Failed", None, 9), 20)
    assert (ended.running_from, ended.ended_at) == (None, text(9))


@pytest.mark.parametrize(("finished", "end"), [(9, 9), (None, 20), (2, 5), (55, 20)])
def test_the_end_is_the_homes_within_the_start_and_first_sight(finished: int | None, end: int) -> None:
    assert look(BOUND, report("Succeeded", 5, finished), 20).ended_at == text(end)


def test_a_pod_that_the_hub_holds_no_more_ends_when_that_is_seen() -> None:
    assert look(RUNNING, report("Running"), 40, gone=True).ended_at == text(40)


def test_what_is_set_once_is_never_changed() -> None:
    ended = look(RUNNING, report("Succeeded", 5, 9), 20)
    assert look(ended, report("Running", 1), 90, gone=True) == ended
    assert look(RUNNING, report("Running", 1), 90).running_from == RUNNING.running_from


def test_time_in_which_the_node_is_unknown_is_an_interval() -> None:
    opened = look(RUNNING, report("Running"), 70, node=a_node(ready="Unknown", since=after(60)))
    assert opened.intervals == [Interval(start=text(60), end=None)]
    assert look(opened, report("Running"), 80, node=a_node(ready="Unknown", since=after(60))) == opened
    closed = look(opened, report("Running"), 120, node=a_node(since=after(110)))
    assert closed.intervals == [Interval(start=text(60), end=text(110))]


def test_a_guest_that_ends_while_its_node_is_unknown_closes_the_interval() -> None:
    opened = look(RUNNING, report("Running"), 70, node=a_node(ready="Unknown", since=after(60)))
    ended = look(opened, report("Running"), 90, node=a_node(ready="Unknown", since=after(60)), gone=True)
    assert ended.intervals == [Interval(start=text(60), end=text(90))]


def test_a_blind_operator_is_an_interval_once() -> None:
    blind = Blind(after(100), after(400))
    seen = look(RUNNING, report("Running"), 405, blind=blind)
    assert seen.intervals == [Interval(start=text(100), end=text(400))]
    assert look(seen, report("Running"), 500, blind=blind) == seen


def test_a_short_gap_and_one_before_the_start_do_not_count() -> None:
    assert look(RUNNING, report("Running"), 300, blind=Blind(after(100), after(220))) == RUNNING
    late = Observed(bound_at=text(500), running_from=text(500))
    assert look(late, report("Running"), 505, blind=Blind(after(100), after(400))) == late


def test_a_guest_that_started_in_the_dark_is_blind_from_its_start() -> None:
    assert look(RUNNING, report("Running"), 405, blind=Blind(after(-600), after(400))).intervals[0].start == text(5)


def test_a_flapping_node_is_bounded_and_only_the_oldest_are_joined() -> None:
    many = [Interval(start=text(2 * n), end=text(2 * n + 1)) for n in range(MAX_INTERVALS)]
    before = Observed(bound_at=text(0), running_from=text(0), intervals=many)
    seen = look(before, report("Running"), 3000, node=a_node(ready="Unknown", since=after(2000)))
    assert len(seen.intervals) == MAX_INTERVALS
    assert seen.intervals[0] == Interval(start=text(0), end=text(3))
    assert seen.intervals[-1] == Interval(start=text(2000))


PHASES = st.sampled_from(["Pending", "Running", "Succeeded", "Failed"])
TIMES = st.none() | st.integers(0, 3000)


@given(st.lists(st.tuples(PHASES, TIMES, TIMES, st.booleans(), st.sampled_from(["True", "Unknown"])), max_size=8))
def test_bound_running_and_ended_stay_in_order_whatever_is_reported(steps: list[tuple[Any, ...]]) -> None:
    observed = BOUND
    for number, (phase, started, finished, gone, ready) in enumerate(steps):
        seconds = 10 * (number + 1)
        node = a_node(ready=ready, since=after(seconds - 3))
        before, observed = observed, look(observed, report(phase, started, finished), seconds, gone=gone, node=node)
        assert look(observed, report(phase, started, finished), seconds, gone=gone, node=node) == observed
        points = [t for t in (observed.bound_at, observed.running_from, observed.ended_at) if t is not None]
        assert points == sorted(points)
        assert points[-1] <= text(seconds)
        assert before.running_from in (None, observed.running_from)
        assert all(interval.end is not None for interval in observed.intervals[:-1])
        if observed.ended_at is not None:
            assert all(interval.end is not None for interval in observed.intervals)
