"""What is asked of Prometheus: PromQL for raw samples, in shards that bound an answer's size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from homefed.api.names import NODE_PREFIX
from homefed.core.samples import Metric

SAMPLES_PER_ANSWER: Final = 50_000
"""Aimed at, not exact: about 2 MB of JSON. 200 containers at 15 s are one shard."""
MAX_SHARDS: Final = 256
_HEX: Final = "0123456789abcdef"

QUERIES: Final[Mapping[Metric, tuple[str, str]]] = {
    "cpu": ("container_cpu_usage_seconds_total", 'container!="",container!="POD"'),
    "memory": ("container_memory_working_set_bytes", 'container!="",container!="POD"'),
    "network-receive": ("container_network_receive_bytes_total", 'interface="eth0"'),
    "network-transmit": ("container_network_transmit_bytes_total", 'interface="eth0"'),
    "start": ("container_start_time_seconds", ""),
}
"""Metric → its name in cAdvisor, and the matchers beside namespace and pod."""

WITHOUT_PARTS: Final = {"partial_response": "false", "deny_partial_response": "1", "max_source_resolution": "0"}
"""Parameters by which Thanos (first and last) and VictoriaMetrics answer wholly, with raw samples, or fail; Prometheus
does not know them, and ignores them."""


@dataclass(frozen=True)
class Shard:
    """Pods whose UID begins with one of some hexadecimal digits: UIDs are random, so shards are about equal."""

    prefixes: tuple[str, ...] = ("",)

    def matcher(self) -> str:
        """On label `pod`; the one shard that is all leaves the digits out."""
        if self.prefixes == ("",):
            return f'pod=~"{NODE_PREFIX}.+"'
        return f'pod=~"{NODE_PREFIX}({"|".join(self.prefixes)}).+"'


def shards(samples: int) -> list[Shard]:
    """So many shards that each holds at most about SAMPLES_PER_ANSWER of `samples`: a power of two up to MAX_SHARDS.

    Together they match every `hf-<UID>` exactly once."""
    wanted = 1
    while wanted < MAX_SHARDS and samples > wanted * SAMPLES_PER_ANSWER:
        wanted *= 2
    if wanted == 1:
        return [Shard()]
    digits = list(_HEX) if wanted <= len(_HEX) else [a + b for a in _HEX for b in _HEX]
    size = len(digits) // wanted
    return [Shard(tuple(digits[at : at + size])) for at in range(0, len(digits), size)]


def selector(metric: Metric, namespace: str, shard: Shard, seconds: int) -> str:
    """A range vector of this metric, of all guest pods of this shard."""
    name, more = QUERIES[metric]
    matchers = f'namespace="{namespace}",{shard.matcher()}' + (f",{more}" if more else "")
    return f"{name}{{{matchers}}}[{seconds}s]"


def counting(metric: Metric, namespace: str, seconds: int) -> str:
    """How many samples `selector` of the one shard that is all would answer."""
    return f"sum(count_over_time({selector(metric, namespace, Shard(), seconds)}))"
