"""A listener's port is free again, whenever its making is cancelled."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from homefed.kube.listening import listening
from testbed import ports

STEPS_OF_A_START = 12
"""Turns of the event loop; more than a start takes."""


@pytest.mark.parametrize("turns", range(STEPS_OF_A_START))
async def test_a_cancelled_start_leaves_no_listener(turns: int) -> None:
    (port,) = ports.reserve(1)
    began = asyncio.Event()

    async def serve() -> None:
        async with listening(web.Application(), "127.0.0.1", port):
            began.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert began.is_set() or turns < STEPS_OF_A_START - 1, "the last of the turns is not within the start"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    ports.release([port])
