"""Checks of a home's scraping: whether each machine is scraped, how often, and from how many places."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import Final

from homefed.core.meter_advice import Advice, Change, duration, pod_of, source_text
from homefed.core.meter_facts import CADVISOR_PATH, RESOURCE_PATH, Facts, Series

SLOWEST_MS: Final = 60_000
MIN_COVERAGE_PPM: Final = 950_000
REPLICA_LABELS: Final = ("prometheus_replica", "replica", "__replica__", "prometheus", "receive", "tenant_id")
VIRTUAL_RULE: Final = "{source_labels: [__meta_kubernetes_node_label_type], regex: virtual-kubelet, action: drop}"


# --- whether the machines are scraped


def sources(facts: Facts) -> Iterator[Advice]:
    if facts.targets is None and not facts.series:
        yield _no_cadvisor("no series of cAdvisor was scraped lately")
    elif facts.targets is not None and not facts.cadvisor:
        yield _no_cadvisor(f"no target has the path {CADVISOR_PATH}")
    if facts.targets is None:
        what = "machines that are not scraped, failing and virtual targets"
        yield Advice("TargetsNotTold", "/api/v1/targets", f"not served here; not looked at: {what}", must=False)


def _no_cadvisor(found: str) -> Advice:
    job = Change("scrape_configs", "job cadvisor", f"metrics_path: {CADVISOR_PATH}, as in docs/prometheus.md")
    return Advice("NoCadvisor", "Prometheus", found, (job,))


def machines(facts: Facts) -> Iterator[Advice]:
    if facts.nodes is None or facts.targets is None or not facts.cadvisor:
        return
    scraped = {target.node for target in facts.cadvisor}
    if "" in scraped:  # targets that do not say which machine they are
        return
    hosts = {guest.node for guest in facts.guests or ()}
    for node in facts.nodes:
        if not node.is_virtual and node.name not in scraped:
            change = Change("scrape_configs", "kubernetes_sd_configs", "role: node, without a filter that drops it")
            text = "is not scraped" + (", and guests run there" if node.name in hosts else "")
            yield Advice("MachineNotScraped", node.name, text, (change,), must=node.name in hosts)


def virtual(facts: Facts) -> Iterator[Advice]:
    for target in facts.targets or ():
        if facts.is_virtual(target):
            change = Change(f"job {target.job}", "relabel_configs", VIRTUAL_RULE)
            yield Advice("ScrapesVirtualNode", target.text, "a virtual node has no kubelet to ask", (change,))


_REMEDIES: Final[Sequence[tuple[tuple[str, ...], str, str]]] = (
    (("401", "unauthorized"), "authorization", "a ServiceAccount's token: credentials_file"),
    (("403", "forbidden"), "ClusterRole", "get on nodes/metrics for its ServiceAccount"),
    (("x509", "certificate"), "tls_config", "the kubelet's authority, or insecure_skip_verify: true"),
    (("deadline exceeded", "timeout"), "scrape_timeout", "longer, up to scrape_interval; is the machine overloaded?"),
    (("refused", "no route", "no such host"), "relabel_configs", "an address of the kubelet that can be reached"),
)


def failing(facts: Facts) -> Iterator[Advice]:
    for target in facts.cadvisor:
        if not target.healthy:
            text = target.error.lower()
            fits = [Change(f"job {target.job}", name, to) for words, name, to in _REMEDIES if _any_in(words, text)]
            other = Change(f"job {target.job}", "target", "one that answers: see Prometheus' page /targets")
            yield Advice("ScrapeFails", target.text, target.error or "the newest scrape failed", (*fits, other)[:1])


def _any_in(words: Iterable[str], text: str) -> bool:
    return any(word in text for word in words)


# --- how often


def intervals(facts: Facts) -> Iterator[Advice]:
    for source in facts.sources():
        interval = _interval(facts, source)
        if interval is None:
            continue
        own, told = duration(interval), duration(facts.interval)
        job = f"job {source[0]}"
        if interval > SLOWEST_MS * 1.25:
            slow = (Change(job, "scrape_interval", "30s"), Change("chart", "prometheus.scrapeInterval", "30s"))
            yield Advice("ScrapedTooRarely", source_text(source), f"every {own}: short pods are not seen at all", slow)
        elif not 0.75 * facts.interval <= interval <= 1.25 * facts.interval:
            change = (Change("chart", "prometheus.scrapeInterval", own), Change(f"or {job}", "scrape_interval", told))
            yield Advice("WrongInterval", source_text(source), f"scraped every {own}, the agent is told {told}", change)


def _interval(facts: Facts, source: tuple[str, str]) -> int | None:
    """As configured; else the median between two scrapes."""
    known = [one.interval for one in facts.cadvisor if (one.job, one.instance) == source and one.interval]
    if known:
        return known[0]
    scrapes = facts.up_of(source)
    gaps = [after - before for before, after in pairwise(scrapes.times)] if scrapes else []
    return round(median(gaps)) if len(gaps) >= 3 else None


def scrapes(facts: Facts) -> Iterator[Advice]:
    """Scrapes that failed or did not happen, since the first one in the span."""
    for source in facts.sources():
        scrapes, interval = facts.up_of(source), _interval(facts, source)
        if scrapes is None or interval is None or not scrapes.times:
            continue
        expected = (facts.server - scrapes.times[0]) // interval
        good = sum(1 for value in scrapes.values if value == "1")
        if expected >= 5 and good * 1_000_000 < expected * MIN_COVERAGE_PPM:
            changes = (
                Change(f"job {source[0]}", "scrape_timeout", "as long as scrape_interval"),
                Change("Prometheus", "resources.limits", "more memory, where it was killed and started again"),
            )
            yield Advice("MissingScrapes", source_text(source), f"{good} of {expected} scrapes succeeded", changes)


# --- from how many places


def two_jobs(facts: Facts) -> Iterator[Advice]:
    """The same container from two places at the same time: two jobs, or two servers behind one address."""
    jobs: dict[str, set[str]] = defaultdict(set)
    for target in facts.cadvisor:
        jobs[target.machine].add(target.job)
    differing = _differing_labels(facts)
    told = sorted({job for names in jobs.values() if len(names) > 1 for job in names})
    if not told and differing & {"job", "metrics_path", "endpoint"}:
        told = sorted({one.labels.get("job", "") for one in facts.series if one.labels.get("id")})
    if told:
        change = Change(
            f"job {told[-1]}", "scrape_configs", "remove it, or drop container_.* in metric_relabel_configs"
        )
        text = f"the same kubelets are scraped by jobs {', '.join(told)}"
        yield Advice("DuplicateSource", ", ".join(told), text, (change,))
    elif replicas := differing & {*REPLICA_LABELS}:
        name = min(replicas, key=REPLICA_LABELS.index)
        change = Change("Thanos or VictoriaMetrics", "deduplication", f"by label {name}; or the address of one replica")
        text = (
            f"every series is there more than once, told apart by {name}: it is counted once, but each answer is larger"
        )
        yield Advice("ReplicaPair", name, text, (change,), must=False)
    elif differing:
        name = sorted(differing)[0]
        change = Change("Prometheus", f"label {name}", "one value per container at a time")
        yield Advice(
            "DuplicateSource", name, f"containers have several series at once, told apart by {name}", (change,)
        )


def _differing_labels(facts: Facts) -> set[str]:
    """Labels in which series of the same container differ although they overlap in time."""
    groups: dict[tuple[str, ...], list[Series]] = defaultdict(list)
    for one in facts.series:
        if one.labels.get("id") and one.times:
            groups[(one.name, one.labels["id"], one.labels.get("interface", ""), pod_of(one))].append(one)
    found: set[str] = set()
    for group in groups.values():
        for first, second in pairwise(sorted(group, key=lambda one: one.times[0])):
            if second.times[0] < first.times[-1]:
                names = {*first.labels, *second.labels}
                found |= {name for name in names if first.labels.get(name) != second.labels.get(name)}
    return found


def resource_path(facts: Facts) -> Iterator[Advice]:
    """The kubelet's /metrics/resource names CPU and memory alike, without ids; the meter leaves those out."""
    with_id = {(one.name, pod_of(one)) for one in facts.series if one.labels.get("id")}
    twins = {one.target for one in facts.series if not one.labels.get("id") and (one.name, pod_of(one)) in with_id}
    for source in sorted(twins):
        rule = "{source_labels: [__name__], regex: container_.*, action: drop}"
        change = Change(f"job {source[0]}, path {RESOURCE_PATH}", "metric_relabel_configs", rule)
        text = (
            f"{RESOURCE_PATH} gives the same names as {CADVISOR_PATH}: left out by the meter, but each answer is larger"
        )
        yield Advice("ResourcePathScraped", source_text(source), text, (change,), must=False)
