"""Which window is settled when, how claims continue each other, and what may be forgotten."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import dsse
from homefed.api.claim_document import Line, ReportSignature
from homefed.api.errors import Incident, Invalid
from homefed.api.rate_card import Price, RateCard
from homefed.api.report_document import UNITS, ReportLine
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.api.scheduling_pool import Settlement as Rules
from homefed.core import claim_building, claim_chain, readings, retention, settlement, windows
from homefed.core.claim_chain import Chain, Claim, Payee
from homefed.core.metering import Measured, Settings
from homefed.core.readings import Origin, Report
from homefed.core.retention import Kept
from homefed.core.rewards import Account, Key, Observation
from homefed.core.settlement import Inputs, Settle, Wait, decide
from homefed.core.windows import Window

T0 = 1_767_225_600
UID = "11111111-2222-3333-4444-555555555555"
HOME = "99999999-2222-3333-4444-555555555555"
PAYEE = Payee("fed", "pool", HOME)
SECRET = b"s" * 32
HUB_KEY, HOME_KEY = Ed25519PrivateKey.from_private_bytes(b"h" * 32), Ed25519PrivateKey.from_private_bytes(b"a" * 32)

CARD = RateCard(
    version="1",
    valid_from="2026-01-01T00:00:00Z",
    prices=[
        Price(resource="cpu", basis="reserved", micro_credits=1_000_000, per="core-hour"),
        Price(resource="cpu", basis="used", micro_credits=2_000_000, per="core-hour"),
    ],
)
POOL = SchedulingPoolSpec(rate_card=CARD, settlement=Rules(window_seconds=3600, grace_seconds=60, lateness_seconds=900))


def keys(key: Ed25519PrivateKey) -> dict[str, bytes]:
    public = key.public_key().public_bytes_raw()
    return {dsse.fingerprint(public): public}


def pod(uid: str = UID, *, running: int = 0, ended: int | None = None) -> Observation:
    end = None if ended is None else (T0 + ended) * 1000
    return Observation(uid, "ns-1", {"cpu": 1000}, T0 * 1000, (T0 + running) * 1000, end)


def cpu_line(opened: int, closed: int, uid: str = UID) -> ReportLine:
    return ReportLine(
        guest_pod=uid,
        resource="cpu",
        unit=UNITS["cpu"],
        open=str(opened),
        close=str(closed),
        amount=str(closed - opened),
        samples=1,
        expected=1,
        gaps=0,
        resets=0,
        coverage_ppm=1_000_000,
        flags=[],
    )


def report(hour: int, opened: int, closed: int, uid: str = UID) -> Report:
    """Of the hour that ends `hour` hours after T0."""
    signature = ReportSignature(digest=f"{hour:064x}", keyid="SHA256:00", sig="AA==")
    window = Window(T0 + 3600 * (hour - 1), T0 + 3600 * hour)
    return Report(window, (cpu_line(opened, closed, uid),), (), (signature,))


def inputs(**changes: Any) -> Inputs:
    return replace(Inputs("fed", HOME, POOL, [pod()], [], Chain()), **changes)


def settle(found: Inputs, now: int) -> tuple[Settle, Claim]:
    step = decide(found, now)
    assert isinstance(step, Settle)
    return step, claim_building.build(PAYEE, found.chain, step.window, step.lines, step.reports, SECRET)


def total(lines: tuple[Line, ...], basis: str) -> int:
    return sum(int(line.accepted) for line in lines if line.basis == basis)


def test_a_window_is_settled_once_its_report_is_there() -> None:
    step, _ = settle(inputs(reports=[report(1, 0, 900_000_000)]), T0 + 3660)
    assert step.window == Window(T0, T0 + 3600)
    assert (total(step.lines, "reserved"), total(step.lines, "used")) == (3_600_000_000, 900_000_000)
    assert not step.late


def test_within_the_grace_nothing_is_decided() -> None:
    assert decide(inputs(reports=[report(1, 0, 1)]), T0 + 3659) is None


def test_a_missing_report_is_waited_for_and_named() -> None:
    step = decide(inputs(), T0 + 3700)
    assert isinstance(step, Wait)
    assert (step.reason, step.until) == ("WaitingForData", T0 + 3600 + 900)
    assert "2026-01-01T00:00:00Z to 2026-01-01T01:00:00Z" in step.message


def test_after_the_lateness_limit_reserved_lines_are_settled_without_the_report() -> None:
    step, _ = settle(inputs(), T0 + 4500)
    assert (total(step.lines, "reserved"), total(step.lines, "used")) == (3_600_000_000, 0)
    assert step.late
    assert any("NoReport" in line.codes for line in step.lines)


def test_usage_that_was_late_enters_the_next_claim_and_nothing_is_counted_twice() -> None:
    first = inputs()
    _, claim = settle(first, T0 + 4500)
    late = inputs(chain=Chain().after(claim), reports=[report(1, 0, 900), report(2, 900, 2000)])
    step, second = settle(late, T0 + 7300)
    assert total(step.lines, "used") == 2000
    after = inputs(chain=late.chain.after(second), reports=late.reports)
    assert decide(after, T0 + 7300) is None


def test_a_pod_that_ended_is_paid_for_usage_that_is_reported_later() -> None:
    ended = pod(ended=1800)
    _, first = settle(inputs(guests=[ended]), T0 + 4500)
    late = inputs(guests=[ended], chain=Chain().after(first), reports=[report(1, 0, 1_000_000)])
    assert decide(late, T0 + 4600) is None
    step, _ = settle(late, T0 + 7300)
    assert (total(step.lines, "reserved"), total(step.lines, "used")) == (0, 1_000_000)


def test_windows_are_settled_in_order_after_an_outage() -> None:
    found = inputs(reports=[report(hour, hour * 10, hour * 10 + 10) for hour in (1, 2, 3)])
    ends = []
    for _ in range(3):
        step, claim = settle(found, T0 + 4 * 3600)
        ends.append((step.window.end - T0) // 3600)
        found = replace(found, chain=found.chain.after(claim))
    assert ends == [1, 2, 3]
    assert decide(found, T0 + 4 * 3600) is None
    assert isinstance(decide(found, T0 + 4 * 3600 + 60), Wait)


def test_nothing_used_and_nothing_reserved_is_no_claim() -> None:
    assert decide(inputs(guests=[]), T0 + 10_000) is None
    settled = replace(pod(ended=1800), settled=True)
    assert decide(inputs(guests=[settled], chain=Chain(end=T0 + 3600)), T0 + 90_000) is None


def test_what_the_hub_saw_only_after_its_window_was_settled_enters_the_next_claim() -> None:
    """Hub or agent were away while a guest ran, and another guest's claim closed that window."""
    other = pod("77777777-2222-3333-4444-555555555555", ended=3000)
    _, first = settle(inputs(guests=[other]), T0 + 4500)
    seen = inputs(guests=[other, pod(running=600, ended=1800)], chain=Chain().after(first))
    guest = seen.guests[1]
    assert settlement.owed(seen, guest, T0 + 3600)
    assert not settlement.owed(seen, other, T0 + 3600)
    assert decide(seen, T0 + 7200) is None
    step, second = settle(seen, T0 + 7260)
    assert [(line.guest_pod, line.accepted) for line in step.lines] == [(UID, str(1_200_000_000))]
    after = replace(seen, chain=seen.chain.after(second))
    assert not settlement.owed(after, guest, T0 + 7200)
    assert decide(after, T0 + 90_000) is None


