"""Bodies are read by processes beside the ledger exactly as in it; one that is lost is replaced, none is left over."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from pathlib import Path

import pytest

from homefed.api.errors import HomefedError, Invalid, Transient
from homefed.core.ledger_reading import Submission
from homefed.ledger import reading
from homefed.ledger.keys import HubKeys
from homefed.ledger.reading import Document, Found, Here, Part, Sent, workers
from testbed.claims import FEDERATION, Chain, floor, hub_key, public
from testbed.process import pid_exists


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "hub-keys"
    folder.mkdir()
    (folder / "hub.pub").write_bytes(base64.b64encode(public(hub_key())))
    return folder


def bodies() -> list[Sent]:
    """Right ones, wrong ones, and more than fit one frame."""
    chain = Chain()
    claims = [chain.next({"a": 1, "b": 2}, lines_per_part=1) for _ in range(50)]
    foreign = Chain(home="home-2", key=hub_key(2)).next()
    sent: list[Sent] = []
    for claim in claims:
        sent += [Part(claim.id, number, body) for number, body in enumerate(claim.parts, 1)]
        sent.append(Document("claim", claim.id, claim.body))
    limit = floor("a", -5)
    sent += [Document("floor", limit.id, limit.body), Document("claim", foreign.id, foreign.body)]
    sent += [Document("claim", claims[0].id, b"[" * 5000), Part(claims[0].id, 1, b"x" * 100_000)]
    return sent


def comparable(found: Sequence[Found]) -> list[object]:
    """Errors have no equality of their own."""

    def plain(one: object) -> object:
        return (type(one), one.reason, one.message) if isinstance(one, HomefedError) else one

    return [
        (one.kind, one.id, one.envelope, one.leaf_hash, one.digest, plain(one.content))
        if isinstance(one, Submission)
        else plain(one)
        for one in found
    ]


async def test_workers_read_what_the_ledger_itself_would_read(keys: Path) -> None:
    sent = bodies()
    here = await Here(FEDERATION, HubKeys([keys]))(sent)
    assert {type(one).__name__ for one in here} == {"Submission", "PartSubmission", "Invalid"}
    async with workers(FEDERATION, [keys], 2) as read:
        there = await asyncio.gather(*[read(sent) for _ in range(4)])
    for found in there:
        assert comparable(found) == comparable(here)


async def test_a_lost_worker_is_replaced_and_what_it_was_at_is_to_be_sent_again(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "RESTART_SECONDS", 0.1)
    started: list[asyncio.subprocess.Process] = []
    spawn = asyncio.create_subprocess_exec

    async def recorded(*command: str, **options: int) -> asyncio.subprocess.Process:
        started.append(await spawn(*command, **options))  # type: ignore[arg-type]
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", recorded)
    sent = bodies()[:3]
    async with workers(FEDERATION, [keys], 1) as read:
        await read(sent)
        started[0].kill()
        for _ in range(1200):
            found = await read(sent)
            if not isinstance(found[0], Transient):
                break
            assert found[0].reason == "ReaderLost"
            await asyncio.sleep(0.05)
        assert not isinstance(found[0], HomefedError)
        assert len(started) == 2
    assert not any(pid_exists(process.pid) for process in started)


async def test_keys_that_cannot_be_read_are_refused_at_the_start(keys: Path) -> None:
    (keys / "wrong.pub").write_text("not base64!")
    with pytest.raises(Invalid, match=r"wrong\.pub"):
        async with workers(FEDERATION, [keys], 1):
            pass
