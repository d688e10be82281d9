"""The made-up day itself: its truth is exact, the same seed gives the same day, and samples are what they claim."""

from __future__ import annotations

from collections import Counter

from homefed.core.readings import guest_of
from truth.classes import CLASSES, DAY_S, END_MS, MIB, START_MS, T0, Case, Scraper, day
from truth.meters import guest_pod
from truth.scraping import CPU, STARTED, scraped
from truth.table import GOAL_SCRAPE_S, OURS, SPLITS, Day
from truth.workload import Instance, Piece, Pod

SECOND = 1000


def pod(*instances: Instance) -> Pod:
    return Pod("00000000-0000-4000-8000-000000000000", 500, 128 * MIB, instances)


def instance(number: int, start: int, end: int | None, *pieces: tuple[int, int]) -> Instance:
    """`start` and `end` in seconds of the day, `pieces`: (second, milli-cores)."""
    moment = START_MS + start * SECOND
    last = None if end is None else START_MS + end * SECOND
    return Instance(number, moment, last, [Piece(START_MS + at * SECOND, mcores, MIB, 2) for at, mcores in pieces])


def test_the_truth_is_the_sum_of_its_pieces() -> None:
    one = pod(instance(0, 10, 100, (10, 200), (40, 50)))
    assert one.truth("mcores", START_MS, END_MS) == 200 * 30_000 + 50 * 60_000
    assert one.truth("mcores", START_MS + 20_000, START_MS + 50_000) == 200 * 20_000 + 50 * 10_000
    assert one.truth("held", START_MS, END_MS) == MIB * 90_000
    assert one.truth("rate", START_MS, END_MS) == 2 * 90_000


def test_a_restart_begins_a_counter_and_ends_none_of_the_truth() -> None:
    one = pod(instance(0, 0, 60, (0, 100)), instance(1, 65, None, (65, 300)))
    assert one.truth("mcores", START_MS, START_MS + 75_000) == 100 * 60_000 + 300 * 10_000
    case = Case("resets", [one])
    starts = {made.labels["id"][-1]: made.points for made in scraped([case], 30, seed=1) if made.name == STARTED}
    assert {key: {value for _, value in points} for key, points in starts.items()} == {"0": {T0}, "1": {T0 + 65}}


def test_samples_are_the_counters_at_their_moments() -> None:
    one = pod(instance(0, 0, None, (0, 250)))
    (made,) = [made for made in scraped([Case("steady", [one])], 30, seed=1) if made.name == CPU]
    assert len(made.points) >= DAY_S // 30
    assert all(abs(value - 0.25 * (second - T0)) < 1e-6 for second, value in made.points)


def test_what_a_lagging_kubelet_answers_is_never_newer_than_it_says() -> None:
    one = pod(instance(0, 0, None, (0, 1000)))
    case = Case("lagged", [one], (Scraper(read_every=(20_000, 60_000)),))
    (made,) = [made for made in scraped([case], 15, seed=1) if made.name == CPU]
    ages = [second - T0 - value for second, value in made.points]
    assert min(ages) > -0.001
    assert 20 < max(ages) <= 60.01


def test_nothing_is_scraped_in_an_outage() -> None:
    one = pod(instance(0, 0, None, (0, 1000)))
    out = (START_MS + 3_600_000, START_MS + 7_200_000)
    (made,) = [
        made for made in scraped([Case("gaps", [one], (Scraper(outages=[out]),))], 30, seed=1) if made.name == CPU
    ]
    assert not [second for second, _ in made.points if T0 + 3601 < second < T0 + 7200]


def test_the_same_seed_gives_the_same_day() -> None:
    first, second = (scraped(day(3, pods=1, short_pods=3), 60, seed=3) for _ in range(2))
    assert first == second
    assert first != scraped(day(4, pods=1, short_pods=3), 60, seed=4)


def test_every_class_is_in_a_day_and_uses_something() -> None:
    cases = day(3, pods=1, short_pods=3)
    assert [case.name for case in cases] == list(CLASSES)
    assert all(case.truth("mcores") > 0 for case in cases)
    assert Counter(len(case.scrapers) for case in cases) == {1: 8, 2: 1}


def test_guests_are_known_as_kubernetes_tells_them() -> None:
    one = pod(instance(0, 1, 60, (1, 100)), instance(1, 65, 90, (65, 300)))
    at = {second: guest_of(guest_pod(one, START_MS + second * SECOND)) for second in (30, 62, 70, 100)}
    assert at[30].containers["app"].start == START_MS + 1000
    assert (at[30].life.end, at[30].containers["app"].end) == (None, None)
    assert at[62].containers["app"].end == START_MS + 60_000
    assert at[70].containers["app"].start == START_MS + 65_000
    assert (at[100].life.end, at[100].containers["app"].end) == (START_MS + 90_000, START_MS + 90_000)


def test_a_missed_goal_is_named() -> None:
    good = dict.fromkeys(CLASSES, 0.0)
    amounts = {name: Counter({"cpu": 5}) for name in CLASSES}
    splits = dict.fromkeys(SPLITS, amounts)
    assert Day(GOAL_SCRAPE_S, {OURS: good}, {}, {}, splits).missed() == []
    bad = Day(GOAL_SCRAPE_S, {OURS: good | {"gaps": -1500.0}}, {}, {}, splits)
    assert bad.missed() == ["gaps: -1500 ppm, goal 1000"]
    other = {name: Counter({"cpu": 6}) for name in CLASSES}
    assert len(Day(60, {OURS: good}, {}, {}, {**splits, 300: other}).missed()) == len(CLASSES) - 1
