"""What is sent again, what is told, and what stands still until a person acts."""

from __future__ import annotations

import pytest

from homefed.api.errors import (
    Conflict,
    Forbidden,
    HomefedError,
    Incident,
    Invalid,
    NotFound,
    Refused,
    Transient,
    Unauthorised,
)
from homefed.core import standstill

AGAIN, TOLD, STOP = (False, False), (False, True), (True, True)


@pytest.mark.parametrize(
    ("error", "consequence"),
    [
        (Transient("busy"), AGAIN),
        (Conflict("changed"), AGAIN),
        (Unauthorised("no"), TOLD),
        (Forbidden("no"), TOLD),
        (NotFound("no such path"), TOLD),
        (Refused("no"), STOP),
        (Invalid("no"), STOP),
        (Incident("two truths"), STOP),
    ],
)
def test_every_kind_of_error_has_one_consequence(error: HomefedError, consequence: tuple[bool, bool]) -> None:
    assert (standstill.stops(error), standstill.alarming(error)) == consequence


@pytest.mark.parametrize("reason", [*standstill.REMEDIES, "SomethingNew"])
def test_what_stops_says_what_to_do_once(reason: str) -> None:
    once = standstill.sentence(Incident("it happened", reason=reason))
    assert once.startswith("it happened; nothing more is sent")
    assert "homefed claims resume HOME" in once
    assert standstill.sentence(Incident(once, reason=reason)) == once
    assert standstill.sentence(Transient("busy")) == "busy"
