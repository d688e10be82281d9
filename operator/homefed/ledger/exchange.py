"""What is read of a request, bounded and checked against the route table, and how answers are written."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from aiohttp import web
from pydantic import BaseModel

from homefed.api.errors import Invalid, NotFound
from homefed.core.request_signature import HEADER
from homefed.ledger.access import Credentials, bearer_token
from homefed.ledger.routes import Parameter, Route

BODY_SECONDS: Final = 30.0
_NUMBER: Final = re.compile(r"[0-9]{1,16}")

T = TypeVar("T")


@dataclass(frozen=True)
class Exchange:
    """One request with its parameters, which are what the table says."""

    request: web.Request
    route: Route
    texts: Mapping[str, str]
    numbers: Mapping[str, int]
    """Parameters that were not given are left out."""

    @classmethod
    def of(cls, request: web.Request, route: Route) -> Exchange:
        """Errors: Invalid, naming the parameter of the query that is wrong (unknown ones are left alone); NotFound for
        a path that cannot be."""
        texts: dict[str, str] = {}
        numbers: dict[str, int] = {}
        for parameter in route.parameters:
            if parameter.place == "path":
                texts[parameter.name] = _of_path(request, parameter)
                continue
            given = request.query.get(parameter.name)
            if given is None and parameter.required:
                raise Invalid(f"{parameter.name}: is missing from the query", reason="InvalidQuery")
            if given is None:
                continue
            if parameter.most is None:
                texts[parameter.name] = _text(given, parameter)
            else:
                numbers[parameter.name] = _number(given, parameter.least, parameter.most, parameter.name)
        return cls(request, route, texts, numbers)

    def credentials(self) -> Credentials:
        """Errors: Unauthorised where a token's header is none."""
        transport = self.request.transport
        tls = transport.get_extra_info("ssl_object") if transport is not None else None
        return Credentials(
            method=self.request.method,
            target=self.request.raw_path,
            token=bearer_token(self.request.headers),
            signature=self.request.headers.get(HEADER),
            certificate=tls.getpeercert() if tls is not None else None,
        )

    async def body(self) -> bytes:
        """The whole body; 413 beyond the route's limit, 408 when it does not come."""
        limit = self.route.body.limit if self.route.body else 0
        size = self.request.content_length or 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = b"" if size > limit else await self.request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        if max(size, len(body)) > limit:
            raise web.HTTPRequestEntityTooLarge(limit, max(size, len(body)))
        return body


def _of_path(request: web.Request, parameter: Parameter) -> str:
    text = request.match_info[parameter.name]
    if not re.fullmatch(parameter.pattern, text):
        raise NotFound(f"there is no such {parameter.name}: {parameter.description}")
    return text


def _text(given: str, parameter: Parameter) -> str:
    if not re.fullmatch(parameter.pattern, given):
        raise Invalid(f"{parameter.name}: does not match {parameter.pattern}", reason="InvalidQuery")
    return given


def _number(given: str, least: int, most: int, name: str) -> int:
    if not _NUMBER.fullmatch(given) or not least <= int(given) <= most:
        raise Invalid(f"{name}: a number from {least} to {most}", reason="InvalidQuery")
    return int(given)


def answer(value: BaseModel | Mapping[str, Any] | bytes, status: int = 200) -> web.Response:
    """JSON; of a type: its members in camelCase, those that do not apply left out."""
    body = value if isinstance(value, bytes) else json.dumps(plain(value), separators=(",", ":")).encode()
    return web.Response(status=status, body=body, content_type="application/json")


def plain(value: BaseModel | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(value, BaseModel):
        return value
    return value.model_dump(mode="json", by_alias=True, exclude_unset=True)


def found(value: T | None, what: str) -> T:
    """Errors: NotFound."""
    if value is None:
        raise NotFound(f"there is no {what}")
    return value
