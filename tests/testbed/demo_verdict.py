"""The demo's end: metered usage beside the workload's truth, money beside the ledger's totals, and whether both hold.

Truth is read off a pod's log at the moment of the meter's last sample: what was read has to agree to 1 %. Where a pod
has ended, its CPU from there to the end is an estimate at the mean rate, which a load that comes and goes does not
keep, between ends that Kubernetes gives in whole seconds; so a whole life has a wider tolerance, and says it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlencode

from rich.console import Console, Group
from rich.table import Table

from homefed.core.rewards import observation, units_of
from homefed.core.windows import millis
from testbed.cluster import Cluster
from testbed.demo_story import CONSUMER, POOL, Story, clock, credits
from testbed.errors import TestbedError
from testbed.federated import Json
from testbed.installation import NAMESPACE
from testbed.settled import SHARES, Claim, Metered, imbalances, metered, reports_of, reserved
from testbed.truth import Truth

TOLERANCE: Final = 0.01
TAIL_SECONDS: Final = 1.5
"""Ends are given in whole seconds, each rounded down."""
TAIL_SHARE: Final = 0.25
"""How far the rate of the last seconds may lie from the mean."""
READ: Final = " as read"
UNSAMPLED_SECONDS: Final = 25
"""Memory is billed from its first sample on: the kubelet's own interval of up to 20 s, and a scrape's."""
OWN_PAGES_MIB: Final = 4
"""What a process takes up beside the memory that it was told to hold."""
TOLD: Final = {"cpu": ("cpu_seconds", 1.0), "network-transmit": ("wire_bytes", 1e6)}
"""What the workload calls it in its log, and how much of that is one UNIT."""
SCALE: Final = {"cpu": 1e6, "network-transmit": 1e6, "memory": 1024.0}
UNIT: Final = {"cpu": "core·s", "network-transmit": "MB", "memory": "MiB·s"}


@dataclass
class Row:
    """One resource of one workload in one home, over its pods; values in `unit`. `least`, `most`: what is tolerated."""

    home: str
    workload: str
    resource: str
    unit: str
    truth: float = 0.0
    metered: float = 0.0
    estimated: float = 0.0
    """Of `metered`: from the last sample to the end."""
    paid_for: float = 0.0
    least: float = 0.0
    most: float = 0.0

    @property
    def error_percent(self) -> float:
        return (self.metered / self.truth - 1) * 100 if self.truth else 0.0

    @property
    def holds(self) -> bool:
        return self.least <= self.metered <= self.most and abs(self.paid_for - self.metered) <= 0.001 * self.most


@dataclass
class Verdict:
    rows: list[Row]
    claims: list[Claim]
    totals: Json
    reserved: list[tuple[str, str, str, float, float]] = field(default_factory=list)
    """Home, pod, resource, reserved units paid, and the units that its requests and observed time come to."""
    wrong: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Figures for programs."""
        return {
            "usage": [asdict(row) | {"errorPercent": row.error_percent, "holds": row.holds} for row in self.rows],
            "claims": [
                {"claim": one.id, "home": one.home, "windowEnd": one.window_end, "lines": len(one.lines)}
                | {name: one.amount(name) for name in ("charged", *SHARES)}
                for one in self.claims
            ],
            "ledger": self.totals,
            "wrong": self.wrong,
        }


def judge(story: Story) -> Verdict:
    """What the demo came to. `wrong` is empty where everything holds."""
    claims, totals = story.snapshot()
    verdict = Verdict([], claims, totals, wrong=imbalances(claims, totals))
    for home in story.federation.homes:
        own = [claim for claim in claims if claim.home == home]
        if story.real:
            verdict.rows += _rows(story, home, metered(own, reports_of(story.federation, home, POOL)))
        verdict.reserved += _reserved(story, home, own)
    verdict.wrong += [
        f"{row.home} {row.workload} {row.resource}: metered {row.metered:.3f} {row.unit}, truth {row.truth:.3f}"
        for row in verdict.rows
        if not row.holds
    ]
    if story.real and len({(row.home, row.workload) for row in verdict.rows}) < 3 * len(story.federation.homes):
        verdict.wrong.append("not every home ran and metered a pod of both workloads")
    verdict.wrong += [
        f"{home} {pod} {what}: {paid:.0f} paid as reserved, {due:.0f} observed"
        for home, pod, what, paid, due in verdict.reserved
        if paid > due
    ]
    if not claims:
        verdict.wrong.append("no claims at all")
    return verdict


