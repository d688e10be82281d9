"""What the examination of a meter says: what was found, and field by field what to set."""

from __future__ import annotations

from dataclasses import dataclass

from homefed.core.meter_facts import Series


@dataclass(frozen=True)
class Change:
    """Set `field` of `where` to `to`."""

    where: str
    field: str
    to: str


@dataclass(frozen=True)
class Advice:
    """`code` is CamelCase and stable; `found` is one sentence."""

    code: str
    subject: str
    found: str
    changes: tuple[Change, ...] = ()
    must: bool = True


def pod_of(series: Series) -> str:
    return series.labels.get("pod", "")


def source_text(source: tuple[str, str]) -> str:
    return f"job {source[0]}, {source[1]}"


def duration(milliseconds: int) -> str:
    """15s, 90s, 2m, 1h30m: as Prometheus reads it."""
    seconds = round(milliseconds / 1000)
    if seconds < 120 or seconds % 60:
        return f"{seconds}s" if seconds < 3600 else f"{seconds // 60}m{seconds % 60}s"
    minutes = seconds // 60
    return f"{minutes}m" if minutes < 60 or minutes % 60 else f"{minutes // 60}h"
