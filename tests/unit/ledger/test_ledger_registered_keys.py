"""Keys come, go and are revoked while the ledger runs; a signed request is good once, and nobody fills the memory."""

from __future__ import annotations

import base64
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from homefed.api.dsse import fingerprint
from homefed.api.errors import Invalid, Transient, Unauthorised
from homefed.core.request_signature import WINDOW_SECONDS, Request, sign
from homefed.ledger import signatures
from homefed.ledger.home_keys import REREAD_SECONDS, HomeKeys
from homefed.ledger.keys import HubKeys
from homefed.ledger.signatures import HomeSignatures
from testbed.claims import hub_key, public

AUDIENCE = "homefed.io/ledger/example"
START = datetime(2026, 1, 1, tzinfo=UTC)


class Time:
    """Both clocks at once; seconds since START."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def epoch(self) -> float:
        return START.timestamp() + self.seconds

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


def register(directory: Path, name: str, seed: int) -> str:
    """Write a key file; the key's id."""
    directory.mkdir(exist_ok=True)
    (directory / name).write_bytes(base64.b64encode(public(hub_key(seed))) + b"\n")
    return fingerprint(public(hub_key(seed)))


# --- hub keys


def test_two_hub_keys_overlap_and_the_old_one_can_go(tmp_path: Path) -> None:
    time = Time()
    old, new = register(tmp_path, "old.pub", 1), register(tmp_path, "new.pub", 2)
    keys = HubKeys([tmp_path], now=time.epoch, monotonic=time.monotonic)
    assert {old, new} == set(keys.for_keyid(old))
    (tmp_path / "old.pub").unlink()
    time.seconds += 60
    assert set(keys.for_keyid(old)) == {new}


def test_a_revoked_key_is_refused_from_its_time_on_though_its_file_is_there(tmp_path: Path) -> None:
    time = Time()
    lost, kept = register(tmp_path, "lost.pub", 1), register(tmp_path, "kept.pub", 2)
    (tmp_path / "revoked").write_text(f"# stolen with the laptop\n\n{lost} 2026-01-01T01:00:00Z  # planned\n")
    keys = HubKeys([tmp_path], now=time.epoch, monotonic=time.monotonic)
    assert lost in keys.for_keyid(lost)
    time.seconds = 3600
    with pytest.raises(Invalid, match="2026-01-01T01:00:00Z") as caught:
        keys.for_keyid(lost)
    assert caught.value.reason == "KeyRevoked"
    assert kept in keys.for_keyid(kept)


def test_a_key_revoked_since_a_leaf_is_refused_at_once_and_without_a_restart(tmp_path: Path) -> None:
    time = Time()
    lost = register(tmp_path, "lost.pub", 1)
    keys = HubKeys([tmp_path], now=time.epoch, monotonic=time.monotonic)
    assert lost in keys.for_keyid(lost)
    (tmp_path / "revoked").write_text(f"{lost} 1234\n")
    time.seconds += 60
    with pytest.raises(Invalid, match="leaf 1234"):
        keys.for_keyid(lost)


def test_a_damaged_list_of_revoked_keys_is_refused_at_the_start_and_revokes_nothing_less_later(tmp_path: Path) -> None:
    time = Time()
    lost = register(tmp_path, "lost.pub", 1)
    (tmp_path / "revoked").write_text(f"{lost} 0\n")
    keys = HubKeys([tmp_path], now=time.epoch, monotonic=time.monotonic)
    for damaged in (f"{lost}\n", "SHA256:abc 5\n", f"{lost} yesterday\n", f"{lost} -1\n"):
        (tmp_path / "revoked").write_text(damaged)
        with pytest.raises(Invalid):
            HubKeys([tmp_path])
        time.seconds += 60
        with pytest.raises(Invalid, match="revoked"):
            keys.for_keyid(lost)


# --- home keys


