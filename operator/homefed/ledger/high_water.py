"""The highest tree head that was ever signed, kept outside the database.

A database that is restored from a backup is whole in itself; only this mark shows that the ledger had already signed
more, and that signing on from the backup would show two histories. The file holds signed checkpoints in two slots of
one block each, written in turn with one synchronous write: a write that is cut off leaves the other slot. A file with
nothing but a checkpoint, which any member can supply from a receipt, is a mark too.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from homefed.api.errors import Invalid, Refused
from homefed.core import checkpoint as checkpoints
from homefed.core import signed_note
from homefed.core.checkpoint import Checkpoint
from homefed.core.signed_note import MAX_NOTE, Note, VerifierKey
from homefed.ledger import durable
from homefed.ledger.store import StoreFailed

FILE: Final = "signed-size"
"""Its name in the state directory."""
_SLOT: Final = 4096
_log = logging.getLogger(__name__)


class HighWaterMark:
    """One open mark. `raise_to` blocks for one disk write; one thread at a time."""

    def __init__(self, path: Path, key: VerifierKey) -> None:
        """Errors: Refused (MarkUnreadable) where the file holds no checkpoint of this ledger, or cannot be written."""
        self._path = path
        self._key = key
        try:
            if path.stat().st_size != 2 * _SLOT:
                _adopt(path, key)
            self._file = os.open(path, os.O_RDWR | os.O_DSYNC | os.O_CLOEXEC)
        except (OSError, Invalid, UnicodeDecodeError) as error:
            raise Refused(f"{path}: {error}: {_remedy(path)}", reason="MarkUnreadable") from error
        found = dict(self._slots())
        if not found:
            os.close(self._file)
            raise Refused(f"{path} holds no checkpoint of this ledger: {_remedy(path)}", reason="MarkUnreadable")
        slot = max(found, key=lambda place: found[place].size)
        self.head: Checkpoint = found[slot]
        """What is durable."""
        self._next = 1 - slot

    @classmethod
    def create(cls, path: Path, signed: str, key: VerifierKey) -> HighWaterMark:
        """A new mark, complete and durable under its name or not there at all; `signed` is the first tree head."""
        durable.create(path, _padded(signed, key) + bytes(_SLOT))
        return cls(path, key)

    def raise_to(self, signed: str, head: Checkpoint) -> None:
        """Durable when it returns. `signed` is the checkpoint of `head`. Errors: StoreFailed."""
        if head.size < self.head.size or (head.size == self.head.size and head.root != self.head.root):
            raise StoreFailed(f"{self._path}: {head.size} leaves would be signed after {self.head.size}")
        try:
            written = os.pwrite(self._file, _padded(signed, self._key), self._next * _SLOT)
        except OSError as error:
            raise StoreFailed(f"{self._path}: {error.strerror}") from error
        if written != _SLOT:
            raise StoreFailed(f"{self._path}: {written} of {_SLOT} bytes were written")
        self.head = head
        self._next = 1 - self._next

    def close(self) -> None:
        os.close(self._file)

    def _slots(self) -> Iterator[tuple[int, Checkpoint]]:
        for slot in (0, 1):
            text = os.pread(self._file, _SLOT, slot * _SLOT).rstrip(b"\x00")
            try:
                if text:
                    yield slot, checkpoints.verify(text.decode(), self._key)
            except (Invalid, UnicodeDecodeError) as error:
                _log.warning("%s: slot %d holds no checkpoint of this ledger: %s", self._path, slot, error)


def _adopt(path: Path, key: VerifierKey) -> None:
    """A checkpoint that a person has written there becomes a mark. Errors: Invalid where it is not of this ledger."""
    with path.open("rb") as file:
        signed = file.read(MAX_NOTE).decode().lstrip("\n")
    checkpoints.verify(signed, key)
    durable.create(path, _padded(signed, key) + bytes(_SLOT))


def _padded(signed: str, key: VerifierKey) -> bytes:
    """One slot, with the ledger's own signature only: of cosignatures there may be more than fit."""
    note = signed_note.parse(signed)
    own = tuple(one for one in note.signatures if (one.name, one.key_id) == (key.name, key.key_id))
    return Note(note.text, own).encode().encode().ljust(_SLOT, b"\x00")


def _remedy(path: Path) -> str:
    return (
        f"restore {path.name} from the state directory, or write into it the newest checkpoint that a member holds"
        " (the end of a receipt, from its last empty line but one)"
    )
