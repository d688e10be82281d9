"""Two meters, the home's and the hub's: when the difference is an accident, and when it is worth a look."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api.claim_document import Line, Rate
from homefed.core import meter_agreement
from homefed.core.meter_agreement import Gap, share_ppm


def line(gap: int | None, accepted: int, *, before: int = 0, resource: str = "cpu") -> Line:
    return Line(
        consumer="consumer:fed/ns",
        guest_pod="p",
        resource=resource,
        basis="reserved" if gap is None else "used",
        unit="ucore.s",
        reported=str(accepted),
        bound=str(accepted),
        accepted=str(accepted),
        accepted_before=str(before),
        rate=Rate(micro_credits=1, per="core-hour"),
        amount="0",
        codes=[],
        gap=None if gap is None else str(gap),
    )


def cpu(*ppm: int) -> list[Gap]:
    return [Gap(one, "cpu") for one in ppm]


def test_the_share_is_of_all_that_was_reported_since_the_start() -> None:
    assert list(meter_agreement.shares([line(100, 300, before=600), line(None, 5), line(0, 0)])) == [100_000]


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_the_share_lies_between_nothing_and_all(gap: int, accepted: int) -> None:
    share = share_ppm(gap, accepted)
    assert share is None if gap + accepted == 0 else 0 <= share <= 1_000_000  # type: ignore[operator]


def test_pods_count_by_what_they_used_and_resources_apart() -> None:
    lines = [line(1, 0), line(0, 999), line(50, 50, resource="memory")]
    assert meter_agreement.worst(lines) == Gap(500_000, "memory")
    assert meter_agreement.worst(lines[:2]) == Gap(1000, "cpu")
    assert meter_agreement.worst([line(None, 7), line(0, 0)]) is None


@pytest.mark.parametrize(
    ("recent", "reason"),
    [
        (cpu(900_000, 900_000), None),
        (cpu(900_000, 900_000, 900_000), "MetersDisagree"),
        (cpu(0, 900_000, 0), "MetersAgree"),
        (cpu(10_000, 10_000, 10_000), "MetersAgree"),
        (cpu(0, 0, 0, 900_000, 900_000, 900_000), "MetersAgree"),
        (cpu(0, 0, 900_000, 900_000, 900_000, 900_000), "MetersDisagree"),
        (cpu(*[900_000] * 6, 0, 0, 0), "MetersAgree"),
    ],
)
def test_most_of_the_last_windows_decide(recent: list[Gap], reason: str | None) -> None:
    found = meter_agreement.finding(recent)
    assert (found.reason if found is not None else None) == reason


def test_the_sentence_names_the_resource_the_share_and_what_to_look_at() -> None:
    found = meter_agreement.finding(cpu(230_000, 231_000, 250_000))
    assert found is not None
    assert "23 % of the cpu" in found.message
    assert "clock" in found.message
    network = meter_agreement.finding([Gap(500_000, "network-receive")] * 3)
    assert network is not None
    assert "spec.maxBandwidthMbps" in network.message


def test_of_several_pools_the_one_that_disagrees_speaks() -> None:
    good, bad = meter_agreement.finding(cpu(0, 0, 0)), meter_agreement.finding(cpu(*[900_000] * 3))
    assert meter_agreement.worse([None, good, bad]) == bad
    assert meter_agreement.worse([None, good]) == good
    assert meter_agreement.worse([]) is None
