"""What `homefed budget` understands and prints; the cluster's side is in the flows."""

from __future__ import annotations

import pytest

from homefed.api.errors import Invalid
from homefed.cli import budget


@pytest.mark.parametrize(("limit", "micro"), [("25", 25_000_000), ("0", 0), ("0.5", 500_000), ("1.000001", 1_000_001)])
def test_credits_are_read_exactly(limit: str, micro: int) -> None:
    assert budget.micro(limit) == micro


@pytest.mark.parametrize("limit", ["", "-1", "1.", ".5", "1e3", "1.0000001", "ten", "9999999999"])
def test_what_is_no_amount_is_refused_by_name(limit: str) -> None:
    with pytest.raises(Invalid, match="--limit"):
        budget.micro(limit)
