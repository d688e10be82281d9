"""The arithmetic behind the figures, and how a run is judged and shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.arithmetic import added, error_ppm, per_minute, percentile
from bench.figures import AGENT_RSS, GOALS, IDLE_WRITES, NODE_READY, Results, table

seconds = st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=200)


def test_the_percentile_of_a_hundred_values_is_the_one_of_that_rank() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (1, 50, 99, 100)] == [1, 50, 99, 100]


def test_the_median_of_twenty_is_the_tenth_and_of_one_that_one() -> None:
    assert percentile([float(number) for number in range(1, 21)], 50) == 10
    assert percentile([0.7], 50) == percentile([0.7], 99) == 0.7


@given(seconds, st.integers(1, 100))
def test_a_percentile_was_seen_and_enough_values_do_not_exceed_it(values: list[float], percent: int) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_a_percentile_of_nothing_or_out_of_range_is_refused(values: list[float], percent: float) -> None:
    with pytest.raises(ValueError):
        percentile(values, percent)


def test_what_a_way_adds_is_the_difference_at_the_same_percentile() -> None:
    assert added([1.0, 2.0, 5.0], [0.5, 1.5, 2.0], 50) == 0.5
    assert added([1.0, 2.0, 5.0], [0.5, 1.5, 2.0], 99) == 3.0


def test_an_error_counts_in_both_directions() -> None:
    assert error_ppm(101, 100) == error_ppm(99, 100) == 10_000
    assert error_ppm(5, 5) == 0


def test_no_error_is_told_where_nothing_was_used() -> None:
    with pytest.raises(ValueError, match="nothing was used"):
        error_ppm(0, 0)


def test_writes_are_counted_per_minute() -> None:
    assert per_minute(3, 120) == 1.5
    with pytest.raises(ValueError):
        per_minute(1, 0)


def test_a_goal_is_missed_at_its_limit_and_rest_is_met_at_zero_only() -> None:
    assert GOALS[NODE_READY].met_by(0.999)
    assert not GOALS[NODE_READY].met_by(1.0)
    assert GOALS[IDLE_WRITES].met_by(0)
    assert not GOALS[IDLE_WRITES].met_by(0.5)


def test_a_figure_that_was_not_measured_is_shown_as_such() -> None:
    shown = table({NODE_READY: 1.2}, [NODE_READY, AGENT_RSS]).splitlines()
    assert "MISSED" in shown[1]
    assert "not measured" in shown[2]
    assert len(shown) == 3


def test_the_document_names_wanted_figures_goals_and_what_was_missed() -> None:
    results = Results()
    results.put(NODE_READY, 1.23456, seconds=[1.23456])
    document = results.document([NODE_READY, AGENT_RSS])
    assert document[NODE_READY] == 1.2346
    assert document[AGENT_RSS] is None
    assert document["goals"] == {NODE_READY: "< 1", AGENT_RSS: "< 120"}
    assert document["missed"] == [NODE_READY]
    assert IDLE_WRITES not in document


def test_a_figure_without_a_goal_cannot_be_put() -> None:
    with pytest.raises(KeyError):
        Results().put("speed", 1)
