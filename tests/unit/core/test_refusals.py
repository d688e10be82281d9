"""How slowly refused pods are failed."""

from __future__ import annotations

from datetime import timedelta

from homefed.core.refusals import Rounds, controller_uid, delay, failed
from unit.core.guest_builders import NOON, UID, a_pod, after, of_replica_set


def test_the_delay_starts_at_ten_seconds_doubles_and_ends_at_a_quarter_of_an_hour() -> None:
    rounds, now, seen = None, NOON, []
    for _ in range(9):
        wait = delay(rounds, now)
        seen.append(int(wait.total_seconds()))
        now += wait
        rounds = failed(rounds, now)
    assert seen == [10, 20, 40, 80, 160, 320, 640, 900, 900]


def test_pods_of_one_controller_that_fail_together_are_one_round() -> None:
    first = failed(None, NOON)
    assert failed(first, after(9)) == first
    assert failed(first, after(20)).count == 2


def test_after_half_an_hour_of_quiet_the_delay_starts_again() -> None:
    assert delay(Rounds(9, NOON), after(1799)) == timedelta(minutes=15)
    assert delay(Rounds(9, NOON), after(1801)) == timedelta(seconds=10)
    assert failed(Rounds(9, NOON), after(1801)).count == 1


def test_the_back_off_counts_by_controller_and_for_a_bare_pod_by_itself() -> None:
    assert controller_uid(a_pod()) == UID
    assert controller_uid(of_replica_set(a_pod())) == "rs-1"
