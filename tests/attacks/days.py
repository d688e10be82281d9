"""Many windows of many honest homes, and what each was docked."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from attacks.federation import GRACE_S, Hub, card, seen
from attacks.honest import RESTART_S, SCRAPE_S, WINDOW_S, Eventful, HonestHome, Weather
from attacks.work import T0
from homefed.api.report_document import CPU
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.api.settlement_terms import Settlement
from homefed.core.windows import Window

WINDOWS: Final = 20
"""Of each home; the last two are without outages, so that what is late has come."""
REPORTED_S: Final = GRACE_S + 1
SETTLED_S: Final = GRACE_S + 5
OFF_BY_S: Final = 3
"""How far start and end of a guest may be off: seconds that are cut, and a wrong idea of the hub's clock."""
NOT_DOCKING: Final = {"Estimated", "Lagged", "NoReport", "NoSamples", "Partial"}
"""Codes that say how a figure came about, and take nothing away."""


@dataclass
class Day:
    """One home's windows, and what it was docked in them."""

    windows: int = 0
    docked: list[str] = field(default_factory=list)
    true: int = 0
    paid: int = 0
    """µcore·s used."""


def day(seed: int) -> Day:
    """WINDOWS of one home with one to three guests."""
    rng = random.Random(seed)
    until = WINDOWS * WINDOW_S
    return through(HonestHome(list(_guests(rng, until)), _weather(rng, until), seed))


def through(home: HonestHome) -> Day:
    """WINDOWS of this home."""
    until = WINDOWS * WINDOW_S
    settlement = Settlement(window_seconds=WINDOW_S, grace_seconds=GRACE_S, lateness_seconds=900)
    hub = Hub(SchedulingPoolSpec(rate_card=card(), settlement=settlement))
    found = Day()
    for number in range(1, WINDOWS + 1):
        end = number * WINDOW_S
        for second in seen(home.guests, end - WINDOW_S, end):
            hub.see(home, second)
        objects = hub.see(home, end + REPORTED_S)
        home.report(Window(T0 + end - WINDOW_S, T0 + end), objects)
        for later in (SETTLED_S, 901):
            hub.settle(home, hub.see(home, end + later), end + later)
        found.windows += 1
        found.docked += _docked(hub, home, number)
    _compare(found, hub, home, until)
    return found


def _guests(rng: random.Random, until: int) -> Iterator[Eventful]:
    for number in range(rng.randrange(1, 4)):
        start = rng.randrange(0, until // 2) if number else rng.randrange(1, WINDOW_S)
        life = rng.choice([rng.randrange(20, 200), rng.randrange(200, WINDOW_S), rng.randrange(WINDOW_S, until)])
        end = start + life if rng.random() < 0.6 else None
        last = min(until, until if end is None else end)
        restarts = sorted(rng.sample(range(start + 60, last - 60), rng.randrange(0, 3))) if last - start > 400 else []
        apart = [
            one for before, one in zip([start, *restarts], restarts, strict=False) if one - before > RESTART_S + 60
        ]
        cores = rng.choice([1.0, rng.random()])
        uid = f"{rng.getrandbits(32):08x}-1111-4000-8000-{number:012x}"
        yield Eventful(uid, cores, start, end, bytes_per_s=rng.randrange(1, 10_000_000), restarts=tuple(apart))


def _weather(rng: random.Random, until: int) -> Weather:
    calm = until - 2 * WINDOW_S

    def stretches(most: int, longest: int) -> list[tuple[int, int]]:
        begins = [rng.randrange(0, calm) for _ in range(rng.randrange(0, most))]
        return [(begin, min(calm, begin + rng.randrange(SCRAPE_S, longest))) for begin in begins]

    return Weather(
        unscraped=stretches(4, 3 * WINDOW_S),
        unreported=stretches(3, 4 * WINDOW_S),
        paired=rng.random() < 0.3,
        offset_ms=rng.choice([0, 0, rng.randrange(-3_600_000, 3_600_000)]),
        wrong_by_ms=rng.choice([0, 0, -2000, 2000]),
    )


def _docked(hub: Hub, home: HonestHome, number: int) -> Iterator[str]:
    """What the newest claims took from the home, as text."""
    for code in sorted(set(hub.codes) - NOT_DOCKING):
        yield f"window {number}: {code}"
    accepted: Counter[tuple[str, str]] = Counter()
    for line in hub.lines:
        if line.basis == "used":
            accepted[line.guest_pod, line.resource] += int(line.accepted)
    for (pod, resource), close in home.said.items():
        if accepted[pod, resource] != close:
            yield f"window {number}: {resource} of {pod}: {close} reported, {accepted[pod, resource]} accepted"


def _compare(found: Day, hub: Hub, home: HonestHome, until: int) -> None:
    """With the truth, as far as anything of it was ever scraped: an instance that ends unseen leaves no reading."""
    for work in home.eventful:
        lines = [line for line in hub.lines if (line.guest_pod, line.resource) == (work.uid, CPU)]
        used = sum(int(line.accepted) for line in lines if line.basis == "used")
        reserved = sum(int(line.accepted) for line in lines if line.basis == "reserved")
        read = sum(last - start for start, last in home.read(work, until))
        found.true += round(work.cores * 1e6 * work.worked_s(until))
        found.paid += used
        if used < work.cores * 1e6 * read - len(work.instances()):
            found.docked.append(f"{work.uid}: {used} µcore·s of CPU paid of {work.cores} cores read for {read} s")
        if reserved < 1_000_000 * (work.ran_s(until) - OFF_BY_S):
            found.docked.append(f"{work.uid}: {reserved} of {work.reserved(until)} µcore·s reserved were paid")
