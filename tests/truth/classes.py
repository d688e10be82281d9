"""The classes of a day: what runs in each of them, and how it is scraped. Seeded: the same day for the same seed.

Rates, bursts, restarts and outages are drawn from what homes are like; nothing in here knows how the meter counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Final

from truth.workload import Instance, Piece, Pod

T0: Final = 1_767_225_600
"""The day's midnight, seconds since the epoch, UTC."""
DAY_S: Final = 86_400
START_MS: Final = T0 * 1000
END_MS: Final = START_MS + DAY_S * 1000
MIB: Final = 2**20
LIMIT_MCORES: Final = 500
LIMIT_BYTES: Final = 128 * MIB

CLASSES: Final = ("steady", "bursty", "slow", "lagged", "resets", "gaps", "churn", "short", "ha")
SINGLE_SOURCE: Final = tuple(name for name in CLASSES if name != "ha")

Stretch = tuple[int, int]
"""(start, end) in ms."""
Walk = Callable[[Random, int, int], list[Piece]]


@dataclass(frozen=True)
class Scraper:
    """How samples of a class come about. Times in ms.

    labels: of the scrape, from the moment that they count from on. phase: of the first scrape, as a share of the
    interval. outages: stretches in which nothing is scraped. missed: share of single scrapes that fail. read_every: how
    often the kubelet reads the container; between, it answers the value that it read last (0: it reads at each scrape).
    """

    labels: Sequence[tuple[int, dict[str, str]]] = ((0, {"instance": "node-1:10250", "job": "kubelet"}),)
    phase: float = 0.0
    outages: Sequence[Stretch] = ()
    missed: float = 0.0
    read_every: Stretch = (0, 0)


@dataclass(frozen=True)
class Case:
    """One class: its pods, and who scrapes all of them."""

    name: str
    pods: Sequence[Pod]
    scrapers: Sequence[Scraper] = (Scraper(),)

    @property
    def pattern(self) -> str:
        """Regular expression of its pods' names at home."""
        return f"hf-{_prefix(self.name)}-.+"

    def truth(self, name: str) -> int:
        """Over the whole day."""
        return sum(pod.truth(name, START_MS, END_MS) for pod in self.pods)


def day(seed: int, *, pods: int = 2, short_pods: int = 600) -> list[Case]:
    """`pods` of each class; of `short`, `short_pods`."""
    made = []
    for name in CLASSES:
        rng = Random(f"{seed} {name}")
        count = short_pods if name == "short" else pods
        made.append(Case(name, [_POD[name](rng, _uid(name, number)) for number in range(count)], _scrapers(name, rng)))
    return made


def _prefix(name: str) -> str:
    return f"{CLASSES.index(name):08x}"


def _uid(name: str, number: int) -> str:
    return f"{_prefix(name)}-0000-4000-8000-{number:012x}"


# --- what runs


def _steady(rng: Random, start: int, end: int) -> list[Piece]:
    return [Piece(start, rng.randint(20, 400), rng.randint(8, 120) * MIB, rng.randint(1, 50))]


def _bursty(rng: Random, start: int, end: int) -> list[Piece]:
    """Busy for 8 s and idle for 40 s, on average."""
    pieces, at, busy = [], start, False
    while at < end:
        mcores = rng.randint(300, LIMIT_MCORES) if busy else rng.randint(0, 5)
        pieces.append(Piece(at, mcores, rng.randint(60, 120) * MIB if busy else 40 * MIB, 100 * busy))
        at += max(50, round(rng.expovariate(1 / (8_000 if busy else 40_000))))
        busy = not busy
    return pieces


def _slow(rng: Random, start: int, end: int) -> list[Piece]:
    """Hardly anything: 1 to 3 milli-cores for a second, every minute on average."""
    pieces, at = [Piece(start, 0, 4 * MIB, 0)], start
    while at < end:
        at += max(2_000, round(rng.expovariate(1 / 60_000)))
        pieces += [Piece(at, rng.randint(1, 3), 4 * MIB, 1), Piece(at + 1_000, 0, 4 * MIB, 0)]
    return pieces


