"""The public face of a log over HTTP, without the rest of the ledger; what it serves can be forged on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer

from homefed.api.errors import HomefedError
from homefed.ledger import problem
from homefed.ledger.home_keys import HomeKeys
from homefed.ledger.log import Log
from homefed.ledger.routes import ROUTES
from homefed.ledger.tiles import Tiles
from testbed.memory_log import MemoryLog

Tamper = Callable[[str, bytes], bytes]
"""From the path and what is served there to what is sent instead."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class LogServer:
    url: str
    log: Log
    store: MemoryLog
    tamper: Tamper | None = None
    asked: list[str] = field(default_factory=list)
    """Paths, in order."""


@asynccontextmanager
async def serving_log(
    log: Log, store: MemoryLog, homes: Path | None = None, now: int = 1_767_225_600
) -> AsyncIterator[LogServer]:
    """On a free loopback port. `homes` is a directory of the homes' keys; `now` is the ledger's clock."""
    tiles = Tiles(log, store, HomeKeys(homes), lambda: now)
    served = LogServer("", log, store)

    @web.middleware
    async def answering(request: web.Request, handler: Handler) -> web.StreamResponse:
        served.asked.append(request.path)
        try:
            answer = await handler(request)
        except HomefedError as error:
            return problem.response(error)
        if served.tamper is not None and isinstance(answer, web.Response) and isinstance(answer.body, bytes):
            answer.body = served.tamper(request.path, answer.body)
        return answer

    app = web.Application(middlewares=[answering])
    for route in ROUTES:
        if handler := getattr(tiles, route.operation, None):
            app.router.add_route(route.method, route.pattern, handler)
    async with TestServer(app) as server:
        served.url = str(server.make_url("")).rstrip("/")
        yield served
