"""Signed tree heads (C2SP tlog-checkpoint): whose log, how many leaves, which root."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api.errors import Invalid
from homefed.core import signed_note
from homefed.core.merkle import HASH_SIZE, MAX_SIZE
from homefed.core.signed_note import Note, VerifierKey

_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class Checkpoint:
    """A tree head."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()
    """Further lines, which the log does not use and does not lose."""

    def text(self) -> str:
        root = base64.b64encode(self.root).decode()
        return "".join(f"{line}\n" for line in (self.origin, str(self.size), root, *self.extensions))


def origin_of(federation: str) -> str:
    """The name of a federation's log, and of the key that signs its checkpoints."""
    return f"homefed.io/ledger/{federation}"


def parse_text(text: str) -> Checkpoint:
    """A note's text; its signatures are another matter. Errors: Invalid (NotACheckpoint)."""
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() != "" or not all(lines):
        raise _no_checkpoint("it has not at least three lines, none of them empty")
    origin, size, root, *extensions = lines
    hashed = signed_note.decode_base64(root)
    if hashed is None or len(hashed) != HASH_SIZE:
        raise _no_checkpoint("the root is not base64 of 32 bytes")
    return Checkpoint(origin, parse_size(size), hashed, tuple(extensions))


def parse_size(text: str) -> int:
    """A decimal without leading zeros. Errors: Invalid (NotACheckpoint)."""
    if not _NUMBER.fullmatch(text) or int(text) > MAX_SIZE:
        raise _no_checkpoint("the size is not a decimal without leading zeros")
    return int(text)


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> str:
    """The signed checkpoint; the key's name is the origin. The same arguments give the same text."""
    text = checkpoint.text()
    return Note(text, (signed_note.sign(text, checkpoint.origin, key),)).encode()


def verify(signed: str, key: VerifierKey) -> Checkpoint:
    """The tree head, if it is of the log of that key. Errors: Invalid, with the reason why it is not."""
    return verify_note(signed_note.parse(signed), [key], key.name)


def verify_note(note: Note, keys: Iterable[VerifierKey], origin: str) -> Checkpoint:
    """The same for a note that was parsed, under any of a log's keys."""
    note.verify(keys)
    checkpoint = parse_text(note.text)
    if checkpoint.origin != origin:
        raise Invalid(f"the checkpoint is of {checkpoint.origin[:128]}, not of {origin}", reason="WrongOrigin")
    return checkpoint


def _no_checkpoint(message: str) -> Invalid:
    return Invalid(f"not a checkpoint: {message}", reason="NotACheckpoint")
