"""What holds of the meter whatever a home does: windows add up, order is nothing, nobody is billed the impossible."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from homefed.api.report_document import Reading
from homefed.core.metering import Guest, Measured, Settings, Span, measure
from homefed.core.samples import RawSeries, intake
from homefed.core.windows import Window

UID = "11111111-2222-3333-4444-555555555555"
T0 = 1_767_225_600
HOUR = 3600
MCORES, MEMORY = 500, 64 * 2**20
LAG_MS = 120_000
"""So old may be what a kubelet answers."""


@dataclass(frozen=True)
class Move:
    """What a container did up to its next sample: ms that passed, share of its limits that it used (ppm), whether it
    was restarted at the beginning, and whether the sample was scraped, by whom, and how old what it answered was."""

    ms: int
    cpu_ppm: int
    memory_ppm: int
    restarts: bool
    scraped: bool
    replica: int
    lags: bool


def move(ms: int, cpu_ppm: int, memory_ppm: int, dice: int) -> Move:
    """One throw decides all that is rare: drawing each by itself takes most of a run."""
    dice, restarts = divmod(dice, 8)
    dice, scraped = divmod(dice, 5)
    lags, replica = divmod(dice, 2)
    return Move(ms, cpu_ppm, memory_ppm, restarts == 7, scraped != 4, replica, lags == 5)


share = st.integers(0, 1_000_000)
moves = st.builds(move, st.integers(1, 250_000), share, share, st.integers(0, 8 * 5 * 2 * 6 - 1))
lives = st.lists(moves, min_size=1, max_size=14)
tails = st.one_of(st.none(), st.integers(0, 120_000))
cuts = st.lists(st.integers(1, HOUR - 1), max_size=3)


@dataclass
class World:
    """A pod of one container that lives by its moves; `last`, ms after T0, of the last one. True use of each instance
    when it was sampled last is in `read` (µcore·s)."""

    last: int = 0
    used: int = 0
    read: dict[int, int] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)
    """Of instances before the last, as Kubernetes tells them: whole seconds."""
    series: dict[tuple[str, int, int], list[tuple[int, str]]] = field(default_factory=dict)

    def put(self, metric: str, instance: int, replica: int, value: str) -> None:
        self.series.setdefault((metric, instance, replica), []).append((T0 * 1000 + self.last, value))

    def raw(self) -> list[RawSeries]:
        return [
            RawSeries(
                metric,  # type: ignore[arg-type]
                {
                    "pod": f"hf-{UID}",
                    "container": "" if metric.startswith("network") else "app",
                    "id": "/kubepods/sandbox" if metric.startswith("network") else f"/kubepods/{instance}",
                    "prometheus_replica": str(replica),
                },
                samples,
            )
            for (metric, instance, replica), samples in self.series.items()
        ]

    def guest(self, tail: int | None, *, tells_ends: bool = True) -> Guest:
        end = None if tail is None else T0 * 1000 + self.last + tail
        life, ends = Span(T0 * 1000, end), tuple(self.ends) if tells_ends else ()
        return Guest(UID, {"cpu": MCORES, "memory": MEMORY}, life, {"app": Span(T0 * 1000, end, ends)})


def world_of(life: list[Move]) -> World:
    """At most 59 minutes of a life."""
    world, instance, counter, told, began, received, fresh = World(), 0, 0, 0, T0 * 1000, 0, 0
    for move in life:
        if move.restarts:
            instance, counter, told = instance + 1, 0, 0
            began, fresh = T0 * 1000 + world.last, world.last
            world.ends.append(began // 1000 * 1000)
        world.last += move.ms
        counter += MCORES * move.ms * move.cpu_ppm // 1_000_000
        received += move.cpu_ppm
        if not move.scraped:
            continue
        if not move.lags or world.last - fresh > LAG_MS:
            told, fresh = counter, world.last
        world.read[instance] = max(world.read.get(instance, 0), told)
        world.put("cpu", instance, move.replica, f"{told / 1_000_000:.6f}")
        world.put("memory", instance, move.replica, str(MEMORY * move.memory_ppm // 1_000_000))
        world.put("network-receive", instance, move.replica, str(received))
        world.put("start", instance, move.replica, f"{began // 1000}")
    return world


def run(raw: list[RawSeries], guest: Guest, window: Window, before: list[Reading]) -> Measured:
    late = (T0 + 10**6) * 1000
    return measure(window, [guest], intake(raw, {UID}, window, now_ms=late, offset_ms=0), before, Settings(30_000))


def totals(raw: list[RawSeries], guest: Guest, *edges: int) -> Counter[str]:
    """Amounts by resource over windows that meet at these seconds after T0."""
    found, readings = Counter[str](), list[Reading]()
    for begin, end in pairwise([0, *edges, HOUR]):
        piece = run(raw, guest, Window(T0 + begin, T0 + end), readings)
        found.update({one.resource: int(one.amount) for one in piece.lines})
        readings = piece.readings
    return found


@given(lives, tails, cuts)
def test_any_split_of_a_window_adds_up_to_the_whole(life: list[Move], tail: int | None, edges: list[int]) -> None:
    world = world_of(life)
    raw, guest = world.raw(), world.guest(tail)
    assert totals(raw, guest, *sorted(set(edges))) == totals(raw, guest)


@given(lives, tails, cuts, st.integers(0, 2**32))
def test_the_order_of_arrival_changes_nothing(life: list[Move], tail: int | None, edges: list[int], seed: int) -> None:
    rng = random.Random(seed)  # st.randoms() would draw each of its numbers, at ten times the cost
    world = world_of(life)
    raw, guest = world.raw(), world.guest(tail)
    mixed = [RawSeries(one.metric, one.labels, rng.sample(list(one.samples), len(one.samples))) for one in raw]
    rng.shuffle(mixed)
    assert totals(mixed, guest, *sorted(set(edges))) == totals(raw, guest)


@given(lives, tails, cuts)
def test_no_window_is_negative_and_no_life_exceeds_its_limit(
    life: list[Move], tail: int | None, edges: list[int]
) -> None:
    world = world_of(life)
    raw, guest = world.raw(), world.guest(tail)
    readings = list[Reading]()
    closed = Counter[str]()
    for begin, end in pairwise([0, *sorted(set(edges)), HOUR]):
        piece = run(raw, guest, Window(T0 + begin, T0 + end), readings)
        readings = piece.readings
        assert all(int(one.amount) >= 0 for one in piece.lines)
        closed.update({one.resource: int(one.amount) for one in piece.lines})
    lived = min(world.last + (tail or 0), HOUR * 1000)
    assert closed["cpu"] <= MCORES * lived
    assert closed["memory"] * 1024 * 1000 <= MEMORY * (lived + 1000)  # start times are whole seconds


@given(lives)
def test_cpu_is_what_each_instance_read_at_last(life: list[Move]) -> None:
    world = world_of(life)
    assert totals(world.raw(), world.guest(None, tells_ends=False))["cpu"] == sum(world.read.values())


@given(lives)
def test_what_is_told_of_ends_adds_no_more_than_the_time_up_to_them_has_room_for(life: list[Move]) -> None:
    world = world_of(life)
    told, untold = (totals(world.raw(), world.guest(None, tells_ends=tells))["cpu"] for tells in (True, False))
    assert untold <= told <= MCORES * world.last


@given(lives, tails)
def test_a_second_scraper_of_the_same_changes_nothing(life: list[Move], tail: int | None) -> None:
    world = world_of(life)
    raw, guest = world.raw(), world.guest(tail)
    again = [RawSeries(one.metric, {**one.labels, "prometheus_replica": "b"}, one.samples) for one in raw]
    assert totals(raw + again, guest) == totals(raw, guest)
