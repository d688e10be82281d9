"""Keys are made once and never silently replaced; a token is worth what the cluster says about it, for our audience."""

from __future__ import annotations

import base64
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from homefed.api.dsse import fingerprint
from homefed.api.errors import Forbidden, Invalid, Refused, Transient, Unauthorised
from homefed.ledger.auth import REMEMBERED_SECONDS, StaticTokens, TokenReviews, User
from homefed.ledger.keys import HubKeys, signing_key
from testbed.claims import hub_key, public


def test_the_signing_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.key"
    first = signing_key(path, create=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public(signing_key(path, create=True)) == public(signing_key(path, create=False)) == public(first)
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.key"]


def test_a_key_file_left_unfinished_by_a_crash_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "ledger.key.new").write_bytes(b"half")
    assert signing_key(tmp_path / "ledger.key", create=True)


def test_a_missing_or_damaged_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="restore it"):
        signing_key(tmp_path / "ledger.key", create=False)
    for damaged in (b"", b"%%%", base64.b64encode(b"short")):
        (tmp_path / "ledger.key").write_bytes(damaged)
        with pytest.raises(Refused, match="Ed25519"):
            signing_key(tmp_path / "ledger.key", create=True)


def test_hub_keys_come_from_files_and_directories_and_appear_while_running(tmp_path: Path) -> None:
    (tmp_path / "one.pub").write_bytes(base64.b64encode(public(hub_key(1))))
    directory = tmp_path / "mounted"
    keys = HubKeys([tmp_path / "one.pub", directory])
    first, second = (fingerprint(public(hub_key(seed))) for seed in (1, 2))
    assert list(keys.for_keyid(first)) == [first]
    assert list(keys.for_keyid(second)) == [first]
    directory.mkdir()
    (directory / "..data").write_text("a link of the kubelet")
    (directory / "two.pub").write_bytes(base64.b64encode(public(hub_key(2))))
    assert sorted(keys.for_keyid(second)) == sorted([first, second])


@pytest.mark.parametrize("content", [b"not base64!", base64.b64encode(b"31 bytes are not enough for it."), b""])
def test_a_wrong_hub_key_is_refused_at_the_start(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "hub.pub").write_bytes(content)
    with pytest.raises(Invalid, match=r"hub\.pub"):
        HubKeys([tmp_path / "hub.pub"])


@pytest.mark.parametrize("line", ["short user", "a-token-that-is-long-enough", "a-token-that-is-long-enough two users"])
def test_a_wrong_line_of_the_token_file_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "tokens").write_text(f"# comment\n{line}\n")
    with pytest.raises(Invalid, match="tokens:2"):
        StaticTokens(tmp_path / "tokens")


class FakeReviews:
    """Answers like `KubeClient.review_token`."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status
        self.asked: list[tuple[str, list[str]]] = []

    async def review_token(self, token: str, *, audiences: Sequence[str] = ()) -> dict[str, Any]:
        self.asked.append((token, [*audiences]))
        return self.status


GOOD = {
    "authenticated": True,
    "user": {"username": "system:serviceaccount:homefed:hub", "groups": ["system:serviceaccounts"]},
    "audiences": ["homefed-ledger"],
}


async def test_a_token_is_reviewed_for_our_audience_and_remembered_for_a_while() -> None:
    now = [100.0]
    reviews = FakeReviews(GOOD)
    authenticator = TokenReviews(reviews, lambda: now[0])  # type: ignore[arg-type]
    for _ in range(3):
        assert await authenticator.user("t") == User("system:serviceaccount:homefed:hub", ("system:serviceaccounts",))
    assert reviews.asked == [("t", ["homefed-ledger"])]
    now[0] += REMEMBERED_SECONDS
    reviews.status = {"authenticated": False}
    with pytest.raises(Unauthorised):
        await authenticator.user("t")
    assert len(reviews.asked) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"authenticated": False},
        {"authenticated": "true"},
        {"user": {}},
        {"user": None},
        {"audiences": []},
        {"audiences": None},
        {"audiences": ["https://kubernetes.default.svc"]},
    ],
)
async def test_what_the_cluster_does_not_confirm_is_unauthorised(change: dict[str, Any]) -> None:
    authenticator = TokenReviews(FakeReviews(GOOD | change))  # type: ignore[arg-type]
    with pytest.raises(Unauthorised):
        await authenticator.user("t")


@pytest.mark.parametrize("own", [Forbidden("tokenreviews: no right"), Unauthorised("our own token expired")])
async def test_what_the_ledger_itself_is_refused_is_not_held_against_the_caller(own: Refused) -> None:
    class Refusing:
        async def review_token(self, token: str, *, audiences: Sequence[str] = ()) -> dict[str, Any]:
            raise own

    with pytest.raises(Transient, match=own.message):
        await TokenReviews(Refusing()).user("t")  # type: ignore[arg-type]


async def test_remembered_tokens_are_bounded() -> None:
    reviews = FakeReviews(GOOD)
    authenticator = TokenReviews(reviews)  # type: ignore[arg-type]
    for number in range(300):
        await authenticator.user(f"token-{number}")
    assert len(authenticator._seen) == 256
