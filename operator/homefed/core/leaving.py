"""How a Home leaves: cordon, stop its guests, settle what was seen, wait for the last receipt, then remove everything.

Each step is derived from what is there, so that any process may be killed after any write. Waits that end by
themselves: five minutes for guests, and, for a guest that brings no claim and for the release of what is held back, a
window with all its lateness. A claim without receipt is waited for until it has one or the organiser says
`homefed.io/force-delete`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from homefed.api.guest_pod import TERMINAL
from homefed.api.settlement_terms import Settlement
from homefed.core import held
from homefed.core.times import from_rfc3339, to_rfc3339

STOP_LIMIT: Final = timedelta(minutes=5)
SLACK: Final = timedelta(minutes=5)
STOP_REASON: Final = "HomeLeaving"
DEFAULT_GRACE: Final = 30

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Departure:
    """What is to be done now; `remove` only when nothing else is left to wait for."""

    stop: list[Object]
    reason: str = ""
    message: str = ""
    remove: bool = False


def decide(
    deleted_at: datetime,
    guest_pods: Sequence[Object],
    claims: Sequence[Object],
    settlements: Mapping[str, Settlement],
    now: datetime,
    *,
    force: bool,
    withheld: bool = False,
) -> Departure:
    """The next step. `claims`: the RewardClaims of the mailbox; `settlements`: by pool name, of the pools there are.

    `withheld`: by the organiser's word the held-back share is not released.
    """
    running = [guest for guest in guest_pods if not _over(guest)]
    unstopped = [guest for guest in running if not guest["spec"].get("stop")]
    deadline = deleted_at + STOP_LIMIT
    waiting = unclaimed(guest_pods, claims, settlements, deadline)
    if force:
        return Departure(
            [],
            "ForceDeleted",
            _loss(len(running), len(waiting), unreceipted(claims), held.outstanding(claims)),
            remove=True,
        )
    if running and now < deadline:
        message = f"{len(running)} guests are stopping, until {to_rfc3339(deadline)} at most."
        return Departure(unstopped, "StoppingGuests", message)
    pending = unreceipted(claims)
    if pending:
        return Departure(unstopped, "WaitingForReceipt", f"The ledger has not receipted {_some(pending)}. {_FORCE}")
    later = {name: until for name, until in waiting.items() if now < until}
    if later:
        message = f"{len(later)} guests are not settled yet; at the latest {to_rfc3339(max(later.values()))}. {_FORCE}"
        return Departure(unstopped, "Settling", message)
    kept = held.outstanding(claims)
    until = {pool: _latest_claim(deadline, settlements[pool]) for pool in kept if pool in settlements}
    if not withheld and any(now < last for last in until.values()):
        message = f"{sum(kept.values())} µcredit that are held back are being released. {_FORCE}"
        return Departure(unstopped, "ReleasingHeld", message)
    return Departure(unstopped, "Removing", f"Everything is settled.{_kept(kept)}", remove=True)


def stop_patch(guest: Object) -> dict[str, Any]:
    """Merge patch of a GuestPod: stop with its own grace, at most the five minutes."""
    spec = (guest["spec"].get("pod") or {}).get("spec") or {}
    grace = spec.get("terminationGracePeriodSeconds")
    seconds = grace if isinstance(grace, int) and grace >= 0 else DEFAULT_GRACE
    bounded = min(seconds, int(STOP_LIMIT.total_seconds()))
    return {"spec": {"stop": {"gracePeriodSeconds": bounded, "reason": STOP_REASON}}}


def unreceipted(claims: Iterable[Object]) -> list[str]:
    """Names of claims that the ledger has not receipted."""
    headers = [claim for claim in claims if claim["spec"].get("part") == "Header"]
    return sorted(claim["metadata"]["name"] for claim in headers if not (claim.get("status") or {}).get("receipt"))


def unclaimed(
    guest_pods: Iterable[Object],
    claims: Iterable[Object],
    settlements: Mapping[str, Settlement],
    open_end: datetime,
) -> dict[str, datetime]:
    """Guests that ran and are in no claim yet, with the time after which none is to be expected.

    One whose end nobody saw counts as ended at `open_end`.
    """
    claimed: dict[str, datetime] = {}
    for claim in claims:
        pool, end = claim["spec"]["poolName"], from_rfc3339(claim["spec"]["windowEnd"])
        claimed[pool] = max(end, claimed.get(pool, end))
    found = {}
    for guest in guest_pods:
        observed, pool = guest["spec"].get("observed") or {}, guest["spec"]["poolName"]
        if not observed.get("runningFrom") or pool not in settlements:
            continue
        ended = from_rfc3339(observed["endedAt"]) if observed.get("endedAt") else open_end
        if pool not in claimed or claimed[pool] < ended:
            found[guest["metadata"]["name"]] = _latest_claim(ended, settlements[pool])
    return found


def _latest_claim(ended: datetime, settlement: Settlement) -> datetime:
    window = settlement.window_seconds
    start = int(ended.timestamp()) // window * window
    end = datetime.fromtimestamp(start + window, ended.tzinfo)
    return end + timedelta(seconds=max(settlement.lateness_seconds, settlement.grace_seconds)) + SLACK


def _loss(running: int, unsettled: int, pending: Sequence[str], kept: Mapping[str, int]) -> str:
    return (
        f"Deleted by force: {running} guests were running, {unsettled} were not settled,"
        f" {len(pending)} claims had no receipt ({_some(pending) or 'none'}).{_kept(kept)}"
    )


def _kept(kept: Mapping[str, int]) -> str:
    return f" {sum(kept.values())} µcredit stay held back." if kept else ""


def _over(guest: Object) -> bool:
    return (guest.get("status") or {}).get("phase") in TERMINAL


def _some(found: Sequence[str]) -> str:
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


_FORCE: Final = "To lose it and go on: annotate the Home with homefed.io/force-delete=true."
