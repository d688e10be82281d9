"""Notes with signatures (C2SP signed-note): text, a blank line, one line per signature.

Two kinds of Ed25519 keys are known: those that sign a note's text, and witnesses', whose cosignatures (C2SP
tlog-cosignature) also sign the time at which they were made.

    vkey  <name>+<key ID, 8 hex digits>+<base64 of algorithm byte and raw public key>
    skey  PRIVATE+KEY+<name>+<key ID>+<base64 of algorithm byte and seed>
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from homefed.api.errors import Invalid

MAX_NOTE: Final = 65_536
"""Bytes; room for a hundred signatures and more."""
MAX_SIGNATURES: Final = 100
"""What golang.org/x/mod/sumdb/note reads at most."""
_DASH: Final = "\u2014"
_PRIVATE: Final = "PRIVATE+KEY+"
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


class Algorithm(IntEnum):
    """Signature types of signed-note."""

    ED25519 = 1
    COSIGNATURE = 4


@dataclass(frozen=True)
class VerifierKey:
    """A key that is trusted under a name."""

    name: str
    public: bytes
    """Raw Ed25519 public key."""
    algorithm: Algorithm = Algorithm.ED25519

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.public) != 32:
            raise _bad_key(f"{len(self.public)} bytes, a raw Ed25519 public key has 32")

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(f"{self.name}\n".encode() + bytes([self.algorithm]) + self.public).digest()[:4]

    def text(self) -> str:
        """The vkey."""
        return f"{self.name}+{self.key_id.hex()}+{_base64(bytes([self.algorithm]) + self.public)}"

    def accepts(self, text: str, signature: bytes) -> bool:
        """Whether the signature (without key ID) is of this key over the note's text."""
        message = text.encode()
        if self.algorithm is Algorithm.COSIGNATURE:
            if len(signature) != 72 or signature[0] >= 0x80:
                return False
            message = cosigned(text, int.from_bytes(signature[:8], "big"))
            signature = signature[8:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class Signature:
    """One line of a note."""

    name: str
    key_id: bytes
    signature: bytes
    """Of the kind that its key makes; of a witness: eight bytes of time, then Ed25519."""

    def line(self) -> str:
        return f"{_DASH} {self.name} {_base64(self.key_id + self.signature)}\n"

    @property
    def time(self) -> int:
        """Of a witness's cosignature that was verified: seconds since the epoch."""
        return int.from_bytes(self.signature[:8], "big")


@dataclass(frozen=True)
class Note:
    """A note as it was read: nothing of it may be believed before `verify`."""

    text: str
    """Ends with a newline."""
    signatures: tuple[Signature, ...]

    def encode(self) -> str:
        return self.text + "\n" + "".join(signature.line() for signature in self.signatures)

    def verify(self, keys: Iterable[VerifierKey]) -> list[Signature]:
        """The signatures of known keys; of unknown ones nothing is said.

        Errors: Invalid when one of a known key is wrong (BadSignature), or there is none of any (Unsigned).
        """
        known = {(key.name, key.key_id): key for key in keys}
        found = []
        for signature in self.signatures:
            key = known.get((signature.name, signature.key_id))
            if key is None:
                continue
            if not key.accepts(self.text, signature.signature):
                raise Invalid(f"the signature of {key.name} is wrong", reason="BadSignature")
            found.append(signature)
        if not found:
            raise Invalid("no signature is of a known key", reason="Unsigned")
        return found


def parse_vkey(text: str) -> VerifierKey:
    """Errors: Invalid (BadKey)."""
    name, _, rest = text.strip().partition("+")
    key_id, _, encoded = rest.partition("+")
    algorithm, public = _key_bytes(encoded)
    key = VerifierKey(name, public, algorithm)
    if key.key_id.hex() != key_id:
        raise _bad_key(f"{name}: the key ID does not belong to the key")
    return key


def private_text(name: str, key: Ed25519PrivateKey, algorithm: Algorithm = Algorithm.ED25519) -> str:
    """The skey, which is secret."""
    key_id = verifier_key(name, key, algorithm).key_id.hex()
    return f"{_PRIVATE}{name}+{key_id}+{_base64(bytes([algorithm]) + key.private_bytes_raw())}"


def parse_private(text: str) -> tuple[VerifierKey, Ed25519PrivateKey]:
    """Errors: Invalid (BadKey); the message holds nothing of the key."""
    if not text.startswith(_PRIVATE):
        raise _bad_key("it does not begin with PRIVATE+KEY")
    name, _, rest = text.strip().removeprefix(_PRIVATE).partition("+")
    key_id, _, encoded = rest.partition("+")
    algorithm, seed = _key_bytes(encoded)
    if len(seed) != 32:
        raise _bad_key("an Ed25519 seed has 32 bytes")
    key = Ed25519PrivateKey.from_private_bytes(seed)
    verifier = verifier_key(name, key, algorithm)
    if verifier.key_id.hex() != key_id:
        raise _bad_key(f"{name}: the key ID does not belong to the key")
    return verifier, key


def verifier_key(name: str, key: Ed25519PrivateKey, algorithm: Algorithm = Algorithm.ED25519) -> VerifierKey:
    return VerifierKey(name, key.public_key().public_bytes_raw(), algorithm)


def sign(text: str, name: str, key: Ed25519PrivateKey) -> Signature:
    """Errors: Invalid for a text that no note can have."""
    check_text(text)
    return Signature(name, verifier_key(name, key).key_id, key.sign(text.encode()))


def cosign(text: str, name: str, key: Ed25519PrivateKey, time: int) -> Signature:
    """A witness's cosignature/v1 at that time, in seconds since the epoch."""
    check_text(text)
    if not 0 <= time < 2**63:
        raise Invalid(f"time: {time} is not of a cosignature", reason="BadTime")
    signature = time.to_bytes(8, "big") + key.sign(cosigned(text, time))
    return Signature(name, verifier_key(name, key, Algorithm.COSIGNATURE).key_id, signature)


def cosigned(text: str, time: int) -> bytes:
    """What a witness signs."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def parse(data: str) -> Note:
    """Errors: Invalid (NotANote)."""
    if len(data) > MAX_NOTE or _CONTROL.search(data):
        raise _no_note(f"a note has at most {MAX_NOTE} characters and no control characters")
    text, blank, lines = data.rpartition("\n\n")
    if not blank or not lines.endswith("\n"):
        raise _no_note("there is no blank line before signature lines")
    return Note(text + "\n", parse_signatures(lines))


def parse_signatures(lines: str) -> tuple[Signature, ...]:
    """One or more signature lines. Errors: Invalid (NotANote)."""
    if not lines.endswith("\n") or lines.count("\n") > MAX_SIGNATURES:
        raise _no_note(f"signature lines end with a newline, and are at most {MAX_SIGNATURES}")
    return tuple(_signature(line) for line in lines[:-1].split("\n"))


def _signature(line: str) -> Signature:
    words = line.split(" ")
    if len(words) != 3 or words[0] != _DASH:
        raise _no_note("a signature line is a dash, a name and base64")
    check_name(words[1])
    data = decode_base64(words[2])
    if data is None or len(data) < 5:
        raise _no_note("a signature is base64 of key ID and signature")
    return Signature(words[1], data[:4], data[4:])


def check_text(text: str) -> None:
    """Errors: Invalid (NotANote)."""
    if not text.endswith("\n") or _CONTROL.search(text):
        raise _no_note("a note's text ends with a newline and has no control characters")


def check_name(name: str) -> None:
    """Errors: Invalid (BadKey)."""
    if (
        not name
        or "+" in name
        or any(character.isspace() or unicodedata.category(character) == "Cc" for character in name)
    ):
        raise _bad_key(f"{name[:64]!r}: a key name is not empty and has neither spaces nor +")


def decode_base64(text: str) -> bytes | None:
    """Standard base64 in its one canonical spelling, else None."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    return data if _base64(data) == text else None


def _key_bytes(encoded: str) -> tuple[Algorithm, bytes]:
    data = decode_base64(encoded) or b""
    if not data or data[0] not in tuple(Algorithm):
        raise _bad_key("the key is not base64 of a known algorithm and a key")
    return Algorithm(data[0]), data[1:]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bad_key(message: str) -> Invalid:
    return Invalid(f"key: {message}", reason="BadKey")


def _no_note(message: str) -> Invalid:
    return Invalid(f"not a signed note: {message}", reason="NotANote")
