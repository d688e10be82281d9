"""Raw samples of guest pods from a home's Prometheus, or what answers like one.

Instant queries of range vectors: the samples as they were scraped, never resampled. One query counts them, then one per
metric and shard reads them: neither depends on how many pods there are, but through the number of shards (`queries`).
"""

from __future__ import annotations

from typing import Final, Protocol

from homefed.core.samples import START, RawSeries
from homefed.core.windows import Window
from homefed.metering.access import PrometheusConfig
from homefed.metering.answers import from_one_kind_of_source, matrix, number
from homefed.metering.connection import Connection, Traffic
from homefed.metering.queries import QUERIES, WITHOUT_PARTS, counting, selector, shards

__all__ = ["LOOKBACK_SECONDS", "PrometheusConfig", "PrometheusSource", "SampleSource"]

LOOKBACK_SECONDS: Final = 60


class SampleSource(Protocol):
    """Where samples come from."""

    async def fetch(self, window: Window, *, at: int, offset_ms: int) -> list[RawSeries]:
        """All series of guest pods around (start, end], as known at `at` (seconds).

        Window and `at` are hub time, `offset_ms` is hub's clock − home's clock, sample times are the home's. Errors:
        Transient where a later attempt can succeed, Refused where a person has to change something; never a part.
        """
        ...


class PrometheusSource:
    """A SampleSource. Safe to share between tasks: queries run one after another in a thread."""

    def __init__(self, config: PrometheusConfig) -> None:
        self._config = config
        self._connection = Connection(config)

    @property
    def traffic(self) -> Traffic:
        """What its queries cost so far."""
        return self._connection.traffic

    def close(self) -> None:
        self._connection.close()

    async def fetch(self, window: Window, *, at: int, offset_ms: int) -> list[RawSeries]:
        namespace = self._config.namespace
        moment_ms = at * 1000 - offset_ms
        seconds = at - window.start + LOOKBACK_SECONDS
        # Every container and sandbox has a start time: no other metric has more samples.
        samples = number(await self._query(counting(START, namespace, seconds), moment_ms))
        found: list[RawSeries] = []
        for shard in shards(samples):
            for metric in QUERIES:
                answer = await self._query(selector(metric, namespace, shard, seconds), moment_ms)
                found += matrix(answer, metric)
        return from_one_kind_of_source(found)

    async def _query(self, query: str, moment_ms: int) -> dict[str, object]:
        seconds = self._config.timeout_seconds
        form = {"query": query, "time": f"{moment_ms / 1000:.3f}", "timeout": f"{max(1, int(seconds))}s"}
        return await self._connection.post("/api/v1/query", form | WITHOUT_PARTS)
