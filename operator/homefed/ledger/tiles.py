"""The log over HTTP: checkpoint and tiles as static files (C2SP tlog-tiles), and the place where witnesses cosign.

Everything here is public, and nothing is shown that is not published. Full tiles and bundles never change and say so
to caches; partial ones exist for the sizes that were signed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from aiohttp import web

from homefed.api.errors import Conflict, Forbidden, Invalid, NotFound
from homefed.core import checkpoint as checkpoints
from homefed.core import signed_note, tlog_tiles, witness
from homefed.core.merkle import TILE_HEIGHT
from homefed.core.signed_note import MAX_SIGNATURES, Note, Signature, VerifierKey
from homefed.core.tlog_tiles import MAX_LEVEL, TILE_WIDTH, Tile
from homefed.ledger.home_keys import HomeKeys
from homefed.ledger.log import Log, TreeReader, read_tile
from homefed.ledger.routes import MAX_COSIGNATURE

IMMUTABLE: Final = "public, max-age=31536000, immutable"
AHEAD_SECONDS: Final = 300
"""How far a witness's clock may be ahead of ours."""
BODY_SECONDS: Final = 30.0
_LEVELS: Final = tuple(str(level) for level in range(MAX_LEVEL + 1))
_BUNDLES: Final = 4
"""Read at one time: a bundle can have 16 MiB."""
T = TypeVar("T")
_log = logging.getLogger(__name__)


class LogReader(TreeReader, Protocol):
    async def cosignatures(self, size: int) -> list[str]:
        """Signature lines under the checkpoint of that size."""

    async def newest_cosigned(self) -> int | None:
        """Size of the newest checkpoint that has some."""


class LogStore(Protocol):
    async def read(self, work: Callable[[LogReader], Coroutine[Any, Any, T]]) -> T:
        """See `Store`."""

    async def add_cosignature(self, size: int, name: str, line: str, time: int) -> bool:
        """False when there is one of that name for that size already."""


class Tiles:
    """Handlers, named as in the table of routes; errors are of the one tree, for the service's middleware to answer."""

    def __init__(self, log: Log, store: LogStore, homes: HomeKeys, clock: Callable[[], int]) -> None:
        """`clock` gives seconds since the epoch."""
        self._log = log
        self._store = store
        self._homes = homes
        self._clock = clock
        self._bundles = asyncio.Semaphore(_BUNDLES)

    async def get_checkpoint(self, _: web.Request) -> web.Response:
        """The newest, with the cosignatures that it has by now."""
        head = self._log.published
        return _text(await self._store.read(lambda reader: _with_cosignatures(reader, head.size, head.signed)))

    async def get_cosigned(self, _: web.Request) -> web.Response:
        """The newest that any witness has cosigned."""
        return _text(await self._store.read(self._cosigned))

    async def _cosigned(self, reader: LogReader) -> str:
        size = await reader.newest_cosigned()
        if size is None:
            raise NotFound("no checkpoint has been cosigned yet")
        return await _with_cosignatures(reader, size, await self._log.signed_at(reader, size))

    async def get_tile(self, request: web.Request) -> web.Response:
        tile, size = Tile(_level(request), *_number(request)), self._log.published.size
        return _binary(await self._store.read(lambda reader: _shown_tile(reader, tile, size)))

    async def get_entries(self, request: web.Request) -> web.Response:
        tile = Tile(0, *_number(request))
        async with self._bundles:
            return await self._bundle(tile, self._log.published.size)

    async def _bundle(self, tile: Tile, size: int) -> web.Response:
        return _binary(await self._store.read(lambda reader: _shown_bundle(reader, tile, size)))

    async def post_cosignature(self, request: web.Request) -> web.Response:
        """A published checkpoint, with one or more cosignatures of homes under it; answers whose were kept.

        Errors: Invalid, Forbidden (UnknownWitness); Conflict where it is not a checkpoint of this log.
        """
        note = signed_note.parse(await _note_text(request))
        checkpoint = checkpoints.parse_text(note.text)
        if checkpoint.size == 0:
            raise Invalid("an empty tree says nothing that could be cosigned", reason="EmptyTree")
        signed = await self._store.read(lambda reader: self._log.signed_at(reader, checkpoint.size))
        if signed_note.parse(signed).text != note.text:
            raise self._foreign(note, checkpoint.size)
        cosigners = self._verified(note)
        for one in cosigners:
            await self._store.add_cosignature(checkpoint.size, one.name, one.line(), one.time)
        return _text("".join(f"{one.name}\n" for one in cosigners))

    def _verified(self, note: Note) -> list[Signature]:
        keys = [key for one in note.signatures if (key := self._key_of(one.name)) is not None]
        if not keys:
            raise Forbidden("no signature is of a home that is known here", reason="UnknownWitness")
        found = note.verify(keys)
        if any(one.time > self._clock() + AHEAD_SECONDS for one in found):
            raise Invalid("the cosignature is from the future: set the home's clock", reason="ClockAhead")
        return found

    def _key_of(self, name: str) -> VerifierKey | None:
        home = witness.home_of(name)
        raw = None if home is None else self._homes.key_of(home)
        return None if home is None or raw is None else witness.home_key(home, raw)

    def _foreign(self, note: Note, size: int) -> Conflict:
        """A checkpoint that this log does not have; one that it has signed all the same is an alarm."""
        try:
            checkpoints.verify_note(note, [self._log.vkey], self._log.origin)
        except Invalid:
            return Conflict(f"this is not the checkpoint of {size} leaves", reason="NotThisLog")
        _log.error("a witness holds another checkpoint of %d leaves under this ledger's signature: %s", size, note.text)
        return Conflict(f"another checkpoint of {size} leaves is signed by this key", reason="LedgerForked")


