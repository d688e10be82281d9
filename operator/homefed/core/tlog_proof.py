"""Receipts (C2SP tlog-proof): index, inclusion proof and signed checkpoint in one text that verifies offline."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from homefed.api.errors import Invalid
from homefed.core import checkpoint as checkpoints
from homefed.core import signed_note
from homefed.core.checkpoint import Checkpoint
from homefed.core.merkle import HASH_SIZE, check_inclusion, leaf_hash
from homefed.core.signed_note import VerifierKey

HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_PROOF: Final = 80_000
"""Characters: header, 63 hashes and a note."""
MAX_HASHES: Final = 63


@dataclass(frozen=True)
class Proof:
    """A receipt as it was read: nothing of it may be believed before `verify`."""

    index: int
    hashes: tuple[bytes, ...]
    """From the leaf's sibling to the root's child."""
    checkpoint: str
    """The signed checkpoint, verbatim."""
    extra: bytes | None = None
    """What others may have put there; nothing vouches for it."""

    def encode(self) -> str:
        return spelled(self.index, "".join(map(hash_line, self.hashes)), self.checkpoint, self.extra)


def spelled(index: int, hash_lines: str, checkpoint: str, extra: bytes | None = None) -> str:
    """The receipt's text from the spelled proof: one `hash_line` per hash."""
    more = "" if extra is None else f"extra {_base64(extra)}\n"
    return f"{HEADER}\n{more}index {index}\n{hash_lines}\n{checkpoint}"


def hash_line(hashed: bytes) -> str:
    return binascii.b2a_base64(hashed).decode()


@dataclass(frozen=True)
class Verified:
    """What a receipt proves: the entry is at that index of that log, as of that tree head."""

    index: int
    checkpoint: Checkpoint


def parse(text: str) -> Proof:
    """Errors: Invalid (NotAProof)."""
    head, blank, signed = text.partition("\n\n")
    lines = head.split("\n")
    if len(text) > MAX_PROOF or not blank or lines.pop(0) != HEADER:
        raise _no_proof(f"it does not begin with {HEADER}")
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = _decoded(lines.pop(0).removeprefix("extra "))
    if not lines or not lines[0].startswith("index "):
        raise _no_proof("there is no index")
    try:
        index = checkpoints.parse_size(lines.pop(0).removeprefix("index "))
    except Invalid:
        raise _no_proof("the index is not a decimal without leading zeros") from None
    hashes = tuple(map(_decoded, lines))
    if len(hashes) > MAX_HASHES or any(len(one) != HASH_SIZE for one in hashes):
        raise _no_proof(f"it has at most {MAX_HASHES} hashes of 32 bytes")
    return Proof(index, hashes, signed, extra)


def verify(
    text: str, entry: bytes, key: VerifierKey, witnesses: Sequence[VerifierKey] = (), quorum: int = 0
) -> Verified:
    """What the receipt proves of an entry. Errors: Invalid, with the reason why it proves nothing.

    At least `quorum` of the `witnesses` must have cosigned the checkpoint.
    """
    proof = parse(text)
    note = signed_note.parse(proof.checkpoint)
    checkpoint = checkpoints.verify_note(note, [key], key.name)
    check_inclusion(leaf_hash(entry), proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    cosigned = {signature.name for signature in note.verify([key, *witnesses])} - {key.name}
    if len(cosigned) < quorum:
        raise Invalid(f"{len(cosigned)} witnesses have cosigned, {quorum} are wanted", reason="NoQuorum")
    return Verified(proof.index, checkpoint)


def _decoded(text: str) -> bytes:
    data = signed_note.decode_base64(text)
    if data is None:
        raise _no_proof("a line is not base64")
    return data


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _no_proof(message: str) -> Invalid:
    return Invalid(f"not a proof: {message}", reason="NotAProof")