def _rows(story: Story, home: str, usage: dict[tuple[str, str], Metered]) -> list[Row]:
    rows: dict[tuple[str, str], Row] = {}
    for (uid, resource), used in sorted(usage.items()):
        if resource not in UNIT or uid not in story.truths:
            continue
        name, truth = story.pods[uid]["metadata"]["labels"]["app"], story.truths[uid]
        row = rows.setdefault((name, resource), Row(home, name, resource, UNIT[resource]))
        if resource == "memory":
            _add_memory(row, used, truth)
        elif resource == "cpu" and used.ended:
            read = rows.setdefault((name + READ, resource), Row(home, name + READ, resource, UNIT[resource]))
            _add_life(row, read, used, truth, last_sample(story.federation.homes[home], uid))
        else:
            key, scale = TOLD[resource]
            told = truth.told(key, None if used.ended else used.at_ms / 1000) / scale
            _add(row, used, told, told * TOLERANCE, told * TOLERANCE)
    return [rows[key] for key in sorted(rows)]


def _add(row: Row, used: Metered, told: float, below: float, above: float) -> None:
    row.truth += told
    row.least += max(0.0, told - below)
    row.most += told + above
    row.metered += used.reported / SCALE[row.resource]
    row.estimated += used.estimated / SCALE[row.resource]
    row.paid_for += used.accepted / SCALE[row.resource]


def _add_memory(row: Row, used: Metered, truth: Truth) -> None:
    at = None if used.ended else used.at_ms / 1000
    mib, lived = truth.told("mib", at), truth.lived(at)
    _add(row, used, mib * lived, mib * UNSAMPLED_SECONDS, OWN_PAGES_MIB * lived)


def _add_life(row: Row, read: Row, used: Metered, truth: Truth, sampled: float) -> None:
    """CPU of a pod that has ended: what was read until `sampled` (seconds since the epoch), and its whole life."""
    told, life = truth.told("cpu_seconds", sampled), truth.told("cpu_seconds")
    only_read = replace(used, reported=used.reported - used.estimated, accepted=used.accepted - used.estimated)
    _add(read, replace(only_read, estimated=0), told, told * TOLERANCE, told * TOLERANCE)
    slack = told * TOLERANCE + (life - told) * TAIL_SHARE + life / truth.lived() * TAIL_SECONDS
    _add(row, used, life, slack, slack)


def last_sample(home: Cluster, uid: str) -> float:
    """When the home's Prometheus last saw a guest's CPU counter, seconds since the epoch. Raises TestbedError."""
    expression = f'max_over_time(timestamp(container_cpu_usage_seconds_total{{pod="hf-{uid}",container!=""}})[1h:1s])'
    query = urlencode({"query": expression})
    path = f"/api/v1/namespaces/{NAMESPACE}/services/homefed-prometheus:http/proxy/api/v1/query?{query}"
    found = home.api.get(path)["data"]["result"]
    if not found:
        raise TestbedError(f"{home.name}: Prometheus has no sample of guest {uid}")
    return max(float(one["value"][1]) for one in found)


def _reserved(story: Story, home: str, claims: Sequence[Claim]) -> Iterator[tuple[str, str, str, float, float]]:
    """CPU: the request × the time between start and end (or the last window's) as the pod's own status has it."""
    guests = story.federation.hub.api.get(f"/apis/homefed.io/v1alpha1/namespaces/homefed-home-{home}/guestpods")[
        "items"
    ]
    until = max((millis(claim.window_end) for claim in claims), default=0)
    paid = reserved(claims)
    for guest in guests:
        seen = observation(guest)
        for resource, amount in sorted(seen.requests.items()):
            if (seen.uid, resource) in paid:
                due = units_of(resource, amount, seen.observed_ms(until))[1]
                yield home, guest["spec"]["podName"], resource, paid[seen.uid, resource], due


