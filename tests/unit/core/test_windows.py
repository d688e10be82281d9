from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.core import windows
from homefed.core.windows import Window

T0 = 1_767_225_600


def test_windows_are_aligned_to_utc() -> None:
    assert windows.following(T0 + 1800, 3600) == Window(T0 + 1800, T0 + 3600)
    assert windows.following(T0, 3600) == Window(T0, T0 + 3600)


def test_a_window_is_due_when_its_grace_has_passed_and_not_before() -> None:
    spans = [(T0 * 1000, None)]
    early = windows.due(T0, T0 + 3659, length=3600, grace_seconds=60, spans=spans, limit=9)
    late = windows.due(T0, T0 + 3660, length=3600, grace_seconds=60, spans=spans, limit=9)
    assert (early, late) == ([], [Window(T0, T0 + 3600)])


def test_missed_windows_are_caught_up_one_by_one_and_bounded() -> None:
    found = windows.due(T0, T0 + 100_000, length=3600, grace_seconds=60, spans=[(0, None)], limit=3)
    assert found == [Window(T0 + 3600 * n, T0 + 3600 * (n + 1)) for n in range(3)]


def test_idle_windows_are_passed_over() -> None:
    spans = [((T0 + 7300) * 1000, (T0 + 7400) * 1000)]
    found = windows.due(T0, T0 + 100_000, length=3600, grace_seconds=60, spans=spans, limit=9)
    assert found == [Window(T0 + 7200, T0 + 10_800)]


def test_the_first_window_is_the_one_in_which_the_first_guest_began() -> None:
    found = windows.due(None, T0 + 8000, length=3600, grace_seconds=60, spans=[((T0 + 10) * 1000, None)], limit=9)
    assert found[0] == Window(T0, T0 + 3600)


def test_without_guests_nothing_is_due() -> None:
    assert windows.due(None, T0, length=60, grace_seconds=0, spans=[], limit=9) == []


def test_a_pod_that_ends_exactly_at_the_edge_does_not_touch_the_next_window() -> None:
    assert Window(T0, T0 + 60).overlap_ms((T0 - 60) * 1000, T0 * 1000) == 0


@pytest.mark.parametrize(("configured", "scrape", "expected"), [(0, 15_000, 30), (0, 60_000, 120), (7, 60_000, 7)])
def test_the_grace_is_two_scrapes_and_at_least_thirty_seconds(configured: int, scrape: int, expected: int) -> None:
    assert windows.grace(configured, scrape) == expected


@given(st.integers(0, 10**6), st.integers(1, 10**5), st.sampled_from([10, 60, 3600]))
def test_overlaps_of_neighbouring_windows_add_up(start: int, lasts: int, length: int) -> None:
    end = start + lasts
    first = windows.following(windows.floor(start // 1000, length), length)
    pieces = [first, *windows.closed(first.end, end // 1000 + 2 * length, length=length, grace_seconds=0)]
    assert sum(piece.overlap_ms(start, end) for piece in pieces) == lasts