def test_homes_are_known_by_the_uid_that_names_the_file(tmp_path: Path) -> None:
    time = Time()
    first = register(tmp_path, "uid-1", 1)
    (tmp_path / "..data").mkdir()
    (tmp_path / "uid-2").write_text("no key")
    (tmp_path / "not a uid").write_bytes(base64.b64encode(public(hub_key(3))))
    homes = HomeKeys(tmp_path, time.monotonic)
    assert dict(homes.by_keyid()) == {first: public(hub_key(1))}
    assert homes.home(first) == "uid-1"
    assert homes.home(fingerprint(public(hub_key(3)))) is None


def test_a_home_that_comes_or_goes_is_noticed_soon(tmp_path: Path) -> None:
    time = Time()
    directory = tmp_path / "homes"
    homes = HomeKeys(directory, time.monotonic)
    assert dict(homes.by_keyid()) == {}
    keyid = register(directory, "uid-1", 1)
    assert homes.home(keyid) is None
    time.seconds += REREAD_SECONDS
    assert homes.home(keyid) == "uid-1"
    shutil.rmtree(directory)
    time.seconds += REREAD_SECONDS
    assert homes.home(keyid) is None


def test_without_a_directory_no_home_is_known() -> None:
    assert dict(HomeKeys(None).by_keyid()) == {}


# --- signed requests


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def requests(tmp_path: Path, time: Time) -> HomeSignatures:
    for number in (1, 2):
        register(tmp_path / "homes", f"home-{number}", number)
    return HomeSignatures(HomeKeys(tmp_path / "homes", time.monotonic), AUDIENCE, time.now)


def signed(time: Time, target: str = "/v1/x", seed: int = 1) -> str:
    return sign(Request(AUDIENCE, "GET", target), hub_key(seed), time.now())


def test_a_signed_request_says_which_home_asks(requests: HomeSignatures, time: Time) -> None:
    assert requests.home(signed(time), "GET", "/v1/x") == "home-1"
    assert requests.home(signed(time, seed=2), "GET", "/v1/x") == "home-2"


def test_the_same_signature_is_refused_a_second_time_for_as_long_as_it_could_be_accepted(
    requests: HomeSignatures, time: Time
) -> None:
    ahead = sign(Request(AUDIENCE, "GET", "/v1/x"), hub_key(1), time.now() + timedelta(seconds=WINDOW_SECONDS))
    requests.home(ahead, "GET", "/v1/x")
    for _ in range(5):
        with pytest.raises(Unauthorised) as caught:
            requests.home(ahead, "GET", "/v1/x")
        assert caught.value.reason == "Replayed"
        time.seconds += 2 * WINDOW_SECONDS / 5 - 0.01
    time.seconds += 1
    with pytest.raises(Unauthorised) as caught:
        requests.home(ahead, "GET", "/v1/x")
    assert caught.value.reason == "SignatureExpired"


def test_a_home_of_another_federation_or_none_is_not_known(requests: HomeSignatures, time: Time) -> None:
    for header in (signed(time, seed=3), sign(Request("other", "GET", "/v1/x"), hub_key(1), time.now()), "", "keyid"):
        with pytest.raises(Unauthorised):
            requests.home(header, "GET", "/v1/x")


def test_one_home_that_asks_too_often_shuts_out_itself_only(
    requests: HomeSignatures, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "MAX_SEEN_PER_HOME", 3)
    for number in range(3):
        requests.home(signed(time, f"/v1/{number}"), "GET", f"/v1/{number}")
    with pytest.raises(Transient) as caught:
        requests.home(signed(time, "/v1/more"), "GET", "/v1/more")
    assert (caught.value.reason, caught.value.retry_after) == ("TooManySignatures", 60)
    assert requests.home(signed(time, seed=2), "GET", "/v1/x") == "home-2"
    time.seconds += 2 * WINDOW_SECONDS + 1
    assert requests.home(signed(time, "/v1/more"), "GET", "/v1/more") == "home-1"


def test_all_homes_together_are_bounded_too(
    requests: HomeSignatures, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "MAX_SEEN", 1)
    requests.home(signed(time), "GET", "/v1/x")
    with pytest.raises(Transient):
        requests.home(signed(time, seed=2), "GET", "/v1/x")
