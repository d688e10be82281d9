"""Notes, checkpoints and receipts: what is signed is read back, and every other spelling of it is refused."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from homefed.api.errors import Invalid
from homefed.core import checkpoint as checkpoints
from homefed.core import signed_note, tlog_proof, witness
from homefed.core.checkpoint import Checkpoint
from homefed.core.merkle import Frontier, leaf_hash
from homefed.core.signed_note import Algorithm, Note, Signature, VerifierKey, verifier_key
from homefed.core.tlog_proof import Proof

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
ORIGIN = checkpoints.origin_of("example")
ROOT = Frontier().extend([leaf_hash(b"entry")]).frontier.root()
HEAD = Checkpoint(ORIGIN, 1, ROOT)
SIGNED = checkpoints.sign(HEAD, KEY)
VKEY = verifier_key(ORIGIN, KEY)

PETERS_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETERS_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
"""The example of golang.org/x/mod/sumdb/note."""


def reason(call: object, *arguments: object) -> str:
    assert callable(call)
    with pytest.raises(Invalid) as refused:
        call(*arguments)
    return refused.value.reason


def test_the_example_of_the_go_module_is_read() -> None:
    key = signed_note.parse_vkey(PETERS_KEY)
    note = signed_note.parse(PETERS_NOTE)
    assert [one.name for one in note.verify([key])] == ["PeterNeumann"]
    assert (key.text(), note.encode()) == (PETERS_KEY, PETERS_NOTE)
    altered = signed_note.parse(PETERS_NOTE.replace("your problem,", "our problem,"))
    assert reason(altered.verify, [key]) == "BadSignature"


@given(st.text(max_size=80).map(lambda text: "".join(c for c in text if c >= " ") + "\n"), st.integers(0, 2**63 - 1))
def test_what_is_signed_and_cosigned_is_read_back(text: str, time: int) -> None:
    signatures = (signed_note.sign(text, ORIGIN, KEY), signed_note.cosign(text, "home", OTHER, time))
    note = signed_note.parse(Note(text, signatures).encode())
    keys = [VKEY, verifier_key("home", OTHER, Algorithm.COSIGNATURE)]
    assert tuple(note.verify(keys)) == signatures
    assert note.signatures[1].time == time


def test_signatures_of_unknown_keys_are_left_aside_and_wrong_ones_of_known_keys_refused() -> None:
    text = HEAD.text()
    good, foreign = signed_note.sign(text, ORIGIN, KEY), signed_note.sign(text, "example.org/other", OTHER)
    forged = Signature(ORIGIN, VKEY.key_id, foreign.signature)
    same_name = signed_note.sign(text, ORIGIN, OTHER)
    assert Note(text, (foreign, same_name, good)).verify([VKEY]) == [good]
    assert reason(Note(text, (foreign, same_name)).verify, [VKEY]) == "Unsigned"
    assert reason(Note(text, (good, forged)).verify, [VKEY]) == "BadSignature"
    assert reason(Note(text, (good,)).verify, []) == "Unsigned"


def test_a_cosignature_is_of_one_time_and_of_one_kind_of_key() -> None:
    text = HEAD.text()
    key = verifier_key("home", OTHER, Algorithm.COSIGNATURE)
    cosignature = signed_note.cosign(text, "home", OTHER, 7)
    assert key.accepts(text, cosignature.signature)
    later = (8).to_bytes(8, "big") + cosignature.signature[8:]
    assert not key.accepts(text, later)
    assert not key.accepts(text, cosignature.signature[8:])
    assert not key.accepts(text, b"\xff" + cosignature.signature[1:])
    assert not verifier_key("home", OTHER).accepts(text, cosignature.signature)
    assert key.key_id != verifier_key("home", OTHER).key_id
    for time in (-1, 2**63):
        assert reason(signed_note.cosign, text, "home", OTHER, time) == "BadTime"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "text\n",
        "text\n\n",
        SIGNED.rstrip("\n"),
        SIGNED + "\n",
        SIGNED.replace("— ", "- "),
        SIGNED.replace("— ", "—  "),
        SIGNED.replace("\n\n", "\n\n\n\n") + "x",
        SIGNED + "— name\n",
        SIGNED + "— name AAAA\n",
        SIGNED + "— name not*base64=\n",
        SIGNED + "— na+me AAAAAAAA\n",
        SIGNED + "—  AAAAAAAA\n",
        SIGNED.replace("\n1\n", "\n1\r\n"),
        SIGNED.replace("\n1\n", "\n1\t\n"),
        SIGNED + "— name AAAAAAAA\n" * 100,
        SIGNED + "— name " + "A" * 70_000 + "\n",
    ],
)
def test_what_is_no_note_is_refused(text: str) -> None:
    assert reason(signed_note.parse, text) in ("NotANote", "BadKey")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000",
        VKEY.text()[:-4],
        VKEY.text().replace("+A", "+B"),
        VKEY.text().replace(ORIGIN, "another"),
        f"a b+{VKEY.key_id.hex()}+AQ==",
        f"{ORIGIN}+{VKEY.key_id.hex()}+{base64.b64encode(bytes([2]) + VKEY.public).decode()}",
        f"{ORIGIN}+{VKEY.key_id.hex()}+{base64.b64encode(bytes([1]) + VKEY.public[:31]).decode()}",
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    assert reason(signed_note.parse_vkey, text) == "BadKey"
    assert reason(signed_note.parse_private, f"PRIVATE+KEY+{text}") == "BadKey"


def test_private_keys_are_read_back_and_never_quoted() -> None:
    for algorithm in Algorithm:
        text = signed_note.private_text(ORIGIN, KEY, algorithm)
        verifier, key = signed_note.parse_private(text)
        assert (verifier, key.private_bytes_raw()) == (verifier_key(ORIGIN, KEY, algorithm), KEY.private_bytes_raw())
        with pytest.raises(Invalid) as refused:
            signed_note.parse_private(text.replace("PRIVATE+KEY+", "PRIVATE+KEY+x"))
        assert text[-40:] not in str(refused.value)
    assert reason(signed_note.parse_private, VKEY.text()) == "BadKey"


def test_a_checkpoint_is_read_back_with_what_it_does_not_know() -> None:
    assert checkpoints.verify(SIGNED, VKEY) == HEAD
    longer = Checkpoint(ORIGIN, 10**18, ROOT, ("one", "two words"))
    assert checkpoints.verify(checkpoints.sign(longer, KEY), VKEY) == longer


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{ORIGIN}\n1\n",
        HEAD.text()[:-1],
        HEAD.text().replace("\n1\n", "\n01\n"),
        HEAD.text().replace("\n1\n", "\n-1\n"),
        HEAD.text().replace("\n1\n", "\n+1\n"),
        HEAD.text().replace("\n1\n", "\n١\n"),
        HEAD.text().replace("\n1\n", f"\n{2**62 + 1}\n"),
        HEAD.text().replace("\n1\n", "\n" + "9" * 5000 + "\n"),
        HEAD.text().replace(ORIGIN, ""),
        HEAD.text() + "\n",
        HEAD.text() + "a\n\nb\n",
        HEAD.text().replace("=\n", "\n"),
        Checkpoint(ORIGIN, 1, ROOT[:31]).text(),
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    assert reason(checkpoints.parse_text, text) == "NotACheckpoint"


def test_a_checkpoint_of_another_log_is_refused_though_our_key_signed_it() -> None:
    text = Checkpoint("homefed.io/ledger/another", 1, ROOT).text()
    note = Note(text, (signed_note.sign(text, ORIGIN, KEY),))
    assert reason(checkpoints.verify, note.encode(), VKEY) == "WrongOrigin"


RECEIPT = Proof(0, (), SIGNED).encode()


def test_a_receipt_proves_one_entry_at_one_place() -> None:
    assert tlog_proof.verify(RECEIPT, b"entry", VKEY) == tlog_proof.Verified(0, HEAD)
    assert reason(tlog_proof.verify, RECEIPT, b"another", VKEY) == "WrongProof"
    assert reason(tlog_proof.verify, RECEIPT, b"entry", VerifierKey(ORIGIN, bytes(32))) == "Unsigned"
    assert reason(tlog_proof.verify, RECEIPT.replace("index 0", "index 1"), b"entry", VKEY) == "NotInTree"


def test_a_receipt_with_extra_data_is_read_and_written_alike() -> None:
    proof = Proof(0, (), SIGNED, b"anything")
    assert tlog_proof.parse(proof.encode()) == proof
    assert tlog_proof.verify(proof.encode(), b"entry", VKEY).index == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c2sp.org/tlog-proof@v1\n",
        "c2sp.org/tlog-proof@v1\nindex 0\n",
        RECEIPT.replace("@v1", "@v2"),
        RECEIPT.replace("index 0", "index 00"),
        RECEIPT.replace("index 0", "index"),
        RECEIPT.replace("index 0\n", "index 0\nAAAA\n"),
        RECEIPT.replace("index 0\n", "index 0\nnot base64\n"),
        RECEIPT.replace("index 0\n", "extra *\nindex 0\n"),
        RECEIPT.replace("index 0\n", "index 0\n" + "A" * 43 + "=\n" * 1) * 2000,
        RECEIPT.replace("index 0\n", "index 0\n" + ("A" * 43 + "=\n") * 64),
    ],
)
def test_what_is_no_receipt_is_refused(text: str) -> None:
    assert reason(tlog_proof.parse, text) == "NotAProof"


def test_a_receipt_can_be_asked_for_witnesses() -> None:
    homes = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(3)]
    keys = [witness.home_key(f"home-{number}", one.public_key().public_bytes_raw()) for number, one in enumerate(homes)]
    lines = [signed_note.cosign(HEAD.text(), keys[number].name, homes[number], 7).line() for number in (0, 1)]
    text = RECEIPT + "".join(lines)
    assert tlog_proof.verify(text, b"entry", VKEY, keys, quorum=2).index == 0
    assert reason(tlog_proof.verify, text, b"entry", VKEY, keys, 3) == "NoQuorum"
    assert reason(tlog_proof.verify, text, b"entry", VKEY, keys[1:], 2) == "NoQuorum"
    assert reason(tlog_proof.verify, RECEIPT + lines[0] * 2, b"entry", VKEY, keys, 2) == "NoQuorum"
    moved = signed_note.cosign(HEAD.text().replace("\n1\n", "\n2\n"), keys[0].name, homes[0], 7).line()
    assert reason(tlog_proof.verify, RECEIPT + moved, b"entry", VKEY, keys, 0) == "BadSignature"


@given(st.binary(max_size=300))
def test_no_bytes_are_anything_but_read_or_refused(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for read in (signed_note.parse, signed_note.parse_vkey, tlog_proof.parse, checkpoints.parse_text):
        try:
            read(text)
        except Invalid:
            continue
