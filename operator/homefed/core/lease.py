"""The arithmetic of Leases: pure, so that agent, hub and tests agree on what a renewal is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def next_renew_time(previous: datetime | None, now: datetime) -> datetime:
    """The renewTime to write at `now` (aware, corrected to the hub's clock).

    Kubernetes counts a renewal only when renewTime grows, and clocks of homes step back: max(previous + 1 µs, now).
    """
    return now if previous is None else max(previous + timedelta(microseconds=1), now)


def micro_time(moment: datetime) -> str:
    """metav1.MicroTime: RFC 3339 in UTC with exactly six digits."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_micro_time(text: str) -> datetime:
    """Aware datetime; ValueError where the text is not RFC 3339 with a zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment
