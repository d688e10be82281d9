"""A renewal counts only when it grows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.core.lease import micro_time, next_renew_time, parse_micro_time

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


def test_the_first_renewal_is_now() -> None:
    assert next_renew_time(None, NOON) == NOON


def test_a_clock_that_steps_back_still_renews() -> None:
    assert next_renew_time(NOON, NOON - timedelta(minutes=5)) == NOON + timedelta(microseconds=1)


@given(moments, st.lists(moments, min_size=1))
def test_renewals_always_grow_as_written_and_are_never_behind_the_clock(start: datetime, clock: list[datetime]) -> None:
    previous = start
    for now in clock:
        written = parse_micro_time(micro_time(next_renew_time(previous, now)))
        assert written > previous
        assert written >= now
        previous = written


def test_micro_time_has_six_digits_in_utc() -> None:
    assert micro_time(NOON) == "2026-01-31T12:00:00.000000Z"
    assert micro_time(NOON.astimezone(timezone(timedelta(hours=2)))) == "2026-01-31T12:00:00.000000Z"


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-31T12:00:00"])
def test_a_time_without_zone_or_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_micro_time(text)
