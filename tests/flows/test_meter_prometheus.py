"""The meter's source against real Prometheus servers, of both major versions. What else a home's may answer:
tests/contracts/prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from homefed.api.errors import Refused
from homefed.core.metering import Guest, Settings, Span, measure
from homefed.core.samples import intake
from homefed.core.windows import Window
from homefed.metering.prometheus import PrometheusConfig, PrometheusSource
from testbed import unpacked
from testbed.binaries import Binaries
from testbed.metrics import Made, prometheus

T0 = 1_767_225_600
HOUR = Window(T0, T0 + 3600)
UID = "11111111-2222-3333-4444-555555555555"
MIB = 2**20
GRACE = 30


def container(name: str, points: Sequence[tuple[float, float]], **labels: str) -> Made:
    own = {"namespace": "homefed-guests", "pod": f"hf-{UID}", "container": "app", "id": "/kubepods/a", **labels}
    return Made(name, own, points)


def sandbox(name: str, points: Sequence[tuple[float, float]]) -> Made:
    return container(name, points, container="", id="/kubepods/sandbox", interface="eth0")


def world() -> list[Made]:
    """One hour of a pod: 0.25 cores, restarted once; 64 MiB; 1000 bytes/s in; and what must not be counted."""
    seconds = [T0 + s for s in range(-60, 3661, 15)]
    first = [(s, 0.25 * (s - T0 + 60)) for s in seconds if s < T0 + 1800]
    second = [(s, 0.25 * (s - T0 - 1795)) for s in seconds if s >= T0 + 1800]
    return [
        container("container_cpu_usage_seconds_total", first),
        container("container_cpu_usage_seconds_total", second, id="/kubepods/b"),
        container("container_start_time_seconds", [(s, T0 - 60) for s, _ in first]),
        container("container_start_time_seconds", [(s, T0 + 1795) for s, _ in second], id="/kubepods/b"),
        container("container_memory_working_set_bytes", [(s, 64.0 * MIB) for s in seconds]),
        sandbox("container_network_receive_bytes_total", [(s, 1000.0 * (s - T0 + 60)) for s in seconds]),
        container("container_cpu_usage_seconds_total", [(s, 9.0 * s) for s in seconds], namespace="default"),
        container("container_cpu_usage_seconds_total", [(s, 9.0 * s) for s in seconds], pod="other", id="/x"),
        container("container_cpu_usage_seconds_total", [(s, 9.0 * s) for s in seconds], container="", id="/kubepods"),
    ]


@pytest.fixture(scope="module", params=["Prometheus 3", "Prometheus 2"])
def address(request: Any, binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of both: they differ at the edges of a range, and Debian's is older than most homes' own."""
    program = binaries.path("prometheus") if request.param == "Prometheus 3" else unpacked.program("prometheus2")
    with prometheus(binaries, tmp_path_factory.mktemp("prometheus"), world(), program=program) as url:
        yield url


async def amounts(url: str, window: Window = HOUR) -> dict[str, int]:
    source = PrometheusSource(PrometheusConfig(url))
    raw = await source.fetch(window, at=window.end + GRACE, offset_ms=0)
    taken = intake(raw, {UID}, window, now_ms=(window.end + GRACE) * 1000, offset_ms=0)
    guest = Guest(UID, {"cpu": 1000, "memory": 2**30}, Span((T0 - 60) * 1000), {"app": Span((T0 - 60) * 1000)})
    source.close()
    return {line.resource: int(line.amount) for line in measure(window, [guest], taken, [], Settings(15_000)).lines}


async def test_a_window_read_from_a_real_prometheus_is_the_truth(address: str) -> None:
    """First reading of a pod: its counters since their start; the restarted container begins at 0."""
    found = await amounts(address)
    assert found["cpu"] == 250_000 * (1785 + 60) + 250_000 * (3600 - 1795)
    assert found["memory"] == 64 * 1024 * (3600 - 15 + 30)  # and two scrapes before the first sample
    assert found["network-receive"] == 1000 * 3660
    assert found["network-transmit"] == 0


async def test_an_hour_without_samples_is_an_empty_answer_and_no_error(address: str) -> None:
    source = PrometheusSource(PrometheusConfig(address))
    long_ago = Window(T0 - 7 * 86_400, T0 - 7 * 86_400 + 3600)
    assert await source.fetch(long_ago, at=long_ago.end, offset_ms=0) == []
    source.close()


async def test_a_query_that_prometheus_refuses_is_told_in_its_own_words(address: str) -> None:
    source = PrometheusSource(PrometheusConfig(address, namespace='"'))
    with pytest.raises(Refused, match="parse error"):
        await source.fetch(HOUR, at=HOUR.end, offset_ms=0)
    source.close()
