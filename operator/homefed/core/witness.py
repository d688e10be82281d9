"""What a witness does with a log's tree heads (C2SP tlog-witness): cosign only what continues what it cosigned before.

Two ways lead here. `add_checkpoint` is the protocol's call, where the log brings the proof. Homes are behind NAT, so
their agents do it the other way round: they fetch checkpoint and proof themselves, ask `follow`, and post the
cosignature. In both, the new head must be durable with the witness before its cosignature leaves it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api.errors import Incident, Invalid
from homefed.core import checkpoint as checkpoints
from homefed.core import signed_note
from homefed.core.checkpoint import Checkpoint
from homefed.core.merkle import HASH_SIZE, check_consistency
from homefed.core.signed_note import Note, Signature, VerifierKey

MAX_REQUEST: Final = 80_000
MAX_HASHES: Final = 63
SIZE_TYPE: Final = "text/x.tlog.size"
_HOME: Final = "homefed.io/home/"
TEXT_TYPE: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Head:
    """The newest tree head of a log that a witness has cosigned."""

    size: int
    root: bytes


class Signer(Protocol):
    def __call__(self, text: str) -> Signature:
        """The cosignature over a checkpoint's text."""


@dataclass(frozen=True)
class Request:
    """The body of add-checkpoint."""

    old: int
    proof: tuple[bytes, ...]
    note: Note

    def encode(self) -> str:
        hashes = [base64.b64encode(hashed).decode() for hashed in self.proof]
        return "\n".join([f"old {self.old}", *hashes, "", self.note.encode()])


@dataclass(frozen=True)
class Answer:
    """What the witness answers; where `head` is set, it must be durable before the answer is sent."""

    status: HTTPStatus
    body: str = ""
    content_type: str = TEXT_TYPE
    head: Head | None = None


def home_name(home: str) -> str:
    """The key name under which a home cosigns; `home` is the UID of its Home."""
    return _HOME + home


def home_of(name: str) -> str | None:
    """The UID of the Home that cosigns under that name; None for another cosigner's name."""
    return name.removeprefix(_HOME) if name.startswith(_HOME) else None


def home_key(home: str, public: bytes) -> VerifierKey:
    """`public` is the home's raw key, under which it also signs its reports."""
    return VerifierKey(home_name(home), public, signed_note.Algorithm.COSIGNATURE)


def follow(seen: Head | None, new: Checkpoint, proof: Sequence[bytes]) -> Head:
    """The head to keep and to cosign: `new`, whose log signature is verified already.

    `proof` is the consistency proof from `seen`. Errors: Incident when the log has gone back (LedgerWentBack) or shows
    another history than before (LedgerForked): nothing may be cosigned.
    """
    if seen is not None:
        if new.size < seen.size:
            raise Incident(
                f"{new.origin} shows {new.size} leaves, after {seen.size} of them were cosigned",
                reason="LedgerWentBack",
            )
        try:
            check_consistency(seen.size, seen.root, new.size, new.root, proof)
        except Invalid as error:
            raise Incident(
                f"{new.origin}: the tree of {new.size} leaves does not continue the cosigned one of {seen.size}:"
                f" {error.message}",
                reason="LedgerForked",
            ) from error
    return Head(new.size, new.root)


def add_checkpoint(
    body: str, logs: Mapping[str, Sequence[VerifierKey]], seen: Mapping[str, Head], cosign: Signer
) -> Answer:
    """The whole of tlog-witness. `logs` and `seen` are by origin.

    Checking `seen` and keeping the new head must be one step: ask again when it has changed meanwhile.
    """
    try:
        request = parse_request(body)
        checkpoint = checkpoints.parse_text(request.note.text)
    except Invalid as error:
        return Answer(HTTPStatus.BAD_REQUEST, f"{error.message}\n")
    if checkpoint.origin not in logs:
        return Answer(HTTPStatus.NOT_FOUND, "this log is not known here\n")
    try:
        request.note.verify(logs[checkpoint.origin])
    except Invalid as error:
        return Answer(HTTPStatus.FORBIDDEN, f"{error.message}\n")
    return _decide(request, checkpoint, seen.get(checkpoint.origin, Head(0, b"")), cosign)


def _decide(request: Request, checkpoint: Checkpoint, seen: Head, cosign: Signer) -> Answer:
    if request.old > checkpoint.size:
        return Answer(HTTPStatus.BAD_REQUEST, "old is larger than the checkpoint\n")
    if request.old != seen.size:
        return Answer(HTTPStatus.CONFLICT, f"{seen.size}\n", SIZE_TYPE)
    if seen.size and checkpoint.size == seen.size and checkpoint.root != seen.root:
        return Answer(HTTPStatus.CONFLICT, f"{seen.size}\n", SIZE_TYPE)
    if not _consistent(request, checkpoint, seen):
        return Answer(HTTPStatus.UNPROCESSABLE_ENTITY, "the consistency proof does not verify\n")
    line = cosign(request.note.text).line()
    return Answer(HTTPStatus.OK, line, head=Head(checkpoint.size, checkpoint.root))


def _consistent(request: Request, checkpoint: Checkpoint, seen: Head) -> bool:
    if seen.size == 0:
        return not request.proof
    try:
        check_consistency(seen.size, seen.root, checkpoint.size, checkpoint.root, request.proof)
    except Invalid:
        return False
    return True


def parse_request(body: str) -> Request:
    """Errors: Invalid (BadRequest, or what is wrong with the note)."""
    head, blank, signed = body.partition("\n\n")
    first, *lines = head.split("\n")
    if len(body) > MAX_REQUEST or not blank or not first.startswith("old "):
        raise _bad("an old size, a proof, an empty line and a checkpoint")
    if len(lines) > MAX_HASHES:
        raise _bad(f"at most {MAX_HASHES} hashes")
    hashes = [signed_note.decode_base64(line) or b"" for line in lines]
    if any(len(hashed) != HASH_SIZE for hashed in hashes):
        raise _bad("base64 of 32 bytes in each line of the proof")
    return Request(checkpoints.parse_size(first.removeprefix("old ")), tuple(hashes), signed_note.parse(signed))


def signer(name: str, key: Ed25519PrivateKey, time: int) -> Signer:
    """Of a witness at a moment, seconds since the epoch."""
    return lambda text: signed_note.cosign(text, name, key, time)


def _bad(expected: str) -> Invalid:
    return Invalid(f"expected {expected}", reason="BadRequest")
