"""From what an API server answers to the error tree: the status code and the Status object decide together."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from homefed.api.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Gone,
    HomefedError,
    Invalid,
    NotFound,
    Refused,
    Transient,
    Unauthorised,
)

_MAX_MESSAGE: Final = 1024
_BY_CODE: Final[Mapping[int, type[HomefedError]]] = {
    400: Invalid,
    401: Unauthorised,
    403: Forbidden,
    409: Conflict,
    410: Gone,
    422: Invalid,
}


def failure(code: int, status: Mapping[str, Any] | None, what: str, retry_after: str | None = None) -> HomefedError:
    """The error for an answer other than 2xx.

    `status` is the answer's metav1.Status, None where it had none; `what` names the request for the message;
    `retry_after` is the header's text (seconds or an HTTP date).
    """
    message = _message(code, status, what)
    if code in (408, 429) or code >= 500:
        return Transient(message, retry_after=_seconds(retry_after, status))
    if code == 404:
        return _not_found(status, message)
    reason = _text(status, "reason")
    if code == 409 and reason == "AlreadyExists":
        return AlreadyExists(message)
    return _BY_CODE.get(code, Refused)(message, reason=reason or None)


def _not_found(status: Mapping[str, Any] | None, message: str) -> HomefedError:
    """A 404 that names no object is no evidence that an object is gone: the kind may not be served (yet)."""
    if status is not None and isinstance(status.get("details"), Mapping) and status["details"].get("name"):
        return NotFound(message)
    return Transient(f"{message} (is the CustomResourceDefinition installed?)", reason="KindNotServed")


def _message(code: int, status: Mapping[str, Any] | None, what: str) -> str:
    text = _text(status, "message") or "no explanation given"
    return f"{what}: {code}: {text}"[:_MAX_MESSAGE]


def _text(status: Mapping[str, Any] | None, key: str) -> str:
    value = status.get(key) if status is not None else None
    return value if isinstance(value, str) else ""


def _seconds(header: str | None, status: Mapping[str, Any] | None) -> float | None:
    """Seconds to wait, from the Retry-After header or Status.details.retryAfterSeconds; None if neither says."""
    if header is not None and header.strip().isdecimal():
        return float(header.strip()[:9])
    if header is not None and (date := http_date(header)) is not None:
        return max(0.0, (date - datetime.now(UTC)).total_seconds())
    details = status.get("details") if status is not None else None
    seconds = details.get("retryAfterSeconds") if isinstance(details, Mapping) else None
    return float(seconds) if isinstance(seconds, int) and seconds > 0 else None


def http_date(text: str) -> datetime | None:
    """An HTTP date as aware datetime; None where it is not one."""
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
