"""audit, export and payout before they reach a ledger: what they refuse, how they end, what they read and write."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from homefed.api.dsse import fingerprint
from homefed.api.errors import Invalid, Refused
from homefed.cli.ledger_options import access, write_whole
from homefed.cli.main import cli
from homefed.core.audit_leaf import HubKey
from homefed.core.payout import Payee, build
from homefed.core.signed_note import VerifierKey
from homefed.core.witness import home_key
from testbed.claims import hub_key, public
from testbed.shown_log import verifier

NOWHERE = "http://127.0.0.1:1"
HUB = public(hub_key())
ONES = "0x" + "11" * 20
TWOS = "0x" + "22" * 20


def text_of(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def told(**changes: str) -> list[str]:
    """The options of a ledger that nobody answers for."""
    options = {"--url": NOWHERE, "--key": verifier().text(), "--hub-key": text_of(HUB)}
    return [
        word
        for pair in (options | {f"--{k.replace('_', '-')}": v for k, v in changes.items()}).items()
        for word in pair
    ]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (told(key="nonsense"), "key: "),
        (told(key=VerifierKey("example.org/log", HUB).text()), "not the key of a HomeFed ledger"),
        (told(hub_key="nonsense!"), "neither a path nor base64"),
        (told(hub_key="AAAA"), "3 bytes"),
        (told(url="ledger"), "url"),
        (told(receipts="many"), "--receipts"),
        (told(quorum="1"), "--quorum: 1 of 0"),
        (told(witness="nonsense"), "key: "),
        (told(witness="home-1:AAAA"), "--witness: 3 bytes"),
        ([*told(), "--lines"], "--token-file"),
        (told(lines_since="yesterday"), "yesterday"),
    ],
)
def test_an_audit_that_cannot_begin_says_why_and_ends_with_2(options: list[str], fault: str) -> None:
    ended = run("audit", *options)
    assert ended.exit_code == 2
    assert fault in ended.output


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", "not JSON"),
        ("[]", "not written by homefed audit"),
        (json.dumps({"version": 2, "checkpoint": ""}), "not written by homefed audit"),
        (json.dumps({"version": 1, "origin": "other", "checkpoint": "x"}), "is of other"),
    ],
)
def test_a_state_file_of_something_else_is_refused(content: str, fault: str, tmp_path: Path) -> None:
    state = tmp_path / "audit.json"
    state.write_text(content)
    ended = run("audit", *told(state=str(state)))
    assert ended.exit_code == 2
    assert fault in ended.output
    assert state.read_text() == content


def test_keys_are_read_from_files_and_folders_with_their_revocations(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "old.pub").write_text(text_of(HUB) + "\n")
    (keys / "revoked").write_text(f"{fingerprint(HUB)} 17\n")
    (tmp_path / "ledger.vkey").write_text(verifier().text() + "\n")
    other = public(hub_key(2))
    found = access(NOWHERE, str(tmp_path / "ledger.vkey"), (str(keys), text_of(other)), None, None, None)
    assert found.key == verifier()
    assert found.rules.federation == "example"
    assert found.rules.keys == {fingerprint(HUB): HubKey(HUB, 17), fingerprint(other): HubKey(other)}


def test_a_witness_is_named_by_its_key_or_by_the_homes_uid_and_key() -> None:
    key = home_key("home-1", HUB)
    ended = run("audit", *told(witness=f"home-1:{text_of(HUB)}"), "--witness", key.text(), "--quorum", "3")
    assert "--quorum: 3 of 2 witnesses" in ended.output


def test_an_empty_folder_of_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no key"):
        access(NOWHERE, verifier().text(), (str(tmp_path),), None, None, None)


def test_a_file_is_written_whole_or_left_as_it_was(tmp_path: Path) -> None:
    class Broken(io.StringIO):
        def read(self, *_: Any) -> str:
            raise OSError("disk full")

    path = tmp_path / "state"
    write_whole(path, io.StringIO("first"))
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, Broken("second"))
    assert path.read_text() == "first"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("account", ["", "consumer:example/ns-1"])
def test_a_pay_stub_is_of_a_contributor(account: str) -> None:
    ended = run("export", "--format", "csv", *told(account=account))
    assert isinstance(ended.exception, Invalid)
    assert "--account" in str(ended.exception)


def saved(path: Path, *payees: Payee) -> str:
    path.write_text(json.dumps(build(payees).dump()))
    return str(path)


def test_a_tree_is_verified_against_root_and_the_tree_before(tmp_path: Path) -> None:
    before = saved(tmp_path / "before.json", Payee(ONES, 5))
    tree = saved(tmp_path / "tree.json", Payee(ONES, 7), Payee(TWOS, 1))
    root = build([Payee(ONES, 7), Payee(TWOS, 1)]).root
    ended = run("payout", "verify", tree, "--root", root, "--previous", before, "--address", TWOS, "-o", "json")
    assert ended.exit_code == 0
    answer = json.loads(ended.output)
    assert (answer["root"], answer["payees"], answer["total"], answer["amount"]) == (root, 2, "8", "1")
    assert len(answer["proof"]) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--root", "0x" + "0" * 64), "RootDiffers"),
        (("--address", "0x" + "33" * 20), "NotInTree"),
    ],
)
def test_a_tree_that_is_another_is_refused(options: tuple[str, str], reason: str, tmp_path: Path) -> None:
    ended = run("payout", "verify", saved(tmp_path / "tree.json", Payee(ONES, 7)), *options)
    assert isinstance(ended.exception, Refused)
    assert ended.exception.reason == reason


def test_an_amount_that_fell_since_the_tree_before_is_refused(tmp_path: Path) -> None:
    before = saved(tmp_path / "before.json", Payee(ONES, 8))
    ended = run("payout", "verify", saved(tmp_path / "tree.json", Payee(ONES, 7)), "--previous", before)
    assert isinstance(ended.exception, Refused)
    assert ended.exception.reason == "AmountFell"


def test_a_tree_that_is_not_there_is_named(tmp_path: Path) -> None:
    ended = run("payout", "verify", str(tmp_path / "none.json"))
    assert isinstance(ended.exception, Invalid)
    assert "none.json" in str(ended.exception)
