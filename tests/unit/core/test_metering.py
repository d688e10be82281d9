"""The meter against what homes do to it: resets, gaps, churn, lag, pairs of scrapers, short pods, bad samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest

from homefed.api.errors import Invalid
from homefed.api.report_document import Reading, ReportLine
from homefed.core.metering import Guest, Measured, Settings, Span, measure, over_capacity
from homefed.core.readings import guest_of
from homefed.core.samples import Intake, RawSeries, intake
from homefed.core.windows import Window

UID = "11111111-2222-3333-4444-555555555555"
T0 = 1_767_225_600
SCRAPE = 15_000
HOUR = Window(T0, T0 + 3600)
LATE = (T0 + 10**6) * 1000
MIB = 2**20


def guest(
    *, start: int = 0, end: int | None = None, mcores: int = 1000, memory: int = 2**30, **containers: Span
) -> Guest:
    """A guest pod; `start` and `end` in seconds after T0. One container `app` of the same life unless given."""
    life = Span((T0 + start) * 1000, None if end is None else (T0 + end) * 1000)
    return Guest(UID, {"cpu": mcores, "memory": memory}, life, containers or {"app": life})


def series(metric: str, points: Sequence[tuple[float, object]], *, uid: str = UID, **labels: str) -> RawSeries:
    """`points`: (seconds after T0, value)."""
    network = metric.startswith("network")
    own = {"pod": f"hf-{uid}", "container": "" if network else "app", "id": "/kubepods/a", **labels}
    samples = [(round((T0 + second) * 1000), str(value)) for second, value in points]
    return RawSeries(metric, own, samples)  # type: ignore[arg-type]


def run(
    raw: list[RawSeries],
    who: Guest | None = None,
    *,
    window: Window = HOUR,
    before: list[Reading] | None = None,
    offset_ms: int = 0,
    now_ms: int = LATE,
    scrape_ms: int = SCRAPE,
) -> Measured:
    settings = Settings(scrape_ms, offset_ms)
    taken = intake(raw, {UID}, window, now_ms=now_ms, offset_ms=offset_ms)
    return measure(window, [who or guest()], taken, before or [], settings)


def line(measured: Measured, resource: str) -> ReportLine:
    (found,) = [one for one in measured.lines if one.resource == resource]
    return found


def steady(metric: str, rate: float, *, begin: int = 15, end: int = 3600, step: int = 15, **labels: str) -> RawSeries:
    return series(metric, [(second, rate * second) for second in range(begin, end + 1, step)], **labels)


def test_a_counter_is_billed_by_its_readings_to_the_microsecond() -> None:
    used = line(run([steady("cpu", 0.25)]), "cpu")
    assert (used.open, used.close, used.amount, used.unit) == ("0", "900000000", "900000000", "ucore.s")
    assert used.flags == []
    assert (used.samples, used.expected, used.gaps, used.coverage_ppm) == (240, 240, 0, 1_000_000)


def test_memory_is_the_step_integral_in_kib_seconds() -> None:
    used = line(run([series("memory", [(s, 64 * MIB) for s in range(0, 3601, 15)], id="/kubepods/a")]), "memory")
    assert int(used.amount) == 64 * 1024 * (3600 - 15)


def test_memory_before_the_first_sample_is_estimated_from_the_instances_start_and_says_so() -> None:
    points = [(s, 64 * MIB) for s in range(12, 3613, 15)]
    begun = series("start", [(12, T0 + 2)])
    used = line(run([series("memory", points), begun]), "memory")
    assert int(used.amount) == 64 * 1024 * (3597 - 2)
    assert used.estimated == str(64 * 1024 * 10)
    assert "Estimated" in used.flags


def test_memory_before_a_late_first_sample_is_billed_for_two_scrapes_at_most() -> None:
    begun = series("start", [(600, T0)])
    used = line(run([series("memory", [(600, 64 * MIB), (615, 64 * MIB)]), begun]), "memory")
    assert int(used.amount) == 64 * 1024 * (30 + 15)


def test_memory_is_not_billed_through_a_gap_longer_than_two_scrapes() -> None:
    points = [(s, 64 * MIB) for s in range(15, 601, 15)] + [(s, 64 * MIB) for s in range(1800, 3601, 15)]
    used = line(run([series("memory", points)]), "memory")
    assert int(used.amount) == 64 * 1024 * (585 + 30 + 1800)
    assert used.gaps == 1
    assert "Partial" in used.flags


def test_a_home_that_scrapes_more_often_than_the_kubelet_reads_is_billed_wholly_too() -> None:
    points = [(s, 64 * MIB) for s in range(0, 3601, 20)]
    used = line(run([series("memory", points)], scrape_ms=5_000), "memory")
    assert int(used.amount) == 64 * 1024 * (3600 - 20)
    assert (used.gaps, used.expected, used.flags) == (0, 240, [])


def test_a_counter_loses_nothing_by_a_scrape_outage() -> None:
    points = [(s, 0.5 * s) for s in [*range(15, 600, 15), *range(3000, 3601, 15)]]
    used = line(run([series("cpu", points)]), "cpu")
    assert int(used.amount) == 1_800_000_000
    assert "Partial" in used.flags


def test_network_counters_come_from_the_sandbox_only() -> None:
    measured = run([steady("network-receive", 1000), steady("network-transmit", 10, container="app")])
    assert line(measured, "network-receive").amount == "3600000"
    assert line(measured, "network-transmit").amount == "0"


def test_a_restarted_counter_that_passes_its_old_value_within_one_scrape_is_counted_wholly() -> None:
    old = series("cpu", [(15, 1.0), (30, 2.0)], id="/kubepods/old")
    new = series("cpu", [(45, 2.5), (60, 3.0)], id="/kubepods/new")
    used = line(run([old, new]), "cpu")
    assert used.amount == "5000000"
    assert used.resets == 1


def test_a_later_start_time_under_the_same_id_is_a_reset_when_the_value_fits_it() -> None:
    cpu = series("cpu", [(15, 1.0), (30, 2.0), (60, 3.0)])
    start = series("start", [(15, T0), (30, T0), (60, T0 + 31)])
    assert line(run([cpu, start], guest(mcores=200)), "cpu").amount == "5000000"


def test_a_start_time_that_moves_without_a_restart_bills_nothing_twice() -> None:
    cpu = series("cpu", [(s, 0.5 * s) for s in range(15, 3601, 15)])
    start = series("start", [(15, T0), (1800, T0 + 1795)])
    used = line(run([cpu, start]), "cpu")
    assert used.amount == "1800000000"
    assert used.resets == 0


def test_a_container_that_was_replaced_and_is_still_answered_for_is_not_counted_again() -> None:
    old = series("cpu", [(15, 10.0), (30, 10.0), (45, 10.0), (60, 10.0)], id="/kubepods/old")
    new = series("cpu", [(40, 1.0), (55, 2.0), (70, 3.0)], id="/kubepods/new")
    starts = [series("start", [(15, T0)], id="/kubepods/old"), series("start", [(40, T0 + 32)], id="/kubepods/new")]
    assert line(run([old, new, *starts]), "cpu").amount == "13000000"


def restarted(*ends: int) -> list[ReportLine]:
    """Lines of a container of half a core and 8 MiB that is replaced at second 50; `ends` are what is told."""
    raw = [series("cpu", [(15, 7.5), (30, 15.0)]), series("cpu", [(60, 5.0)], id="/kubepods/b")]
    raw += [series("memory", [(15, 8 * MIB), (30, 8 * MIB)]), series("memory", [(60, 8 * MIB)], id="/kubepods/b")]
    raw += [series("start", [(15, T0)]), series("start", [(60, T0 + 50)], id="/kubepods/b")]
    span = Span((T0 + 50) * 1000, None, tuple((T0 + end) * 1000 for end in ends))
    return run(raw, guest(app=span)).lines


def test_a_replaced_container_is_billed_to_its_end_where_that_is_told_and_says_so() -> None:
    cpu, memory, *_ = restarted(46)
    assert (cpu.amount, cpu.estimated) == ("28000000", "8000000")
    assert int(memory.amount) == 8 * 1024 * (46 + 10)


def test_a_replaced_container_whose_end_nobody_told_is_billed_as_read() -> None:
    cpu, memory, *_ = restarted()
    assert (cpu.amount, cpu.estimated) == ("20000000", "0")
    assert int(memory.amount) == 8 * 1024 * (50 + 10)


def test_the_end_of_another_instance_is_not_its_own() -> None:
    assert restarted(20, 70) == restarted()


def test_a_drop_within_an_instance_is_lag_and_adds_nothing() -> None:
    used = line(run([series("cpu", [(15, 10.0), (30, 9.0), (45, 10.0), (60, 11.0)])]), "cpu")
    assert used.amount == "11000000"
    assert used.flags[0] == "Lagged"
    assert used.resets == 0


def test_churn_of_other_labels_changes_nothing() -> None:
    whole = [(s, 0.5 * s) for s in range(15, 3601, 15)]
    cut = [
        series("cpu", whole[:100], instance="10.0.0.1:10250", image="a"),
        series("cpu", whole[100:], instance="10.0.0.2:10250", image="b", job="other"),
    ]
    assert run(cut).lines == run([series("cpu", whole)]).lines


def test_a_pair_of_scrapers_is_counted_once() -> None:
    one = [steady(metric, rate) for metric, rate in (("cpu", 0.5), ("network-receive", 100.0))]
    memory = series("memory", [(s, 10 * MIB) for s in range(15, 3601, 15)])
    again = [RawSeries(raw.metric, {**raw.labels, "replica": "b"}, raw.samples) for raw in [*one, memory]]
    both, single = run([*one, memory, *again]), run([*one, memory])
    assert [item.amount for item in both.lines] == [item.amount for item in single.lines]


def test_a_short_pod_is_billed_to_its_end_by_estimate_and_says_so() -> None:
    who = guest(start=0, end=90, mcores=500)
    cpu = series("cpu", [(15, 6.0), (30, 12.0), (45, 18.0), (60, 24.0), (75, 30.0)])
    used = line(run([cpu], who), "cpu")
    assert used.amount == "36000000"
    assert used.estimated == "6000000"
    assert "Estimated" in used.flags


def test_an_estimated_tail_never_exceeds_the_limit() -> None:
    used = line(run([series("cpu", [(10, 40.0)])], guest(start=0, end=20, mcores=1000)), "cpu")
    assert used.estimated == "10000000"


def test_memory_ends_with_the_container() -> None:
    points = [(s, 8 * MIB) for s in range(15, 91, 15)]
    used = line(run([series("memory", points)], guest(end=50)), "memory")
    assert int(used.amount) == 8 * 1024 * (50 - 15)


def test_a_tail_is_counted_once_and_the_guest_is_left_out_afterwards() -> None:
    who = guest(end=90)
    first = run([series("cpu", [(60, 30.0)])], who, window=Window(T0, T0 + 120))
    assert all(reading.ended for reading in first.readings)
    second = run([], who, window=Window(T0 + 120, T0 + 240), before=first.readings)
    assert (second.lines, second.readings) == ([], [])


def test_an_end_that_is_learned_late_is_still_counted() -> None:
    first = run([series("cpu", [(60, 30.0)])], guest(), window=Window(T0, T0 + 120))
    second = run([], guest(end=90), window=Window(T0 + 120, T0 + 240), before=first.readings)
    assert line(second, "cpu").amount == "15000000"


@pytest.mark.parametrize("cut", [(), (90,), (94,), (60, 91)])
def test_what_is_still_answered_after_the_end_adds_nothing(cut: tuple[int, ...]) -> None:
    raw, who = [series("cpu", [(60, 30.0), (95, 46.0)]), series("memory", [(60, MIB), (95, MIB)])], guest(end=90)
    totals, readings = Counter[str](), list[Reading]()
    for begin, end in pairwise([0, *cut, 120]):
        piece = run(raw, who, window=Window(T0 + begin, T0 + end), before=readings)
        readings = piece.readings
        totals.update({one.resource: int(one.amount) for one in piece.lines})
    assert (totals["cpu"], totals["memory"]) == (45_000_000, 1024 * 30)


def test_readings_of_a_guest_that_is_not_listed_are_carried_on() -> None:
    first = run([steady("cpu", 0.5, end=120)], window=Window(T0, T0 + 120))
    empty = measure(Window(T0 + 120, T0 + 240), [], Intake(), first.readings, Settings(SCRAPE))
    assert empty.readings == first.readings


def test_a_pod_without_a_single_sample_is_reported_with_nothing_used() -> None:
    used = line(run([]), "cpu")
    assert (used.amount, used.coverage_ppm) == ("0", 0)
    assert {"NoSamples", "Partial"} <= set(used.flags)


def test_samples_at_the_start_belong_to_the_window_before_those_at_the_end_to_this_one() -> None:
    raw = series("cpu", [(0, 1.0), (3600, 5.0), (3601, 9.0)])
    assert run([raw]).readings[0].value == "5000000"
    assert line(run([raw]), "cpu").samples == 1


def test_a_home_clock_that_is_off_is_corrected() -> None:
    ahead = [
        RawSeries(raw.metric, raw.labels, [(t + 300_000, v) for t, v in raw.samples]) for raw in [steady("cpu", 0.5)]
    ]
    assert run(ahead, offset_ms=-300_000).lines == run([steady("cpu", 0.5)]).lines


@pytest.mark.parametrize(
    ("text", "code"),
    [("NaN", "NotFinite"), ("+Inf", "NotFinite"), ("-Inf", "NotFinite"), ("-1", "Negative"), ("1e300", "TooLarge")],
)
def test_a_bad_sample_is_refused_with_a_code_and_the_good_ones_count(text: str, code: str) -> None:
    used = line(run([series("cpu", [(15, 1.0), (30, text), (45, 3.0)])]), "cpu")
    assert used.amount == "3000000"
    assert code in used.flags


def test_a_sample_from_the_future_is_refused() -> None:
    used = line(run([series("cpu", [(15, 1.0), (3000, 900.0)])], now_ms=(T0 + 1000) * 1000), "cpu")
    assert used.amount == "1000000"
    assert "Future" in used.flags


def test_what_is_no_number_at_all_is_no_answer() -> None:
    with pytest.raises(Invalid, match="where a number belongs"):
        run([series("cpu", [(15, "many")])])


def test_a_sample_that_the_instance_cannot_have_reached_is_refused_and_spoils_nothing() -> None:
    used = line(run([series("cpu", [(1800, 900.0), (1815, 10_000.0), (3600, 1800.0)])], guest(mcores=1000)), "cpu")
    assert used.amount == "1800000000"
    assert used.flags[-2:] == ["OverCapacity", "Partial"]


def test_a_rise_that_the_time_since_has_no_room_for_adds_nothing() -> None:
    points = [(600, 300.0), (615, 600.0), (630, 607.5)]
    used = line(run([series("cpu", points)], guest(mcores=500)), "cpu")
    assert used.amount == "307500000"
    assert "OverCapacity" in used.flags


def test_a_new_container_id_does_not_make_an_old_value_new() -> None:
    old, new = series("cpu", [(600, 300.0)]), series("cpu", [(615, 305.0), (630, 310.0)], id="/kubepods/b")
    used = line(run([old, new], guest(mcores=500)), "cpu")
    assert used.amount == "305000000"
    assert "OverCapacity" in used.flags


def test_two_sources_that_contradict_each_other_add_nothing_to_each_other() -> None:
    scraped = [(s, 0.1 * s) for s in range(600, 1200, 30)]
    recorded = [(s + 1, 0.5 * s) for s in range(600, 1200, 30)]
    used = line(run([series("cpu", scraped), series("cpu", recorded, job="recorded")], guest(mcores=500)), "cpu")
    assert int(used.amount) == 60_000_000
    assert {"Lagged", "OverCapacity"} <= set(used.flags)


def test_more_than_the_pod_can_have_used_in_all_is_flagged_and_not_cut() -> None:
    used = line(run([series("cpu", [(3600, 3700.0)])], guest(mcores=500)), "cpu")
    assert used.amount == "3700000000"
    assert "OverCapacity" in used.flags


def test_the_line_rate_bounds_what_a_network_counter_can_say() -> None:
    assert over_capacity("network-receive", 1_250_001, {}, 1)
    assert not over_capacity("network-receive", 1_250_000, {}, 1)


def test_another_homes_pod_and_pod_level_sums_are_not_counted() -> None:
    foreign = steady("cpu", 5.0, uid="99999999-2222-3333-4444-555555555555")
    sums = steady("cpu", 5.0, container="")
    assert line(run([foreign, sums, steady("cpu", 0.1)]), "cpu").amount == "360000000"


def test_containers_live_as_the_guest_pods_status_says() -> None:
    status = {
        "phase": "Succeeded",
        "startedAt": "2026-01-01T00:00:00Z",
        "finishedAt": "2026-01-01T00:10:00Z",
        "containers": [
            {
                "name": "init",
                "state": "terminated",
                "startedAt": "2026-01-01T00:00:01Z",
                "finishedAt": "2026-01-01T00:00:03Z",
            },
            {"name": "side", "state": "running", "startedAt": "2026-01-01T00:00:04Z"},
            {"name": "crash", "state": "waiting", "lastFinishedAt": "2026-01-01T00:05:00Z"},
            {"name": "never", "state": "waiting"},
            {
                "name": "again",
                "state": "running",
                "startedAt": "2026-01-01T00:07:00Z",
                "lastFinishedAt": "2026-01-01T00:06:58Z",
                "earlierEnds": ["2026-01-01T00:02:00Z", "2026-01-01T00:06:58Z"],
            },
        ],
    }
    found = guest_of({"spec": {"podUid": UID, "requests": {"cpu": "250m"}}, "status": status})
    assert found.requests == {"cpu": 250}
    assert found.containers == {
        "init": Span((T0 + 1) * 1000, (T0 + 3) * 1000),
        "side": Span((T0 + 4) * 1000, (T0 + 600) * 1000),
        "crash": Span(T0 * 1000, (T0 + 300) * 1000, ((T0 + 300) * 1000,)),
        "again": Span((T0 + 420) * 1000, (T0 + 600) * 1000, ((T0 + 120) * 1000, (T0 + 418) * 1000)),
    }
