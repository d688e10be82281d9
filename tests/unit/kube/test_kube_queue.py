"""Keys, workers and what happens to them when reconciling fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from homefed.api.errors import Conflict, HomefedError, Incident, Invalid, NotFound, Transient
from homefed.kube.queue import Backoff, Reconcile, WorkQueue, periodic, run_workers
from unit.kube.waiting import until


def quick() -> WorkQueue[str]:
    return WorkQueue(backoff=Backoff(base=0.001, cap=0.01, rng=random.Random(1)))


@asynccontextmanager
async def working(queue: WorkQueue[str], reconcile: Reconcile[str], concurrency: int = 4) -> AsyncIterator[None]:
    task = asyncio.create_task(run_workers(queue, reconcile, concurrency=concurrency, name="test"))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def settled(queue: WorkQueue[str]) -> None:
    await until(lambda: queue.idle and len(queue) == 0)


async def test_a_key_waits_once_however_often_it_is_added() -> None:
    queue = quick()
    for key in "abab":
        queue.add(key)
    assert len(queue) == 2
    assert [await queue.get(), await queue.get()] == ["a", "b"]


async def test_the_same_key_is_never_worked_on_twice_at_once_and_an_addition_meanwhile_is_not_lost() -> None:
    queue, running, most, runs = quick(), 0, 0, 0

    async def reconcile(_key: str) -> None:
        nonlocal running, most, runs
        running, runs = running + 1, runs + 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1

    async with working(queue, reconcile):
        queue.add("a")
        await asyncio.sleep(0.005)
        queue.add("a")
        queue.add("a")
        await settled(queue)
    assert (most, runs) == (1, 2)


async def test_different_keys_are_worked_on_at_once_up_to_the_limit() -> None:
    queue, running, most = quick(), 0, 0

    async def reconcile(_key: str) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    async with working(queue, reconcile, concurrency=3):
        for key in "abcdefghi":
            queue.add(key)
        await settled(queue)
    assert most == 3


@pytest.mark.parametrize("error", [Transient("t"), Conflict("c"), NotFound("n"), ZeroDivisionError("fault")])
async def test_what_failed_is_tried_again_until_it_succeeds(error: Exception) -> None:
    queue, runs = quick(), 0

    async def reconcile(_key: str) -> None:
        nonlocal runs
        runs += 1
        if runs < 4:
            raise error

    async with working(queue, reconcile):
        queue.add("a")
        await settled(queue)
    assert runs == 4


async def test_one_key_that_fails_does_not_hold_up_the_others() -> None:
    queue: WorkQueue[str] = WorkQueue(backoff=Backoff(base=60.0))
    done: list[str] = []

    async def reconcile(key: str) -> None:
        if key == "bad":
            raise RuntimeError("a fault of ours")
        done.append(key)

    async with working(queue, reconcile, concurrency=1):
        for key in ("bad", "a", "b"):
            queue.add(key)
        await until(lambda: len(done) == 2)
    assert done == ["a", "b"]


@pytest.mark.parametrize(("error", "level"), [(Invalid("wrong field"), "WARNING"), (Incident("two claims"), "ERROR")])
async def test_what_a_person_must_change_is_told_once_and_waits_for_the_periodic_pass(
    error: HomefedError, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue, runs = quick(), 0

    async def reconcile(_key: str) -> None:
        nonlocal runs
        runs += 1
        raise error

    async with working(queue, reconcile):
        for _ in range(3):
            queue.add("a")
            await settled(queue)
    assert runs == 3
    assert [(record.levelname, error.message in record.getMessage()) for record in caplog.records] == [(level, True)]


async def test_a_refusal_that_comes_back_after_a_success_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    queue, outcomes = quick(), [Invalid("no"), None, Invalid("no")]

    async def reconcile(_key: str) -> None:
        if (error := outcomes.pop(0)) is not None:
            raise error

    async with working(queue, reconcile):
        while outcomes:
            queue.add("a")
            await settled(queue)
    assert len(caplog.records) == 2


async def test_a_fault_of_ours_is_logged_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    queue, runs = quick(), 0

    async def reconcile(_key: str) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise KeyError("spec")

    with caplog.at_level(logging.ERROR):
        async with working(queue, reconcile):
            queue.add("a")
            await settled(queue)
    assert caplog.records[0].exc_info is not None


async def test_outcomes_are_counted() -> None:
    queue = quick()
    outcomes: list[Exception | None] = [Transient("t"), RuntimeError("fault"), Invalid("no"), None]

    async def reconcile(_key: str) -> None:
        if (error := outcomes.pop(0)) is not None:
            raise error

    task = asyncio.create_task(run_workers(queue, reconcile, name="counted"))
    for _ in range(2):
        queue.add("a")
        await settled(queue)
    task.cancel()
    counts = {
        o: REGISTRY.get_sample_value("homefed_reconciliations_total", {"name": "counted", "outcome": o})
        for o in ("done", "retried", "failed", "refused")
    }
    assert counts == {"done": 1.0, "retried": 1.0, "failed": 1.0, "refused": 1.0}


async def test_a_reconciliation_can_ask_to_look_again() -> None:
    queue, runs = quick(), 0

    async def reconcile(_key: str) -> float | None:
        nonlocal runs
        runs += 1
        return 0.01 if runs < 3 else None

    async with working(queue, reconcile):
        queue.add("a")
        await settled(queue)
    assert runs == 3


async def test_a_key_due_later_comes_at_the_earliest_of_its_times() -> None:
    queue = quick()
    queue.add_after("a", 30.0)
    queue.add_after("a", 0.01)
    queue.add_after("a", 60.0)
    assert len(queue) == 1
    assert await asyncio.wait_for(queue.get(), 60) == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_a_key_added_now_does_not_come_again_for_its_later_time() -> None:
    queue = quick()
    queue.add_after("a", 0.01)
    queue.add("a")
    queue.add_after("a", 0.01)
    assert await queue.get() == "a"
    queue.done("a")
    await asyncio.sleep(0.03)
    assert len(queue) == 0


async def test_a_full_queue_drops_and_counts() -> None:
    queue: WorkQueue[str] = WorkQueue(capacity=2)
    queue.add("a")
    queue.add_after("b", 60.0)
    queue.add("c")
    queue.add_after("d", 60.0)
    assert (len(queue), queue.dropped) == (2, 2)
    queue.add("b")
    assert (len(queue), queue.dropped) == (2, 2)


async def test_the_periodic_pass_adds_every_key_again_and_again() -> None:
    queue, calls = quick(), 0

    def keys() -> list[str]:
        nonlocal calls
        calls += 1
        return ["a", "b"] if calls == 1 else ["c"]

    task = asyncio.create_task(periodic(queue, keys, 0.01))
    taken = [await asyncio.wait_for(queue.get(), 60) for _ in range(3)]
    task.cancel()
    assert taken == ["a", "b", "c"]


@given(st.lists(st.booleans(), max_size=40), st.floats(0.01, 5.0), st.floats(5.0, 120.0))
def test_delays_grow_up_to_the_cap_and_start_again_after_a_success(
    failures: list[bool], base: float, cap: float
) -> None:
    backoff: Backoff[str] = Backoff(base=base, cap=cap, rng=random.Random(0))
    row = 0
    for failed in failures:
        if failed:
            nominal = min(cap, base * 2**row)
            assert 0.8 * nominal <= backoff.failed("k") <= 1.2 * nominal
            row += 1
        else:
            backoff.succeeded("k")
            row = 0


@pytest.mark.parametrize(("asked", "low", "high"), [(5.0, 4.0, 6.0), (1e9, 48.0, 72.0), (None, 0.08, 0.12)])
def test_a_servers_wish_to_wait_is_honoured_up_to_the_cap(asked: float | None, low: float, high: float) -> None:
    backoff: Backoff[str] = Backoff(base=0.1, cap=60.0, rng=random.Random(0))
    assert low <= backoff.failed("k", asked) <= high
