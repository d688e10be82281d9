"""Reading a log from a server that means ill: bounded sizes and times, no redirects, one kind of error for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from homefed.api.errors import Forbidden, HomefedError, Invalid, NotFound, Refused, Transient, Unauthorised
from homefed.core.signed_note import MAX_NOTE
from homefed.core.tlog_tiles import Tile
from homefed.ledger_client.log_reader import LogReader
from testbed import ports

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def reading(handler: Handler, **options: object) -> AsyncIterator[LogReader]:
    """A reader of a server that answers everything so."""
    application = web.Application()
    application.router.add_get("/{path:.*}", handler)
    async with TestServer(application) as server:
        settings: dict[str, object] = {"attempts": 1} | options
        async with LogReader(str(server.make_url("")), **settings) as reader:  # type: ignore[arg-type]
            yield reader


def answering(status: int, body: bytes = b"", **headers: str) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((404, NotFound), (410, NotFound), (401, Unauthorised), (403, Forbidden), (204, Refused), (400, Refused)),
        *((429, Transient), (500, Transient), (503, Transient)),
    ],
)
async def test_each_status_is_its_error(status: int, error: type[HomefedError]) -> None:
    async with reading(answering(status)) as reader:
        with pytest.raises(error, match=str(status)):
            await reader.checkpoint()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    asked = []

    async def redirect(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async with reading(redirect) as reader:
        with pytest.raises(Refused, match=str(status)):
            await reader.checkpoint()
    assert asked == ["/checkpoint"]


async def test_an_answer_without_end_is_cut_off() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while sent < 2**30:
                await response.write(b"x" * 65536)
                sent += 65536
        except ConnectionError:
            pass
        return response

    async with reading(endless) as reader:
        with pytest.raises(Invalid, match=f"more than {MAX_NOTE} bytes"):
            await reader.checkpoint()
    assert sent < 2**28


async def test_an_answer_that_never_comes_is_waited_for_only_so_long() -> None:
    never = asyncio.Event()

    async def silent(_: web.Request) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    async with reading(silent, timeout_seconds=0.2) as reader:
        with pytest.raises(Transient, match="Timeout"):
            await reader.checkpoint()
        never.set()


async def test_an_answer_that_unpacks_to_more_is_refused() -> None:
    async with reading(answering(200, b"\x1f\x8b", Content_Encoding="gzip")) as reader:
        with pytest.raises(Invalid, match="encoded"):
            await reader.checkpoint()


@pytest.mark.parametrize("length", [0, 31, 63, 65, 4096])
async def test_a_tile_of_another_length_is_refused(length: int) -> None:
    async with reading(answering(200, bytes(length))) as reader:
        with pytest.raises(Invalid, match=r"000\.p/2"):
            await reader.tile(Tile(0, 0, 2))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"size":-1}', b'{"size":1e400}', b'{"size":1,"size":2}', b"\xff", b"[" * 10_000]
)
async def test_an_answer_that_is_not_what_was_asked_for_is_invalid(body: bytes) -> None:
    async with reading(answering(200, body)) as reader:
        for asked in (reader.totals(), reader.accounts(""), reader.leaf("claim", "0" * 64)):
            with pytest.raises(Invalid):
                await asked


async def test_a_checkpoint_that_is_not_text_is_invalid() -> None:
    async with reading(answering(200, b"\xff\xfe")) as reader:
        with pytest.raises(Invalid):
            await reader.checkpoint()


async def test_what_fails_for_a_moment_is_asked_for_again() -> None:
    statuses = iter([503, 429, 200])

    async def recovering(_: web.Request) -> web.StreamResponse:
        return web.Response(status=next(statuses), text="note")

    async with reading(recovering, attempts=3) as reader:
        assert await reader.checkpoint() == "note"


async def test_nobody_there_is_transient() -> None:
    (port,) = ports.reserve(1)
    try:
        async with LogReader(f"http://127.0.0.1:{port}", attempts=1) as reader:
            with pytest.raises(Transient):
                await reader.checkpoint()
    finally:
        ports.release([port])


async def test_the_token_goes_with_lines_only_and_is_read_each_time(tmp_path: Path) -> None:
    seen = []
    tokens = iter(["one", "two"])

    async def listen(request: web.Request) -> web.StreamResponse:
        seen.append((request.path, request.headers.get("Authorization")))
        return web.Response(text="{}")

    async with reading(listen, token=lambda: next(tokens)) as reader:
        await reader.checkpoint()
        await reader.part("c", 1)
        await reader.part("c", 2)
    assert seen == [
        ("/checkpoint", None),
        ("/v1/claims/c/lines/1", "Bearer one"),
        ("/v1/claims/c/lines/2", "Bearer two"),
    ]


@pytest.mark.parametrize("url", ["", "ledger", "file:///etc/passwd", "http://", "http://x/?a=b", "http://x/#y"])
def test_what_is_no_address_of_a_ledger_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="url"):
        LogReader(url)