# --- for people


def render(verdict: Verdict, console: Console, *, real: bool) -> None:
    """The tables, then the verdict."""
    console.print()
    if real:
        console.print(Group(_usage_table(verdict.rows), _footnote()))
    else:
        console.print("Simulated nodes run nothing, so nothing was used: these claims hold reserved lines only.")
        console.print(_reserved_table(verdict))
    console.print(_money_table(verdict.claims))
    console.print(_sentence(verdict))
    for problem in verdict.wrong:
        console.print(f"[red]does not hold:[/red] {problem}")
    console.print("[green]Everything holds.[/green]" if not verdict.wrong else "[red]The demo failed.[/red]")


def _usage_table(rows: Sequence[Row]) -> Table:
    grid = Table(title="Metered beside the workload's own truth", title_justify="left")
    for name in ("home", "workload", "resource"):
        grid.add_column(name)
    for name in ("truth", "metered", "error", "tolerated", "estimated", "paid for", ""):
        grid.add_column(name, justify="right")
    for row in rows:
        low, high = ((bound / row.truth - 1) * 100 if row.truth else 0.0 for bound in (row.least, row.most))
        figures = [
            f"{row.truth:.3f}",
            f"{row.metered:.3f}",
            f"{row.error_percent:+.2f} %",
            f"{low:+.1f} … {high:+.1f} %",
        ]
        figures += [f"{row.estimated:.3f}" if row.estimated else "", f"{row.paid_for:.3f}"]
        verdict = "holds" if row.holds else "[red]DOES NOT[/red]"
        resource = f"{row.resource} ({row.unit})"
        grid.add_row(row.home, row.workload, resource, *figures, verdict)
    return grid


def _footnote() -> str:
    return (
        "Truth is read off each pod's log at the meter's last sample; for a pod that has ended, at its end. CPU from\n"
        "the last sample to the end is estimated at the mean rate (the kubelet reads every 10 to 20 s), hence a wider\n"
        "tolerance of whole lives. Memory is billed from its first sample on, with the process's own pages.\n"
    )


def _reserved_table(verdict: Verdict) -> Table:
    grid = Table(title="Reserved, as the hub saw it", title_justify="left")
    for name in ("home", "pod", "resource"):
        grid.add_column(name)
    grid.add_column("paid units", justify="right")
    grid.add_column("request × observed time", justify="right")
    for home, pod, resource, paid, due in verdict.reserved:
        grid.add_row(home, pod, resource, f"{paid:.0f}", f"{due:.0f}")
    return grid


def _money_table(claims: Sequence[Claim]) -> Table:
    grid = Table(title="Claims, in credits", title_justify="left", show_footer=True)
    grid.add_column("claim", "Σ")
    grid.add_column("home")
    grid.add_column("window to")
    grid.add_column("lines", str(sum(len(claim.lines) for claim in claims)), justify="right")
    for name in ("charged", *SHARES):
        total = sum(claim.amount(name) for claim in claims)
        grid.add_column(name, credits(total), justify="right")
    for claim in claims:
        money = [credits(claim.amount(name)) for name in ("charged", *SHARES)]
        grid.add_row(claim.id[:8], claim.home, clock(claim.window_end), str(len(claim.lines)), *money)
    return grid


def _sentence(verdict: Verdict) -> str:
    sums = {name: sum(claim.amount(name) for claim in verdict.claims) for name in ("charged", *SHARES)}
    shared = sum(sums[name] for name in SHARES)
    held = {kind: credits(int(amount)) for kind, amount in verdict.totals["accounts"].items()}
    return (
        f"Ledger: {verdict.totals['claims']} claims, charged {credits(int(verdict.totals['charged']))};"
        f" consumer {CONSUMER} {held['consumer']}, contributors {held['contributor']}, held {held['held']},"
        f" fee {held['fee']}, dust {held['dust']}.\n"
        f"Σ paid + held + fee + dust = {credits(shared)}, Σ charged = {credits(sums['charged'])}"
    )
