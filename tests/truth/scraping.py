"""A made-up day as Prometheus would have scraped it: samples of cAdvisor's metrics, with its labels and its lags."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Final

from testbed.metrics import Made
from truth.classes import END_MS, START_MS, Case, Scraper
from truth.workload import Instance, Pod

CPU: Final = "container_cpu_usage_seconds_total"
MEMORY: Final = "container_memory_working_set_bytes"
RECEIVED: Final = "container_network_receive_bytes_total"
STARTED: Final = "container_start_time_seconds"
Key = tuple[str, tuple[tuple[str, str], ...]]


def scraped(cases: Iterable[Case], scrape_s: int, *, seed: int) -> list[Made]:
    """Every sample of the day, of all cases."""
    found: dict[Key, list[tuple[float, float]]] = defaultdict(list)
    for case in cases:
        for number, scraper in enumerate(case.scrapers):
            rng = Random(f"{seed} {case.name} {number} {scrape_s}")
            for pod in case.pods:
                _scrape(found, pod, scraper, scrape_s * 1000, rng)
    return [Made(name, dict(labels), points) for (name, labels), points in found.items()]


def _scrape(
    found: dict[Key, list[tuple[float, float]]], pod: Pod, scraper: Scraper, every_ms: int, rng: Random
) -> None:
    reads = _reads(pod, scraper, rng)
    for moment in _moments(pod, scraper, every_ms, rng):
        instance = next((one for one in pod.instances if one.is_running(moment)), None)
        if instance is None:
            continue
        seen = moment
        if reads is not None:
            position = bisect_right(reads, moment)
            seen = reads[position - 1] if position else instance.start
            if seen < instance.start:
                continue  # the kubelet has not read it yet
        labels = _current(scraper, moment)
        for name, value, more in _values(pod, instance, seen):
            own = {"namespace": "homefed-guests", "pod": f"hf-{pod.uid}", **more, **labels}
            found[name, tuple(sorted(own.items()))].append((moment / 1000, value))


def _values(pod: Pod, instance: Instance, at: int) -> Iterator[tuple[str, float, Mapping[str, str]]]:
    """What the kubelet read at a moment. The sandbox's network outlives the container's instances."""
    container = {"container": "app", "id": f"/kubepods/{pod.uid}/{instance.number}"}
    sandbox = {"container": "", "id": f"/kubepods/{pod.uid}/sandbox", "interface": "eth0"}
    yield CPU, instance.total("mcores", at) / 1_000_000, container
    yield MEMORY, float(instance.held(at)), container
    yield STARTED, float(instance.start // 1000), container
    yield RECEIVED, float(sum(one.total("rate", at) for one in pod.instances if one.start <= at)), sandbox


def _moments(pod: Pod, scraper: Scraper, every_ms: int, rng: Random) -> Iterator[int]:
    """When this pod's node is scraped: evenly, within a few ms."""
    phase = round(every_ms * scraper.phase) + rng.randrange(every_ms // 20)
    first = START_MS + phase + (max(0, pod.start - START_MS - phase) // every_ms) * every_ms
    last = END_MS + 2 * every_ms if pod.end is None else pod.end
    for moment in range(first, last, every_ms):
        failed = rng.random() < scraper.missed
        late = moment + rng.randrange(5)
        if not failed and not any(start <= moment < end for start, end in scraper.outages):
            yield late


def _reads(pod: Pod, scraper: Scraper, rng: Random) -> list[int] | None:
    """When the kubelet reads the container; None: whenever it is asked."""
    shortest, longest = scraper.read_every
    if longest == 0:
        return None
    moments, at = list[int](), pod.start
    while at < END_MS + 120_000:
        moments.append(at)
        at += rng.randint(shortest, longest)
    return moments


def _current(scraper: Scraper, moment: int) -> Mapping[str, str]:
    position = bisect_right(scraper.labels, moment, key=lambda one: one[0])
    return scraper.labels[max(0, position - 1)][1]
