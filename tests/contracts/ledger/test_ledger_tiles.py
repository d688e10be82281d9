"""The log's static files, and cosigning, over HTTP: what is shown, to caches too, and what is not there."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.core import checkpoint as checkpoints
from homefed.core import signed_note, tlog_tiles, witness
from homefed.core.checkpoint import Checkpoint
from homefed.core.merkle import EMPTY_ROOT
from homefed.core.signed_note import Note
from homefed.ledger.log import Log
from homefed.ledger.routes import MAX_COSIGNATURE
from homefed.ledger.tiles import IMMUTABLE
from testbed.log_server import LogServer, serving_log
from testbed.memory_log import MemoryLog, all_tiles

T = TypeVar("T")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
HOMES = {f"home-{number}": Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2)}
NOW = 1_767_225_600


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def reason(self) -> str:
        """Of a problem document."""
        assert self.headers["Content-Type"].startswith("application/problem+json"), self
        return self.body.decode().partition('"reason": "')[2].partition('"')[0]


async def ask(server: LogServer, path: str, body: str | bytes | None = None) -> Answer:
    method = "GET" if body is None else "POST"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, server.url + path, data=body.encode() if isinstance(body, str) else body) as answer,
    ):
        return Answer(answer.status, await answer.read(), dict(answer.headers))


@asynccontextmanager
async def served(tmp_path: Path, *batches: int) -> AsyncIterator[LogServer]:
    homes = tmp_path / "homes"
    homes.mkdir()
    for name, key in HOMES.items():
        (homes / name).write_bytes(base64.b64encode(key.public_key().public_bytes_raw()))
    store = MemoryLog()
    log = await Log.open(store, checkpoints.origin_of("example"), KEY, tmp_path)
    try:
        for count in batches:
            store.append(log, [b"entry %d" % (len(store.leaves) + number) for number in range(count)])
        async with serving_log(log, store, homes, NOW) as server:
            yield server
    finally:
        log.close()


async def test_every_tile_of_every_signed_size_is_there_and_may_be_kept_for_ever(tmp_path: Path) -> None:
    async with served(tmp_path, 200, 100, 300) as server:
        for size in (200, 300, 600):
            for tile in all_tiles(size):
                answer = await ask(server, f"/{tile.path()}")
                assert (answer.status, len(answer.body)) == (200, 32 * tile.width), tile
                assert answer.headers["Cache-Control"] == IMMUTABLE
                assert answer.headers["Content-Type"] == "application/octet-stream"
            for tile in tlog_tiles.level_tiles(0, size):
                answer = await ask(server, f"/{tlog_tiles.bundle_path(tile.number, tile.width)}")
                assert answer.headers["Cache-Control"] == IMMUTABLE
                entries = tlog_tiles.decode_bundle(answer.body)
                assert entries == server.store.leaves[tile.start : tile.start + tile.width]


@pytest.mark.parametrize(
    "path",
    [
        "/tile/0/000.p/199",
        "/tile/0/000.p/201",
        "/tile/0/001.p/45",
        "/tile/0/002",
        "/tile/0/002.p/89",
        "/tile/0/003",
        "/tile/1/000",
        "/tile/1/000.p/3",
        "/tile/2/000.p/1",
        "/tile/8/000.p/1",
        "/tile/00/000",
        "/tile/0/0",
        "/tile/0/x000/000",
        "/tile/0/000.p/0",
        "/tile/0/000.p/256",
        "/tile/-1/000",
        "/tile/entries/002",
        "/tile/entries/002.p/89",
        "/tile/entries/000.p/199",
        "/tile/0/x999/x999/x999/x999/x999/x999/999",
        "/checkpoint/",
    ],
)
async def test_what_no_signed_tree_has_is_not_there(tmp_path: Path, path: str) -> None:
    async with served(tmp_path, 200, 100, 300) as server:
        assert (await ask(server, path)).status == 404


async def test_a_partial_tile_is_there_for_the_sizes_that_were_signed_only(tmp_path: Path) -> None:
    async with served(tmp_path, 200, 100, 300) as server:
        there = [width for width in range(1, 256) if (await ask(server, f"/tile/0/000.p/{width}")).status == 200]
        assert there == [200]
        assert (await ask(server, "/tile/1/000.p/1")).status == 200, "of the size 300"


async def test_the_checkpoint_is_text_that_caches_ask_for_anew(tmp_path: Path) -> None:
    async with served(tmp_path, 3) as server:
        answer = await ask(server, "/checkpoint")
        assert (answer.status, answer.body.decode()) == (200, server.log.published.signed)
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-cache"


async def test_an_empty_log_shows_an_empty_tree_and_no_tile(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        assert checkpoints.verify((await ask(server, "/checkpoint")).body.decode(), server.log.vkey).size == 0
        assert (await ask(server, "/tile/0/000")).status == 404
        assert (await ask(server, "/tile/0/000.p/1")).status == 404


async def test_what_is_committed_and_not_published_is_not_shown(tmp_path: Path) -> None:
    async with served(tmp_path, 3) as server:
        more = [b"unpublished"] * 300
        grown = server.log.grow(more)
        server.store.commit(more, grown)
        for path in ("/tile/0/000", "/tile/0/001.p/47", "/tile/1/000.p/1", "/tile/entries/000"):
            assert (await ask(server, path)).status == 404
        assert (await ask(server, "/checkpoint")).body.decode() == server.log.published.signed
        server.log.publish(grown)
        for path in ("/tile/0/000", "/tile/0/001.p/47", "/tile/1/000.p/1", "/tile/entries/000"):
            assert (await ask(server, path)).status == 200


class Overtaken(MemoryLog):
    """Each view of it is followed by a batch, before anything is read."""

    log: Log

    async def read(self, work: Callable[[MemoryLog], Coroutine[Any, Any, T]]) -> T:
        view = self.copy()
        self.append(self.log, [b"meanwhile"] * 300)
        return await work(view)


async def test_a_batch_that_comes_while_a_tile_is_read_does_not_cut_it_short(tmp_path: Path) -> None:
    store = Overtaken()
    store.log = await Log.open(store, checkpoints.origin_of("example"), KEY, tmp_path)
    store.append(store.log, [b"before"] * 300)
    async with serving_log(store.log, store) as server:
        answers = [await ask(server, path) for path in ("/tile/0/001", "/tile/0/001", "/tile/1/000.p/3")]
        bundles = [await ask(server, "/tile/entries/004") for _ in range(2)]
    assert [answer.status for answer in (*answers, *bundles)] == [404, 200, 200, 404, 200]
    assert [len(answer.body) for answer in answers[1:]] == [8192, 3 * 32]
    assert len(tlog_tiles.decode_bundle(bundles[1].body)) == 256
    store.log.close()


def cosigned(text: str, home: str, time: int = NOW, key: Ed25519PrivateKey | None = None) -> str:
    """The body that an agent posts."""
    cosignature = signed_note.cosign(text, witness.home_name(home), key or HOMES[home], time)
    return Note(text, (cosignature,)).encode()


async def test_cosignatures_gather_under_the_checkpoint_that_they_are_of(tmp_path: Path) -> None:
    async with served(tmp_path, 3) as server:
        first = server.log.published.checkpoint.text()
        for home in HOMES:
            assert (await ask(server, "/v1/witness/cosignature", cosigned(first, home))).status == 200
        server.store.append(server.log, [b"one more"])
        second = server.log.published
        assert (await ask(server, "/checkpoint")).body.decode() == second.signed
        both = signed_note.parse((await ask(server, "/v1/witness/checkpoint")).body.decode())
        keys = [witness.home_key(home, key.public_key().public_bytes_raw()) for home, key in HOMES.items()]
        assert both.text == first
        assert {one.name for one in both.verify([server.log.vkey, *keys])} == {
            server.log.origin,
            *(key.name for key in keys),
        }
        await ask(server, "/v1/witness/cosignature", cosigned(second.checkpoint.text(), "home-2"))
        newest = signed_note.parse((await ask(server, "/v1/witness/checkpoint")).body.decode())
        assert (newest.text, len(newest.signatures)) == (second.checkpoint.text(), 2)


async def test_a_cosignature_that_proves_nothing_is_refused_and_not_kept(tmp_path: Path) -> None:
    async with served(tmp_path, 3) as server:
        text = server.log.published.checkpoint.text()
        origin, root = server.log.origin, server.log.published.checkpoint.root
        other = Checkpoint(origin, 3, bytes(32)).text()
        stranger = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
        refused: dict[str, tuple[str | bytes, int]] = {
            "a size that is not published": (cosigned(Checkpoint(origin, 4, root).text(), "home-1"), 404),
            "an absurd size": (cosigned(Checkpoint(origin, 2**62, root).text(), "home-1"), 404),
            "a size between two that were signed": (cosigned(Checkpoint(origin, 2, root).text(), "home-1"), 404),
            "the empty tree": (cosigned(Checkpoint(origin, 0, EMPTY_ROOT).text(), "home-1"), 422),
            "another root": (cosigned(other, "home-1"), 409),
            "another log": (cosigned(text.replace("example", "another"), "home-1"), 409),
            "a stranger": (cosigned(text, "home-9", key=stranger), 403),
            "a stranger under a home's name": (cosigned(text, "home-1", key=stranger), 422),
            "a clock ahead": (cosigned(text, "home-1", NOW + 301), 422),
            "no signature but the ledger's": (server.log.published.signed, 403),
            "no note": ("nothing", 422),
            "no checkpoint": (cosigned("text\n", "home-1"), 422),
            "no text": (b"\xff\xfe", 422),
            "too long": ("x" * (MAX_COSIGNATURE + 1), 413),
        }
        found = {
            name: (await ask(server, "/v1/witness/cosignature", body)).status for name, (body, _) in refused.items()
        }
        assert found == {name: status for name, (_, status) in refused.items()}
        assert server.store.lines == {}


async def test_an_empty_log_is_not_cosigned(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        note = cosigned(server.log.published.checkpoint.text(), "home-1")
        assert (await ask(server, "/v1/witness/cosignature", note)).status == 422
        assert server.store.lines == {}


async def test_two_histories_under_our_key_are_an_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with served(tmp_path, 3) as server:
        forged = checkpoints.sign(Checkpoint(server.log.origin, 3, bytes(32)), KEY)
        theirs = signed_note.parse(cosigned(signed_note.parse(forged).text, "home-1")).signatures
        note = forged + "".join(one.line() for one in theirs)
        answer = await ask(server, "/v1/witness/cosignature", note)
        assert (answer.status, answer.reason) == (409, "LedgerForked")
        assert "another checkpoint of 3 leaves under this ledger's signature" in caplog.text
