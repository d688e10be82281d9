"""The home's reports in its mailbox: which of them count, and why one does not."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homefed.api.errors import Invalid
from homefed.core import readings
from homefed.core.readings import Origin, Part

logger = logging.getLogger(__name__)
Json = dict[str, Any]


@dataclass(frozen=True)
class Mailbox:
    """One home's objects, as listed at the beginning of its pass."""

    home: Json
    name: str
    guests: Sequence[Json]
    reports: Sequence[Json]
    keys: Mapping[str, bytes]

    @property
    def home_uid(self) -> str:
        return str(self.home["metadata"]["uid"])


class Reports:
    """Of all homes. A report that a claim has used is not verified again, and a refused one is told once."""

    def __init__(self, federation: str) -> None:
        self._federation = federation
        self._digests: dict[str, str] = {}
        """UID of a report's object → digest."""
        self._told: set[str] = set()

    def parts(self, mailbox: Mailbox, pool: str, used: Collection[str]) -> tuple[list[Part], str]:
        """Verified parts of the home's reports, and why the newest refused one was refused.

        `used`: digests of reports that claims have used already."""
        origin = Origin(self._federation, pool, mailbox.home_uid)
        found: list[Part] = []
        refused = ""
        for obj in mailbox.reports:
            uid = obj["metadata"]["uid"]
            if obj["spec"]["poolName"] != pool or self._digests.get(uid) in used:
                continue
            try:
                part = readings.open_part(obj, origin, mailbox.keys)
            except Invalid as error:
                refused = f"{obj['metadata']['name']}: {error.message}"[:400]
                self.tell_once(uid, f"{mailbox.name}: report {refused}", error.reason)
            else:
                self._digests[uid] = part.signature.digest
                found.append(part)
        return found, refused

    def forget(self, reports: Collection[str]) -> None:
        """UIDs of reports that there are no more."""
        self._digests = {uid: digest for uid, digest in self._digests.items() if uid not in reports}

    def tell_once(self, key: str, message: str, reason: str) -> None:
        """Into the log, once per key in this process."""
        if key not in self._told:
            self._told.add(key)
            logger.warning("%s", message, extra={"reason": reason})
