"""/healthz, /readyz and /metrics of a process, on a port of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from homefed.kube.listening import listening

Check = Callable[[], str | None]
"""None while all is well, else one sentence that says what is not."""
Checks = Mapping[str, Check]


@asynccontextmanager
async def serve_health(
    port: int,
    ready: Checks,
    registry: CollectorRegistry = REGISTRY,
    *,
    live: Checks | None = None,
    host: str = "0.0.0.0",  # noqa: S104 - the kubelet probes the pod's own address
) -> AsyncIterator[int]:
    """Serve while the context lasts; yields the port (chosen by the system where 0 was given).

    /readyz answers 503 while a check of `ready` or `live` fails, /healthz while one of `live` does (the kubelet then
    restarts the container: only for what a restart mends). OSError where the port is taken.
    """
    alive = live or {}
    app = web.Application()
    app.router.add_get("/healthz", _answer(alive))
    app.router.add_get("/readyz", _answer({**alive, **ready}))
    app.router.add_get("/metrics", _metrics(registry))
    async with listening(app, host, port) as bound:
        yield bound


Handler = Callable[[web.Request], Awaitable[web.Response]]


def _answer(checks: Checks) -> Handler:
    async def handler(_request: web.Request) -> web.Response:
        problems = {name: problem for name, check in checks.items() if (problem := check()) is not None}
        lines = [f"{name}: {problems.get(name, 'ok')}" for name in checks]
        text = "\n".join([*lines, "failed" if problems else "ok"])
        return web.Response(text=text + "\n", status=503 if problems else 200)

    return handler


def _metrics(registry: CollectorRegistry) -> Handler:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return handler
