"""A day with a known truth on a real Prometheus, scraped every 30 s: what our meter makes of it, and the usual ways."""

from __future__ import annotations

import pytest

from testbed.binaries import Binaries
from truth.classes import CLASSES, SINGLE_SOURCE, day
from truth.table import GOALS_PPM, OURS, Day, measure_day, text

SEED = 7


@pytest.fixture(scope="module")
def measured(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Day:
    """One pod of each class, 300 short ones. `make bench-meter` takes more, at 15 and 60 s too."""
    cases = day(SEED, pods=1, short_pods=300)
    return measure_day(binaries, tmp_path_factory.mktemp("truth") / "day", cases, 30, seed=SEED)


@pytest.mark.parametrize("name", CLASSES)
def test_cpu_over_the_day_is_the_truth(measured: Day, name: str) -> None:
    assert abs(measured.cpu[OURS][name]) <= GOALS_PPM[name], text([measured])


@pytest.mark.parametrize("name", SINGLE_SOURCE)
def test_windows_of_any_length_add_up_to_the_same_day(measured: Day, name: str) -> None:
    assert measured.apart()[name] == 0


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "short"])
def test_network_bytes_over_the_day_are_the_truth(measured: Day, name: str) -> None:
    """Of short pods those after the last sample are never read, and not estimated."""
    assert abs(measured.network[OURS][name]) <= GOALS_PPM[name], text([measured])


def test_memory_of_short_pods_is_theirs_and_not_their_hours(measured: Day) -> None:
    assert abs(measured.memory[OURS]["short"]) < 10_000
    assert measured.memory["avg_over_time_1h"]["short"] > 10_000_000


def test_memory_of_an_outage_is_not_billed(measured: Day) -> None:
    assert measured.memory[OURS]["gaps"] < -10_000


@pytest.mark.parametrize(
    ("way", "name", "beyond"),
    [
        ("increase_1h", "gaps", -10_000),
        ("rate_5m", "gaps", -50_000),
        ("increase_1m", "short", -100_000),
        ("endpoint_delta", "churn", 1_000_000),
        ("increase_1h", "ha", 900_000),
    ],
)
def test_the_usual_ways_miss_where_homes_are_hard(measured: Day, way: str, name: str, beyond: int) -> None:
    """What makes the classes worth having: a meter that takes a short cut is found out by them."""
    found = measured.cpu[way][name]
    assert found < beyond if beyond < 0 else found > beyond


def test_a_day_that_holds_its_goals_misses_none(measured: Day) -> None:
    assert measured.missed() == []
