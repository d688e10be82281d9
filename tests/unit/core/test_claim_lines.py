"""A claim's lines: the guest's terms, the card of the time, and nothing gained by waiting for a better one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api.canonical import canonical
from homefed.api.claim_document import Line, ReportSignature
from homefed.api.rate_card import PPM, STANDARD, Terms
from homefed.api.report_document import UNITS, Metered, ReportLine
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import claim_building, rates, windows
from homefed.core.audit_prices import PriceAudit
from homefed.core.claim_chain import Chain, Claim, Payee
from homefed.core.claim_lines import lines_of
from homefed.core.readings import Report
from homefed.core.replay import Findings
from homefed.core.rewards import Key, Observation, observation
from homefed.core.settlement import Inputs, Settle, settle_window
from homefed.core.windows import Window

MIDNIGHT = windows.seconds("2026-01-02T00:00:00Z")
HOUR = 3600
GIB = 2**30
UID = "11111111-2222-3333-4444-555555555555"
PAYEE = Payee("fed", "pool", "home", fee_ppm=20_001, held_ppm=333_333)
CORE_HOUR = 3_600_000_000
RESERVED = {"resource": "cpu", "basis": "reserved", "microCredits": 100_000, "per": "core-hour"}
USED = RESERVED | {"basis": "used", "microCredits": 200_000}
NIGHTS = [{"from": "06:00", "factorPpm": PPM}, {"from": "22:00", "factorPpm": 600_000}]


def pool(*prices: dict[str, Any], then: Sequence[dict[str, Any]] = (), **card: Any) -> SchedulingPoolSpec:
    given = {"version": "1", "validFrom": "2026-01-01T00:00:00Z", "prices": list(prices or (RESERVED, USED))}
    return SchedulingPoolSpec.model_validate({"rateCard": given | card, "nextRateCards": list(then)})


def hour(number: int) -> Window:
    """The hour of the day that begins at `number` o'clock."""
    return Window(MIDNIGHT + number * HOUR, MIDNIGHT + (number + 1) * HOUR)


def guest(first: int, *, terms: Terms | None = None, uid: str = UID, ended: int | None = None) -> Observation:
    """One core, running from `first` o'clock."""
    end = None if ended is None else (MIDNIGHT + ended * HOUR) * 1000
    start = (MIDNIGHT + first * HOUR) * 1000
    return Observation(uid, "ns-1", {"cpu": 1000, "memory": GIB}, start, start, end, terms=terms or Terms())


def report(window: Window, opened: int, closed: int, uid: str = UID, resource: Metered = "cpu") -> Report:
    line = ReportLine(
        guest_pod=uid,
        resource=resource,
        unit=UNITS[resource],
        open=str(opened),
        close=str(closed),
        amount=str(closed - opened),
        samples=1,
        expected=1,
        gaps=0,
        resets=0,
        coverage_ppm=PPM,
        flags=[],
    )
    signature = ReportSignature(digest=f"{window.end + closed:064x}", keyid="SHA256:00", sig="AA==")
    return Report(window, (line,), (), (signature,))


class Home:
    """Settles window after window, as the hub does."""

    def __init__(self, spec: SchedulingPoolSpec, *guests: Observation) -> None:
        self.spec, self.guests = spec, list(guests)
        self.chain, self.claims = Chain(), list[Claim]()
        self.reports: list[Report] = []
        self.settled: list[Settle] = []

    def settle(self, window: Window, *reports: Report) -> list[Line]:
        """The lines of the window's claim; the reports arrive before it is made."""
        self.reports += reports
        inputs = Inputs("fed", "home", self.spec, self.guests, self.reports, self.chain)
        step = settle_window(inputs, window, late=not reports)
        if step.lines:
            payee = replace(PAYEE, rate_card_digest=rates.card_digest(step.card or self.spec.rate_card))
            claim = claim_building.build(payee, self.chain, window, step.lines, step.reports, b"s" * 32)
            self.chain = self.chain.after(claim)
            self.claims.append(claim)
        self.settled.append(step)
        return list(step.lines)


def used(lines: Sequence[Line]) -> list[tuple[int, int, int]]:
    """(accepted, factor, amount) of each used line."""
    return [(int(one.accepted), one.factor, int(one.amount)) for one in lines if one.basis == "used"]


