"""The held-back share: how much is held of a young member's pay, until when, and what of it a claim releases.

What is held stands in the header of the chain's newest claim, by the time from which it is due: nothing else has to be
kept, and an auditor can recompute it. A share is due at the beginning of a calendar month (UTC), so that there are at
most as many as months in which something was held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from homefed.api import canonical, dsse
from homefed.api.claim_document import MAX_HEADER, HeldShare
from homefed.api.errors import Invalid, Refused
from homefed.core.windows import seconds, text

Release = Literal["due", "all", "none"]
"""What a claim releases: what is due; everything, as the home leaves; nothing, by the organiser's word."""
Held = tuple[HeldShare, ...]
"""Sorted by `due`; no amount is 0."""


def month_of_membership(joined: int, moment: int) -> int:
    """Whole calendar months from `joined` to `moment` (seconds), at least 0."""
    since, now = datetime.fromtimestamp(joined, UTC), datetime.fromtimestamp(moment, UTC)
    months = (now.year - since.year) * 12 + now.month - since.month
    return max(0, months - (now.replace(year=2000, month=1) < since.replace(year=2000, month=1)))


def held_ppm(schedule: Sequence[int], joined: int, moment: int) -> int:
    """Millionths that are held back of a window that ends at `moment` (seconds)."""
    month = month_of_membership(joined, moment)
    return schedule[month] if month < len(schedule) else 0


def due_from(moment: int, months: int) -> str:
    """When a share that is held at `moment` (seconds) is due: the first second after so many whole calendar months."""
    held = datetime.fromtimestamp(moment, UTC)
    total = held.year * 12 + held.month + months
    return text(int(datetime(total // 12, total % 12 + 1, 1, tzinfo=UTC).timestamp()))


def total(held: Iterable[HeldShare]) -> int:
    return sum(int(share.amount) for share in held)


def due(held: Iterable[HeldShare], moment: int) -> int:
    """µcredit that a claim of a window that ends at `moment` (seconds) releases."""
    return total(share for share in held if seconds(share.due) <= moment)


def released(held: Held, moment: int, release: Release) -> tuple[int, Held]:
    """What is released, and what stays held."""
    if release == "none":
        return 0, held
    stays = tuple(share for share in held if release == "due" and seconds(share.due) > moment)
    return total(held) - total(stays), stays


def add(held: Held, when: str, amount: int) -> Held:
    """With `amount` more (or less) that is due from `when`. Refused where less would be left than nothing."""
    amounts = {share.due: int(share.amount) for share in held}
    amounts[when] = amounts.get(when, 0) + amount
    if amounts[when] < 0:
        raise Refused(f"{-amounts[when]} µcredit held until {when} have been released already", reason="NotHeld")
    return tuple(HeldShare(due=one, amount=str(left)) for one, left in sorted(amounts.items()) if left)


def outstanding(claims: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Pool → µcredit that are still held, as the newest header of each chain says. `claims`: RewardClaims of a Home."""
    newest: dict[str, Mapping[str, Any]] = {}
    for claim in claims:
        spec = claim["spec"]
        known = newest.get(spec["poolName"])
        if spec["part"] == "Header" and (known is None or int(known.get("sequence", 0)) < int(spec.get("sequence", 0))):
            newest[spec["poolName"]] = spec
    amounts = {pool: _stated(spec) for pool, spec in newest.items()}
    return {pool: amount for pool, amount in sorted(amounts.items()) if amount}


def _stated(spec: Mapping[str, Any]) -> int:
    """0 where the document cannot be read: whoever has to verify it says so."""
    try:
        header = canonical.parse(dsse.decode(spec.get("envelope", "")).payload, limit=MAX_HEADER)
    except Invalid:
        return 0
    shares = header.get("heldBack") if isinstance(header, dict) else None
    return sum(int(share["amount"]) for share in shares or ())
