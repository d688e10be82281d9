"""What the examination of a meter finds in made-up facts; the same on real servers: tests/contracts/prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.core.meter_advice import Advice, duration
from homefed.core.meter_doctor import examine
from homefed.core.meter_facts import NAMES, NETWORK_NAMES, Facts, Guest, Job, Node, Series, Target

NOW = 1_767_225_600_000
STEP = 15_000
POD = "hf-0f5a6f0e"
TIMES = [NOW - 300_000 + STEP * number for number in range(20)]
SOURCE = {"job": "cadvisor", "instance": "nuc:10250"}


def container(name: str, times: Sequence[int] = TIMES, late: int = 7_123, **labels: str) -> Series:
    own = {"__name__": name, "namespace": "homefed-guests", "pod": POD, "container": "app", "id": "/kubepods/a"}
    if name in NETWORK_NAMES:
        own |= {"container": "", "id": "/kubepods/sandbox", "interface": "eth0"}
    return Series({**own, **SOURCE, **labels}, [time - late for time in times])


def world(**labels: str) -> list[Series]:
    return [container(name, **labels) for name in NAMES]


def without(series: Series, *names: str) -> Series:
    return replace(series, labels={name: value for name, value in series.labels.items() if name not in names})


def scrapes(values: str = "1" * 20, times: Sequence[int] = TIMES, **labels: str) -> Series:
    return Series({"__name__": "up", **SOURCE, **labels}, times, list(values))


TARGET = Target("cadvisor", "nuc:10250", "/metrics/cadvisor", node="nuc", interval=STEP)
RIGHT = Facts(
    now=NOW,
    server=NOW + 900,
    interval=STEP,
    namespace="homefed-guests",
    series=world(),
    up=[scrapes()],
    targets=[TARGET],
    jobs=[Job("cadvisor")],
    nodes=[Node("nuc"), Node("hf-oak-1", is_virtual=True)],
    guests=[Guest(POD, "nuc", NOW - 600_000)],
)


def found(**changes: Any) -> list[Advice]:
    return examine(replace(RIGHT, **changes))


def codes(advice: Sequence[Advice]) -> list[str]:
    return [one.code + ("" if one.must else " (note)") for one in advice]


def test_nothing_must_change_where_all_is_right() -> None:
    assert examine(RIGHT) == []


def test_what_must_change_comes_first_and_says_what_to_set() -> None:
    resource = [without(one, "id") for one in world(job="resource")[:2]]
    advice = found(series=[*world(), *resource], server=NOW + 60_000)
    assert [one.must for one in advice] == sorted((one.must for one in advice), reverse=True)
    assert all(change.field and change.to for one in advice if one.must for change in one.changes)


# --- scraping


def test_no_target_of_cadvisor() -> None:
    assert codes(found(series=[], targets=[replace(TARGET, path="/metrics")], guests=None)) == ["NoCadvisor"]


def test_no_series_where_targets_are_not_told() -> None:
    assert codes(found(series=[], targets=None, guests=[])) == ["NoCadvisor", "TargetsNotTold (note)"]


def test_an_idle_home_is_told_to_look_again_and_nothing_else() -> None:
    assert codes(found(series=[], guests=[])) == ["NothingToRead (note)"]


def test_a_machine_that_is_not_scraped_must_be_where_guests_run() -> None:
    nodes = [Node("nuc"), Node("nas")]
    assert codes(found(nodes=nodes)) == ["MachineNotScraped (note)"]
    guests = [Guest(POD, "nas", NOW - 600_000)]
    assert codes(found(nodes=nodes, guests=guests)) == ["MachineNotScraped"]


def test_targets_that_name_no_machine_accuse_none() -> None:
    assert found(targets=[replace(TARGET, node="")], nodes=[Node("nas")]) == []


@pytest.mark.parametrize("told", [{"is_virtual": True, "node": ""}, {"node": "hf-oak-1"}])
def test_a_virtual_node_among_the_targets(told: dict[str, Any]) -> None:
    virtual = replace(TARGET, instance="x", healthy=False, **told)
    (advice,) = found(targets=[TARGET, virtual])
    assert advice.code == "ScrapesVirtualNode"
    assert "virtual-kubelet" in advice.changes[0].to


@pytest.mark.parametrize(
    ("error", "field"),
    [
        ("server returned HTTP status 401 Unauthorized", "authorization"),
        ("server returned HTTP status 403 Forbidden", "ClusterRole"),
        ("tls: failed to verify certificate: x509: unknown authority", "tls_config"),
        ("context deadline exceeded", "scrape_timeout"),
        ("dial tcp 10.0.0.1:10250: connect: connection refused", "relabel_configs"),
        ("something else", "target"),
    ],
)
def test_a_failing_scrape_names_the_field_that_fits_the_error(error: str, field: str) -> None:
    (advice,) = found(targets=[replace(TARGET, healthy=False, error=error)])
    assert (advice.code, [change.field for change in advice.changes]) == ("ScrapeFails", [field])


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (15_000, []),
        (16_000, []),
        (30_000, ["WrongInterval"]),
        (5_000, ["WrongInterval"]),
        (120_000, ["ScrapedTooRarely"]),
    ],
)
def test_the_interval_is_the_one_that_the_agent_is_told(interval: int, expected: list[str]) -> None:
    times = [NOW - interval * number for number in range(20, -1, -1)]
    advice = found(targets=[replace(TARGET, interval=interval)], up=[scrapes("1" * 21, times)])
    assert [code for code in codes(advice) if code != "StaleSamples"] == expected


def test_an_interval_is_measured_where_targets_are_not_told() -> None:
    times = [NOW - 30_000 * number for number in range(20, -1, -1)]
    advice = found(targets=None, up=[scrapes("1" * 21, times)])
    assert codes(advice) == ["WrongInterval", "TargetsNotTold (note)"]
    assert [change.to for change in advice[0].changes] == ["30s", "15s"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [("1" * 20, []), ("1" * 19 + "0", []), ("110" * 6 + "11", ["MissingScrapes"]), ("0" * 20, ["MissingScrapes"])],
)
def test_scrapes_that_failed(values: str, expected: list[str]) -> None:
    assert codes(found(up=[scrapes(values)])) == expected


def test_scrapes_that_did_not_happen() -> None:
    kept = [*TIMES[:5], *TIMES[12:]]
    (advice,) = found(up=[scrapes("1" * 13, kept)])
    assert (advice.code, advice.found) == ("MissingScrapes", "13 of 20 scrapes succeeded")


def test_a_server_that_began_just_now_is_not_accused() -> None:
    assert found(up=[scrapes("11", TIMES[-2:])]) == []


def test_another_path_of_the_same_kubelet_is_not_its_cadvisor() -> None:
    """kube-prometheus-stack scrapes three paths in one job, told apart by label metrics_path."""
    other = scrapes("0" * 20, metrics_path="/metrics/probes")
    assert found(up=[other, scrapes(metrics_path="/metrics/cadvisor")]) == []


# --- sources


def test_two_jobs_by_their_targets() -> None:
    advice = found(targets=[TARGET, replace(TARGET, job="kubelet")], up=[scrapes(), scrapes(job="kubelet")])
    assert codes(advice) == ["DuplicateSource"]
    assert "cadvisor, kubelet" in advice[0].found


def test_two_jobs_by_their_series() -> None:
    advice = found(targets=None, series=[*world(), *world(job="kubelet")])
    assert codes(advice) == ["DuplicateSource", "TargetsNotTold (note)"]


@pytest.mark.parametrize("label", ["prometheus_replica", "replica"])
def test_a_pair_of_servers_is_a_note(label: str) -> None:
    """The meter counts a pair once: nothing must change."""
    pair = [*world(**{label: "a"}), *world(**{label: "b"})]
    advice = found(targets=None, series=pair)
    assert codes(advice) == ["TargetsNotTold (note)", "ReplicaPair (note)"]


def test_a_label_that_changed_once_is_no_duplicate() -> None:
    """An image was updated, a Prometheus was renamed: series follow one another."""
    first = [container(name, TIMES[:10], image="a") for name in NAMES]
    second = [container(name, TIMES[10:], image="b") for name in NAMES]
    assert found(series=[*first, *second]) == []


def test_a_restarted_container_is_no_duplicate() -> None:
    assert found(series=[*world(), container(NAMES[0], TIMES[10:], id="/kubepods/b")]) == []


def test_the_resource_path_beside_cadvisor_is_a_note() -> None:
    twins = [without(one, "id") for one in world(job="resource")[:2]]
    assert codes(found(series=[*world(), *twins])) == ["ResourcePathScraped (note)"]


# --- labels


@pytest.mark.parametrize("label", ["id", "namespace", "pod", "container"])
def test_a_label_that_relabelling_dropped(label: str) -> None:
    advice = found(series=[without(one, label) for one in world()])
    assert "DroppedLabel" in codes(advice)
    assert label in [one.subject for one in advice if one.code == "DroppedLabel"]


def test_labels_that_the_scraped_service_took() -> None:
    taken = [
        replace(one, labels={**one.labels, "namespace": "kube-system", "exported_namespace": "homefed-guests"})
        for one in world()
    ]
    (advice,) = found(series=taken, guests=None)
    assert (advice.code, advice.subject, advice.changes[0].field) == ("RenamedLabel", "namespace", "honor_labels")


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_metric_that_is_not_kept(name: str) -> None:
    advice = found(series=[one for one in world() if one.name != name])
    assert [(one.code, one.subject) for one in advice] == [("MissingMetric", name)]


def test_guests_that_run_without_series() -> None:
    other = [replace(one, labels={**one.labels, "namespace": "default"}) for one in world()]
    (advice,) = found(series=other)
    assert advice.code == "GuestsNotSeen"
    assert POD in advice.found


def test_a_guest_that_began_just_now_is_not_missed() -> None:
    assert found(guests=[Guest(POD, "nuc", NOW - 600_000), Guest("hf-new", "nuc", NOW - 20_000)]) == []


# --- time


def test_timestamps_that_are_not_honoured_are_seen_in_the_configuration() -> None:
    (advice,) = found(jobs=[Job("cadvisor", honor_timestamps=False)])
    assert (advice.code, advice.changes[0].field, advice.changes[0].to) == (
        "IgnoredTimestamps",
        "honor_timestamps",
        "true",
    )


def test_timestamps_that_are_not_honoured_are_seen_in_the_samples() -> None:
    """VictoriaMetrics' agent ignores them unless told otherwise, and its configuration does not say so."""
    assert codes(found(jobs=None, series=[container(name, late=0) for name in NAMES])) == ["IgnoredTimestamps"]


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        (20_000, []),
        (59_000, []),
        (130_000, ["StaleSamples"]),
        (-5_000, []),
        (-40_000, ["MachineClock"]),
        (3_600_000 + 7_000, ["WrongTimeZone"]),
        (-7_200_000 + 7_000, ["WrongTimeZone"]),
        (-19_800_000 + 7_000, ["WrongTimeZone"]),
    ],
)
def test_the_newest_sample_against_the_newest_scrape(late: int, expected: list[str]) -> None:
    assert codes(found(series=[container(name, late=late) for name in NAMES])) == expected


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [(900, []), (-9_000, []), (45_000, ["PrometheusClock"]), (3_600_000, ["WrongTimeZone"])],
)
def test_the_clock_of_prometheus(ahead: int, expected: list[str]) -> None:
    times = [time + ahead for time in TIMES]
    series = [container(name, times) for name in NAMES]
    assert codes(found(server=NOW + ahead, up=[scrapes("1" * 20, times)], series=series)) == expected


