"""When settlement of a home stands still, and what a person does about it.

Every answer of the ledger has one of three consequences:

- *again*: the same bytes are sent again by themselves (429, 5xx, a cut connection, an answer that is no JSON);
- *told*: the same, and an alarm is raised, as somebody has to act first (401, 403, a wrong address);
- *stop*: an alarm, and nothing more is sent for this home and pool before a person says so (409, 422, a receipt that
  does not verify, a ledger that lost or rewrote what it had signed).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from homefed.api.errors import Forbidden, HomefedError, Incident, Refused, Stale, Transient, Unauthorised

STOPPED: Final = "Stopped"
"""Condition of a RewardClaim's header that exists only while it is not to be sent."""
RESUME_RETRY: Final = "retry"
RESUME_RESEND: Final = "resend"
"""Values of the annotation: send what has no receipt; send also what the ledger has receipted and lost."""

_RESUME: Final = "then `homefed claims resume HOME`"
_RESEND: Final = (
    "if the organiser has restored it on purpose, `homefed claims resume HOME --resend` sends again what is lost"
)
_WHO_ELSE: Final = (
    "find out who else submits for this federation (a second hub, an older backup of this one), keep everything"
)

REMEDIES: Final[Mapping[str, str]] = {
    "ClaimConflict": f"{_WHO_ELSE}, {_RESUME}",
    "PartConflict": f"{_WHO_ELSE}, {_RESUME}",
    "ForeignClaim": f"{_WHO_ELSE}, {_RESUME}",
    "ChainBroken": f"{_WHO_ELSE}, {_RESUME}",
    "LedgerWentBack": f"restore the ledger's newest backup; {_RESEND}",
    "LedgerForked": f"keep this checkpoint as evidence and ask who runs the ledger; {_RESEND}",
    "WrongReceipt": f"is --ledger-vkey that of this ledger, and is nobody in between? {_RESUME}",
    "UnknownKey": f"register the hub's public key with the ledger (ConfigMap of the release's hub key), {_RESUME}",
    "KeyRevoked": f"give the hub a key that is registered and not revoked, {_RESUME}",
    "BelowFloor": f"lower the floor of the consumer's account, or let it pay, {_RESUME}",
}
"""Reason → what to do, for those that stop. Any other: what the message names, then resume."""


def stops(error: HomefedError) -> bool:
    """Whether after this nothing more is sent by itself."""
    return isinstance(error, Incident | Refused) and not isinstance(error, Unauthorised | Forbidden)


def alarming(error: HomefedError) -> bool:
    """Whether a person has to act, so that an event and a metric are due."""
    return not isinstance(error, Transient | Stale)


def sentence(error: HomefedError) -> str:
    """What happened and what to do, for conditions and events."""
    if not stops(error) or "homefed claims resume" in error.message:
        return error.message
    remedy = REMEDIES.get(error.reason, f"mend what is named, {_RESUME}")
    return f"{error.message}; nothing more is sent for this home: {remedy}"
