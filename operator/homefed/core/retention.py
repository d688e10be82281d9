"""What may be forgotten: settled guest pods, old reports, old claims. The ledger keeps every claim for ever.

A claim stays while it is the newest of its chain, or holds the newest line of a guest pod that still exists: what was
accepted so far is read from there. The newest report of a pool stays: the next window's readings open where it closed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from homefed.core import windows
from homefed.core.claim_chain import Chain
from homefed.core.rewards import Observation
from homefed.core.windows import Window

DAY: Final = 86_400
REPORTS_SECONDS: Final = DAY
CLAIMS_SECONDS: Final = 7 * DAY


@dataclass(frozen=True)
class Kept:
    """A claim that is kept: name of its header's object, number of its parts, time of its receipt (seconds)."""

    name: str
    sequence: int
    parts: int
    receipted: int | None


def settled_through(now: int, *, length: int, grace_seconds: int) -> int:
    """End (seconds) of the newest closed window: everything up to it is settled when nothing is left to decide."""
    return windows.floor(now - grace_seconds, length)


def settled_guests(guests: Iterable[Observation], through: int, length: int) -> dict[str, Window]:
    """Guest pods that ended in a window that is settled and receipted: UID → that window."""
    return {
        guest.uid: windows.following(windows.floor((guest.ended - 1) // 1000, length), length)
        for guest in guests
        if guest.ended is not None and guest.ended <= through * 1000
    }


def old_reports(named: Sequence[tuple[str, int]], through: int) -> list[str]:
    """Names of reports to delete. `named`: (name, end of window in seconds) of all reports of one pool."""
    newest = max((end for _, end in named), default=0)
    return sorted(name for name, end in named if end <= through - REPORTS_SECONDS and end != newest)


def old_claims(claims: Iterable[Kept], chain: Chain, existing: Collection[str], now: int) -> list[Kept]:
    """Claims of one chain to delete; `existing` are the UIDs of the guest pods that there still are."""
    needed = {account.sequence for key, account in chain.accounts.items() if key.guest_pod in existing}
    needed.add(chain.sequence)
    return [
        kept
        for kept in claims
        if kept.receipted is not None and now - kept.receipted >= CLAIMS_SECONDS and kept.sequence not in needed
    ]