def test_a_price_that_is_added_later_does_not_reach_guests_that_are_settled() -> None:
    price = Price(resource="memory", basis="reserved", micro_credits=1, per="GiB-hour")
    card = CARD.model_copy(update={"prices": [*CARD.prices, price]})
    dearer = POOL.model_copy(update={"rate_card": card})
    gone = replace(pod(ended=1800), requests={"memory": 2**30}, settled=True)
    assert decide(inputs(guests=[gone], pool=dearer, chain=Chain(end=T0 + 3600)), T0 + 90_000) is None
    assert not settlement.owed(inputs(guests=[gone], pool=dearer), gone, T0 + 3600)


def test_a_rate_card_that_is_not_valid_yet_holds_settlement_back_and_says_so() -> None:
    later = POOL.model_copy(update={"rate_card": CARD.model_copy(update={"valid_from": "2026-02-01T00:00:00Z"})})
    step = decide(inputs(pool=later), T0 + 10_000)
    assert isinstance(step, Wait)
    assert step.reason == "RateCardNotYetValid"


def test_pods_that_are_not_this_homes_are_never_paid_and_named() -> None:
    other = "77777777-2222-3333-4444-555555555555"
    step, _ = settle(inputs(reports=[report(1, 0, 5, other)]), T0 + 3700)
    assert step.strangers == (other,)
    assert {line.guest_pod for line in step.lines} == {UID}


def test_a_killed_hub_makes_the_same_bytes_again() -> None:
    found = inputs(reports=[report(1, 0, 5)])
    assert settle(found, T0 + 3700)[1] == settle(found, T0 + 3799)[1]


def test_claims_continue_each_other_and_what_each_pod_was_paid_for() -> None:
    chain = Chain()
    for hour in (1, 2, 3):
        found = inputs(chain=chain, reports=[report(hour, 1000 * (hour - 1), 1000 * hour)])
        _, claim = settle(found, T0 + 3600 * hour + 100)
        parts, header = claim_chain.objects(claim, "homefed-home-a", HUB_KEY)
        chain = chain.after(claim_chain.read(header, parts, keys(HUB_KEY)))
    assert chain.sequence == 3
    assert chain.accounts[Key(UID, "cpu", "used")] == Account(3000, 3000, 3, (T0 + 3 * 3600 - 30) * 1000)


