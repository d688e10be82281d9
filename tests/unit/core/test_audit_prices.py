"""What an auditor who has the rate cards finds in lines of other prices, factors, terms or gaps."""

from __future__ import annotations

from typing import Any

import pytest

from homefed.api.claim_document import ClaimHeader, Line
from homefed.api.rate_card import PPM, RateCard
from homefed.core import rates
from homefed.core.audit_prices import PriceAudit
from homefed.core.ledger import line_amount
from homefed.core.replay import Findings

FAST = {"resource": "cpu", "basis": "used", "class": "fast", "microCredits": 300, "per": "core-hour"}
CARD = RateCard.model_validate(
    {
        "version": "9",
        "validFrom": "2026-01-01T00:00:00Z",
        "prices": [
            {"resource": "cpu", "basis": "used", "microCredits": 200, "per": "core-hour"},
            {"resource": "cpu", "basis": "reserved", "microCredits": 100, "per": "core-hour"},
            FAST,
        ],
        "timeOfDay": [{"from": "06:00", "factorPpm": PPM}, {"from": "22:00", "factorPpm": 600_000}],
    }
)
DIGEST = rates.card_digest(CARD)
ZERO = "0" * 64


def header(window_start: str = "2026-01-02T12:00:00Z", card: str = DIGEST) -> ClaimHeader:
    money = dict.fromkeys(("charged", "paid", "held", "released", "fee", "dust", "cumulative_paid"), "0")
    return ClaimHeader(
        id=ZERO,
        federation="fed",
        pool="garden",
        account="contributor:fed/home",
        window_start=window_start,
        window_end="2026-01-02T13:00:00Z",
        sequence=1,
        previous_digest="",
        rate_card_digest=card,
        consumers=[],
        line_count=1,
        parts=[],
        evidence_digest="",
        meter_version="m",
        **money,  # type: ignore[arg-type]
    )


def line(**changes: Any) -> Line:
    rate = {"microCredits": 200, "per": "core-hour"} | changes.pop("rate", {})
    amount = line_amount(
        5000, rate["microCredits"], "core-hour", rate.get("pricePpm", PPM), changes.get("factorPpm", PPM)
    )
    reading = {"open": "0", "close": "5000", "samples": 1, "expected": 1, "gaps": 0, "resets": 0, "estimated": "0"}
    given = {
        "consumer": "consumer:fed/ns",
        "guestPod": "pod",
        "resource": "cpu",
        "basis": "used",
        "unit": "ucore.s",
        "reported": "5000",
        "bound": "5000",
        "accepted": "5000",
        "acceptedBefore": "0",
        "amount": str(amount),
        "codes": [],
        "rate": rate,
        "gap": "0",
        "reading": reading,
    }
    return Line.model_validate(given | changes)


def codes(lines: list[Line], of: ClaimHeader | None = None, *more: list[Line]) -> list[str]:
    findings = Findings()
    audit = PriceAudit(findings, [CARD])
    for number, some in enumerate([lines, *more]):
        audit.claim(number, of or header(), some)
    return [one.code for one in findings.shown]


@pytest.mark.parametrize(
    ("found", "window_start"),
    [
        (line(), "2026-01-02T12:00:00Z"),
        (line(rate={"class": "fast", "microCredits": 300, "pricePpm": 5}), "2026-01-02T12:00:00Z"),
        (line(factorPpm=600_000), "2026-01-02T23:00:00Z"),
        (line(factorPpm=600_000), "2026-01-02T12:00:00Z"),
        (line(basis="reserved", rate={"microCredits": 100}, gap=None, reading=None), "2026-01-02T12:00:00Z"),
    ],
)
def test_what_the_card_says_is_no_finding(found: Line, window_start: str) -> None:
    assert codes([found], header(window_start)) == []


@pytest.mark.parametrize(
    ("found", "window_start", "code"),
    [
        (line(rate={"microCredits": 201}), "2026-01-02T12:00:00Z", "RateDiffers"),
        (line(rate={"microCredits": 300}), "2026-01-02T12:00:00Z", "RateDiffers"),
        (line(resource="memory"), "2026-01-02T12:00:00Z", "RateDiffers"),
        (line(factorPpm=2 * PPM), "2026-01-02T12:00:00Z", "FactorDiffers"),
        (line(), "2026-01-02T23:00:00Z", "FactorDiffers"),
        (line(gap="1"), "2026-01-02T12:00:00Z", "GapDiffers"),
        (line(accepted="4000", amount="0"), "2026-01-02T12:00:00Z", "GapDiffers"),
    ],
)
def test_what_differs_is_named(found: Line, window_start: str, code: str) -> None:
    assert codes([found], header(window_start)) == [code]


def test_earlier_units_may_have_any_factor_of_the_card_and_the_windows_own_only_its_own() -> None:
    night = header("2026-01-02T23:00:00Z")
    assert codes([line(), line(factorPpm=600_000)], night) == []
    assert codes([line(factorPpm=600_000), line()], night) == ["FactorDiffers"]


def test_a_correction_may_span_bands_and_what_it_carries_or_forfeits_stands_as_it_stood() -> None:
    corrected = header("2026-01-02T23:00:00Z").model_copy(update={"revision": 2})
    forfeited = line(rate={"microCredits": 0}, codes=["Forfeited"], gap="9")
    assert codes([line(factorPpm=PPM), forfeited, line(codes=["Carried"], gap="9")], corrected) == []
    assert codes([line(rate={"microCredits": 0})], corrected) == ["RateDiffers"]


def test_a_guests_terms_stay_what_they_were() -> None:
    dearer = line(rate={"class": "fast", "microCredits": 300})
    assert codes([line()], None, [dearer]) == ["TermsChanged"]
    assert codes([line()], None, [line(guestPod="other", rate={"class": "fast", "microCredits": 300})]) == []


def test_lines_of_a_card_that_the_auditor_does_not_have_are_not_compared() -> None:
    findings = Findings()
    audit = PriceAudit(findings, [CARD])
    strange = line(rate={"microCredits": 999})
    audit.claim(0, header(card=ZERO), [strange])
    assert (audit.compared, findings.shown) == (0, [])
    audit.claim(0, header(card=ZERO), [strange.model_copy(update={"rate_card_digest": DIGEST})])
    assert (audit.compared, [one.code for one in findings.shown]) == (1, ["RateDiffers"])
