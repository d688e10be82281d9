"""The steps of a change of key at home, from every state in which a killed agent may find it."""

import base64
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.agent import keys as key_store
from homefed.agent.keys import Keys, read_keys
from homefed.api import names
from homefed.api.errors import Invalid
from homefed.api.home import PinnedKey
from homefed.core import key_rotation
from homefed.core.key_rotation import Progress, step

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
OLD, NEW = (Ed25519PrivateKey.from_private_bytes(letter * 32) for letter in (b"o", b"n"))
RESTING = Progress("SHA256:old", None, asked=False)


@pytest.mark.parametrize(
    ("progress", "pinned", "expected"),
    [
        (RESTING, {"SHA256:old"}, None),
        (replace(RESTING, asked=True), {"SHA256:old"}, "Begin"),
        (replace(RESTING, asked=True), set(), None),
        (replace(RESTING, asked=True), {"SHA256:another"}, None),
        (Progress("SHA256:old", "SHA256:new", asked=False), {"SHA256:old"}, None),
        (Progress("SHA256:old", "SHA256:new", asked=False), {"SHA256:new"}, "Finish"),
        (Progress("SHA256:old", "SHA256:new", asked=False), {"SHA256:old", "SHA256:new"}, "Finish"),
        (Progress("SHA256:old", "SHA256:new", asked=True), {"SHA256:old"}, None),
    ],
)
def test_each_step_waits_for_the_hubs_word(progress: Progress, pinned: set[str], expected: str | None) -> None:
    assert step(progress, pinned) == expected


def test_the_contributor_reads_where_it_stands() -> None:
    assert key_rotation.finding(RESTING) is None
    waiting = key_rotation.finding(replace(RESTING, asked=True))
    going_on = key_rotation.finding(replace(RESTING, next_fingerprint="SHA256:new"))
    assert waiting is not None
    assert going_on is not None
    assert (waiting.reason, going_on.reason) == ("KeyRotationWaiting", "KeyRotating")
    assert "SHA256:new" in going_on.message


def a_secret(asked: str = "", **data: str | None) -> dict[str, object]:
    kept = {key: value for key, value in data.items() if value is not None}
    return {"metadata": {"name": "homefed-agent", "annotations": {names.ANNOTATION_ROTATE_KEY: asked}}, "data": kept}


def test_a_whole_change_as_the_secret_sees_it() -> None:
    data: dict[str, str | None] = dict(key_store.first(OLD, "salt"))
    keys = read_keys(a_secret("first", **data))
    assert keys is not None
    assert (keys.progress.asked, keys.statement) == (True, None)

    data |= key_store.begun(keys, NEW, "uid-anna", NOON)
    begun = read_keys(a_secret("first", **data))
    assert begun is not None
    assert begun.private.private_bytes_raw() == OLD.private_bytes_raw(), "the old key goes on signing"
    assert (begun.progress.asked, begun.salt) == (False, "salt")
    pinned = PinnedKey(public_key=keys.declared, fingerprint=keys.fingerprint, pinned_at="2026-01-31T11:00:00Z")
    key_rotation.check(begun.statement or "", pinned, "uid-anna", begun.declared, NOON)

    data |= key_store.finished(begun)
    done = read_keys(a_secret("first", **data))
    assert done is not None
    assert done.private.private_bytes_raw() == NEW.private_bytes_raw()
    assert (done.declared, done.statement) == (begun.declared, begun.statement), "the Offer needs no further write"
    assert (done.progress.asked, done.progress.next_fingerprint) == (False, None)
    assert set(done.own) == {keys.fingerprint, done.fingerprint}, "reports of the old key are still ours"

    again = read_keys(a_secret("second", **data))
    assert again is not None
    assert again.progress.asked


def test_what_is_not_on_its_way_cannot_arrive() -> None:
    with pytest.raises(Invalid, match="on its way"):
        key_store.finished(Keys(OLD, "salt"))


@pytest.mark.parametrize("name", [key_store.NEXT, key_store.FORMER])
def test_a_damaged_rotation_is_told_and_nothing_is_replaced(name: str) -> None:
    data: dict[str, str | None] = {**key_store.first(OLD, "salt"), name: base64.b64encode(b"?").decode()}
    with pytest.raises(Invalid, match="restore it from a backup"):
        read_keys(a_secret(**data))