def paid(home: Home) -> int:
    return sum(int(line.amount) for claim in home.claims for line in claim.lines)


def test_a_guest_is_priced_by_its_class_and_by_what_its_owner_asked() -> None:
    spec = pool(RESERVED, USED, USED | {"class": "fast", "microCredits": 300_000})
    terms = Terms(machine_class="fast", price_ppm=800_000)
    lines = Home(spec, guest(8, terms=terms)).settle(hour(8), report(hour(8), 0, CORE_HOUR // 2))
    assert [(one.rate.micro_credits, one.rate.machine_class, one.rate.price, one.amount) for one in lines] == [
        (100_000, "fast", 800_000, "80000"),
        (300_000, "fast", 800_000, "120000"),
    ]


def test_what_is_usual_is_not_written() -> None:
    line = Home(pool(), guest(8)).settle(hour(8), report(hour(8), 0, 1))[0]
    assert line.dump().keys().isdisjoint({"factorPpm", "rateCardDigest", "gap"})
    assert line.dump()["rate"] == {"microCredits": 100_000, "per": "core-hour"}


def test_a_line_of_an_earlier_release_keeps_its_bytes() -> None:
    """Its digest is in a signed header: reading it and writing it again must not change it."""
    old = (
        '{"accepted":"123456789","acceptedBefore":"0","amount":"685","basis":"used","bound":"3600000000","codes":[],'
        '"consumer":"consumer:fed/ns-1","guestPod":"11111111-2222-3333-4444-555555555555","rate":{"microCredits":20000,'
        '"per":"core-hour"},"reading":{"close":"123456789","estimated":"0","expected":240,"gaps":0,"open":"0","resets":0,'
        '"samples":240},"reported":"123456789","resource":"cpu","unit":"ucore.s"}'
    )
    line = Line.model_validate(json.loads(old))
    assert canonical(line.dump()).decode() == old
    assert rates.formula(line).amount == int(line.amount) == 685


def test_the_time_of_day_multiplies_every_price() -> None:
    home = Home(pool(timeOfDay=NIGHTS), guest(21))
    assert [one.amount for one in home.settle(hour(21), report(hour(21), 0, CORE_HOUR))] == ["100000", "200000"]
    night = home.settle(hour(22), report(hour(22), CORE_HOUR, 2 * CORE_HOUR))
    assert [(one.factor_ppm, one.amount) for one in night] == [(600_000, "60000"), (600_000, "120000")]


def test_late_usage_is_paid_by_the_time_when_it_was_used() -> None:
    spec, reports = pool(timeOfDay=NIGHTS), [report(hour(5), 0, 900), report(hour(6), 900, 2000)]
    punctual, late = Home(spec, guest(5)), Home(spec, guest(5))
    for window, one in zip((hour(5), hour(6)), reports, strict=True):
        punctual.settle(window, one)
    late.settle(hour(5))
    lines = late.settle(hour(6), *reports)
    assert [(accepted, factor) for accepted, factor, _ in used(lines)] == [(900, 600_000), (1100, PPM)]
    assert paid(late) == paid(punctual)
    assert late.chain.accounts == punctual.chain.accounts


def test_usage_that_no_report_places_in_time_is_paid_at_the_lowest_factor() -> None:
    home = Home(pool(timeOfDay=NIGHTS), guest(5))
    home.settle(hour(5))
    lines = home.settle(hour(6), report(hour(6), CORE_HOUR // 4, CORE_HOUR // 2))
    assert used(lines) == [(CORE_HOUR // 2, 600_000, 60_000)]


def test_what_the_hub_saw_late_is_paid_by_the_time_when_it_ran() -> None:
    home = Home(pool(RESERVED, timeOfDay=NIGHTS), replace(guest(4), running=None))
    home.settle(hour(4))
    home.guests = [guest(4, ended=8)]
    lines = home.settle(hour(7))
    assert [(int(one.accepted), one.factor) for one in lines] == [(2 * CORE_HOUR, 600_000), (2 * CORE_HOUR, PPM)]


def test_a_card_reprices_neither_what_is_settled_nor_what_was_used_before_it() -> None:
    second = {
        "version": "2",
        "validFrom": "2026-01-02T09:00:00Z",
        "prices": [RESERVED | {"microCredits": 7}, USED | {"microCredits": 400_000}],
    }
    spec, home_reports = pool(then=[second]), [report(hour(8), 0, CORE_HOUR), report(hour(9), CORE_HOUR, 2 * CORE_HOUR)]
    home = Home(spec, guest(8))
    home.settle(hour(8))
    lines = [one for one in home.settle(hour(9), *home_reports) if one.basis == "used"]
    assert [(one.rate.micro_credits, one.amount) for one in lines] == [(200_000, "200000"), (400_000, "400000")]
    old = rates.card_digest(spec.rate_card)
    assert [one.rate_card_digest for one in lines] == [old, None]
    assert [step.card.version for step in home.settled if step.card is not None] == ["1", "2"]


def test_a_correction_over_a_new_card_pins_the_first_windows_card_and_names_the_other_in_its_lines() -> None:
    second = {"version": "2", "validFrom": "2026-01-02T09:00:00Z", "prices": [RESERVED | {"microCredits": 7}, USED]}
    spec = pool(then=[second])
    window = Window(hour(8).start, hour(9).end)
    reports = [report(hour(8), 0, CORE_HOUR), report(hour(9), CORE_HOUR, 2 * CORE_HOUR)]
    lines = lines_of("fed", spec, {}, [guest(8)], reports, window)
    reserved = [(one.rate.micro_credits, one.amount, one.rate_card_digest) for one in lines if one.basis == "reserved"]
    assert reserved == [(100_000, "100000", None), (7, "7", rates.card_digest(spec.next_rate_cards[0]))]
    assert used(lines) == [(CORE_HOUR, PPM, 200_000), (CORE_HOUR, PPM, 200_000)]


def test_the_gap_is_what_was_reported_and_is_not_accepted_and_closes_as_the_bound_grows() -> None:
    home = Home(pool(), guest(8))
    beyond = CORE_HOUR + 500
    assert [one.gap for one in home.settle(hour(8), report(hour(8), 0, beyond)) if one.basis == "used"] == ["500"]
    assert [one.gap for one in home.settle(hour(9)) if one.basis == "used"] == ["0"]
    assert [one.gap for one in home.settle(hour(10)) if one.basis == "used"] == ["0"]


def test_two_lines_of_one_key_are_taken_back_together() -> None:
    home = Home(pool(timeOfDay=NIGHTS), guest(5))
    home.settle(hour(5))
    before = home.chain.accounts[Key(UID, "cpu", "used")]
    home.settle(hour(6), report(hour(5), 0, 900), report(hour(6), 900, 2000))
    back = home.chain.without(home.claims[-1]).accounts[Key(UID, "cpu", "used")]
    assert (back.accepted, back.close) == (before.accepted, before.close) == (0, 0)


def test_terms_are_read_from_the_guest_and_are_the_usual_ones_where_it_has_none() -> None:
    spec = {"podUid": UID, "namespaceUid": "ns", "observed": {"boundAt": "2026-01-02T00:00:00Z"}}
    assert observation({"metadata": {}, "spec": spec}).terms == Terms(machine_class=STANDARD, price_ppm=PPM)
    given = spec | {"terms": {"class": "fast", "pricePpm": 5}}
    assert observation({"metadata": {}, "spec": given}).terms == Terms(machine_class="fast", price_ppm=5)


@st.composite
def pools(draw: st.DrawFn) -> SchedulingPoolSpec:
    def card(version: str, valid_from: str) -> dict[str, Any]:
        price = st.integers(0, 10**9)
        listed = [one | {"microCredits": draw(price)} for one in (RESERVED, USED)]
        memory = {"resource": "memory", "basis": "reserved", "microCredits": draw(price), "per": "GiB-hour"}
        fast = USED | {"class": "fast", "microCredits": draw(price)}
        edges = draw(st.lists(st.integers(0, 23), unique=True, max_size=4))
        bands = [{"from": f"{edge:02}:00", "factorPpm": draw(st.integers(0, 10 * PPM))} for edge in edges]
        return {"version": version, "validFrom": valid_from, "prices": [*listed, memory, fast], "timeOfDay": bands}

    begins = f"2026-01-02T{draw(st.integers(0, 23)):02}:00:00Z"
    first, second = card("1", "2026-01-01T00:00:00Z"), card("2", begins)
    return SchedulingPoolSpec.model_validate({"rateCard": first, "nextRateCards": [second]})


TERMS = st.builds(Terms, machine_class=st.sampled_from(["standard", "fast", "gone"]), price_ppm=st.integers(0, PPM))
HOURS = st.lists(st.tuples(st.integers(0, CORE_HOUR * 2), st.booleans()), min_size=1, max_size=8)
"""Of each hour: what was used, and whether its report comes in time."""


@given(pools(), st.lists(TERMS, min_size=1, max_size=3), HOURS, st.integers(0, 20))
def test_what_is_charged_is_paid_held_fee_and_dust_whatever_the_card_the_class_and_the_windows(
    spec: SchedulingPoolSpec, terms: list[Terms], hours: list[tuple[int, bool]], first: int
) -> None:
    guests = [guest(first, terms=one, uid=f"pod-{number}") for number, one in enumerate(terms)]
    home, position, waiting = Home(spec, *guests), 0, list[Report]()
    for number, (amount, in_time) in enumerate(hours, start=first):
        waiting += [report(hour(number), position, position + amount, one.uid) for one in guests]
        position += amount
        home.settle(hour(number), *(waiting if in_time else ()))
        waiting = [] if in_time else waiting
    for claim in home.claims:
        header = claim.header
        amounts = [int(line.amount) for line in claim.lines]
        assert sum(amounts) == int(header.charged) == sum(int(one.charged) for one in header.consumers)
        assert int(header.charged) == sum(int(getattr(header, name)) for name in ("paid", "held", "fee", "dust"))
    for line in (line for claim in home.claims for line in claim.lines):
        assert rates.formula(line).amount == int(line.amount)
    findings = Findings()
    audit = PriceAudit(findings, [spec.rate_card, *spec.next_rate_cards])
    for number, claim in enumerate(home.claims):
        audit.claim(number, claim.header, claim.lines)
    assert findings.shown == []


@given(pools(), TERMS, st.lists(st.integers(0, CORE_HOUR), min_size=2, max_size=6))
def test_reports_that_come_late_are_paid_what_punctual_ones_are_but_for_what_rounding_takes(
    spec: SchedulingPoolSpec, terms: Terms, hours: list[int]
) -> None:
    """n windows of one tariff that are accepted at once are rounded once instead of n times."""
    first = 24 - len(hours)
    punctual, late = Home(spec, guest(first, terms=terms)), Home(spec, guest(first, terms=terms))
    position, reports = 0, list[Report]()
    for number, amount in enumerate(hours, start=first):
        reports.append(report(hour(number), position, position := position + amount))
        punctual.settle(hour(number), reports[-1])
        late.settle(hour(number), *(reports if number == 23 else ()))
    assert accepted(punctual) == accepted(late)
    assert paid(punctual) <= paid(late) < paid(punctual) + len(hours)


def accepted(home: Home) -> dict[Key, int]:
    return {key: one.accepted for key, one in home.chain.accounts.items()}


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_the_length_of_windows_changes_no_unit_and_less_than_a_µcredit_per_window_and_line(length: int) -> None:
    spec = pool(RESERVED | {"microCredits": 99_999}, USED | {"microCredits": 12_347})
    whole, parts = Home(spec, guest(0, ended=6)), Home(spec, guest(0, ended=6))
    marks = [0, *(CORE_HOUR * number * 6 // 7 + number for number in range(1, 7))]
    whole.settle(Window(hour(0).start, hour(5).end), report(Window(hour(0).start, hour(5).end), 0, marks[6]))
    for begin in range(0, 6, length):
        window = Window(hour(begin).start, hour(begin + length - 1).end)
        parts.settle(window, report(window, marks[begin], marks[begin + length]))
    assert accepted(whole) == accepted(parts)
    assert paid(parts) <= paid(whole) < paid(parts) + 2 * (6 // length)
