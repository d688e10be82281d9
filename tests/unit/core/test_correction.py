"""A claim is taken back and settled again: what is seen now counts, what is gone is carried, nothing is paid twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_claim_building import FEDERATION, HOME, HOUR, PAYEE, POOL, guest, used

from homefed.api.claim_document import Line, ReportSignature
from homefed.api.errors import Refused
from homefed.core import correction
from homefed.core.claim_building import build, reversal
from homefed.core.claim_chain import Chain, Claim
from homefed.core.readings import Report
from homefed.core.rewards import Observation
from homefed.core.settlement import Inputs, Settle, decide
from homefed.core.windows import Window

SECOND = Window(HOUR.end, HOUR.end + 3600)
CORE_HOUR = 3600 * 10**6


def report(window: Window, close: int, since: int = 0) -> Report:
    line = used(1, "cpu", close - since).model_copy(update={"open": str(since), "close": str(close)})
    signature = ReportSignature(digest=f"{window.end:064x}", keyid="SHA256:00", sig="AA==")
    return Report(window, (line,), (), (signature,))


FIRST_REPORT, SECOND_REPORT = report(HOUR, 500), report(SECOND, 900, 500)


class Story:
    """One guest, settled hour by hour."""

    def __init__(self) -> None:
        self.guests: list[Observation] = [guest(1)]
        self.reports = [FIRST_REPORT, SECOND_REPORT]
        self.pool, self.chain = POOL, Chain()
        self.claims: list[Claim] = []

    def inputs(self) -> Inputs:
        return Inputs(FEDERATION, HOME, self.pool, self.guests, self.reports, self.chain)

    def enter(self, claim: Claim, taken_back: Claim | None = None) -> Claim:
        self.chain = self.chain.after(claim, taken_back)
        self.claims.append(claim)
        return claim

    def hour(self, window: Window) -> Claim:
        step = decide(self.inputs(), window.end + 1000)
        assert isinstance(step, Settle)
        assert step.window == window
        return self.enter(build(PAYEE, self.chain, window, step.lines, step.reports, b"secret"))

    def correct(self, claim: Claim, how: str = correction.RESETTLE) -> Claim:
        taken = self.enter(reversal(claim.header, self.chain), claim)
        lines, reports = correction.again(self.inputs(), claim, how)
        revision = taken.header.revision + 1
        return self.enter(build(PAYEE, self.chain, claim.window, lines, reports, b"secret", revision=revision))


def accepted(*claims: Claim) -> dict[tuple[str, str], int]:
    """Units of each resource and basis in these claims."""
    found: dict[tuple[str, str], int] = {}
    for claim in claims:
        for line in claim.lines:
            key = line.resource, line.basis
            found[key] = found.get(key, 0) + int(line.accepted)
    return found


@pytest.mark.parametrize("corrected", [0, 1])
def test_what_did_not_change_is_settled_as_before_whichever_claim_it_is(corrected: int) -> None:
    story = Story()
    claims = [story.hour(HOUR), story.hour(SECOND)]
    again = story.correct(claims[corrected])
    assert accepted(again) == accepted(claims[corrected])
    assert again.header.charged == claims[corrected].header.charged
    assert again.reports == claims[corrected].reports
    assert (again.window, again.header.revision) == (claims[corrected].window, 2)
    assert decide(story.inputs(), SECOND.end + 1000) is None, "nothing is left over"


def test_a_guest_that_ran_shorter_than_was_thought_is_paid_for_what_it_ran() -> None:
    story = Story()
    first = story.hour(HOUR)
    story.guests = [replace(guest(1), ended=HOUR.start_ms + 601_000, settled=True)]
    again = story.correct(first)
    assert accepted(again)["cpu", "reserved"] == 500 * 600_000
    assert accepted(first)["cpu", "reserved"] > 500 * 600_000


def test_a_claim_can_be_corrected_again() -> None:
    story = Story()
    first = story.hour(HOUR)
    again = story.correct(story.correct(first))
    assert (again.header.revision, accepted(again)) == (4, accepted(first))


@pytest.mark.parametrize("corrected", [0, 1])
def test_what_is_gone_stands_as_it_stood(corrected: int) -> None:
    story = Story()
    claims = [story.hour(HOUR), story.hour(SECOND)]
    story.guests, story.reports = [], []
    again = story.correct(claims[corrected])
    assert accepted(again) == accepted(claims[corrected])
    assert all("Carried" in line.codes for line in again.lines)


def test_usage_whose_report_is_gone_is_carried_and_what_was_reserved_is_computed() -> None:
    story = Story()
    first = story.hour(HOUR)
    story.reports = []
    again = story.correct(first)
    assert accepted(again) == accepted(first)
    assert {line.basis for line in again.lines if "Carried" in line.codes} == {"used"}
    assert used_close(again) == used_close(first) == "500"


def used_close(claim: Claim) -> str:
    (line,) = [one for one in claim.lines if one.resource == "cpu" and one.basis == "used"]
    assert line.reading is not None
    return line.reading.close


def test_the_next_window_goes_on_where_the_corrected_claims_end() -> None:
    story, plain = Story(), Story()
    first = story.hour(HOUR)
    story.correct(first)
    plain.hour(HOUR)
    assert accepted(story.hour(SECOND)) == accepted(plain.hour(SECOND))


@pytest.mark.parametrize("corrected", [0, 1])
def test_what_is_forfeited_is_paid_by_nobody_and_accepted_by_no_later_claim(corrected: int) -> None:
    story = Story()
    claims = [story.hour(HOUR), story.hour(SECOND)]
    again = story.correct(claims[corrected], correction.FORFEIT)
    assert (again.header.charged, accepted(again)) == ("0", accepted(claims[corrected]))
    assert all("Forfeited" in line.codes for line in again.lines)
    assert decide(story.inputs(), SECOND.end + 1000) is None
    assert story.chain.cumulative_paid == int(claims[1 - corrected].header.paid)


def test_every_pod_of_the_claim_has_a_line_if_only_of_nothing() -> None:
    story = Story()
    first = story.hour(HOUR)
    story.guests = [replace(guest(1), running=None)]
    story.reports = []
    again = story.correct(first)
    assert {(one.resource, one.basis) for one in again.lines} == {(one.resource, one.basis) for one in first.lines}


def test_a_reversal_and_a_pending_claim_are_not_taken_back() -> None:
    story = Story()
    first = story.hour(HOUR)
    taken = story.enter(reversal(first.header, story.chain), first)
    with pytest.raises(Refused, match="a reversal itself"):
        correction.check(taken.header)
    with pytest.raises(Refused, match="posted or voided first"):
        correction.check(first.header.model_copy(update={"phase": "pending"}))
    correction.check(first.header)


def test_two_lines_of_one_key_are_carried_one_after_the_other() -> None:
    """Units that came late, at another tariff, are a line of their own."""
    story = Story()
    step: Any = decide(story.inputs(), HOUR.end + 1000)
    (line,) = [one for one in step.lines if one.resource == "cpu" and one.basis == "reserved"]
    half: dict[str, Any] = {"accepted": str(int(line.accepted) // 2), "amount": "0"}
    rest: Line = line.model_copy(update=half | {"accepted_before": half["accepted"]})
    first = story.enter(build(PAYEE, Chain(), HOUR, [line.model_copy(update=half), rest], [], b"secret"))
    story.guests = []
    again = story.correct(first)
    assert [one.accepted_before for one in again.lines] == ["0", half["accepted"]]
