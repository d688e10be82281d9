"""Renewing Leases of virtual nodes, and holding our own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from homefed.api.errors import Conflict, Forbidden, NotFound, Transient
from homefed.core.lease import micro_time
from homefed.kube.lease import HolderLease, LeaseLost, renew, run_holding
from unit.kube.memory import MemoryClient
from unit.kube.waiting import until

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def client() -> MemoryClient:
    return MemoryClient()


async def given_lease(client: MemoryClient, **spec: Any) -> None:
    await client.create(None, {"metadata": {"name": "node", "namespace": "leases"}, "spec": spec})  # type: ignore[arg-type]
    client.writes.clear()


def spec(client: MemoryClient) -> dict[str, Any]:
    return client.objects["leases", "node"]["spec"]  # type: ignore[no-any-return]


async def test_a_renewal_moves_the_time_and_keeps_the_rest(client: MemoryClient) -> None:
    await given_lease(client, holderIdentity="node", renewTime=micro_time(NOON), acquireTime="then", leaseTransitions=2)
    await renew(client, "node", "leases", "node", NOON + timedelta(seconds=10), duration_seconds=40)
    assert spec(client) == {
        "holderIdentity": "node",
        "renewTime": "2026-01-31T12:00:10.000000Z",
        "acquireTime": "then",
        "leaseTransitions": 2,
        "leaseDurationSeconds": 40,
    }


async def test_a_renewal_after_the_clock_stepped_back_still_grows(client: MemoryClient) -> None:
    await given_lease(client, holderIdentity="node", renewTime=micro_time(NOON))
    await renew(client, "node", "leases", "node", NOON - timedelta(minutes=5))
    assert spec(client)["renewTime"] == "2026-01-31T12:00:00.000001Z"


@pytest.mark.parametrize("renewed", [None, "nonsense", 7])
async def test_an_unreadable_renew_time_is_replaced(client: MemoryClient, renewed: object) -> None:
    await given_lease(client, renewTime=renewed)
    await renew(client, "node", "leases", "node", NOON)
    assert spec(client)["renewTime"] == micro_time(NOON)


async def test_a_conflict_is_read_again_and_not_for_ever(client: MemoryClient) -> None:
    await given_lease(client)
    client.trouble = [None, Conflict("written by another")]
    await renew(client, "node", "leases", "node", NOON)
    assert spec(client)["holderIdentity"] == "node"
    client.trouble = [None, Conflict("1"), None, Conflict("2"), None, Conflict("3")]
    with pytest.raises(Conflict):
        await renew(client, "node", "leases", "node", NOON)


async def test_a_lease_that_is_not_there_is_not_created(client: MemoryClient) -> None:
    with pytest.raises(NotFound):
        await renew(client, "node", "leases", "node", NOON)
    assert client.writes == []


class Ticking:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def holder(client: MemoryClient, identity: str, clock: Ticking | None = None, **options: Any) -> HolderLease:
    quick = {"duration_seconds": 30, "retry_seconds": 0.005} | options
    return HolderLease(client, "node", "leases", identity, clock=clock or Ticking(), **quick)


async def waits(acquiring: Awaitable[None]) -> bool:
    """Whether acquiring is still waiting after a few attempts."""
    try:
        await asyncio.wait_for(acquiring, 0.05)
    except TimeoutError:
        return True
    return False


async def test_a_free_lease_is_created_and_ours(client: MemoryClient) -> None:
    await holder(client, "one").acquire()
    assert spec(client)["holderIdentity"] == "one"
    assert spec(client)["leaseTransitions"] == 0


async def test_two_processes_never_hold_it_together(client: MemoryClient) -> None:
    await holder(client, "one").acquire()
    assert await waits(holder(client, "two").acquire())
    assert spec(client)["holderIdentity"] == "one"


async def test_a_dead_holders_lease_is_taken_over_after_its_duration_on_our_clock(client: MemoryClient) -> None:
    await holder(client, "one").acquire()
    clock = Ticking()
    second = holder(client, "two", clock)
    assert await waits(second.acquire())
    clock.now += 29
    assert await waits(second.acquire())
    clock.now += 2
    await asyncio.wait_for(second.acquire(), 60)
    assert spec(client)["holderIdentity"] == "two"
    assert spec(client)["leaseTransitions"] == 1


async def test_a_renewal_by_the_holder_starts_the_wait_anew(client: MemoryClient) -> None:
    first, clock = holder(client, "one"), Ticking()
    await first.acquire()
    second = holder(client, "two", clock)
    assert await waits(second.acquire())
    clock.now += 29
    await first.acquire()
    clock.now += 2
    assert await waits(second.acquire())


async def test_the_same_identity_takes_up_its_lease_at_once(client: MemoryClient) -> None:
    await holder(client, "one").acquire()
    await asyncio.wait_for(holder(client, "one").acquire(), 60)


async def test_trouble_while_acquiring_is_waited_out_and_a_missing_right_is_told(
    client: MemoryClient,
) -> None:
    client.trouble = [Transient("down"), None, Transient("down"), None, Conflict("raced")]
    await asyncio.wait_for(holder(client, "one").acquire(), 60)
    client.trouble = [Forbidden("leases")]
    with pytest.raises(Forbidden):
        await holder(client, "two").acquire()


async def test_work_runs_while_the_lease_is_held_and_the_lease_is_released(client: MemoryClient) -> None:
    async def work() -> str:
        await until(lambda: any(verb == "update" for verb, _ in client.writes))
        return spec(client)["holderIdentity"] + " worked"

    assert await run_holding(holder(client, "one"), work) == "one worked"
    assert spec(client)["holderIdentity"] == ""
    assert sum(1 for verb, _ in client.writes if verb == "update") >= 2
    await asyncio.wait_for(holder(client, "two").acquire(), 60)


async def test_a_failure_of_the_work_is_told_and_the_lease_released(client: MemoryClient) -> None:
    async def work() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await run_holding(holder(client, "one"), work)
    assert spec(client)["holderIdentity"] == ""


class Endless:
    """Work that notes its start and its cancellation."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.ended = False

    async def __call__(self) -> None:
        self.started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            self.ended = True


