"""Bodies are read, verified and checked before the writer sees them: on another core where there is one.

A worker is a process of its own (`reading_worker`) at the other end of two pipes: signature, JSON and
checks cost more than deciding and writing together, and hold Python's lock. It ends when its input does, so that
nothing is left of a ledger that was killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from homefed.api.errors import HomefedError, Transient
from homefed.core.ledger_reading import Keys, Kind, PartSubmission, read_part, read_submission
from homefed.core.ledger_state import Item
from homefed.ledger.frames import LENGTH, framed, unframed
from homefed.ledger.keys import HubKeys
from homefed.ledger.store import StoreFailed

MAX_FRAME: Final = 64
"""Bodies that a worker is given at once."""
MAX_FRAME_BYTES: Final = 2**20
IN_FLIGHT: Final = 2
"""Frames: one that it works on, one that waits."""
RESTART_SECONDS: Final = 1.0
WORKER: Final = "homefed.ledger.reading_worker"
SMALL: Final = 8192
"""Bytes: without workers, smaller bodies are read at once, larger ones in a thread."""
_log = logging.getLogger(__name__)


class Document(NamedTuple):
    """A body that was sent to be kept under an id."""

    kind: Kind
    id: str
    body: bytes


class Part(NamedTuple):
    """A body that was sent as lines part `number` of a claim."""

    claim: str
    number: int
    body: bytes


Sent = Document | Part
Found = Item | HomefedError


class Reading(Protocol):
    async def __call__(self, sent: Sequence[Sent], /) -> list[Found]:
        """What each body says, in order; of a part that cannot be read the error, of a lost reader Transient."""


def read_one(sent: Sent, federation: str, keys: Keys) -> Found:
    try:
        if isinstance(sent, Part):
            return PartSubmission(sent.claim, sent.number, read_part(sent.body, sent.claim, sent.number), sent.body)
        return read_submission(sent.kind, sent.id, sent.body, federation=federation, keys=keys)
    except HomefedError as error:
        return error


class Here:
    """Reading in this process."""

    def __init__(self, federation: str, keys: HubKeys) -> None:
        self._federation = federation
        self._keys = keys.for_keyid

    async def __call__(self, sent: Sequence[Sent], /) -> list[Found]:
        if sum(len(one.body) for one in sent) <= SMALL:
            return self._all(sent)
        return await asyncio.to_thread(self._all, sent)

    def _all(self, sent: Sequence[Sent]) -> list[Found]:
        return [read_one(one, self._federation, self._keys) for one in sent]


@dataclass(frozen=True, slots=True)
class _Waiting:
    sent: Sent
    found: asyncio.Future[Found]


class Workers:
    """Reading in other processes; see `workers`. One that ends is started again; what it was at is to be sent again."""

    def __init__(self, federation: str, key_paths: Sequence[Path]) -> None:
        self._command = [sys.executable, "-m", WORKER, federation, *map(str, key_paths)]
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()

    async def __call__(self, sent: Sequence[Sent], /) -> list[Found]:
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(one, loop.create_future()) for one in sent]
        self._queue.extend(waiting)
        self._arrived.set()
        return [await one.found for one in waiting]

    async def work(self) -> None:
        """One worker, for ever."""
        while True:
            async with _running(self._command) as (source, target):
                await self._serve(source, target)
            _log.error("a reader has ended; another one is started")
            await asyncio.sleep(RESTART_SECONDS)

    async def _serve(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        given: deque[list[_Waiting]] = deque()
        room = asyncio.Semaphore(IN_FLIGHT)
        sending = asyncio.create_task(self._send(target, given, room))
        try:
            while answer := await _receive(source):
                found: list[Found] = unframed(answer)
                for waiting, one in zip(given.popleft(), found, strict=True):
                    if not waiting.found.done():
                        waiting.found.set_result(one)
                room.release()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            lost = Transient("the body could not be read now", reason="ReaderLost", retry_after=RESTART_SECONDS)
            for waiting in (waiting for frame in given for waiting in frame):
                if not waiting.found.done():
                    waiting.found.set_result(lost)

    async def _send(self, target: asyncio.StreamWriter, given: deque[list[_Waiting]], room: asyncio.Semaphore) -> None:
        while True:
            await room.acquire()
            frame = await self._next()
            given.append(frame)
            target.write(framed([waiting.sent for waiting in frame]))
            await target.drain()

    async def _next(self) -> list[_Waiting]:
        """What waits: at least one body, of more than one no more than fit a frame."""
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()
        frame = [self._queue.popleft()]
        size = len(frame[0].sent.body)
        while self._queue and len(frame) < MAX_FRAME and size + len(self._queue[0].sent.body) <= MAX_FRAME_BYTES:
            frame.append(self._queue.popleft())
            size += len(frame[-1].sent.body)
        return frame


@asynccontextmanager
async def workers(federation: str, key_paths: Sequence[Path], count: int) -> AsyncIterator[Reading]:
    """Reading in `count` processes; in this one when that is 0. Errors: Invalid for keys that cannot be read."""
    keys = HubKeys(key_paths)
    if count == 0:
        yield Here(federation, keys)
        return
    reading = Workers(federation, key_paths)
    tasks = [asyncio.create_task(reading.work()) for _ in range(count)]
    try:
        yield reading
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def spare_cores() -> int:
    """Workers that have a core of their own beside the writer's; one is as fast as the writer."""
    return min(1, len(os.sched_getaffinity(0)) - 1)


@asynccontextmanager
async def _running(command: Sequence[str]) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A process by its output and its input. At the end its input is closed, and it is waited for."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    if process.stdin is None or process.stdout is None:
        raise StoreFailed("a reader has no pipes")
    try:
        yield process.stdout, process.stdin
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(RESTART_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _receive(stream: asyncio.StreamReader) -> bytes:
    """One frame; empty at the end."""
    try:
        (length,) = LENGTH.unpack(await stream.readexactly(LENGTH.size))
        return await stream.readexactly(length)
    except asyncio.IncompleteReadError:
        return b""
