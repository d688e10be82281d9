"""One set of complete values per role."""

from __future__ import annotations

from typing import Any

from testbed.installation import values_for

FEDERATION = "garden-lane"
JOIN = {"home": "oak-street", "url": "https://192.0.2.1:6443", "ca": "", "token": "not-a-token"}

Values = dict[str, Any]


def values_of(role: str, **changes: Any) -> Values:
    """Complete values of a role, with volumes that end with their pods."""
    return values_for(
        role,
        federation_id=FEDERATION if role != "home" else "",
        join=JOIN if role != "hub" else None,
        changes=changes,
    )
