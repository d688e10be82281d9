"""A ledger over HTTP that takes whatever it is sent, and answers as a test wants it: refused, late, cut off, forged.

It keeps claims, chains and a tree of its own (`testbed.model_log`), and decides nothing about money.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from homefed.api import dsse
from homefed.api.canonical import canonical
from homefed.core.ledger_reading import payload_digest
from testbed.model_log import ModelLog

Json = dict[str, Any]
TIME = "2026-01-01T01:01:10Z"


@dataclass(frozen=True)
class Answer:
    """What one request to submit comes to, instead of being taken and receipted."""

    status: int = 200
    headers: Json = field(default_factory=dict)
    body: bytes = b"{}"
    takes: bool = False
    """The deed is done before the answer goes wrong."""
    cut: bool = False
    """The connection ends without an answer."""
    wait: float = 0.0
    """Seconds before it."""


def problem(status: int, reason: str, **headers: str) -> Answer:
    """For the whole request."""
    body = json.dumps({"status": status, "reason": reason, "detail": f"it says {reason}"}).encode()
    return Answer(status, headers, body)


Forge = Callable[[Json], Json]
"""What becomes of the true answer to a claim."""


@dataclass
class ScriptedLedger:
    """`script`: answers to coming requests to submit, then all are honest. `forge`: of every receipt."""

    log: ModelLog = field(default_factory=ModelLog)
    script: list[Answer] = field(default_factory=list)
    refuse: str = ""
    """Reason of a 422 for every claim; `conflict` of a 409."""
    conflict: str = ""
    forge: Forge = dict
    bodies: list[bytes] = field(default_factory=list)
    """Of all requests to submit."""
    claims: dict[str, tuple[dsse.Envelope, Json]] = field(default_factory=dict)
    """Id → envelope and true answer."""
    parts: dict[tuple[str, int], Json] = field(default_factory=dict)
    before: Callable[[], Awaitable[None]] | None = None
    """Awaited when a request to submit has arrived."""
    url: str = ""

    def backup(self) -> ScriptedLedger:
        """As it is now, to be restored later."""
        return replace(self, log=replace(self.log, leaves=[*self.log.leaves]), claims=dict(self.claims), bodies=[])

    def restore(self, backup: ScriptedLedger) -> None:
        self.log, self.claims = backup.log, dict(backup.claims)

    async def submit(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.bodies.append(body)
        if self.before is not None:
            await self.before()
        scripted = self.script.pop(0) if self.script else None
        taken = [self._take(item) for item in json.loads(body)["items"]] if scripted is None or scripted.takes else []
        if scripted is None:
            return web.json_response({"items": taken})
        await asyncio.sleep(scripted.wait)
        if scripted.cut:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=scripted.status, headers=scripted.headers, body=scripted.body)

    def _take(self, item: Json) -> Json:
        if item["kind"] == "part":
            self.parts[item["claim"], item["part"]] = item["document"]
            digest = hashlib.sha256(canonical(item["document"])).hexdigest()
            return {"status": 201, "claim": item["claim"], "part": item["part"], "digest": digest}
        if item["id"] in self.claims:
            return self.forge({"status": 200, **self.claims[item["id"]][1]})
        if reason := self.conflict or self.refuse:
            return {"status": 409 if self.conflict else 422, "reason": reason, "detail": f"it says {reason}"}
        envelope = dsse.from_json(item["envelope"])
        self.log.grow([envelope.canonical()])
        index = len(self.log.leaves) - 1
        answer = {"id": item["id"], "leafIndex": index, "transaction": index + 1, "time": TIME}
        answer["receipt"] = self.log.receipt(index)
        self.claims[item["id"]] = envelope, answer
        return self.forge({"status": 201, **answer})

    async def chain(self, request: web.Request) -> web.Response:
        wanted_chain = request.match_info["pool"], request.match_info["account"]
        found = [one for one in self.claims.values() if _chain_of(one[0]) == wanted_chain]
        wanted = request.query.get("sequence", str(len(found)))
        for envelope, _ in found:
            header = _header(envelope)
            if str(header["sequence"]) == wanted:
                place = {"claim": header["id"], "sequence": header["sequence"], "digest": payload_digest(envelope)}
                place |= {"cumulativePaid": header["cumulativePaid"], "envelope": envelope.to_json()}
                return web.json_response(place)
        return _not_found()

    async def claim(self, request: web.Request) -> web.Response:
        found = self.claims.get(request.match_info["claim"])
        if found is None:
            return _not_found()
        envelope, answer = found
        more = {"kind": "claim", "digest": payload_digest(envelope), "envelope": envelope.to_json(), "state": "posted"}
        return web.json_response(answer | more)

    async def part(self, request: web.Request) -> web.Response:
        return web.json_response(self.parts[request.match_info["claim"], int(request.match_info["number"])])

    async def key(self, _: web.Request) -> web.Response:
        vkey = self.log.vkey
        answer = {"keyid": dsse.fingerprint(vkey.public), "publicKey": "", "origin": vkey.name}
        return web.json_response(answer | {"verifier": vkey.text()})

    async def file(self, request: web.Request) -> web.Response:
        return web.Response(body=await self.log.fetch(request.path))


def _header(envelope: dsse.Envelope) -> Json:
    return dict(json.loads(envelope.payload))


def _chain_of(envelope: dsse.Envelope) -> tuple[str, str]:
    header = _header(envelope)
    return header["pool"], header["account"]


def _not_found() -> web.Response:
    return web.json_response({"status": 404, "reason": "NotFound", "detail": "there is none"}, status=404)


@asynccontextmanager
async def scripted_ledger() -> AsyncIterator[ScriptedLedger]:
    """On a free loopback port."""
    ledger = ScriptedLedger()
    app = web.Application(client_max_size=8 * 2**20)
    app.router.add_post("/v1/batch", ledger.submit)
    app.router.add_get("/v1/claims/{claim}", ledger.claim)
    app.router.add_get("/v1/claims/{claim}/lines/{number}", ledger.part)
    app.router.add_get("/v1/chains/{pool}/{account:.+}", ledger.chain)
    app.router.add_get("/v1/key", ledger.key)
    app.router.add_get("/checkpoint", ledger.file)
    app.router.add_get("/tile/{path:.+}", ledger.file)
    async with TestServer(app) as server:
        ledger.url = str(server.make_url("")).rstrip("/")
        yield ledger
