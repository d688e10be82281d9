"""What meters make of a made-up day: ours through its own source, and the usual ways in PromQL, on the same server."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from prometheus_api_client import PrometheusConnect

from homefed.api.report_document import Reading
from homefed.core import readings, windows
from homefed.core.home_status import MAX_ENDS
from homefed.core.metering import Guest, Settings, measure
from homefed.core.samples import intake
from homefed.core.times import to_rfc3339
from homefed.core.windows import Window
from homefed.metering.prometheus import PrometheusConfig, PrometheusSource
from truth.classes import DAY_S, T0, Case
from truth.scraping import CPU, MEMORY
from truth.workload import Pod

Amounts = dict[str, Counter[str]]
"""Class → resource → units over the day."""
_ALL_BEFORE_S: Final = 1200
"""So long ended pods are still given to the meter, as a mailbox keeps them for a while."""


# --- ours


def metered(url: str, cases: Sequence[Case], *, window_s: int, scrape_s: int) -> Amounts:
    """The day in windows of one length, each opened with the readings that the one before closed with."""
    return asyncio.run(_metered(url, cases, window_s, scrape_s))


async def _metered(url: str, cases: Sequence[Case], window_s: int, scrape_s: int) -> Amounts:
    source = PrometheusSource(PrometheusConfig(url))
    names = {pod.uid: case.name for case in cases for pod in case.pods}
    settings = Settings(scrape_s * 1000)
    totals: Amounts = defaultdict(Counter)
    before: list[Reading] = []
    try:
        for start in range(T0, T0 + DAY_S, window_s):
            window = Window(start, start + window_s)
            at = window.end + windows.grace(0, settings.scrape_ms)
            guests = list(_guests(cases, window, at))
            raw = await source.fetch(window, at=at, offset_ms=0)
            taken = intake(raw, {guest.uid for guest in guests}, window, now_ms=at * 1000, offset_ms=0)
            measured = measure(window, guests, taken, before, settings)
            before = measured.readings
            for line in measured.lines:
                totals[names[line.guest_pod]][line.resource] += int(line.amount)
    finally:
        source.close()
    return dict(totals)


def _guests(cases: Iterable[Case], window: Window, at: int) -> Iterator[Guest]:
    """What the mailbox tells of pods at a moment, in seconds."""
    for case in cases:
        for pod in case.pods:
            over = pod.end is not None and pod.end < (window.start - _ALL_BEFORE_S) * 1000
            if pod.start <= at * 1000 and not over:
                yield readings.guest_of(guest_pod(pod, at * 1000))


def guest_pod(pod: Pod, at: int) -> dict[str, Any]:
    """A GuestPod as the agent writes it at a moment (ms): Kubernetes' times are whole seconds."""
    begun = [one for one in pod.instances if one.start <= at]
    newest, has_ended = begun[-1], pod.end is not None and pod.end <= at
    container: dict[str, Any] = {"name": "app", "restartCount": len(begun) - 1, "state": "running"}
    if newest.end is not None and newest.end <= at:
        container["state"] = "terminated" if has_ended else "waiting"
        container["finishedAt" if has_ended else "lastFinishedAt"] = _text(newest.end)
    over = [_text(one.end) for one in begun[:-1] if one.end is not None]
    if container["state"] == "waiting":
        over.append(container["lastFinishedAt"])
    if over:
        container["earlierEnds"] = over[-MAX_ENDS:]
    if container["state"] != "waiting":
        container["startedAt"] = _text(newest.start)
    status = {"startedAt": _text(pod.start), "phase": "Running", "containers": [container]}
    if pod.end is not None and has_ended:
        status |= {"phase": "Succeeded", "finishedAt": _text(pod.end)}
    requests = {"cpu": f"{pod.mcores}m", "memory": str(pod.memory)}
    return {"spec": {"podUid": pod.uid, "requests": requests}, "status": status}


def _text(ms: int) -> str:
    return to_rfc3339(datetime.fromtimestamp(ms // 1000, UTC))


# --- the usual ways


def increase_1h(ask: Ask, case: Case) -> float:
    """`increase(…[1h])` at every full hour, summed."""
    return _summed(ask(f"sum(increase({_selector(CPU, case)}[1h]))", 3600, 3600))


def rate_5m(ask: Ask, case: Case) -> float:
    """`rate(…[5m])` at every full minute, for a minute each."""
    return 60 * _summed(ask(f"sum(rate({_selector(CPU, case)}[5m]))", 60, 60))


def increase_1m(ask: Ask, case: Case) -> float:
    """`increase(…[1m])` at every full minute, summed."""
    return _summed(ask(f"sum(increase({_selector(CPU, case)}[1m]))", 60, 60))


def endpoint_delta(ask: Ask, case: Case) -> float:
    """Per series and hour: its value at the end less that at the start; the value itself where there was none, or
    where it fell."""
    total = 0.0
    for series in ask(_selector(CPU, case), 0, 3600):
        values = {round(float(time)): float(value) for time, value in series["values"]}
        for start, end in pairwise(range(T0, T0 + DAY_S + 1, 3600)):
            if end in values:
                gained = values[end] - values.get(start, 0.0)
                total += gained if gained >= 0 else values[end]
    return total


def avg_over_time_1h(ask: Ask, case: Case) -> float:
    """Of memory: `avg_over_time(…[1h])` at every full hour, for an hour each; byte·s."""
    return 3600 * _summed(ask(f"sum(avg_over_time({_selector(MEMORY, case)}[1h]))", 3600, 3600))


def value_1m(ask: Ask, case: Case) -> float:
    """Of memory: its value at every full minute, for a minute each; byte·s."""
    return 60 * _summed(ask(f"sum({_selector(MEMORY, case)})", 60, 60))


Ask = Callable[[str, int, int], list[dict[str, Any]]]
"""(PromQL, first moment in seconds after midnight, step) → the series of a range query over the day."""
Way = Callable[[Ask, Case], float]

CPU_WAYS: Final[Mapping[str, Way]] = {
    "increase_1h": increase_1h,
    "rate_5m": rate_5m,
    "increase_1m": increase_1m,
    "endpoint_delta": endpoint_delta,
}
MEMORY_WAYS: Final[Mapping[str, Way]] = {"avg_over_time_1h": avg_over_time_1h, "value_1m": value_1m}


def asking(url: str) -> Ask:
    """Of a real server."""
    connection = PrometheusConnect(url=url)

    def ask(query: str, first: int, step: int) -> list[dict[str, Any]]:
        start, end = (datetime.fromtimestamp(T0 + second, UTC) for second in (first, DAY_S))
        return list(connection.custom_query_range(query, start, end, str(step), timeout=60))

    return ask


def _selector(metric: str, case: Case) -> str:
    return f'{metric}{{namespace="homefed-guests",container="app",pod=~"{case.pattern}"}}'


def _summed(series: Iterable[Mapping[str, Any]]) -> float:
    return sum(float(value) for one in series for _, value in one["values"])
