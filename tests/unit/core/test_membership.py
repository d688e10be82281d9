"""Who belongs, with what key, and which offers a pool takes."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from homefed.api import dsse
from homefed.api.errors import Invalid
from homefed.api.home import HomeSpec, PinnedKey
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import conditions, membership
from homefed.core.key_rotation import fingerprint_of
from homefed.core.membership import Member, Offered, Verdict

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
FIRST, SECOND = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
Json = dict[str, Any]

CARD = {"version": "1", "validFrom": "2026-01-01T00:00:00Z", "prices": []}
POOL = SchedulingPoolSpec.model_validate({"rateCard": CARD})


def who(key: str | None = FIRST, *, deleting: bool = False, **spec: Any) -> Member:
    pinned = pin(key) if key else None
    return Member("anna", "uid-1", 3, HomeSpec.model_validate(spec), pinned, deleting)


def pin(key: str) -> PinnedKey:
    fingerprint = dsse.fingerprint(base64.b64decode(key))
    return PinnedKey(public_key=key, fingerprint=fingerprint, pinned_at="2026-01-31T12:00:00Z")


def offer(
    name: str = "attic", key: str = FIRST, *machines: str, created: str = "2026-01-01T00:00:00Z", **spec: Any
) -> Offered:
    listed = [{"id": machine * 64, "allocatable": {"cpu": "1"}, "arch": "amd64"} for machine in machines]
    given = {"contributionUid": "c", "poolName": "garden", "publicKey": key, "machines": listed} | spec
    metadata = {"name": name, "uid": f"uid-{name}", "generation": 1, "creationTimestamp": created}
    return membership.offered({"metadata": metadata, "spec": given})


def test_an_offer_of_a_member_into_a_known_pool_is_accepted() -> None:
    verdict = membership.judge_offer(offer(), who(), pin(FIRST), POOL, NOON)
    assert verdict == Verdict(True, "Accepted", "Accepted into pool garden.")


@pytest.mark.parametrize(
    ("given", "member", "pool", "reason", "names"),
    [
        (offer(), who(), None, "UnknownPool", "poolName"),
        (offer(), who(accepted=False), POOL, "HomeNotAccepted", "spec.accepted"),
        (offer(), who(deleting=True), POOL, "HomeLeaving", "anna"),
        (offer(), who(pools=["orchard"]), POOL, "PoolNotAllowed", "orchard"),
        (offer(key=SECOND), who(), POOL, "KeyMismatch", "trustedFingerprint"),
        (offer(publicKey="no key"), who(), POOL, "InvalidField", "spec.publicKey"),
        (offer(name="x" * 64), who(), POOL, "InvalidField", "metadata.name"),
    ],
)
def test_a_refused_offer_names_what_to_change(
    given: Offered, member: Member, pool: SchedulingPoolSpec | None, reason: str, names: str
) -> None:
    verdict = membership.judge_offer(given, member, member.key, pool, NOON)
    assert (verdict.holds, verdict.reason) == (False, reason)
    assert names in verdict.message


def test_the_first_key_is_pinned_and_a_later_one_changes_nothing() -> None:
    assert membership.pinned_key(who(None), [offer()], NOON) == pin(FIRST)
    assert membership.pinned_key(who(FIRST), [offer(key=SECOND)], NOON) == pin(FIRST)
    assert membership.pinned_key(who(None), [], NOON) is None


def test_of_two_offers_the_older_ones_key_is_pinned() -> None:
    younger = offer("b", SECOND, created="2026-01-02T00:00:00Z")
    assert membership.pinned_key(who(None), [younger, offer("c")], NOON) == pin(FIRST)


def test_the_organisers_fingerprint_pins_anew_and_refuses_the_old_key() -> None:
    trusting = who(FIRST, trustedFingerprint=pin(SECOND).fingerprint)
    assert membership.pinned_key(trusting, [offer()], NOON) == pin(FIRST)
    assert membership.judge_offer(offer(), trusting, pin(FIRST), POOL, NOON).reason == "KeyMismatch"
    assert membership.pinned_key(trusting, [offer(), offer("b", SECOND)], NOON) == pin(SECOND)


def test_what_is_no_key_is_never_pinned() -> None:
    short = base64.b64encode(b"short").decode()
    assert fingerprint_of(short) == ""
    assert fingerprint_of("Ω") == ""


def test_a_machine_that_two_offers_claim_goes_to_the_older_one() -> None:
    offers = membership.in_order([offer("b", FIRST, "1", "2", created="2026-01-02T00:00:00Z"), offer("c", FIRST, "1")])
    shared = membership.machines_of(offers)
    assert {name: [machine.id[0] for machine in machines] for name, machines in shared.items()} == {
        "b": ["2"],
        "c": ["1"],
    }


@pytest.mark.parametrize(
    ("spec", "member", "reason"),
    [
        ({}, who(), ""),
        ({"state": "Paused"}, who(), "Paused"),
        ({"state": "Draining"}, who(), "Draining"),
        ({"state": "Paused"}, who(suspended=True), "HomeSuspended"),
    ],
)
def test_a_virtual_node_is_cordoned_for_a_reason(spec: Json, member: Member, reason: str) -> None:
    found = offer("attic", FIRST, "1", **spec).spec
    assert found is not None
    assert membership.cordon_reason(found.machines[0], found, member) == reason
    unready = found.machines[0].model_copy(update={"ready": False})
    assert membership.cordon_reason(unready, found, member) == (reason or "MachineNotReady")


@pytest.mark.parametrize(
    ("spec", "member", "machines", "ready", "reason"),
    [
        ({}, who(), 2, 1, "Available"),
        ({}, who(), 2, 0, "NoReadyMachine"),
        ({}, who(), 0, 0, "NoMachines"),
        ({"state": "Paused"}, who(), 2, 2, "Paused"),
        ({}, who(suspended=True), 2, 2, "HomeSuspended"),
    ],
)
def test_what_an_offer_gives_now_has_a_reason(
    spec: Json, member: Member, machines: int, ready: int, reason: str
) -> None:
    found = offer(**spec).spec
    assert found is not None
    verdict = membership.availability(found, member, machines, ready)
    assert (verdict.reason, verdict.holds) == (reason, reason == "Available")


def test_an_offer_is_ready_when_it_is_accepted_and_available() -> None:
    accepted, available = Verdict(True, "Accepted", "a"), Verdict(True, "Available", "1 of 1")
    after = membership.offer_conditions(None, offer(), accepted, available, NOON)
    assert conditions.is_true(after, "Ready")
    refused = membership.offer_conditions(
        after, offer(), replace(accepted, holds=False, reason="UnknownPool"), available, NOON
    )
    assert conditions.get(refused, "Ready")["reason"] == "UnknownPool"  # type: ignore[index]


def test_a_home_that_never_spoke_is_waited_for() -> None:
    after = membership.home_conditions(None, who(None), Verdict(True, "Created", ""), None, None, NOON)
    ready = conditions.get(after, "Ready")
    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("Unknown", "WaitingForAgent")


def test_a_home_with_key_and_leases_is_ready_and_one_not_accepted_is_not() -> None:
    pinned, online = membership.key_verdict(who(), pin(FIRST), [offer()], NOON), membership.online_verdict(2, 1)
    mailbox = Verdict(True, "Created", "")
    assert conditions.is_true(membership.home_conditions(None, who(), mailbox, pinned, online, NOON), "Ready")
    refused = membership.home_conditions(None, who(accepted=False), mailbox, pinned, online, NOON)
    assert conditions.get(refused, "Ready")["reason"] == "NotAccepted"  # type: ignore[index]


def test_the_home_shows_a_key_that_does_not_match_and_a_lost_link() -> None:
    wrong = membership.key_verdict(who(), pin(FIRST), [offer(), offer("b", SECOND)], NOON)
    assert wrong is not None
    assert wrong.reason == "KeyMismatch"
    offline = membership.online_verdict(2, 0)
    assert offline is not None
    assert offline.reason == "NoLease"
    assert membership.online_verdict(0, 0) is None


def test_a_home_is_read_with_its_pinned_key_and_a_wrong_spec_names_the_field() -> None:
    home: Json = {
        "metadata": {"name": "anna", "uid": "u", "deletionTimestamp": "x"},
        "status": {"key": pin(FIRST).dump()},
    }
    found = membership.member(home)
    assert (found.key, found.deleting, found.mailbox) == (pin(FIRST), True, "homefed-home-anna")
    with pytest.raises(Invalid, match=r"spec\.trustedFingerprint"):
        membership.member(home | {"spec": {"trustedFingerprint": "mine"}})


PRICED = {"resource": "cpu", "basis": "used", "microCredits": 20_000, "per": "core-hour", "minMicroCredits": 6_000}
FAST = PRICED | {"class": "fast", "microCredits": 30_000}
CHEAPER = {"version": "2", "validFrom": "2026-02-01T00:00:00Z", "prices": [PRICED | {"microCredits": 15_000}, FAST]}
MEADOW = SchedulingPoolSpec.model_validate({"rateCard": CARD | {"prices": [PRICED, FAST]}, "nextRateCards": [CHEAPER]})


def floor(amount: int) -> Json:
    return {"floors": [{"resource": "cpu", "basis": "used", "microCredits": amount}]}


@pytest.mark.parametrize(
    ("given", "member", "reason"),
    [
        (offer(price=floor(20_001)), who(), "PriceBelowFloor"),
        (offer(price={"percentOfCard": 0}), who(), "PriceBelowMinimum"),
        (offer(**{"class": "fast"}), who(), "ClassNotGranted"),
        (offer(**{"class": "slow"}), who(classes=["slow"]), "UnknownClass"),
    ],
)
def test_machines_whose_price_does_not_suit_both_sides_stay_out(given: Offered, member: Member, reason: str) -> None:
    verdict = membership.judge_offer(given, member, member.key, MEADOW, NOON)
    assert (verdict.holds, verdict.reason) == (False, reason)
    assert "spec." in verdict.message


def test_a_class_that_the_organiser_granted_is_taken() -> None:
    member = who(classes=["fast"])
    assert membership.judge_offer(offer(**{"class": "fast"}), member, member.key, MEADOW, NOON).holds


def test_a_card_to_come_that_lies_below_the_floor_is_told_before_it_holds() -> None:
    given, later = offer(price=floor(18_000)), NOON.replace(month=3)
    today = membership.judge_offer(given, who(), pin(FIRST), MEADOW, NOON)
    assert today.holds
    assert "From 2026-02-01T00:00:00Z on not any more: spec.price.floors cpu used 18000" in today.message
    verdict = membership.judge_offer(given, who(), pin(FIRST), MEADOW, later)
    assert (verdict.holds, verdict.reason) == (False, "PriceBelowFloor")
