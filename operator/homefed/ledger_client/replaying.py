"""Fetches a log's leaves, has them read on all cores, and replays them in order."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Protocol

from homefed.api.errors import HomefedError, Invalid, NotFound, Transient
from homefed.core.audit import compare_leaf_tile
from homefed.core.audit_leaf import BundleFacts, LeafRules, read_bundle
from homefed.core.replay import Replay
from homefed.core.tlog_tiles import TILE_WIDTH, Tile

ALONE: Final = 4096
"""Leaves up to which one thread is quicker than starting processes."""
Progress = Callable[[int, int], None]
"""Leaves done, leaves in all."""


class LeafSource(Protocol):
    """Where the leaves come from; as `LogReader` has it, errors included."""

    async def tile(self, tile: Tile) -> bytes: ...

    async def bundle(self, number: int, width: int) -> bytes: ...


@dataclass(frozen=True)
class Span:
    """Leaves of one bundle: `count` of them, after `skip` that are known already."""

    number: int
    skip: int
    count: int

    @property
    def first(self) -> int:
        return self.number * TILE_WIDTH + self.skip

    @property
    def tile(self) -> Tile:
        """Where their hashes are, and those of the leaves to skip."""
        return Tile(0, self.number, self.skip + self.count)


def spans(start: int, size: int) -> Iterator[Span]:
    """The bundles that hold leaves [start, size), which a forged size must not make a list of."""
    while start < size:
        number, skip = divmod(start, TILE_WIDTH)
        count = min(TILE_WIDTH - skip, size - start)
        yield Span(number, skip, count)
        start += count


def cores(size: int, jobs: int | None) -> Executor:
    """Where so many leaves are read: `jobs` processes (None: one per core), or one thread for a few."""
    jobs = jobs or os.cpu_count() or 1
    if size <= ALONE or jobs == 1:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))


async def follow(
    source: LeafSource, replay: Replay, size: int, rules: LeafRules, executor: Executor, progress: Progress
) -> bool:
    """Replay the leaves up to `size`. False where they cannot be had whole, which is a finding; the replay then ends
    there. Errors: those of the source, but NotFound and Invalid.
    """
    ahead: deque[asyncio.Task[_Read]] = deque()
    todo = spans(replay.size, size)
    limit = 2 * (os.cpu_count() or 1) + 2
    try:
        while True:
            for span in islice(todo, limit - len(ahead)):
                ahead.append(asyncio.create_task(_read(source, span, rules, executor)))
            if not ahead:
                return True
            if not _take(replay, await ahead.popleft()):
                return False
            progress(replay.size, size)
    finally:
        await _cancel(ahead)


@dataclass(frozen=True)
class _Read:
    span: Span
    facts: BundleFacts
    tile: bytes | HomefedError


async def _read(source: LeafSource, span: Span, rules: LeafRules, executor: Executor) -> _Read:
    tile = await _kept(source.tile(span.tile))
    data = await _kept(source.bundle(span.number, span.tile.width))
    if isinstance(data, HomefedError):
        fault = (data.reason, f"leaves {span.first} to {span.first + span.count - 1}: {data.message}")
        return _Read(span, BundleFacts(span.first, (), (), fault), tile)
    loop = asyncio.get_running_loop()
    try:
        facts = await loop.run_in_executor(executor, read_bundle, rules, span.first, span.count, span.skip, data)
    except BrokenExecutor as error:
        raise Transient("a process that reads leaves was killed; too little memory? Try --jobs 1") from error
    return _Read(span, facts, tile)


async def _kept(answer: Coroutine[Any, Any, bytes]) -> bytes | HomefedError:
    """The answer, or what is wrong with it: a finding and no reason to stop."""
    try:
        return await answer
    except (NotFound, Invalid) as error:
        return error


def _take(replay: Replay, read: _Read) -> bool:
    replay.extend(read.facts)
    if isinstance(read.tile, HomefedError):
        replay.findings.add(read.tile.reason, read.tile.message, read.span.first)
    else:
        compare_leaf_tile(read.span.tile, read.tile, read.facts.hashes, read.span.skip, replay.findings)
    return read.facts.fault is None


async def _cancel(tasks: Iterable[asyncio.Task[_Read]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
