"""How a home changes its key: a statement signed by the old key, and the steps at home, each safe to repeat.

    asked ─▶ Begin: next pair and statement stored ─▶ offered ─▶ the hub moves its pin ─▶ Finish: next becomes the key

What is signed until Finish is signed by the old key, which the hub goes on to believe for OVERLAP. The steps are read
off what is stored and what the hub says, so that a process may be killed after any of them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import dsse
from homefed.api.errors import Invalid
from homefed.api.home import PinnedKey
from homefed.api.key_rotation import ROTATION_TYPE, KeyRotation
from homefed.api.meta import parse
from homefed.core.conditions import UNKNOWN
from homefed.core.findings import Finding
from homefed.core.times import from_rfc3339, to_rfc3339

OVERLAP: Final = timedelta(days=2)
"""So long the old key counts: the longest window and the longest lateness, a day each, so that no report is lost."""
CLOCKS: Final = timedelta(seconds=10)
"""How far a home's idea of the hub's time may be off."""


@dataclass(frozen=True)
class Progress:
    """Where a rotation stands at home."""

    fingerprint: str
    """Of the key that signs."""
    next_fingerprint: str | None
    """Of the key that the hub is asked to believe; None: none is on its way."""
    asked: bool
    """The owner wants a new key, and has not got one for this request."""


Step = Literal["Begin", "Finish"]


def step(progress: Progress, pinned: Collection[str]) -> Step | None:
    """What to do now. `pinned`: fingerprints that the hub names as this home's key."""
    if progress.next_fingerprint is not None:
        return "Finish" if progress.next_fingerprint in pinned else None
    return "Begin" if progress.asked and progress.fingerprint in pinned else None


def finding(progress: Progress) -> Finding | None:
    """What the contributor reads while a rotation goes on; None while there is none."""
    if progress.next_fingerprint is not None:
        message = f"the hub is asked to believe {progress.next_fingerprint}; until it does, the old key signs"
        return Finding(UNKNOWN, "KeyRotating", message)
    if progress.asked:
        message = f"a new key was asked for; it begins when the hub knows the present one, {progress.fingerprint}"
        return Finding(UNKNOWN, "KeyRotationWaiting", message)
    return None


def fingerprint_of(public_key: str) -> str:
    """The fingerprint of a base64 raw Ed25519 key; empty where the text is none."""
    raw = _raw(public_key)
    return dsse.fingerprint(raw) if raw is not None else ""


def _raw(public_key: str) -> bytes | None:
    try:
        raw = base64.b64decode(public_key.encode(), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    return raw if len(raw) == 32 else None


def statement(old: Ed25519PrivateKey, home_uid: str, public_key: str, now: datetime) -> str:
    """The signed statement, as an Offer carries it. `now`: hub's time; `public_key`: base64 of the new one."""
    document = KeyRotation(
        home_uid=home_uid,
        replaces=dsse.fingerprint(old.public_key().public_bytes_raw()),
        public_key=public_key,
        signed_at=to_rfc3339(now),
    )
    return dsse.sign(document.dump(), ROTATION_TYPE, old).encode()


def check(text: str, pinned: PinnedKey, home_uid: str, public_key: str, now: datetime) -> None:
    """Whether this statement lets the home go over from the pinned key to `public_key`.

    Errors: Invalid, with the reason of dsse.verify, InvalidField, NotItsOwn, SignedInFuture, or Replayed: signed
    before the present key was pinned, as is every statement that has had its day.
    """
    raw = _raw(pinned.public_key)
    keys = {pinned.fingerprint: raw} if raw is not None else {}
    rotation = parse(KeyRotation, dsse.verify(dsse.decode(text), ROTATION_TYPE, keys), where="keyRotation")
    expected = {
        "homeUid": (rotation.home_uid, home_uid),
        "replaces": (rotation.replaces, pinned.fingerprint),
        "publicKey": (rotation.public_key, public_key),
    }
    wrong = [f"{name} is {said}, expected {want}" for name, (said, want) in expected.items() if said != want]
    if wrong:
        raise Invalid(f"keyRotation: {'; '.join(wrong)}", reason="NotItsOwn")
    if from_rfc3339(rotation.signed_at) > now + CLOCKS:
        # Two of them could move the pin to and fro for ever.
        raise Invalid(f"keyRotation: signed at {rotation.signed_at}, which is still to come", reason="SignedInFuture")
    if from_rfc3339(rotation.signed_at) < from_rfc3339(pinned.pinned_at) - CLOCKS:
        raise Invalid(
            f"keyRotation: signed at {rotation.signed_at}, before the present key was pinned at {pinned.pinned_at}",
            reason="Replayed",
        )
