"""How long one core takes to settle a window of many homes: ten guest pods each, eight lines per pod.

Timed is what the hub does for each home between the objects that it has listed and those that it writes: the
observations of its GuestPods, `settlement.decide`, `claim_building.build`, the signed RewardClaim objects, and the
chain that the next window continues. It is a home's second window, so that there is a chain to continue. Beside it
stands what is not in the figure: verifying and reading the homes' signed reports, once per report, as they arrive.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import dsse
from homefed.api.rate_card import Price, RateCard
from homefed.api.report_document import METERED, UNITS, Reading, ReportLine
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import claim_building, claim_chain, readings, settlement, windows
from homefed.core.claim_chain import Chain, Payee
from homefed.core.metering import Measured, Settings
from homefed.core.readings import Origin
from homefed.core.rewards import observation
from homefed.core.settlement import Inputs, Settle
from homefed.core.windows import Window

T0: Final = 1_767_225_600
HOUR: Final = 3600
PODS_PER_HOME: Final = 10
LINES_PER_POD: Final = 8
NAMESPACES: Final = 3
"""Consumers per home."""
FEDERATION: Final = "example"
POOL: Final = "evening"
GPU: Final = "nvidia.com/gpu"
HUB_KEY: Final = Ed25519PrivateKey.from_private_bytes(b"h" * 32)
HOME_KEY: Final = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
HOME_KEYS: Final = {
    dsse.fingerprint(HOME_KEY.public_key().public_bytes_raw()): HOME_KEY.public_key().public_bytes_raw()
}
RATES: Final = {"cpu": 250_000, "memory": 64 * 1024, "network-receive": 10_000, "network-transmit": 2_000}
"""Units per second of every pod."""
Json = dict[str, Any]

CARD: Final = RateCard(
    version="1",
    valid_from="2026-01-01T00:00:00Z",
    prices=[
        Price(resource="cpu", basis="reserved", micro_credits=10_000, per="core-hour"),
        Price(resource="cpu", basis="used", micro_credits=20_000, per="core-hour"),
        Price(resource="memory", basis="reserved", micro_credits=2_000, per="GiB-hour"),
        Price(resource="memory", basis="used", micro_credits=1_000, per="GiB-hour"),
        Price(resource="ephemeral-storage", basis="reserved", micro_credits=20, per="GiB-hour"),
        Price(resource=GPU, basis="reserved", micro_credits=400_000, per="gpu-hour"),
        Price(resource="network-receive", basis="used", micro_credits=1_000, per="GiB"),
        Price(resource="network-transmit", basis="used", micro_credits=4_000, per="GiB"),
    ],
)
SPEC: Final = SchedulingPoolSpec(rate_card=CARD)


@dataclass
class Home:
    """One home as the hub has it before the window that is timed."""

    uid: str
    guests: list[Json]
    reports: list[Json]
    """UsageReport objects of both windows."""
    chain: Chain


@dataclass(frozen=True)
class Timing:
    """Seconds of this process's CPU."""

    settled: float
    opened: float
    """Verifying and reading the reports, which is not in `settled`."""
    homes: int
    lines: int


def time_settling(pods: int) -> Timing:
    """Settle one window of `pods` guest pods; ValueError where they are no whole number of homes."""
    if pods < PODS_PER_HOME or pods % PODS_PER_HOME:
        raise ValueError(f"{pods} pods: must be a multiple of {PODS_PER_HOME}")
    homes = [_home(number) for number in range(pods // PODS_PER_HOME)]
    opened: list[list[readings.Report]] = []
    gc.collect()
    opening = _cpu_seconds(lambda: opened.extend(_open(home, home.reports[1:]) for home in homes))
    lines: list[int] = []
    each = list(zip(homes, opened, strict=True))
    settling = _cpu_seconds(lambda: lines.extend(_settle(home, found, T0 + 2 * HOUR + 60) for home, found in each))
    if sum(lines) != pods * LINES_PER_POD:
        raise ValueError(f"{sum(lines)} lines, expected {pods * LINES_PER_POD}")
    return Timing(settling, opening, len(homes), sum(lines))


def _cpu_seconds(work: Callable[[], None]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def _settle(home: Home, reports: Sequence[readings.Report], now: int) -> int:
    """As `hub.settlement` does for one home; the number of lines of the claim."""
    guests = [observation(obj) for obj in home.guests]
    inputs = Inputs(FEDERATION, home.uid, SPEC, guests, reports, home.chain)
    step = settlement.decide(inputs, now)
    if not isinstance(step, Settle):
        raise ValueError(f"home {home.uid}: nothing was settled: {step}")
    payee = Payee(FEDERATION, POOL, home.uid, fee_ppm=20_000)
    claim = claim_building.build(payee, home.chain, step.window, step.lines, step.reports, b"s" * 32)
    claim_chain.objects(claim, "homefed-home", HUB_KEY)
    home.chain = home.chain.after(claim)
    return claim.header.line_count


def _home(number: int) -> Home:
    """With its first window settled."""
    uid = f"{number:08x}-0000-4000-8000-000000000000"
    pods = [f"{number:08x}-1111-4000-8000-{pod:012x}" for pod in range(PODS_PER_HOME)]
    guests = [_guest(pod, index % NAMESPACES) for index, pod in enumerate(pods)]
    home = Home(uid, guests, [_report(uid, pods, hour) for hour in (1, 2)], Chain())
    _settle(home, _open(home, home.reports[:1]), T0 + HOUR + 60)
    return home


def _guest(uid: str, namespace: int) -> Json:
    requests = {"cpu": "1", "memory": "128Mi", "ephemeral-storage": "1Gi", GPU: "1"}
    start = windows.text(T0)
    observed = {"boundAt": start, "runningFrom": start}
    spec = {"podUid": uid, "namespaceUid": f"ns-{namespace}", "requests": requests, "observed": observed}
    return {"metadata": {"name": uid}, "spec": spec}


def _report(home: str, pods: Sequence[str], hour: int) -> Json:
    """Of the hour that ends `hour` hours after T0: one part."""
    window = Window(T0 + (hour - 1) * HOUR, T0 + hour * HOUR)
    measured = Measured(
        [_line(pod, resource, hour) for pod in pods for resource in METERED],
        [_reading(pod, resource, window) for pod in pods for resource in METERED],
    )
    (document,) = readings.compose(Origin(FEDERATION, POOL, home), window, measured, Settings(15_000), "0" * 64)
    return readings.report_object(document, "homefed-home", HOME_KEY)


def _line(pod: str, resource: Any, hour: int) -> ReportLine:
    opened, closed = (RATES[resource] * HOUR * hours for hours in (hour - 1, hour))
    return ReportLine(
        guest_pod=pod,
        resource=resource,
        unit=UNITS[resource],
        open=str(opened),
        close=str(closed),
        amount=str(closed - opened),
        samples=240,
        expected=240,
        gaps=0,
        resets=0,
        coverage_ppm=1_000_000,
        flags=[],
    )


def _reading(pod: str, resource: Any, window: Window) -> Reading:
    used = RATES[resource] * (window.end - T0)
    return Reading(
        guest_pod=pod,
        container="app",
        resource=resource,
        instance="0" * 16,
        instance_start=T0 * 1000,
        time=window.end_ms,
        value=str(used),
        cumulative=str(used),
    )


def _open(home: Home, objects: Sequence[Json]) -> list[readings.Report]:
    origin = Origin(FEDERATION, POOL, home.uid)
    return readings.assemble(readings.open_part(obj, origin, HOME_KEYS) for obj in objects)
