"""A client that costs little, so that what is measured on two cores is the server: prepared requests, one per
connection at a time, answers read only as far as is needed."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence

from bench.ledger.inputs import slices
from testbed.claims import SignedClaim
from testbed.ledger import HUB_TOKEN
from testbed.ledger_load import batch

_REFUSED = re.compile(rb'"status":[45]')
"""An item of a batch that was not taken."""


def put_request(claim: SignedClaim) -> bytes:
    return _request("PUT", f"/v1/claims/{claim.id}", claim.body)


def _request(method: str, path: str, body: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: ledger\r\nAuthorization: Bearer {HUB_TOKEN}\r\n"
    return (head + f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


class _Lane(asyncio.Protocol):
    """Sends its requests one after the other over one connection."""

    def __init__(self, requests: Sequence[bytes], done: asyncio.Future[None]) -> None:
        self._requests = iter(requests)
        self._done = done
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201")):
            self._fail(RuntimeError(bytes(self._received).decode(errors="replace")))
            return
        if _REFUSED.search(body):
            self._fail(RuntimeError(bytes(body).decode(errors="replace")[:2000]))
            return
        self._received.clear()
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionResetError("the ledger closed the connection"))

    def _send(self) -> None:
        assert self._transport is not None
        request = next(self._requests, None)
        if request is not None:
            self._transport.write(request)
            return
        if not self._done.done():
            self._done.set_result(None)
        self._transport.close()

    def _fail(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)


def batch_request(claims: Sequence[SignedClaim]) -> bytes:
    items = [{"kind": "claim", "id": claim.id, "envelope": claim.envelope.to_json()} for claim in claims]
    return _request("POST", "/v1/batch", json.dumps({"items": items}).encode())


async def rate(port: int, claims: Sequence[SignedClaim], clients: int, at_once: int = 1) -> float:
    """Claims per second of `clients` connections, each with the claims of homes of its own; parts are sent before.

    `at_once` claims to a request: one as PUT, more as POST /v1/batch.
    """
    for some in slices(claims, 100):
        await _exchange(port, [[_parts_request(some)]])
    of_client: list[list[SignedClaim]] = [[] for _ in range(clients)]
    homes = {claim.header["account"]: number for number, claim in reversed([*enumerate(claims)])}
    client_of = {home: number % clients for number, home in enumerate(sorted(homes, key=homes.__getitem__))}
    for claim in claims:
        of_client[client_of[claim.header["account"]]].append(claim)
    lanes = [
        [put_request(some[0]) if at_once == 1 else batch_request(some) for some in slices(own, at_once)]
        for own in of_client
    ]
    began = time.perf_counter()
    await _exchange(port, lanes)
    return len(claims) / (time.perf_counter() - began)


def _parts_request(claims: Sequence[SignedClaim]) -> bytes:
    return _request("POST", "/v1/batch", batch([*claims], headers=False))


async def _exchange(port: int, lanes: Sequence[Sequence[bytes]]) -> None:
    loop = asyncio.get_running_loop()
    futures = []
    for lane in lanes:
        done: asyncio.Future[None] = loop.create_future()
        await loop.create_connection(lambda lane=lane, done=done: _Lane(lane, done), "127.0.0.1", port)  # type: ignore[misc]
        futures.append(done)
    await asyncio.gather(*futures)
