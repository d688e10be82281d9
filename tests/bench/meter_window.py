"""How long the agent takes to meter a window of 200 containers, and how much memory it takes for it.

Timed is one pass of the agent's `Meter`, which finds one hour due: its queries of a real Prometheus that scraped every
30 s, with all of cAdvisor's labels; decoding, the gates, the meters, evidence and outbox on disk, signature, and the
hand-over to a hub that takes objects at once. It is CPU of the agent's process alone: Prometheus' is not in it. Memory
is the peak of that process, less what it had, modules loaded, before the pass.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.agent.keys import Keys
from homefed.agent.meter import Meter
from homefed.api import dsse, names
from homefed.core import readings
from homefed.core.readings import Origin
from homefed.metering.evidence import EvidenceStore
from homefed.metering.prometheus import PrometheusConfig, PrometheusSource
from testbed.binaries import Binaries
from testbed.metrics import Made, prometheus

T0: Final = 1_767_225_600
END: Final = T0 + 3600
SCRAPE_S: Final = 30
GRACE_S: Final = 60
KEY: Final = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
MIB: Final = 2**20
RUNS: Final = 3
POOL: Final = "evening"
HOME: Final = "99999999-2222-4333-8444-555555555555"
STARTED: Final = "2026-01-01T00:00:00Z"
Json = dict[str, Any]


@dataclass(frozen=True)
class Timing:
    """One pass."""

    cpu_s: float
    wall_s: float
    rss_bytes: int
    lines: int
    report_bytes: int


class TakingHub:
    """A hub's API that has no reports yet and takes every one: the two verbs of KubeClient that the meter uses."""

    def __init__(self) -> None:
        self.created: list[Json] = []

    async def list(self, _kind: object, _namespace: str | None = None, **_: object) -> Any:
        return _Listed([])

    async def create(self, _kind: object, obj: Json, _namespace: str | None = None, **_: object) -> Json:
        self.created.append(obj)
        return obj


@dataclass(frozen=True)
class _Listed:
    items: list[Json]


def time_window(folder: Path, containers: int) -> list[Timing]:
    """RUNS passes, one pod per container, each in a new process. Errors: TestbedError without a Prometheus."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    found = []
    with prometheus(Binaries(), folder, samples(containers)) as url:
        for run in range(RUNS):
            with context.Pool(1) as pool:
                found.append(pool.apply(_measure, (url, str(folder / f"evidence-{run}"), containers)))
    return found


def typical(timings: list[Timing]) -> Timing:
    """Medians."""
    columns = zip(
        *((one.cpu_s, one.wall_s, one.rss_bytes, one.lines, one.report_bytes) for one in timings), strict=True
    )
    cpu, wall, rss, lines, size = (statistics.median(column) for column in columns)
    return Timing(cpu, wall, int(rss), int(lines), int(size))


def _measure(url: str, folder: str, containers: int) -> Timing:
    hub = TakingHub()
    source = PrometheusSource(PrometheusConfig(url))
    guests = [_guest(number) for number in range(containers)]
    keys = Keys(KEY, "salt")
    meter = Meter(
        hub,  # type: ignore[arg-type]  # the part of a KubeClient that the meter uses
        "homefed-home",
        lambda: keys,
        source,
        EvidenceStore(Path(folder)),
        offers=lambda: [_offer()],
        guests=lambda: guests,
        scrape_interval_ms=SCRAPE_S * 1000,
    )
    before, begun, walled = _memory("VmRSS"), time.process_time(), time.monotonic()
    findings = asyncio.run(meter.run_pass(datetime.fromtimestamp(END + GRACE_S, UTC)))
    spent, waited = time.process_time() - begun, time.monotonic() - walled
    source.close()
    if not hub.created or findings[POOL].status != "True":
        raise ValueError(f"nothing was reported: {findings}")
    lines = sum(_lines(obj) for obj in hub.created)
    if lines < 4 * containers:
        raise ValueError(f"{lines} lines of {containers} containers")
    size = sum(len(obj["spec"]["envelope"]) for obj in hub.created)
    return Timing(spent, waited, _memory("VmHWM") - before, lines, size)


def _lines(obj: Json) -> int:
    """Lines of a report that rest on samples; verified as the hub does it."""
    raw = KEY.public_key().public_bytes_raw()
    part = readings.open_part(obj, Origin("example", POOL, HOME), {dsse.fingerprint(raw): raw})
    return sum(line.samples > 0 for line in part.document.lines)


def _memory(field: str) -> int:
    """Bytes, of Linux: VmRSS now, VmHWM at the peak. (getrusage also counts whom we were forked from.)"""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (found,) = [line for line in lines if line.startswith(f"{field}:")]
    return int(found.split()[1]) * 1024


def _offer() -> Json:
    status = {"federationId": "example", "homeUid": HOME, "windowSeconds": 3600, "graceSeconds": GRACE_S}
    return {"spec": {"poolName": POOL}, "status": status}


def _uid(number: int) -> str:
    return f"{number:08x}-1111-4000-8000-000000000000"


def _guest(number: int) -> Json:
    spec = {
        "podUid": _uid(number),
        "namespaceUid": "ns-1",
        "poolName": POOL,
        "requests": {"cpu": "1", "memory": "256Mi"},
        "observed": {"boundAt": STARTED, "runningFrom": STARTED},
    }
    status = {
        "phase": "Running",
        "startedAt": STARTED,
        "containers": [{"name": "app", "state": "running", "startedAt": STARTED}],
    }
    return {"metadata": {"name": _uid(number)}, "spec": spec, "status": status}


def samples(containers: int) -> Iterator[Made]:
    """Five metrics of each container, from T0 until a grace after the hour."""
    for number in range(containers):
        times = range(T0 + 1 + number % (SCRAPE_S - 1), END + GRACE_S, SCRAPE_S)
        rate = 0.1 + number / (2 * containers)
        app, sandbox = _labels(number, "app"), {**_labels(number, ""), "interface": "eth0"}
        yield Made("container_cpu_usage_seconds_total", app, [(s, round(rate * (s - T0), 6)) for s in times])
        memory = [(s, 64 * MIB + 4096 * ((s - T0) * 7919 % 1000)) for s in times]
        yield Made("container_memory_working_set_bytes", app, memory)
        yield Made("container_network_receive_bytes_total", sandbox, [(s, 10_007 * (s - T0)) for s in times])
        yield Made("container_network_transmit_bytes_total", sandbox, [(s, 2_003 * (s - T0)) for s in times])
        yield Made("container_start_time_seconds", app, [(s, T0) for s in times])


def _labels(number: int, container: str) -> dict[str, str]:
    return {
        "container": container,
        "endpoint": "https-metrics",
        "id": f"/kubepods.slice/kubepods-burstable.slice/cri-containerd-{container or 'sandbox'}{number:057x}.scope",
        "image": f"registry.example/library/workload@sha256:{0:064x}",
        "instance": "192.168.1.10:10250",
        "job": "kubelet",
        "metrics_path": "/metrics/cadvisor",
        "name": f"{number:064x}",
        "namespace": names.GUESTS_NAMESPACE,
        "node": "homelab-1",
        "pod": names.home_pod(_uid(number)),
    }
