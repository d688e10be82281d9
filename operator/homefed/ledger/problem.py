"""Errors as answers: RFC 9457 problem documents with a stable reason and, where one is wrong, the name of the field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from homefed.api.errors import (
    Conflict,
    Forbidden,
    HomefedError,
    Invalid,
    NotFound,
    Refused,
    Transient,
    Unauthorised,
)
from homefed.ledger.store import Contradiction

CONTENT_TYPE: Final = "application/problem+json"
_FULL: Final = {"QueueFull", "PartsFull", "TooManySignatures"}
_WAIT: Final = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_FIELD = re.compile(r"^([A-Za-z][A-Za-z0-9]*(?:\.[A-Za-z0-9]+)*): ")
_STATUS: Final[tuple[tuple[type[HomefedError], HTTPStatus], ...]] = (
    (Unauthorised, HTTPStatus.UNAUTHORIZED),
    (Forbidden, HTTPStatus.FORBIDDEN),
    (NotFound, HTTPStatus.NOT_FOUND),
    (Conflict, HTTPStatus.CONFLICT),
    (Invalid, HTTPStatus.UNPROCESSABLE_ENTITY),
    (Refused, HTTPStatus.UNPROCESSABLE_ENTITY),
    (Contradiction, HTTPStatus.INTERNAL_SERVER_ERROR),
)


def response(error: HomefedError) -> web.Response:
    """The answer to a request that failed with `error`."""
    headers: dict[str, str] = {}
    if isinstance(error, Unauthorised):
        headers["WWW-Authenticate"] = "Bearer"
    status = status_of(error)
    if status in _WAIT:
        headers["Retry-After"] = str(max(1, math.ceil((error.retry_after if isinstance(error, Transient) else 0) or 1)))
    return answer(status, error.reason, error.message, field_of(error), headers)


def status_of(error: HomefedError) -> int:
    if isinstance(error, Transient):
        return HTTPStatus.TOO_MANY_REQUESTS if error.reason in _FULL else HTTPStatus.SERVICE_UNAVAILABLE
    return next((status for kind, status in _STATUS if isinstance(error, kind)), HTTPStatus.SERVICE_UNAVAILABLE)


def field_of(error: HomefedError) -> str | None:
    """The member that is wrong, e.g. claim.sequence; messages of Invalid begin with it."""
    if not isinstance(error, Refused):
        return None
    match = _FIELD.match(error.message)
    return match.group(1) if match else None


def document(error: HomefedError) -> dict[str, Any]:
    """The members of `Problem`, as an item of a batch has them."""
    return _document(status_of(error), error.reason, error.message, field_of(error))


def answer(
    status: int, reason: str, detail: str, field: str | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    body = json.dumps(_document(status, reason, detail, field)).encode()
    return web.Response(status=status, body=body, content_type=CONTENT_TYPE, headers=headers)


def _document(status: int, reason: str, detail: str, field: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": f"urn:homefed:problem:{reason}",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail[:1024],
        "reason": reason,
    }
    return found | ({"field": field[:256]} if field else {})
