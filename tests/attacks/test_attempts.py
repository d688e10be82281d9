"""What dishonest homes try is paid at most 1 % beyond the true work; what is not held stands in docs/attacks.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from attacks import attempts
from attacks.attempts import ATTEMPTS, BUSY, CALM, WithinTheRequest
from attacks.federation import HOME, Home, Outcome, run
from attacks.table import HOURS, LIMIT_PPM, markdown, outcomes, text
from homefed.api import names
from homefed.core.ledger import MICRO_CREDIT
from homefed.core.ledger_state import Holding
from testbed.claims import FEDERATION

DOCUMENT = Path(__file__).parents[2] / "docs" / "attacks.md"


@pytest.fixture(scope="module")
def found() -> dict[type[Home], Outcome]:
    return outcomes()


def test_an_honest_home_is_paid_what_was_used(found: dict[type[Home], Outcome]) -> None:
    outcome = found[Home]
    unread_s = 23  # from the last sample to the end of the last window, which is in the next claim
    assert outcome.true - outcome.accepted == round((BUSY.cores + CALM.cores) * 1e6 * unread_s)
    assert set(outcome.hub.codes) == {"Estimated"}


@pytest.mark.parametrize("attempt", [one for one in ATTEMPTS if one.held], ids=lambda one: one.__name__)
def test_an_attempt_is_not_paid_beyond_the_true_work(attempt: type[Home], found: dict[type[Home], Outcome]) -> None:
    outcome = found[attempt]
    honest = found[Home]
    assert (outcome.claimed, outcome.hub.codes) != (honest.claimed, honest.hub.codes), "the attempt altered nothing"
    assert outcome.over_ppm <= LIMIT_PPM


def test_what_only_challenges_can_find_is_paid_up_to_the_request(found: dict[type[Home], Outcome]) -> None:
    """It is said, not hidden: a guest that runs and of which more is reported than it used, below its request."""
    assert [attempt for attempt in ATTEMPTS if not attempt.held] == [WithinTheRequest]
    outcome = found[WithinTheRequest]
    assert outcome.over_ppm > LIMIT_PPM
    assert outcome.accepted <= sum(work.reserved(HOURS * 3600) for work in (BUSY, CALM))


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda one: one.__name__)
def test_the_ledger_holds_what_the_lines_say(attempt: type[Home], found: dict[type[Home], Outcome]) -> None:
    hub = found[attempt].hub
    balances = hub.ledger.balances()
    paid = sum(int(line.amount) for line in hub.lines)
    assert balances.get(Holding(names.contributor_account(FEDERATION, HOME), MICRO_CREDIT), 0) == paid
    assert sum(amount for (_, unit), amount in balances.items() if unit == MICRO_CREDIT) == 0


REFUSED = (
    *(attempts.InflatedAboveTheRequest, attempts.InflatedLater, attempts.RoomClaimedAtOnce),
    *(attempts.RecordingRuleBeside, attempts.RecordingRuleRate, attempts.ForgedId, attempts.ForgedByTheAgent),
    *(attempts.WithheldThenAll, attempts.ReportedAnew),
)
"""Those that leave something over, for which there could be room below the bound later."""


@pytest.mark.parametrize("attempt", REFUSED, ids=lambda one: one.__name__)
def test_waiting_does_not_make_it_payable(attempt: type[Home]) -> None:
    """What was made up in six hours is not paid in the twelve after them either."""
    assert run(attempt((BUSY, CALM)), hours=18).over_ppm <= LIMIT_PPM


def test_the_table_in_the_document_is_the_one_that_was_run(found: dict[type[Home], Outcome]) -> None:
    assert markdown(found) in DOCUMENT.read_text(encoding="utf-8")
    assert "not held" in text(found)
