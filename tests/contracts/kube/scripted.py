"""An HTTP server on loopback that answers what the test tells it to: the API server's bad days."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Recorded:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class ScriptedServer:
    """Answers plain requests and watches from two queues; a watch beyond the script stays open and silent."""

    port: int = 0
    requests: list[Recorded] = field(default_factory=list)
    _plain: deque[Answer] = field(default_factory=deque)
    _watches: deque[Answer] = field(default_factory=deque)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answers(self, *answers: Answer) -> None:
        self._plain.extend(answers)

    def watches(self, *answers: Answer) -> None:
        self._watches.extend(answers)

    def asked(self, *, watch: bool) -> list[Recorded]:
        return [request for request in self.requests if ("watch" in request.query) == watch]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        recorded = Recorded(
            request.method, request.raw_path.split("?")[0], dict(request.query), dict(request.headers), body
        )
        self.requests.append(recorded)
        if "watch" in request.query:
            return await (self._watches.popleft() if self._watches else streamed(end="hang"))(request)
        if not self._plain:
            return web.Response(status=501, text="the test's script has no further answer")
        return await self._plain.popleft()(request)


def answered(body: Any, code: int = 200, **headers: str) -> Answer:
    """A JSON body, or a string as it is."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(text=text, status=code, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


def status(code: int, reason: str, message: str = "", name: str = "", **headers: str) -> Answer:
    """A metav1.Status as the API server writes it."""
    body = {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message}
    return answered(body | {"details": {"name": name}}, code, **headers)


def cut() -> Answer:
    """The connection closes before an answer."""

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    return answer


def slow(seconds: float) -> Answer:
    async def answer(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.Response(text="{}")

    return answer


def streamed(*events: Any, end: str = "eof") -> Answer:
    """Events of a watch (dicts, or raw strings), then `eof` (orderly), `cut` (broken) or `hang` (silent)."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for event in events:
            await response.write((event if isinstance(event, str) else json.dumps(event) + "\n").encode())
        if end == "hang":
            await asyncio.sleep(3600)
        if end == "cut":
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write_eof()
        return response

    return answer


def pod(name: str, version: int, namespace: str = "default", **metadata: Any) -> dict[str, Any]:
    """A pod, as small as it can be."""
    common = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": common | metadata}


def event(type_: str, obj: dict[str, Any]) -> dict[str, Any]:
    return {"type": type_, "object": obj}


def pod_list(version: int, *pods: dict[str, Any], **metadata: str) -> Answer:
    return answered({"kind": "PodList", "metadata": {"resourceVersion": str(version)} | metadata, "items": [*pods]})
