"""A Home leaves in order: guests, settlement, receipts, removal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import dsse
from homefed.api.scheduling_pool import Settlement
from homefed.core import leaving
from homefed.core.leaving import Departure
from homefed.core.times import to_rfc3339

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
POOLS = {"garden": Settlement(window_seconds=3600, grace_seconds=60, lateness_seconds=900)}
Json = dict[str, Any]


def guest(phase: str, *, ran: datetime | None = None, ended: datetime | None = None, stop: bool = False) -> Json:
    observed = {"boundAt": "2026-01-31T10:00:00Z"}
    observed |= {"runningFrom": to_rfc3339(ran)} if ran else {}
    observed |= {"endedAt": to_rfc3339(ended)} if ended else {}
    spec: Json = {"poolName": "garden", "observed": observed, "pod": {"spec": {"terminationGracePeriodSeconds": 900}}}
    spec |= {"stop": {"gracePeriodSeconds": 1}} if stop else {}
    return {"metadata": {"name": f"guest-{phase}"}, "spec": spec, "status": {"phase": phase}}


def claim(end: datetime, *, receipted: bool, part: str = "Header") -> Json:
    status = {"receipt": "c2sp.org/tlog-proof@v1"} if receipted else {}
    spec = {"poolName": "garden", "part": part, "windowEnd": to_rfc3339(end)}
    return {"metadata": {"name": f"claim-{part.lower()}"}, "spec": spec, "status": status}


def decide(
    guests: list[Json],
    claims: list[Json],
    after: timedelta = MINUTE,
    *,
    force: bool = False,
    withheld: bool = False,
) -> Departure:
    return leaving.decide(NOON, guests, claims, POOLS, NOON + after, force=force, withheld=withheld)


def holding(amount: str, sequence: int = 1, pool: str = "garden") -> Json:
    """A receipted claim after which so much is held back."""
    shares = [{"due": "2026-11-01T00:00:00Z", "amount": amount}] if amount else []
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    found = claim(NOON, receipted=True)
    found["spec"] |= {"envelope": dsse.sign({"heldBack": shares}, dsse.CLAIM_TYPE, key).encode()}
    found["spec"] |= {"sequence": sequence, "poolName": pool}
    return found


def test_running_guests_are_told_to_stop_once() -> None:
    step = decide([guest("Running"), guest("Pending", stop=True)], [])
    assert [stopped["metadata"]["name"] for stopped in step.stop] == ["guest-Running"]
    assert (step.reason, step.remove) == ("StoppingGuests", False)


def test_a_guest_keeps_its_own_grace_within_five_minutes() -> None:
    patch = leaving.stop_patch(guest("Running"))
    assert patch == {"spec": {"stop": {"gracePeriodSeconds": 300, "reason": "HomeLeaving"}}}
    assert leaving.stop_patch({"spec": {}})["spec"]["stop"]["gracePeriodSeconds"] == 30


def test_guests_are_waited_for_five_minutes_only() -> None:
    assert decide([guest("Running", stop=True)], [], 4 * MINUTE).reason == "StoppingGuests"
    assert decide([guest("Running", stop=True)], [], 5 * MINUTE).remove


def test_a_claim_without_receipt_is_waited_for_without_end() -> None:
    pending = [claim(NOON, receipted=False), claim(NOON, receipted=False, part="Lines")]
    step = decide([], pending, timedelta(days=30))
    assert (step.reason, step.remove) == ("WaitingForReceipt", False)
    assert "claim-header" in step.message
    assert "claim-lines" not in step.message
    assert "homefed.io/force-delete" in step.message


def test_a_guest_that_ran_is_waited_for_until_a_claim_covers_it() -> None:
    ran = [guest("Succeeded", ran=NOON - 30 * MINUTE, ended=NOON - 20 * MINUTE)]
    assert decide(ran, []).reason == "Settling"
    assert decide(ran, [claim(NOON - 60 * MINUTE, receipted=True)]).reason == "Settling"
    assert decide(ran, [claim(NOON, receipted=True)]).remove


def test_a_guest_that_brings_no_claim_is_not_waited_for_after_its_windows_lateness() -> None:
    ran = [guest("Succeeded", ran=NOON - 30 * MINUTE, ended=NOON - 20 * MINUTE)]
    assert decide(ran, [], timedelta(minutes=19)).reason == "Settling"
    assert decide(ran, [], timedelta(minutes=20)).remove


def test_a_guest_that_never_ran_or_whose_pool_is_gone_is_not_waited_for() -> None:
    elsewhere = guest("Succeeded", ran=NOON, ended=NOON)
    elsewhere["spec"]["poolName"] = "gone"
    assert decide([guest("Failed"), elsewhere], []).remove


def test_a_home_waits_until_what_was_held_back_of_it_is_released() -> None:
    step = decide([], [holding("750")])
    assert (step.reason, step.remove) == ("ReleasingHeld", False)
    assert "750 µcredit" in step.message
    assert decide([], [holding("750"), holding("", 2)]).remove
    assert decide([], [holding("", 2), holding("750")]).message == "Everything is settled."


def test_a_release_that_does_not_come_is_not_waited_for_after_a_window_with_its_lateness() -> None:
    held = [holding("750")]
    assert decide([], held, timedelta(minutes=79)).reason == "ReleasingHeld"
    step = decide([], held, timedelta(minutes=80))
    assert (step.remove, step.message) == (True, "Everything is settled. 750 µcredit stay held back.")
    assert decide([], [holding("750", pool="gone")]).remove


def test_what_is_withheld_is_not_waited_for() -> None:
    step = decide([], [holding("750")], withheld=True)
    assert (step.remove, step.message) == (True, "Everything is settled. 750 µcredit stay held back.")


def test_force_removes_at_once_and_names_the_loss() -> None:
    step = decide([guest("Running", ran=NOON)], [claim(NOON, receipted=False)], force=True)
    assert step.remove
    assert step.message == (
        "Deleted by force: 1 guests were running, 1 were not settled, 1 claims had no receipt (claim-header)."
    )
