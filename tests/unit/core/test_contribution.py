"""What the contributor reads, and when his finalizer goes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from homefed.api.contribution import ContributionSpec
from homefed.api.offer import Machine
from homefed.core import conditions, contribution
from homefed.core.conditions import FALSE, TRUE, UNKNOWN
from homefed.core.contribution import Inputs
from homefed.core.findings import Finding

NOW = datetime(2026, 1, 31, 10, tzinfo=UTC)
FINE = Finding(TRUE, "Connected", "the hub answers")


def a_machine(digit: str = "a", *, ready: bool = True, cpu: str = "2") -> Machine:
    amounts = {"cpu": cpu, "memory": "1Gi", "ephemeral-storage": "1Gi", "pods": "10"}
    return Machine(id=digit * 64, allocatable=amounts, arch="amd64", ready=ready)


def an_offer(status: str = "True", reason: str = "Accepted", message: str = "welcome") -> dict[str, Any]:
    condition = {"type": "Accepted", "status": status, "reason": reason, "message": message}
    return {"status": {"conditions": [condition]}}


def inputs(**changes: Any) -> Inputs:
    spec = ContributionSpec.model_validate({"poolName": "garden", **changes.pop("spec", {})})
    known: dict[str, Any] = {
        "generation": 3,
        "status": None,
        "selected": ["attic"],
        "lost": {},
        "machines": [a_machine()],
        "connection": FINE,
        "offer": an_offer(),
        "meter": Finding(TRUE, "Reporting", "windows are reported"),
    }
    return Inputs(spec=spec, **{**known, **changes})


def ready(found: Inputs) -> tuple[str, str]:
    condition = conditions.get(contribution.status(found, NOW)["conditions"], "Ready")
    assert condition is not None
    assert condition["observedGeneration"] == found.generation
    return condition["status"], condition["reason"]


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({}, TRUE, "Ready"),
        ({"selected": [], "machines": []}, FALSE, "SelectorMatchesNothing"),
        ({"selected": [], "machines": [], "lost": {"attic": "older"}}, FALSE, "MachineClaimed"),
        ({"machines": []}, FALSE, "ShareTooSmall"),
        ({"machines": [a_machine(ready=False)]}, FALSE, "MachinesNotReady"),
        ({"spec": {"state": "Paused"}}, FALSE, "Paused"),
        ({"spec": {"state": "Draining"}}, FALSE, "Draining"),
        ({"deleting": True}, FALSE, "Draining"),
        ({"invalid": "spec.resources.cpu: wrong"}, FALSE, "InvalidSpec"),
        ({"offer": None}, UNKNOWN, "WaitingForHub"),
        ({"offer": an_offer("False", "UnknownPool", "no such pool")}, FALSE, "UnknownPool"),
        ({"refused": Finding(FALSE, "Forbidden", "no right")}, FALSE, "Forbidden"),
        ({"connection": Finding(FALSE, "HubUnreachable", "no answer")}, FALSE, "HubUnreachable"),
        ({"connection": Finding(FALSE, "TokenExpired", "invite anew")}, FALSE, "TokenExpired"),
        ({"meter": Finding(FALSE, "NoPrometheus", "set a URL")}, TRUE, "Ready"),
    ],
)
def test_ready_says_the_first_thing_that_is_the_matter(changes: dict[str, Any], status: str, reason: str) -> None:
    assert ready(inputs(**changes)) == (status, reason)


def test_every_refusal_names_the_field_to_change() -> None:
    def message(**changes: Any) -> str:
        return contribution.availability(inputs(**changes)).message

    assert "spec.nodeSelector disk=ssd" in message(spec={"nodeSelector": {"disk": "ssd"}}, selected=[], machines=[])
    assert "sharePercent" in message(machines=[])
    assert "spec.state" in message(spec={"state": "Paused"})
    assert "attic (by older)" in message(selected=[], machines=[], lost={"attic": "older"})


def test_an_available_contribution_still_tells_what_it_lost_and_what_comes_to_nothing() -> None:
    found = contribution.availability(
        inputs(lost={"cellar": "older"}, spec={"resources": {"nvidia.com/gpu": {"sharePercent": 50}}})
    )
    assert found.status == TRUE
    assert "cellar (by older)" in found.message
    assert "nothing of nvidia.com/gpu" in found.message


def test_the_sums_are_those_of_all_machines() -> None:
    status = contribution.status(
        inputs(machines=[a_machine(), a_machine("b", cpu="1500m")], guests=2, allocated={"cpu": 700, "pods": 2}), NOW
    )
    assert status["offered"]["cpu"] == "3500m"
    assert status["allocated"] == {"cpu": "700m", "memory": "0", "ephemeral-storage": "0", "pods": "2"}
    assert (status["machines"], status["guests"]) == (2, 2)


def test_nothing_is_written_at_rest() -> None:
    before = contribution.status(inputs(), NOW)
    after = contribution.status(inputs(status=before), NOW + timedelta(hours=1))
    assert not contribution.changed(before, after)
    later = contribution.status(inputs(status=before, guests=1), NOW)
    assert contribution.changed(before, later)


def test_a_skewed_clock_is_a_condition_only_while_it_is_skewed() -> None:
    skewed = contribution.status(inputs(skew=timedelta(seconds=-300)), NOW)
    found = conditions.get(skewed["conditions"], "ClockSkewed")
    assert found is not None
    assert "ahead of" in found["message"]
    drifting = contribution.status(inputs(skew=timedelta(seconds=-301), status=skewed), NOW)
    assert not contribution.changed(skewed, drifting), "the exact figure is no news"
    mended = contribution.status(inputs(status=skewed), NOW)
    assert conditions.get(mended["conditions"], "ClockSkewed") is None


def test_a_deleted_contribution_offers_draining() -> None:
    spec = ContributionSpec(pool_name="garden")
    offer = contribution.offer_spec("uid", spec, [], "A" * 43 + "=", "0.1", True)
    assert offer.state == "Draining"
    assert contribution.offer_spec("uid", spec, [], "A" * 43 + "=", "0.1", False).state == "Active"


def test_class_and_price_travel_in_the_offer() -> None:
    price = {"percentOfCard": 80, "floors": [{"resource": "cpu", "basis": "used", "microCredits": 5}]}
    spec = ContributionSpec.model_validate({"poolName": "attic", "class": "fast", "price": price})
    offer = contribution.offer_spec("uid", spec, [], "A" * 43 + "=", "0.1", False).dump()
    assert (offer["class"], offer["price"]) == ("fast", price)


def test_who_says_nothing_of_price_asks_the_whole_card_and_0_has_to_be_written() -> None:
    spec = ContributionSpec.model_validate({"poolName": "attic", "price": {}})
    assert (spec.machine_class, spec.price.percent_of_card, spec.price.ppm) == ("standard", 100, 1_000_000)
    free = ContributionSpec.model_validate({"poolName": "attic", "price": {"percentOfCard": 0}})
    assert free.price.ppm == 0


@pytest.mark.parametrize(
    ("guests", "offer_gone", "seconds", "released"),
    [(0, True, 1, True), (1, True, 1, False), (0, False, 1, False), (3, False, 300, True), (3, False, 299, False)],
)
def test_the_finalizer_goes_when_all_is_done_or_the_drain_timeout_is_over(
    guests: int, offer_gone: bool, seconds: int, released: bool
) -> None:
    now = NOW + timedelta(seconds=seconds)
    assert contribution.may_release("2026-01-31T10:00:00Z", 300, guests, offer_gone, now) is released


def test_many_names_are_counted_not_listed() -> None:
    found = contribution.availability(inputs(selected=[f"n{i}" for i in range(300)], machines=[]))
    assert "and 295 more" in found.message
    assert len(found.message) < 1024


def test_an_unreadable_answer_of_the_hub_is_unknown() -> None:
    odd = replace(inputs(), offer={"status": {"conditions": [{"type": "Accepted"}]}})
    assert ready(odd) == (UNKNOWN, "Unknown")


def test_the_last_word_after_an_uninstallation_and_the_first_of_the_next_agent() -> None:
    seen = contribution.status(inputs(guests=2, allocated={"cpu": 500}), NOW)
    last = contribution.uninstalled({"metadata": {"generation": 3}, "status": seen}, NOW)
    ready_now = conditions.get(last["conditions"], "Ready") or {}
    assert (ready_now["status"], ready_now["reason"]) == (FALSE, "Uninstalled")
    assert (last["guests"], last["allocated"]["cpu"], last["offered"]) == (0, "0", seen["offered"])
    assert ready(inputs(status=last)) == (TRUE, "Ready")


def test_a_contribution_that_never_had_a_status_gets_a_last_word_too() -> None:
    last = contribution.uninstalled({"metadata": {"generation": 1}}, NOW)
    assert (conditions.get(last["conditions"], "Ready") or {})["reason"] == "Uninstalled"
