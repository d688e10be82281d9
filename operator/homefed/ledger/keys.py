"""Keys: the hubs' public ones, by which claims are accepted, and the ledger's own, by which receipts are signed."""

from __future__ import annotations

import base64
import binascii
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api.dsse import fingerprint
from homefed.api.errors import Invalid, Refused
from homefed.core.times import from_rfc3339, to_rfc3339
from homefed.ledger import durable

REREAD_SECONDS: Final = 10.0
REVOKED: Final = "revoked"
"""Name of the file, in a directory of keys, that lists those to refuse."""
_MAX_FILE: Final = 4096
_MAX_REVOKED: Final = 1000
_KEYID: Final = re.compile(r"SHA256:[0-9a-f]{64}")
_log = logging.getLogger(__name__)

Since = datetime | int


class HubKeys:
    """Registered hub keys, read again every few seconds and when an unknown keyid comes along: a mounted ConfigMap
    changes in place. A new key is registered beside the old one (overlap); a lost one is named in a file `revoked`.

    `revoked` holds one `KEYID SINCE` per line. SINCE is a time (RFC 3339: refused from then on), or the index of the
    first leaf that is not to be believed (refused at once; auditors accept the key's leaves below). What the key has
    signed before stays valid: stored claims are found by their id, before any key is looked at.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`paths` are files, or directories of files, each one raw Ed25519 public key in base64.

        A path that does not exist yet counts as empty: the hub publishes its key after its own first start. Errors:
        Invalid for a file that holds something else. Once running, such a file is left out, and the log tells; a list
        of revoked keys that cannot be read leaves the one in force that was read before.
        """
        self._paths = tuple(paths)
        self._now = now
        self._monotonic = monotonic
        self._revoked = dict(revocations(self._paths))
        self._keys = {fingerprint(raw): raw for raw in map(read_public_key, files_in(self._paths))}
        self._read_at = monotonic()
        if not self._keys:
            _log.warning("no hub key is registered yet in %s: every claim will be refused", [*map(str, paths)])

    def for_keyid(self, keyid: str) -> Mapping[str, bytes]:
        """The registered keys (keyid → raw key); they contain `keyid` if any file does by now and none revokes it.

        Errors: Invalid (KeyRevoked) where it is revoked.
        """
        if keyid not in self._keys or self._monotonic() - self._read_at >= REREAD_SECONDS:
            self._read_again()
        since = self._revoked.get(keyid)
        if since is not None and (isinstance(since, int) or since.timestamp() <= self._now()):
            raise Invalid(f"keyid {keyid!r} is revoked since {_said(since)}", reason="KeyRevoked")
        return self._keys

    def _read_again(self) -> None:
        self._read_at = self._monotonic()
        keys: dict[str, bytes] = {}
        for path in files_in(self._paths):
            try:
                raw = read_public_key(path)
            except (Invalid, OSError) as error:
                _log.error("hub key ignored: %s", error)
                continue
            keys[fingerprint(raw)] = raw
        self._keys = keys
        try:
            self._revoked = dict(revocations(self._paths))
        except (Invalid, OSError) as error:
            _log.error("list of revoked keys not read again: %s", error)


def files_in(paths: Iterable[Path]) -> Iterator[Path]:
    """The files given, and those of the directories given, in order; not hidden ones, nor lists of revoked keys."""
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.iterdir() if file.is_file() and not _aside(file.name))
        elif path.is_file():
            yield path


def read_public_key(path: Path) -> bytes:
    """The raw Ed25519 public key (32 bytes) in a file of base64. Errors: Invalid, OSError."""
    try:
        with path.open("rb") as file:
            raw = base64.b64decode(file.read(_MAX_FILE).strip(), validate=True)
    except binascii.Error as error:
        raise Invalid(f"{path}: not base64: {error}") from error
    if len(raw) != 32:
        raise Invalid(f"{path}: {len(raw)} bytes, a raw Ed25519 public key has 32")
    return raw


def _aside(name: str) -> bool:
    return name.startswith(".") or name == REVOKED


def revocations(paths: Iterable[Path]) -> Iterator[tuple[str, Since]]:
    """Revoked keyids of the directories given, with the time or the leaf since when. Errors: Invalid, OSError."""
    for path in (path / REVOKED for path in paths if path.is_dir()):
        lines = path.read_text().splitlines()[:_MAX_REVOKED] if path.is_file() else []
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if len(words) != 2 or not _KEYID.fullmatch(words[0]):
                raise Invalid(f"{path}:{number}: expected KEYID and the time or leaf index since when it is revoked")
            yield words[0], int(words[1]) if words[1].isdecimal() else from_rfc3339(words[1])


def _said(since: Since) -> str:
    return f"leaf {since}" if isinstance(since, int) else to_rfc3339(since)


def signing_key(path: Path, *, create: bool) -> Ed25519PrivateKey:
    """The ledger's key (32 raw bytes in base64, mode 0600); made at the first start.

    Refused when it is missing and `create` is off: receipts under a new key would contradict those that were given.
    """
    if not path.exists():
        if not create:
            raise Refused(f"{path} is missing, but the database has been signed for: restore it", reason="KeyMissing")
        durable.create(path, base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()) + b"\n")
    try:
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(path.read_bytes().strip(), validate=True))
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: not a readable Ed25519 key: {error}", reason="KeyUnreadable") from error
