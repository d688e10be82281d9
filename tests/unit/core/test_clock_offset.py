"""How far the local clock is off, from Date headers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from homefed.core.clock import ClockOffset

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def observed(true_offset: timedelta, arrivals: list[timedelta]) -> ClockOffset:
    """Answers that arrive at these times after noon (hub's clock), with Date headers cut to whole seconds."""
    clock = ClockOffset()
    for arrival in arrivals:
        hub = NOON + arrival
        clock.observe(hub.replace(microsecond=0), hub - true_offset)
    return clock


def test_before_the_first_answer_the_local_clock_is_trusted() -> None:
    assert ClockOffset().offset == timedelta()
    assert not ClockOffset().skewed


@given(st.lists(st.timedeltas(timedelta(), timedelta(hours=1)), min_size=1, max_size=9))
def test_clocks_that_agree_have_no_offset(arrivals: list[timedelta]) -> None:
    assert observed(timedelta(), arrivals).offset == timedelta()


@given(
    st.integers(-1000, 1000),
    st.lists(st.timedeltas(timedelta(), timedelta(hours=1)), min_size=1, max_size=9),
)
def test_an_offset_of_whole_seconds_is_found_exactly(seconds: int, arrivals: list[timedelta]) -> None:
    clock = observed(timedelta(seconds=seconds), arrivals)
    assert clock.offset == timedelta(seconds=seconds)
    assert clock.skewed == (abs(seconds) > 10)


@given(st.timedeltas(timedelta(hours=-1), timedelta(hours=1)), st.timedeltas(timedelta(), timedelta(hours=1)))
def test_the_offset_is_never_more_than_a_second_wrong(true: timedelta, arrival: timedelta) -> None:
    assert abs(observed(true, [arrival]).offset - true) <= timedelta(seconds=1)


def test_two_absurd_headers_among_five_move_nothing_and_a_step_shows_after_three() -> None:
    clock = observed(timedelta(), [timedelta(seconds=n) for n in range(5)])
    for expected in (timedelta(), timedelta(), timedelta(minutes=5)):
        clock.observe(NOON + timedelta(minutes=5), NOON + timedelta(milliseconds=500))
        assert clock.offset == expected
    assert clock.skewed


def test_conversion_goes_both_ways() -> None:
    clock = observed(timedelta(minutes=5), [timedelta()])
    assert clock.hub_time(NOON) == NOON + timedelta(minutes=5)
    assert clock.local_time(clock.hub_time(NOON)) == NOON
