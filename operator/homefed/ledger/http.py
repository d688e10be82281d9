"""The HTTP face of the ledger: the route table bound to its handlers; errors become problem documents, and are told."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from homefed.api.errors import HomefedError, Transient
from homefed.ledger import openapi, problem
from homefed.ledger.access import Access
from homefed.ledger.exchange import Exchange
from homefed.ledger.intake import Intake
from homefed.ledger.log import Log
from homefed.ledger.metrics import Metrics
from homefed.ledger.reads import Reads
from homefed.ledger.routes import MAX_BATCH, ROUTES, Route
from homefed.ledger.store import Store
from homefed.ledger.submissions import Submissions
from homefed.ledger.tiles import Tiles

READ_SECONDS: Final = 30.0
"""A reader that has no answer by then is told to come again."""
_log = logging.getLogger(__name__)

Operation = Callable[[Exchange], Awaitable[web.StreamResponse]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Service:
    """One request at a time through each handler; state is in the store, the log and the intake."""

    store: Store
    log: Log
    intake: Intake
    access: Access
    tiles: Tiles
    metrics: Metrics

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._answering], client_max_size=MAX_BATCH)
        operations = self.operations()
        for route in ROUTES:
            app.router.add_route(route.method, route.pattern, self._handler(route, operations[route.operation]))
        return app

    def operations(self) -> Mapping[str, Operation]:
        """The handlers by the names of the table."""
        writing = Submissions(self.intake, self.access, self.metrics)
        reading = Reads(self.store, self.log, self.access)
        own = (writing, reading, self)
        found: dict[str, Operation] = {}
        for name in openapi.operations():
            static = getattr(self.tiles, name, None)
            found[name] = (
                _static(static) if static else getattr(next(part for part in own if hasattr(part, name)), name)
            )
        return found

    async def get_health(self, _: Exchange) -> web.Response:
        return web.Response(text="ok\n")

    async def get_readiness(self, _: Exchange) -> web.Response:
        """Errors: Transient where claims cannot be taken."""
        if not self.intake.open:
            raise Transient("the ledger is stopping", reason="Stopping")
        async with self.store.reading() as reader:
            size = await reader.size()
        if size < self.log.published.size:
            raise Transient(f"the store has {size} leaves, but {self.log.published.size} are signed", reason="WentBack")
        return web.Response(text="ok\n")

    async def get_metrics(self, _: Exchange) -> web.Response:
        async with self.store.reading() as reader:
            size = await reader.newest_cosigned()
            self.metrics.cosigned(size or 0, len(await reader.cosignatures(size)) if size else 0)
        body = self.metrics.render(self.intake.waiting)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def get_openapi(self, _: Exchange) -> web.Response:
        return web.Response(body=json.dumps(openapi.document()).encode(), content_type="application/json")

    def _handler(self, route: Route, operation: Operation) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            exchange = Exchange.of(request, route)
            if route.method != "GET":
                return await operation(exchange)
            try:
                async with asyncio.timeout(READ_SECONDS):
                    return await operation(exchange)
            except TimeoutError as error:
                raise Transient("there was no answer in time", reason="TimedOut") from error

        return handle

    @web.middleware
    async def _answering(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Errors become problem documents, and every answer is counted by its route's pattern."""
        try:
            answer = await handler(request)
        except HomefedError as error:
            answer = problem.response(error)
            self._tell(request, answer.status, error.reason, error.message)
        except web.HTTPException as error:
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            reason = type(error).__name__.removeprefix("HTTP")
            answer = problem.answer(error.status, reason, error.reason, None, headers)
            self._tell(request, answer.status, reason, error.reason)
        resource = request.match_info.route.resource
        self.metrics.answered(resource.canonical if resource is not None else "unknown", answer.status)
        return answer

    def _tell(self, request: web.Request, status: int, reason: str, detail: str) -> None:
        """One line per refusal; headers and bodies, which hold tokens and what is private, are left out."""
        self.metrics.refused(reason)
        said = {"method": request.method, "path": request.path[:200], "status": status, "reason": reason}
        level = logging.WARNING if status >= 500 else logging.INFO
        _log.log(level, "refused %s: %s", reason, " ".join(detail.split())[:200], extra=said | {"peer": request.remote})


def _static(handler: Handler) -> Operation:
    """A handler that reads the request itself."""

    async def operation(exchange: Exchange) -> web.StreamResponse:
        return await handler(exchange.request)

    return operation
