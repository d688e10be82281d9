"""What a pass over one home or pool came to: the stuff that conditions are made of."""

from __future__ import annotations

from dataclasses import dataclass

from homefed.api.errors import HomefedError
from homefed.core.conditions import FALSE, Status


@dataclass(frozen=True)
class Finding:
    """`reason` is CamelCase and stable; `message` is one sentence for a person, with the remedy where there is one."""

    status: Status
    reason: str
    message: str

    @classmethod
    def of(cls, error: HomefedError) -> Finding:
        return cls(FALSE, error.reason, error.message)
