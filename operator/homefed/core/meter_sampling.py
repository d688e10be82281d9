"""Checks of the samples themselves: labels that relabelling took, and the times at which they stand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from homefed.core.meter_advice import Advice, Change, duration, pod_of, source_text
from homefed.core.meter_facts import CPU_NAME, NAMES, NETWORK_NAMES, Facts

CLOCK_MS: Final = 10_000
"""The difference of two clocks from which on it is told."""
LAG_MS: Final = 60_000
"""cAdvisor reads a container every 10 to 20 s; older than this, or than three scrapes, it stands still."""
QUARTER_HOUR_MS: Final = 900_000
_ZONE_SLACK_MS: Final = 90_000


# --- labels


def renamed(facts: Facts) -> Iterator[Advice]:
    wanted = ("namespace", "pod", "container")
    for name in wanted:
        hit = next((one for one in facts.series if f"exported_{name}" in one.labels), None)
        if hit is not None:
            changes = (
                Change(f"job {hit.labels.get('job', '')}", "honor_labels", "true"),
                Change("or its relabel_configs", f"target_label: {name}", "remove the rule that sets it"),
            )
            text = f"label {name} is the scraped Service's own; the container's became exported_{name}"
            yield Advice("RenamedLabel", name, text, changes)


def dropped(facts: Facts) -> Iterator[Advice]:
    """Labels that no series has; containers of pods are told by their cgroup, where the id is there."""
    if not facts.series or any(name.startswith("exported_") for one in facts.series for name in one.labels):
        return
    cpu = [one for one in facts.series if one.name == CPU_NAME]
    network = [one for one in facts.series if one.name in NETWORK_NAMES]
    for name, where in (("id", cpu), ("namespace", cpu), ("pod", cpu), ("container", cpu), ("interface", network)):
        if where and not any(one.labels.get(name) for one in where):
            job = where[0].labels.get("job", "")
            change = Change(
                f"job {job}", "metric_relabel_configs", f"remove the labeldrop or replace that takes {name}"
            )
            yield Advice("DroppedLabel", name, f"no series of cAdvisor has the label {name}", (change,))


def metrics(facts: Facts) -> Iterator[Advice]:
    there = {one.name for one in facts.series}
    for name in NAMES if there else ():
        if name not in there:
            change = Change("metric_relabel_configs", "regex", f"one that keeps {name}")
            yield Advice("MissingMetric", name, "is not kept, though others of cAdvisor are", (change,))


def guests(facts: Facts) -> Iterator[Advice]:
    """Guests that run and of which nothing was scraped."""
    if not facts.guests:
        if not facts.series and facts.cadvisor and all(one.healthy for one in facts.cadvisor) and not facts.lost():
            text = "labels and timestamps could not be looked at: do it again while a guest runs"
            yield Advice("NothingToRead", "series", f"no container is scraped now; {text}", must=False)
        return
    seen = {pod_of(one) for one in facts.series if one.labels.get("namespace") == facts.namespace}
    old = [guest for guest in facts.guests if facts.now - guest.since > LAG_MS + 3 * facts.interval]
    unseen = [guest.pod for guest in old if guest.pod not in seen]
    if unseen and not any("exported_pod" in one.labels for one in facts.series) and not facts.lost():
        change = Change("metric_relabel_configs", "namespace", f"one that keeps {facts.namespace}")
        text = f"{len(unseen)} of {len(old)} guests that run have no series, {unseen[0]} for one"
        yield Advice("GuestsNotSeen", facts.namespace, text, (change,))


# --- time


def timestamps(facts: Facts) -> Iterator[Advice]:
    """cAdvisor says when it read a container, 10 to 20 s before; without that, values stand at the wrong time."""
    ignoring = {job.name for job in facts.jobs or () if not job.honor_timestamps}
    for job in sorted({job for job, _ in facts.sources()}):
        if job in ignoring or any(_are_scrape_times(facts, one) for one in facts.sources() if one[0] == job):
            change = Change(f"job {job}", "honor_timestamps", "true")
            text = "cAdvisor's timestamps are replaced by the time of the scrape, up to 20 s later"
            yield Advice("IgnoredTimestamps", f"job {job}", text, (change,))


def _are_scrape_times(facts: Facts, source: tuple[str, str]) -> bool:
    scrapes = facts.up_of(source)
    times = [time for one in facts.series_of(source) for time in one.times]
    if scrapes is None or len(times) < 3:
        return False
    at = set(scrapes.times)
    return sum(1 for time in times if time in at) >= 0.8 * len(times)


def lag(facts: Facts) -> Iterator[Advice]:
    """The newest sample of a machine against its newest scrape: an old one is a lag or a clock, one from the future
    can only be a clock."""
    for source in facts.sources():
        scrapes, series = facts.up_of(source), facts.series_of(source)
        times = [one.times[-1] for one in series if one.times]
        if scrapes is None or not scrapes.times or not times:
            continue
        ahead = max(times) - scrapes.times[-1]
        if ahead > CLOCK_MS or _is_zone(ahead):
            yield _clock("MachineClock", source_text(source), ahead)
        elif -ahead > max(LAG_MS, 3 * facts.interval):
            change = Change("kubelet", "--housekeeping-interval", "10s, its default; is the machine overloaded?")
            text = f"the newest sample is {duration(-ahead)} older than the newest scrape"
            yield Advice("StaleSamples", source_text(source), text, (change,))


def lost_samples(facts: Facts) -> Iterator[Advice]:
    for job, instance in facts.lost():
        change = Change(f"machine {instance}", "clock and time zone", "NTP; `date -u` there and where Prometheus runs")
        text = "scrapes succeed and have samples, none of which is stored: their times are too far off"
        yield Advice("SamplesOutOfBounds", source_text((job, instance)), text, (change,))


def own_clock(facts: Facts) -> Iterator[Advice]:
    ahead = facts.server - facts.now
    if abs(ahead) > CLOCK_MS:
        yield _clock("PrometheusClock", "Prometheus", ahead)


def _clock(code: str, subject: str, ahead: int) -> Advice:
    way = "ahead" if ahead > 0 else "behind"
    if _is_zone(ahead):
        text = f"{duration(abs(ahead))} {way}: it keeps local time where UTC belongs"
        change = Change(subject, "hardware clock", "UTC: timedatectl set-local-rtc 0; timedatectl set-ntp true")
        return Advice("WrongTimeZone", subject, text, (change,))
    change = Change(subject, "NTP", "timedatectl set-ntp true")
    return Advice(code, subject, f"its clock is {duration(abs(ahead))} {way}", (change,))


def _is_zone(offset: int) -> bool:
    """Whether an offset is one of a time zone: a multiple of a quarter of an hour, give or take a lag."""
    rest = abs(offset) % QUARTER_HOUR_MS
    return abs(offset) > QUARTER_HOUR_MS + _ZONE_SLACK_MS and min(rest, QUARTER_HOUR_MS - rest) <= _ZONE_SLACK_MS
