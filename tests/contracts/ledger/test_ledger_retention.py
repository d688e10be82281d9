"""Lines are deleted after their retention; claims, balances, proofs and receipts stay as they are."""

from __future__ import annotations

import asyncio
import json

import pytest

from homefed.ledger import retention
from homefed.ledger.metrics import Metrics
from homefed.ledger.retention import forget_lines, keep_forgetting
from homefed.ledger.store import Store, StoreFailed
from testbed.claims import Chain
from testbed.ledger import HUB_TOKEN, Ledger

DAY = 86_400


async def test_lines_of_old_claims_go_and_everything_else_stays(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 1)
    chain = Chain()
    old = chain.next({"a": 5, "b": 6}, lines_per_part=1)
    _, given = await ledger.submit(old)
    ledger.clock.now += 30 * DAY
    new = chain.next({"a": 7})
    await ledger.submit(new)
    waiting = Chain(home="home-2").make()
    await ledger.put(f"/v1/claims/{waiting.id}/lines/1", waiting.parts[0])
    before = await ledger.get("/v1/totals")

    assert await forget_lines(ledger.store, 20 * DAY, ledger.clock, ledger.metrics) == 2
    assert await forget_lines(ledger.store, 20 * DAY, ledger.clock, ledger.metrics) == 0

    for number in (1, 2):
        assert (await ledger.get(f"/v1/claims/{old.id}/lines/{number}", HUB_TOKEN))[0] == 404
        assert (await ledger.put(f"/v1/claims/{old.id}/lines/{number}", old.parts[number - 1]))[0] == 200
    assert (await ledger.get(f"/v1/claims/{new.id}/lines/1", HUB_TOKEN))[0] == 200
    assert await ledger.put(f"/v1/claims/{old.id}", old.body) == (200, given)
    assert (await ledger.put(f"/v1/claims/{waiting.id}", waiting.body))[0] == 201
    assert json.loads(before[1])["conserved"] is True
    assert "homefed_ledger_lines_deleted_total 2.0" in (await ledger.get("/metrics"))[1].decode()


async def test_a_pass_is_made_at_the_start_and_again_and_a_store_that_fails_is_told(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "EVERY_SECONDS", 0.0)
    passes = 0

    class Failing:
        async def forget_lines(self, before: int, limit: int) -> int:
            nonlocal passes
            passes += 1
            if passes == 3:
                raise StoreFailed("the disk is gone")
            return 0

    failing: Store = Failing()  # type: ignore[assignment]
    with pytest.raises(StoreFailed):
        async with asyncio.timeout(120):
            await keep_forgetting(failing, DAY, ledger.clock, Metrics())
    assert passes == 3
