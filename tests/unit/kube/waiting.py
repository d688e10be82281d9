"""Waiting for what other tasks of the same event loop bring about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool]) -> None:
    """Wait, at most a minute, for what other tasks bring about."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - conditions of all kinds, none of which tells
            await asyncio.sleep(0.002)
