"""Which key the hub believes of a home: pinned at first use, moved by a statement of the old key, or by the organiser.

Pure: what the Home and its Offers say in, the pin and sentences out.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from homefed.api.errors import Invalid
from homefed.api.home import FormerKey, PinnedKey
from homefed.api.meta import parse
from homefed.core import key_rotation
from homefed.core.key_rotation import OVERLAP, fingerprint_of
from homefed.core.times import from_rfc3339, to_rfc3339

MAX_FORMER: Final = 4


@dataclass(frozen=True)
class Shown:
    """What one Offer shows of its home's key."""

    public_key: str
    rotation: str | None = None
    """The statement that the key before it has signed."""


@dataclass(frozen=True)
class Belief:
    """What the hub goes by for one Home."""

    home: str
    uid: str
    trusted: str | None
    """Home.spec.trustedFingerprint: the organiser's explicit word, which goes before any statement."""
    key: PinnedKey | None


def pin(belief: Belief, shown: Sequence[Shown], now: datetime) -> PinnedKey | None:
    """The key to hold from now on. `shown`: of the home's Offers in order, the oldest first.

    Once spec.trustedFingerprint is set, no other key is taken, and a pinned other one is replaced as soon as an Offer
    shows the trusted one; what a key before it has signed counts no more.
    """
    key, trusted = belief.key, belief.trusted
    if key is not None and trusted is None:
        return _rotated(belief, key, shown, now)
    if key is not None and trusted == key.fingerprint:
        return key if not key.former else key.model_copy(update={"former": []})
    for each in shown:
        found = fingerprint_of(each.public_key)
        if found and trusted in (None, found):
            return PinnedKey(public_key=each.public_key, fingerprint=found, pinned_at=to_rfc3339(now))
    return key


def _rotated(belief: Belief, key: PinnedKey, shown: Iterable[Shown], now: datetime) -> PinnedKey:
    for each in shown:
        if each.public_key != key.public_key and not _objection(each, belief.uid, key, now):
            former = FormerKey(
                public_key=key.public_key, fingerprint=key.fingerprint, valid_until=to_rfc3339(now + OVERLAP)
            )
            return PinnedKey(
                public_key=each.public_key,
                fingerprint=fingerprint_of(each.public_key),
                pinned_at=to_rfc3339(now),
                former=[former, *(one for one in key.former if _valid(one, now))][:MAX_FORMER],
            )
    return key


def _objection(shown: Shown, home_uid: str, key: PinnedKey, now: datetime) -> str:
    """Why this key cannot follow the pinned one; empty where it can."""
    if shown.rotation is None:
        return "no keyRotation comes with it"
    if not fingerprint_of(shown.public_key):
        return "it is no Ed25519 key"
    try:
        key_rotation.check(shown.rotation, key, home_uid, shown.public_key, now)
    except Invalid as error:
        return error.message
    return ""


def matches(belief: Belief, public_key: str, now: datetime) -> bool:
    """Whether an Offer with this key is the home's: the pinned one, or, for a while, one that it has replaced."""
    key = belief.key
    if key is None or belief.trusted not in (None, key.fingerprint):
        return False
    former = {one.public_key for one in key.former if _valid(one, now)}
    return public_key == key.public_key or (belief.trusted is None and public_key in former)


def mismatch(belief: Belief, shown: Shown, now: datetime) -> str:
    """What to say of an Offer whose key is not the home's."""
    found = fingerprint_of(shown.public_key) or "no Ed25519 key"
    expected = belief.trusted or (belief.key.fingerprint if belief.key is not None else "none")
    why = ""
    if belief.trusted is not None and shown.rotation is not None:
        why = " (spec.trustedFingerprint is set, and goes before what the home has signed)"
    elif belief.key is not None and shown.rotation is not None:
        why = f" ({_objection(shown, belief.uid, belief.key, now) or 'it replaces an earlier key'})"
    return (
        f"publicKey: {found}, but {expected} is expected{why}; if the change is wanted, set spec.trustedFingerprint of"
        f" Home {belief.home} to the new fingerprint."
    )


def former_until(key: PinnedKey, now: datetime) -> FormerKey | None:
    """The newest key that this one has replaced and that still counts."""
    return next((one for one in key.former if _valid(one, now)), None)


def report_keys(stored: Mapping[str, Any] | None, now: datetime) -> dict[str, bytes]:
    """keyid → raw public key of all keys by which reports count now. `stored`: Home.status.key; Invalid where it is
    none."""
    if not stored:
        return {}
    key = parse(PinnedKey, stored, where="status.key")
    found = {one.fingerprint: one.public_key for one in key.former if _valid(one, now)}
    found[key.fingerprint] = key.public_key
    return {fingerprint: base64.b64decode(text) for fingerprint, text in found.items()}


def _valid(former: FormerKey, now: datetime) -> bool:
    return now < from_rfc3339(former.valid_until)
