"""The distribution of the gap per home, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import REGISTRY

from homefed.api.claim_document import Line, Rate
from homefed.hub.meter_gaps import MeterGaps


def used(gap: int, accepted: int) -> Line:
    return Line(
        consumer="consumer:fed/ns",
        guest_pod="p",
        resource="cpu",
        basis="used",
        unit="ucore.s",
        reported="0",
        bound="0",
        accepted=str(accepted),
        accepted_before="0",
        rate=Rate(micro_credits=1, per="core-hour"),
        amount="0",
        codes=[],
        gap=str(gap),
    )


def at_most(home: str, bound: str) -> float | None:
    return REGISTRY.get_sample_value("homefed_hub_meter_gap_ratio_bucket", {"home": home, "le": bound})


def test_lines_are_counted_by_the_share_that_is_not_accepted() -> None:
    gaps = MeterGaps()
    gaps.observe("gaps-oak", [used(0, 100), used(0, 50), used(5, 95), used(90, 10), used(0, 0)])
    assert [at_most("gaps-oak", bound) for bound in ("0.0", "0.01", "0.05", "0.5", "1.0", "+Inf")] == [2, 2, 3, 3, 4, 4]
    gaps.keep({"gaps-oak"})
    assert at_most("gaps-oak", "1.0") == 4


def test_a_home_that_is_gone_leaves_no_series() -> None:
    gaps = MeterGaps()
    gaps.observe("gaps-elm", [used(0, 1)])
    gaps.keep(set())
    assert at_most("gaps-elm", "1.0") is None
