"""Clients that send claims to a ledger that is killed under them, and what must hold of its books afterwards.

python -m testbed.ledger_load --kills 100 --claims 100000      with PYTHONPATH=operator:tests (make soak)
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from homefed.core import tlog_proof
from homefed.core.checkpoint import origin_of
from homefed.core.ledger import MICRO_CREDIT
from homefed.core.merkle import Frontier, leaf_hash
from homefed.core.signed_note import VerifierKey, verifier_key
from homefed.ledger.keys import signing_key
from homefed.ledger.store import Store
from testbed.books import Place, SqlitePlace
from testbed.claims import FEDERATION, POOL, Chain, SignedClaim
from testbed.ledger import HUB_TOKEN, LedgerProcess
from testbed.workspace import workspace

READ_AT_ONCE = 1000
RETRY_S = 0.02


@dataclass
class Acknowledged:
    """What clients were told, to be compared with what is there in the end."""

    leaves: dict[int, bytes] = field(default_factory=dict)
    """Leaf index → leaf hash."""
    roots: dict[int, bytes] = field(default_factory=dict)
    """Every signed size that was seen → root."""
    receipts: dict[str, str] = field(default_factory=dict)
    """Of some claims: id → receipt as it was first given."""
    balances: Counter[str] = field(default_factory=Counter)

    def take(self, claim: SignedClaim, answer: dict[str, Any], key: VerifierKey, *, keep: bool) -> None:
        """Verifies the receipt as a hub does. Raises AssertionError when two claims were given one place."""
        verified = tlog_proof.verify(answer["receipt"], claim.body, key)
        index = int(answer["leafIndex"])
        assert verified.index == index
        assert self.leaves.setdefault(index, leaf_hash(claim.body)) == leaf_hash(claim.body)
        head = verified.checkpoint
        assert self.roots.setdefault(head.size, head.root) == head.root, f"two roots were signed for {head.size} leaves"
        if keep:
            self.receipts[claim.id] = answer["receipt"]
        header = claim.header
        self.balances[header["account"]] += int(header["paid"])
        self.balances[f"fee:{FEDERATION}/{POOL}"] += int(header["fee"])
        for charge in header["consumers"]:
            self.balances[charge["account"]] -= int(charge["charged"])


class Client:
    """One home's claims, some at a time, the same bytes again until they are acknowledged."""

    def __init__(self, number: int, at_once: int) -> None:
        self._chain = Chain(home=f"home-{number}")
        self._random = random.Random(number)
        self._at_once = at_once

    async def work(
        self, session: aiohttp.ClientSession, url: str, key: VerifierKey, seen: Acknowledged, done: Callable[[], bool]
    ) -> None:
        while not done():
            claims = [self._chain.next(self._costs(), fee=7) for _ in range(self._at_once)]
            answers = await self._settle(session, url, claims)
            for claim, answer in zip(claims, answers, strict=True):
                seen.take(claim, answer, key, keep=self._random.random() < 0.02)

    def _costs(self) -> dict[str, int]:
        """Small enough that the usage of a hundred thousand claims stays below 2^62."""
        return {f"ns-{self._random.randrange(20)}": self._random.randrange(100, 2000) for _ in range(2)}

    async def _settle(
        self, session: aiohttp.ClientSession, url: str, claims: list[SignedClaim]
    ) -> list[dict[str, Any]]:
        body = batch(claims)
        headers = {"Authorization": f"Bearer {HUB_TOKEN}", "Content-Type": "application/json"}
        while True:
            try:
                async with session.post(f"{url}/v1/batch", data=body, headers=headers) as response:
                    answer = await response.json()
                    if response.status == 200:
                        found = [item for item in answer["items"] if "receipt" in item or item["status"] >= 400]
                        if all(item["status"] in (200, 201) for item in found):
                            return found
                        wrong = [item for item in found if item["status"] not in (200, 201, 429, 503)]
                        assert not wrong, wrong[:2]
                    else:
                        assert response.status in (429, 503), answer
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                pass  # killed under us: the same again
            await asyncio.sleep(RETRY_S)


def batch(claims: list[SignedClaim], *, headers: bool = True) -> bytes:
    """The body of POST /v1/batch: each claim behind its lines parts, or the parts alone."""
    items: list[dict[str, Any]] = []
    for claim in claims:
        for number, body in enumerate(claim.parts, 1):
            items.append({"kind": "part", "claim": claim.id, "part": number, "document": json.loads(body)})
        if headers:
            items.append({"kind": "claim", "id": claim.id, "envelope": claim.envelope.to_json()})
    return json.dumps({"items": items}).encode()


@dataclass(frozen=True)
class Plan:
    clients: int
    claims: int
    """Acknowledged in all, at least; clients go on until the last kill."""
    kills: int
    at_once: int
    """Claims per request."""
    seed: int = 20
    longest_s: float = 0.6
    """Between a start and the next kill."""
    say: Callable[[str], None] = lambda text: None