def test_lines_are_cut_into_parts_of_a_thousand() -> None:
    guests = [pod(f"{number:08x}-2222-3333-4444-555555555555") for number in range(1200)]
    _, claim = settle(inputs(guests=guests), T0 + 5000)
    assert [len(part.lines) for part in claim.parts] == [1000, 1000, 400]
    assert claim.header.line_count == 2400
    assert len({part.salt for part in claim.parts}) == 3


def test_an_altered_part_is_an_incident() -> None:
    _, claim = settle(inputs(), T0 + 5000)
    parts, header = claim_chain.objects(claim, "m", HUB_KEY)
    with pytest.raises(Incident, match="missing or altered"):
        claim_chain.read(header, [], keys(HUB_KEY))
    with pytest.raises(Incident, match="not registered"):
        claim_chain.read(header, parts, keys(HOME_KEY))


def test_a_claim_that_does_not_follow_is_an_incident() -> None:
    _, claim = settle(inputs(), T0 + 5000)
    with pytest.raises(Incident, match="does not follow"):
        Chain(sequence=5, head="a" * 64).after(claim)


ORIGIN = Origin("fed", "pool", HOME)
HOUR = Window(T0, T0 + 3600)


def documents(count: int) -> list[dict[str, Any]]:
    lines = [cpu_line(0, 5, f"{number:08x}-2222-3333-4444-555555555555") for number in range(count)]
    found = readings.compose(ORIGIN, HOUR, Measured(lines, []), Settings(15_000), "e" * 64)
    return [readings.report_object(document, "m", HOME_KEY) for document in found]


def test_a_report_counts_only_whole() -> None:
    objects = documents(2500)
    assert len(objects) > 2
    parts = [readings.open_part(obj, ORIGIN, keys(HOME_KEY)) for obj in objects]
    (whole,) = readings.assemble(parts)
    assert (len(whole.lines), len(whole.signatures)) == (2500, len(objects))
    assert readings.assemble(parts[1:]) == []
    assert all(len(obj["spec"]["envelope"]) < 1_000_000 for obj in objects)


def test_a_report_is_believed_only_under_the_homes_own_key() -> None:
    with pytest.raises(Invalid, match="not registered"):
        readings.open_part(documents(1)[0], ORIGIN, keys(HUB_KEY))


@pytest.mark.parametrize(
    ("origin", "spec", "named"),
    [
        (Origin("fed", "pool", UID), {}, "home is"),
        (Origin("other", "pool", HOME), {}, "federation is"),
        (ORIGIN, {"windowEnd": "2026-01-01T02:00:00Z"}, "windowEnd is"),
        (ORIGIN, {"poolName": "gold"}, "poolName is"),
        (ORIGIN, {"part": 2}, "part is"),
    ],
)
def test_a_report_about_something_else_is_refused(origin: Origin, spec: dict[str, Any], named: str) -> None:
    (obj,) = documents(1)
    with pytest.raises(Invalid, match=named):
        readings.open_part({**obj, "spec": {**obj["spec"], **spec}}, origin, keys(HOME_KEY))


def test_a_report_with_a_field_that_the_schema_does_not_name_is_refused() -> None:
    (obj,) = documents(1)
    document = dsse.verify(dsse.decode(obj["spec"]["envelope"]), dsse.REPORT_TYPE, keys(HOME_KEY))
    envelope = dsse.sign({**document, "hostName": "attic"}, dsse.REPORT_TYPE, HOME_KEY).encode()
    with pytest.raises(Invalid, match="hostName"):
        readings.open_part({**obj, "spec": {**obj["spec"], "envelope": envelope}}, ORIGIN, keys(HOME_KEY))


def test_a_claim_stays_while_it_holds_the_newest_line_of_a_guest_that_exists() -> None:
    chain = Chain(sequence=9, accounts={Key(UID, "cpu", "used"): Account(5, 5, 3)})
    kept = [Kept(f"c{number}", number, 1, T0) for number in (3, 4, 9)]
    week = T0 + 7 * 86_400
    assert [one.sequence for one in retention.old_claims(kept, chain, {UID}, week)] == [4]
    assert [one.sequence for one in retention.old_claims(kept, chain, set(), week)] == [3, 4]
    assert retention.old_claims(kept, chain, set(), week - 1) == []


def test_a_claim_without_receipt_is_never_forgotten() -> None:
    assert retention.old_claims([Kept("c1", 1, 1, None)], Chain(sequence=9), set(), T0 + 10**9) == []


def test_the_newest_report_stays_however_old() -> None:
    named = [("a-p1", T0), ("a-p2", T0), ("b", T0 + 3600)]
    assert retention.old_reports(named, T0 + 10**7) == ["a-p1", "a-p2"]
    assert retention.old_reports(named[:2], T0 + 10**7) == []


def test_a_guest_is_settled_with_the_window_in_which_it_ended() -> None:
    found = retention.settled_guests([pod(ended=3600), pod("b", ended=3601), pod("c")], T0 + 3600, 3600)
    assert found == {UID: Window(T0, T0 + 3600)}
    assert retention.settled_through(T0 + 7259, length=3600, grace_seconds=60) == T0 + 3600
    assert windows.text(T0) == "2026-01-01T00:00:00Z"