def test_samples_of_which_none_was_stored() -> None:
    kept = [Series({**SOURCE}, TIMES[-1:], ["40"])]
    assert codes(found(series=[], kept=kept)) == ["SamplesOutOfBounds"]


# --- robustness

LABELS = st.dictionaries(
    st.sampled_from(["__name__", "job", "instance", "id", "pod", "namespace", "container", "exported_pod", "replica"]),
    st.sampled_from(["", "a", "b", *NAMES]),
)
SERIES = st.builds(
    lambda labels, times: Series(labels, sorted(times), ["1"] * len(times)),
    LABELS,
    st.lists(st.integers(NOW - 10_000_000, NOW + 10_000_000), max_size=6),
)


@given(st.lists(SERIES, max_size=8), st.lists(SERIES, max_size=3), st.booleans(), st.booleans())
def test_whatever_is_answered_is_judged(series: list[Series], up: list[Series], told: bool, known: bool) -> None:
    changes: dict[str, Any] = {"series": series, "up": up, "kept": up}
    if not told:
        changes |= {"targets": None, "jobs": None}
    if not known:
        changes |= {"nodes": None, "guests": None}
    for advice in found(**changes):
        assert advice.code
        assert advice.found
        assert advice.changes or not advice.must


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(15_000, "15s"), (90_000, "90s"), (120_000, "2m"), (5_400_000, "90m"), (7_200_000, "2h"), (3_661_000, "61m1s")],
)
def test_durations_read_as_prometheus_writes_them(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text