def _uneven(rng: Random, start: int, end: int) -> list[Piece]:
    """A level of its own, a quarter to seven quarters of it in every 2 to 10 s."""
    mcores, held, pieces, at = rng.randint(40, 280), rng.randint(8, 60) * MIB, list[Piece](), start
    while at < end:
        share = rng.uniform(0.25, 1.75)
        pieces.append(Piece(at, round(mcores * share), round(held * (0.9 + share / 10)), round(20 * share)))
        at += rng.randint(2_000, 10_000)
    return pieces


# --- pods


def _pod(uid: str, instances: Sequence[Instance]) -> Pod:
    return Pod(uid, LIMIT_MCORES, LIMIT_BYTES, instances)


def _lasting(walk: Walk) -> Callable[[Random, str], Pod]:
    """Begins within the first ten minutes and runs on."""

    def make(rng: Random, uid: str) -> Pod:
        start = START_MS + rng.randint(1_000, 600_000)
        return _pod(uid, [Instance(0, start, None, walk(rng, start, END_MS))])

    return make


def _restarting(rng: Random, uid: str) -> Pod:
    """A container that is restarted every 45 min on average, after ten at the soonest, and is down for 1 to 12 s: the
    kubelet's back-off begins anew after ten minutes."""
    instances, at = list[Instance](), START_MS + rng.randint(1_000, 600_000)
    while at < END_MS:
        end: int | None = at + 600_000 + round(rng.expovariate(1 / 2_100_000))
        end = end if end is not None and end < END_MS else None
        pieces = _uneven(rng, at, end or END_MS)
        instances.append(Instance(len(instances), at, end, pieces))
        at = END_MS if end is None else end + rng.randint(1_000, 12_000)
    return _pod(uid, instances)


def _short(rng: Random, uid: str) -> Pod:
    """A pod of 60 to 120 s."""
    start = START_MS + rng.randint(1_000, DAY_S * 1000 - 200_000)
    end = start + rng.randint(60_000, 120_000)
    return _pod(uid, [Instance(0, start, end, _uneven(rng, start, end))])


_POD: Final[dict[str, Callable[[Random, str], Pod]]] = {
    "steady": _lasting(_steady),
    "bursty": _lasting(_bursty),
    "slow": _lasting(_slow),
    "lagged": _lasting(_uneven),
    "resets": _restarting,
    "gaps": _lasting(_uneven),
    "churn": _lasting(_uneven),
    "short": _short,
    "ha": _lasting(_uneven),
}


# --- who scrapes


def _scrapers(name: str, rng: Random) -> Sequence[Scraper]:
    if name == "lagged":
        return (Scraper(read_every=(20_000, 60_000)),)
    if name == "gaps":
        return (Scraper(outages=list(_stretches(rng, 7_200_000, (300_000, 2_400_000))), missed=0.02),)
    if name == "churn":
        return (Scraper(labels=list(_labels(rng))),)
    if name == "ha":
        return tuple(_replica(rng, letter, phase) for letter, phase in (("a", 0.1), ("b", 0.57)))
    return (Scraper(),)


def _replica(rng: Random, letter: str, phase: float) -> Scraper:
    """Of a pair: it has outages of its own, and what it is answered lags."""
    labels = {"instance": "node-1:10250", "job": "kubelet", "prometheus_replica": letter}
    outages = list(_stretches(rng, 14_400_000, (60_000, 900_000)))
    return Scraper(labels=((0, labels),), phase=phase, outages=outages, read_every=(10_000, 20_000))


def _stretches(rng: Random, apart: int, length: Stretch) -> Iterator[Stretch]:
    """Stretches of the day, `apart` on average; none in its last hour."""
    at = START_MS
    while (at := at + round(rng.expovariate(1 / apart))) < END_MS - 3_600_000:
        yield at, (at := at + rng.randint(*length))


def _labels(rng: Random) -> Iterator[tuple[int, dict[str, str]]]:
    """Another address, job and image name every half hour on average."""
    moments = [START_MS, *(end for _, end in _stretches(rng, 1_200_000, (60_000, 1_200_000)))]
    for number, (moment, _) in enumerate(pairwise([*moments, END_MS])):
        labels = {"instance": f"10.0.{number}.1:10250", "job": f"kubelet-{number % 3}", "image": f"app:{number % 5}"}
        yield moment, labels
