"""Conditions (metav1.Condition, as dicts): how every object says what is the matter, since when, and what to do.

The functions return new lists and leave an unchanged condition exactly as it was, so that comparing before and after
tells whether there is anything to write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from homefed.core.times import to_rfc3339

Status = Literal["True", "False", "Unknown"]
Condition = dict[str, Any]

TRUE: Final[Status] = "True"
FALSE: Final[Status] = "False"
UNKNOWN: Final[Status] = "Unknown"
READY: Final = "Ready"

MAX_MESSAGE: Final = 1024


def get(conditions: Iterable[Mapping[str, Any]] | None, type_: str) -> Mapping[str, Any] | None:
    """The condition of this type, None where there is none."""
    return next((condition for condition in conditions or () if condition.get("type") == type_), None)


def is_true(conditions: Iterable[Mapping[str, Any]] | None, type_: str) -> bool:
    found = get(conditions, type_)
    return found is not None and found.get("status") == TRUE


def set_condition(
    conditions: Sequence[Mapping[str, Any]] | None,
    type_: str,
    status: Status,
    reason: str,
    message: str,
    generation: int,
    now: datetime,
) -> list[Condition]:
    """`conditions` with this one set, in its place or at the end; lastTransitionTime changes only with `status`.

    `reason` is CamelCase; `message` one sentence for a person, cut to 1024 characters; `generation` is the
    metadata.generation of the spec that was looked at.
    """
    before = get(conditions, type_)
    unchanged = before is not None and before.get("status") == status
    condition: Condition = {
        "type": type_,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if before and unchanged else to_rfc3339(now),
        "reason": reason,
        "message": message[:MAX_MESSAGE],
    }
    others = [dict(other) for other in conditions or ()]
    if before is None:
        return [*others, condition]
    return [condition if other.get("type") == type_ else other for other in others]


def drop(conditions: Iterable[Mapping[str, Any]] | None, type_: str) -> list[Condition]:
    """`conditions` without this type: for conditions that exist only while something is wrong."""
    return [dict(condition) for condition in conditions or () if condition.get("type") != type_]


def summarise(
    conditions: Sequence[Mapping[str, Any]] | None,
    required: Sequence[str],
    generation: int,
    now: datetime,
    *,
    message: str = "",
) -> list[Condition]:
    """`conditions` with `Ready`: False as the first required type that is False, else Unknown as the first that is
    Unknown or missing, else True with reason Ready and `message`.
    """
    found = [get(conditions, type_) or {"type": type_, "status": UNKNOWN} for type_ in required]
    for status in (FALSE, UNKNOWN):
        worst = next((condition for condition in found if condition.get("status") == status), None)
        if worst is not None:
            reason, text = worst.get("reason", "Pending"), worst.get("message", f"{worst['type']} is not known yet")
            return set_condition(conditions, READY, status, reason, text, generation, now)
    return set_condition(conditions, READY, TRUE, READY, message, generation, now)
