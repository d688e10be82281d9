"""Reads what a ledger shows to everyone, trusting nothing: bounded sizes and times, no redirects, no decompression.

What is read is not believed here either; `core.audit_leaf` and `core.replay` judge it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final, Self, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
from pydantic import BaseModel
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from homefed import VERSION
from homefed.api import ledger_answers as answers
from homefed.api.canonical import parse as parse_json
from homefed.api.claim_document import MAX_PART
from homefed.api.errors import Forbidden, HomefedError, Invalid, NotFound, Refused, Transient, Unauthorised
from homefed.api.meta import parse
from homefed.core import request_signature
from homefed.core.merkle import HASH_SIZE
from homefed.core.signed_note import MAX_NOTE
from homefed.core.tlog_tiles import MAX_ENTRY, Tile, bundle_path

MAX_JSON: Final = 8 * 2**20
CONNECT_SECONDS: Final = 10.0
CHUNK: Final = 2**16
PAGE: Final = 1000

M = TypeVar("M", bound=BaseModel)
_STATUSES: Final[Mapping[int, type[HomefedError]]] = {
    HTTPStatus.UNAUTHORIZED: Unauthorised,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.GONE: NotFound,
}


class LogReader:
    """One ledger, from outside. Use as `async with`; safe to share between tasks.

    Every method can raise Transient (network, 429, 5xx, after all attempts), NotFound, Forbidden, Unauthorised,
    Refused (a redirect, another status), and Invalid for an answer that is longer or other than it may be.
    """

    def __init__(
        self,
        url: str,
        *,
        ca: Path | None = None,
        token: Callable[[], str] | None = None,
        signature: Callable[[str], str] | None = None,
        attempts: int = 4,
        timeout_seconds: float = 30.0,
    ) -> None:
        """`token` is asked before each request of what is not public: lines and statements; `ca` is a PEM file.

        `signature` is asked likewise, in place of a token: X-HomeFed-Signature of a GET of this path and query.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise Invalid(f"url: {url!r} is not http://… or https://…", reason="InvalidURL")
        self._url = url.rstrip("/")
        self._ca = ca
        self._token = token
        self._signature = signature
        self._attempts = attempts
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, connect=CONNECT_SECONDS)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        context = await asyncio.to_thread(self._context)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=16),
            timeout=self._timeout,
            auto_decompress=False,
            headers={"User-Agent": f"homefed/{VERSION}", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def checkpoint(self) -> str:
        """The newest signed checkpoint."""
        return _text(await self._get("/checkpoint", MAX_NOTE))

    async def cosigned(self) -> str:
        """The newest checkpoint that any witness has cosigned."""
        return _text(await self._get("/v1/witness/checkpoint", MAX_NOTE))

    async def tile(self, tile: Tile) -> bytes:
        """`tile.width` hashes of 32 bytes. Invalid (WrongTile) when it has another length."""
        size = tile.width * HASH_SIZE
        data = await self._get(f"/{tile.path()}", size)
        if len(data) != size:
            raise Invalid(f"{tile.path()}: {len(data)} bytes instead of {size}", reason="WrongTile")
        return data

    async def bundle(self, number: int, width: int) -> bytes:
        """The entry bundle of the first `width` leaves from 256 × number on, as it comes."""
        return await self._get(f"/{bundle_path(number, width)}", width * (MAX_ENTRY + 2))

    async def totals(self) -> answers.Totals:
        return await self._json("/v1/totals", answers.Totals)

    async def accounts(self, after: str) -> answers.Accounts:
        """The next thousand accounts behind that name."""
        return await self._json(f"/v1/accounts?after={quote(after, safe='')}&limit={PAGE}", answers.Accounts)

    async def leaf(self, kind: str, identity: str) -> answers.StoredLeaf:
        """A claim, resolution or floor, with its receipt."""
        return await self._json(f"/v1/{kind}s/{identity}", answers.StoredLeaf)

    async def part(self, claim: str, number: int) -> bytes:
        """One lines part, with the token. NotFound where its retention has ended."""
        return await self._get(f"/v1/claims/{claim}/lines/{number}", MAX_PART, token=True)

    async def consumer_lines(self, claim: str, number: int, namespace: str) -> answers.ConsumerLines:
        """Of one lines part, what is this namespace's."""
        path = f"/v1/claims/{claim}/lines/{number}?namespace={quote(namespace, safe='')}"
        return await self._json(path, answers.ConsumerLines, token=True)

    async def statement(self, account: str, *, before: int | None = None, namespace: str = "") -> answers.Statement:
        """Of its owner's account: sums, and a page of entries, newest first. `namespace`: of a consumer."""
        query = f"?limit={PAGE}" + (f"&before={before}" if before is not None else "")
        query += f"&namespace={quote(namespace, safe='')}" if namespace else ""
        return await self._json(
            f"/v1/accounts/{quote(account, safe=':/')}/statement{query}", answers.Statement, token=True
        )

    async def _json(self, path: str, model: type[M], *, token: bool = False) -> M:
        value = parse_json(await self._get(path, MAX_JSON, token=token), limit=MAX_JSON)
        return parse(model, value, where=path.partition("?")[0])

    async def _get(self, path: str, limit: int, *, token: bool = False) -> bytes:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._attempts),
            wait=wait_random_exponential(multiplier=0.2, max=5.0),
            retry=retry_if_exception_type(Transient),
            reraise=True,
        )
        return await retrying(self._once, path, limit, token)

    async def _once(self, path: str, limit: int, token: bool) -> bytes:
        if self._session is None:
            raise RuntimeError("LogReader is used outside of `async with`")
        headers = self._credentials(path) if token else {}
        try:
            async with self._session.get(self._url + path, headers=headers, allow_redirects=False) as response:
                if response.status != HTTPStatus.OK:
                    raise _failure(path, response.status)
                return await _bounded(response, path, limit)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Transient(f"{self._url}{path}: {type(error).__name__}: {error}") from error

    def _credentials(self, path: str) -> dict[str, str]:
        if self._signature is not None:
            return {request_signature.HEADER: self._signature(path)}
        return {"Authorization": f"Bearer {self._token()}"} if self._token is not None else {}

    def _context(self) -> ssl.SSLContext | bool:
        return True if self._ca is None else ssl.create_default_context(cafile=str(self._ca))


async def _bounded(response: aiohttp.ClientResponse, path: str, limit: int) -> bytes:
    if "Content-Encoding" in response.headers:
        raise Invalid(f"{path}: encoded, which was not asked for", reason="WrongEncoding")
    whole = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK):
        whole += chunk
        if len(whole) > limit:
            raise Invalid(f"{path}: more than {limit} bytes", reason="TooLarge")
    return bytes(whole)


def _failure(path: str, status: int) -> HomefedError:
    if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or status >= 500:
        return Transient(f"{path}: the ledger answers {status}")
    return _STATUSES.get(status, Refused)(f"{path}: the ledger answers {status}")


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"not UTF-8: {error}", reason="NotText") from error
