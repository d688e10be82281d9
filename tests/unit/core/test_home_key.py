"""Which key the hub believes: pinned, moved by the old key's word, moved by the organiser's; and what is tried on."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import dsse
from homefed.api.errors import Invalid
from homefed.api.home import PinnedKey
from homefed.api.key_rotation import ROTATION_TYPE
from homefed.core import home_key, key_rotation
from homefed.core.home_key import Belief, Shown
from homefed.core.key_rotation import OVERLAP

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
A, B, C = (Ed25519PrivateKey.from_private_bytes(letter * 32) for letter in (b"a", b"b", b"c"))
UID = "uid-anna"


def public(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def fingerprint(key: Ed25519PrivateKey) -> str:
    return dsse.fingerprint(key.public_key().public_bytes_raw())


def pinned(key: Ed25519PrivateKey = A, at: str = "2026-01-31T12:00:00Z") -> PinnedKey:
    return PinnedKey(public_key=public(key), fingerprint=fingerprint(key), pinned_at=at)


def belief(key: PinnedKey | None = None, trusted: Ed25519PrivateKey | None = None) -> Belief:
    return Belief("anna", UID, fingerprint(trusted) if trusted else None, key or pinned())


def shows(key: Ed25519PrivateKey, old: Ed25519PrivateKey | None = None, at: datetime = LATER, uid: str = UID) -> Shown:
    """An Offer with this key, and a statement for it by the old one."""
    return Shown(public(key), key_rotation.statement(old, uid, public(key), at) if old is not None else None)


def rotated(now: datetime = LATER) -> PinnedKey:
    """A replaced by B."""
    found = home_key.pin(belief(), [shows(B, A)], now)
    assert found is not None
    return found


def test_a_statement_of_the_old_key_moves_the_pin_and_the_old_key_counts_for_a_while() -> None:
    found = rotated()
    assert (found.public_key, found.fingerprint, found.pinned_at) == (public(B), fingerprint(B), "2026-01-31T13:00:00Z")
    assert [(one.fingerprint, one.valid_until) for one in found.former] == [(fingerprint(A), "2026-02-02T13:00:00Z")]


def test_the_pin_stays_where_it_is_when_looked_at_again() -> None:
    found = rotated()
    for shown in ([shows(B, A)], [shows(A), shows(B, A)], [shows(B)], []):
        assert home_key.pin(belief(found), shown, LATER + timedelta(minutes=1)) == found


def signed(document: dict[str, Any], key: Ed25519PrivateKey = A, kind: str = ROTATION_TYPE) -> Shown:
    good = {"homeUid": UID, "replaces": fingerprint(A), "publicKey": public(B), "signedAt": "2026-01-31T13:00:00Z"}
    return Shown(public(B), dsse.sign(good | document, kind, key).encode())


WRONG = {
    "no statement at all": shows(B),
    "signed by the new key itself": signed({}, B),
    "signed by a stranger": signed({}, C),
    "a signature of something else": signed({}, kind=dsse.REPORT_TYPE),
    "about another Home": signed({"homeUid": "uid-berta"}),
    "replaces another key": signed({"replaces": fingerprint(C)}),
    "for another key than is shown": signed({"publicKey": public(C)}),
    "more than the schema has": signed({"comment": "please"}),
    "less than the schema has": signed({"signedAt": None}),
    "no time": signed({"signedAt": "noon"}),
    "signed before the present key was pinned": signed({"signedAt": "2026-01-31T11:59:00Z"}),
    "signed in the future": signed({"signedAt": "2099-01-01T00:00:00Z"}),
    "not an envelope": Shown(public(B), base64.b64encode(b"{}").decode()),
    "not base64": Shown(public(B), "AAA"),
}


@pytest.mark.parametrize("shown", WRONG.values(), ids=WRONG.keys())
def test_without_the_old_keys_word_on_this_very_change_the_pin_stays(shown: Shown) -> None:
    assert home_key.pin(belief(), [shown], LATER) == pinned()
    assert not home_key.matches(belief(), shown.public_key, LATER)
    assert "spec.trustedFingerprint" in home_key.mismatch(belief(), shown, LATER)


def test_a_statement_whose_signature_was_tampered_with_moves_nothing() -> None:
    envelope = dsse.decode(shows(B, A).rotation or "")
    forged = dsse.Envelope(envelope.payload_type, envelope.payload, envelope.keyid, bytes(64))
    shown = Shown(public(B), forged.encode())
    assert home_key.pin(belief(), [shown], LATER) == pinned()
    assert "does not verify" in home_key.mismatch(belief(), shown, LATER)


def test_an_old_statement_is_not_taken_again_when_its_key_is_pinned_anew() -> None:
    """The organiser has gone back from B to A; who has kept the statement A to B cannot undo that."""
    replayed = shows(B, A, at=LATER)
    again = pinned(A, at="2026-02-10T12:00:00Z")
    now = datetime(2026, 2, 10, 12, 1, tzinfo=UTC)
    assert home_key.pin(belief(again), [replayed], now) == again
    assert "before the present key was pinned" in home_key.mismatch(belief(again), replayed, now)


def test_an_old_statement_moves_nothing_once_its_key_is_replaced() -> None:
    twice = home_key.pin(belief(rotated()), [shows(C, B, at=LATER + timedelta(hours=1))], LATER + timedelta(hours=1))
    assert twice is not None
    assert [one.fingerprint for one in twice.former] == [fingerprint(B), fingerprint(A)]
    assert home_key.pin(belief(twice), [shows(B, A)], LATER + timedelta(hours=2)) == twice


def test_two_statements_do_not_move_the_pin_to_and_fro() -> None:
    ahead = LATER + timedelta(days=1)
    both = [shows(B, A, at=ahead), shows(A, B, at=ahead)]
    assert home_key.pin(belief(), both, LATER) == pinned()


def test_a_hub_restored_from_before_the_change_moves_its_pin_once_more() -> None:
    found = home_key.pin(belief(), [shows(B, A, at=LATER)], NOON + timedelta(days=30))
    assert found is not None
    assert found.fingerprint == fingerprint(B)


def test_the_organisers_word_goes_before_the_homes() -> None:
    trusting = belief(trusted=A)
    assert home_key.pin(trusting, [shows(B, A)], LATER) == pinned()
    assert not home_key.matches(trusting, public(B), LATER)
    assert "goes before" in home_key.mismatch(trusting, shows(B, A), LATER)
    elsewhere = home_key.pin(belief(trusted=C), [shows(B, A), shows(C)], LATER)
    assert elsewhere is not None
    assert (elsewhere.fingerprint, elsewhere.former) == (fingerprint(C), [])


def test_a_key_that_the_organiser_pins_explicitly_has_no_former_ones_beside_it() -> None:
    found = home_key.pin(belief(rotated(), trusted=B), [shows(B, A)], LATER)
    assert found is not None
    assert (found.fingerprint, found.former) == (fingerprint(B), [])


def test_offers_with_the_old_key_are_taken_while_it_counts() -> None:
    now = belief(rotated())
    assert home_key.matches(now, public(B), LATER)
    assert home_key.matches(now, public(A), LATER + OVERLAP - timedelta(seconds=1))
    assert not home_key.matches(now, public(A), LATER + OVERLAP)
    assert not home_key.matches(now, public(C), LATER)
    assert not home_key.matches(Belief("anna", UID, None, None), public(A), LATER)


def test_reports_count_by_the_pinned_key_and_for_a_while_by_the_one_before_it() -> None:
    stored = rotated().dump()
    assert set(home_key.report_keys(stored, LATER)) == {fingerprint(A), fingerprint(B)}
    assert set(home_key.report_keys(stored, LATER + OVERLAP)) == {fingerprint(B)}
    assert home_key.report_keys(stored, LATER)[fingerprint(A)] == A.public_key().public_bytes_raw()
    assert home_key.report_keys(None, LATER) == {}
    with pytest.raises(Invalid, match=r"status\.key"):
        home_key.report_keys({"publicKey": 7}, LATER)


def test_of_many_former_keys_the_newest_are_kept() -> None:
    key, now = pinned(), NOON
    owners = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(8)]
    for old, new in zip([A, *owners], owners, strict=False):
        now += timedelta(hours=1)
        found = home_key.pin(belief(key), [shows(new, old, at=now)], now)
        assert found is not None
        key = found
    assert key.fingerprint == fingerprint(owners[-1])
    assert [one.fingerprint for one in key.former] == [fingerprint(owner) for owner in owners[-2:-6:-1]]
