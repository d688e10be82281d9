"""An aiohttp application on a port of its own, for as long as a context lasts."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

SHUTDOWN_SECONDS: Final = 20.0
"""What requests that are being answered at the end are given."""


@asynccontextmanager
async def listening(
    app: web.Application, host: str, port: int, *, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Yields the port (chosen by the system where 0 was given). OSError where it is taken. However and whenever the
    context ends, a cancellation while it begins included, the port is free again."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    # asyncio forgets a listener whose making is cancelled, without closing it: it is made first, then closed.
    starting = asyncio.create_task(web.TCPSite(runner, host, port, ssl_context=ssl_context).start())
    try:
        await asyncio.shield(starting)
        yield runner.addresses[0][1]
    finally:
        await asyncio.wait({starting})
        await runner.cleanup()
