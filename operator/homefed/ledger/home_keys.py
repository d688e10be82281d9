"""The homes' public keys, as the hub has pinned them: who signs requests for a home's own lines, and who cosigns.

The hub writes ConfigMap `<release>-home-keys` (Home UID → raw Ed25519 public key in base64); mounted, each is a file.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from homefed.api.dsse import fingerprint
from homefed.api.errors import Invalid
from homefed.ledger.keys import files_in, read_public_key

MAX_HOMES: Final = 10_000
REREAD_SECONDS: Final = 10.0
"""A home that is removed or gets another key is believed under the old one for so long."""
_UID = re.compile(r"[0-9a-zA-Z-]{1,64}")
_log = logging.getLogger(__name__)


class HomeKeys:
    """Home UID ↔ key. Files that are no key are left out and told in the log: one bad entry shuts out one home only."""

    def __init__(self, directory: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`directory` may be missing until the hub has written it; None: no home is known."""
        self._directory = directory
        self._clock = clock
        self._read_at = float("-inf")
        self._homes: dict[str, str] = {}
        self._keys: dict[str, bytes] = {}
        self._by_home: dict[str, bytes] = {}

    def by_keyid(self) -> Mapping[str, bytes]:
        """keyid → raw public key, of all homes."""
        self._refresh()
        return self._keys

    def home(self, keyid: str) -> str | None:
        """UID of the Home whose key this is."""
        self._refresh()
        return self._homes.get(keyid)

    def key_of(self, home: str) -> bytes | None:
        """Raw public key of the Home with that UID."""
        self._refresh()
        return self._by_home.get(home)

    def _refresh(self) -> None:
        now = self._clock()
        if self._directory is None or now - self._read_at < REREAD_SECONDS:
            return
        self._read_at = now
        found: dict[str, bytes] = {}
        for path in list(files_in([self._directory]))[:MAX_HOMES]:
            try:
                uid, raw = _read(path)
            except (Invalid, OSError) as error:
                _log.error("home key ignored: %s", error)
                continue
            found[uid] = raw
        self._by_home = found
        self._homes = {fingerprint(raw): uid for uid, raw in found.items()}
        self._keys = {fingerprint(raw): raw for raw in found.values()}


def _read(path: Path) -> tuple[str, bytes]:
    if not _UID.fullmatch(path.name):
        raise Invalid(f"{path}: not named after the UID of a Home")
    return path.name, read_public_key(path)