async def test_when_another_takes_the_lease_the_work_ends_and_the_lease_is_left_alone(
    client: MemoryClient,
) -> None:
    work = Endless()
    task = asyncio.create_task(run_holding(holder(client, "one"), work))
    await work.started.wait()
    client.objects["leases", "node"]["spec"]["holderIdentity"] = "two"
    with pytest.raises(LeaseLost, match="now held by two"):
        await asyncio.wait_for(task, 60)
    assert work.ended
    assert spec(client)["holderIdentity"] == "two"


async def test_a_deleted_lease_is_a_lost_lease(client: MemoryClient) -> None:
    work = Endless()
    task = asyncio.create_task(run_holding(holder(client, "one"), work))
    await work.started.wait()
    client.objects.clear()
    with pytest.raises(LeaseLost, match="deleted"):
        await asyncio.wait_for(task, 60)
    assert work.ended


async def test_short_trouble_is_survived_and_a_long_one_ends_the_work_before_others_may_start(
    client: MemoryClient,
) -> None:
    work, clock = Endless(), Ticking()
    task = asyncio.create_task(run_holding(holder(client, "one", clock), work))
    await work.started.wait()
    client.trouble = [Transient("down")] * 3
    clock.now += 19
    await asyncio.sleep(0.05)
    assert not task.done()
    client.trouble = [Transient("down")] * 10_000
    clock.now += 20.1
    with pytest.raises(LeaseLost, match="20 s"):
        await asyncio.wait_for(task, 60)
    assert work.ended


async def test_a_cancelled_process_releases_the_lease(client: MemoryClient) -> None:
    work = Endless()
    task = asyncio.create_task(run_holding(holder(client, "one"), work))
    await work.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended
    assert spec(client)["holderIdentity"] == ""