async def _shown_tile(reader: TreeReader, tile: Tile, size: int) -> bytes:
    await _check_shown(reader, tile, size)
    return await read_tile(reader, tile)


async def _shown_bundle(reader: TreeReader, tile: Tile, size: int) -> bytes:
    await _check_shown(reader, tile, size)
    return tlog_tiles.encode_bundle(await reader.entries(tile.start, tile.width))


async def _check_shown(reader: TreeReader, tile: Tile, size: int) -> None:
    """`size` is what was published before the reader's view began: the view has all of that, for ever cacheable.

    Errors: NotFound beyond it, and for widths that no signed size has.
    """
    end = tile.start + tile.width
    shown = end <= tlog_tiles.in_level(size, tile.level)
    if shown and tile.width < TILE_WIDTH:
        below = TILE_HEIGHT * tile.level
        shown = await reader.signed_between(end << below, min((end + 1) << below, size + 1))
    if not shown:
        raise NotFound(f"{tile.path()} is not part of a published tree")


async def _with_cosignatures(reader: LogReader, size: int, signed: str) -> str:
    """As many as readers of notes take."""
    return signed + "".join((await reader.cosignatures(size))[: MAX_SIGNATURES - 1])


async def _note_text(request: web.Request) -> str:
    size = request.content_length or 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = b"" if size > MAX_COSIGNATURE else await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    if max(size, len(body)) > MAX_COSIGNATURE:
        raise web.HTTPRequestEntityTooLarge(MAX_COSIGNATURE, max(size, len(body)))
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Invalid("a note is UTF-8", reason="NotANote") from None


def _level(request: web.Request) -> int:
    text = request.match_info["level"]
    if text not in _LEVELS:
        raise NotFound(f"{text[:16]!r} is no level of tiles")
    return _LEVELS.index(text)


def _number(request: web.Request) -> tuple[int, int]:
    try:
        return tlog_tiles.parse_index(request.match_info["tile"])
    except Invalid as error:
        raise NotFound(error.message) from error


def _text(body: str) -> web.Response:
    return web.Response(text=body, content_type="text/plain", charset="utf-8", headers={"Cache-Control": "no-cache"})


def _binary(body: bytes) -> web.Response:
    headers = {"Cache-Control": IMMUTABLE}
    return web.Response(body=body, content_type="application/octet-stream", headers=headers)