async def run(ledger: LedgerProcess, state: Path, plan: Plan) -> Acknowledged:
    """Kills the process at random moments while clients work, then lets them finish. The process runs at the end."""
    chance = random.Random(plan.seed)
    await asyncio.to_thread(ledger.start)
    key = verifier_key(origin_of(FEDERATION), signing_key(state / "ledger.key", create=False))
    seen = Acknowledged()
    kills = 0
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=plan.clients)) as session:

        def done() -> bool:
            return kills >= plan.kills and len(seen.leaves) >= plan.claims

        clients = [Client(number, plan.at_once) for number in range(plan.clients)]
        tasks = [asyncio.create_task(client.work(session, ledger.url, key, seen, done)) for client in clients]
        try:
            while kills < plan.kills and not any(task.done() for task in tasks):
                await asyncio.sleep(chance.uniform(0.0, plan.longest_s))
                await asyncio.to_thread(ledger.process.kill)
                await asyncio.to_thread(ledger.start)
                kills += 1
                plan.say(f"kill {kills}: {len(seen.leaves)} claims acknowledged")
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return seen


async def verdict(place: Place, seen: Acknowledged) -> int:
    """Compares the books with what was acknowledged; how many leaves there are. Raises AssertionError."""
    store = await place.open()
    try:
        size, missing = await _compare_tree(store, seen)
        async with store.reading() as reader:
            accounts = await reader.accounts("", "", 1_000_000)
            totals = await reader.totals()
        assert missing == 0, f"{missing} acknowledged claims are not there"
        assert size == len(seen.leaves), "every claim was acknowledged in the end, so nothing else is there"
        balances = {name: units[MICRO_CREDIT] for name, units in accounts if MICRO_CREDIT in units}
        assert balances == {name: amount for name, amount in seen.balances.items() if amount or name in balances}
        assert sum(totals.balances[MICRO_CREDIT].values()) == 0
    finally:
        await store.close()
    return size


async def _compare_tree(store: Store, seen: Acknowledged) -> tuple[int, int]:
    """Number of leaves, and of those acknowledged that are missing; every root that was signed recomputes."""
    frontier, missing = Frontier(), 0
    pending = sorted(seen.roots)
    async with store.reading() as reader:
        size = await reader.size()
        for start in range(0, size, READ_AT_ONCE):
            hashes = await reader.leaf_hashes(start, READ_AT_ONCE)
            leaves = [leaf_hash(leaf) for leaf in await reader.entries(start, READ_AT_ONCE)]
            assert b"".join(leaves) == hashes
            for index, hashed in enumerate(leaves, start):
                missing += seen.leaves.get(index, hashed) != hashed
                frontier = frontier.extend([hashed]).frontier
                if pending and pending[0] == frontier.size:
                    assert frontier.root() == seen.roots[pending.pop(0)]
        newest = await reader.checkpoint()
    assert not pending, f"sizes were signed that are not there: {pending[:3]}"
    assert newest is not None
    assert newest[0] == size
    assert base64.b64encode(frontier.root()).decode() in newest[1]
    return size, missing + sum(index >= size for index in seen.leaves)


async def same_receipts(ledger: LedgerProcess, seen: Acknowledged) -> int:
    """Asks for the receipts that were kept; how many."""
    async with aiohttp.ClientSession() as session:
        for identity, receipt in seen.receipts.items():
            async with session.get(f"{ledger.url}/v1/claims/{identity}") as response:
                assert (await response.json())["receipt"] == receipt
    return len(seen.receipts)


def refused(ledger: LedgerProcess) -> str:
    """What a process that does not start says; it ends non-zero, without a traceback."""
    done = subprocess.run(ledger.argv, env=ledger.env, capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout + done.stderr
    assert done.returncode not in (0, None), said
    assert "Traceback" not in said
    return said


async def soak(folder: Path, plan: Plan) -> str:
    """One run on SQLite; what it did."""
    began = time.monotonic()
    ledger = LedgerProcess(folder)
    try:
        seen = await run(ledger, folder, plan)
        receipts = await same_receipts(ledger, seen)
    finally:
        await asyncio.to_thread(ledger.close)
    size = await verdict(SqlitePlace(folder), seen)
    taken = time.monotonic() - began
    done = f"{size} claims, {plan.kills} kills, {receipts} receipts asked again"
    return f"{done}: nothing lost, nothing twice ({taken:.0f} s)"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m testbed.ledger_load")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--claims", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--at-once", type=int, default=50)
    given = parser.parse_args()
    plan = Plan(
        given.clients,
        given.claims,
        given.kills,
        given.at_once,
        longest_s=4.0,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    with workspace(Path(tempfile.gettempdir())) as folder:
        print(asyncio.run(soak(folder, plan)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
