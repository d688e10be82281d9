"""UsageReport (mailbox): signed integer amounts per guest pod and window. Only the envelope is trusted."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from homefed.api.meta import AGE_COLUMN, Column, Kind, Model, Name, Rule, Time

KIND = Kind(
    kind="UsageReport",
    plural="usagereports",
    scope="Namespaced",
    short_names=("hfu",),
    columns=(
        Column("Pool", ".spec.poolName"),
        Column("Window-End", ".spec.windowEnd", "date"),
        Column("Part", ".spec.part", "integer", priority=1),
        AGE_COLUMN,
    ),
)


class UsageReportSpec(Model):
    cel_rules: ClassVar[tuple[Rule, ...]] = (Rule("self == oldSelf", "a report is immutable"),)

    pool_name: Name
    window_start: Time
    window_end: Time
    part: Annotated[int, Field(ge=1, le=1000)] = 1
    parts: Annotated[int, Field(ge=1, le=1000)] = 1
    envelope: Annotated[str, Field(max_length=1_000_000, pattern=r"^[A-Za-z0-9+/]+=*$")]
    """DSSE envelope of a report document (report.v1), base64; signed by the home's key."""


class UsageReport(Model):
    spec: UsageReportSpec
