"""Time as Kubernetes writes it (RFC 3339, UTC), to and from aware datetimes. Nothing here reads a clock."""

from __future__ import annotations

from datetime import UTC, datetime

from homefed.api.errors import Invalid


def to_rfc3339(moment: datetime) -> str:
    """Whole seconds, as metav1.Time: 2026-01-31T10:00:00Z (MicroTime: core.lease). Invalid without a zone."""
    return _utc(moment).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_rfc3339(text: str) -> datetime:
    """An aware datetime in UTC; Invalid where the text is no time or names no zone."""
    try:
        return _utc(datetime.fromisoformat(text))
    except (TypeError, ValueError) as error:
        raise Invalid(f"{str(text)[:40]!r} is not an RFC 3339 time", reason="InvalidTime") from error


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise Invalid(f"{moment.isoformat()} has no time zone", reason="InvalidTime")
    return moment.astimezone(UTC)
