"""What a report rests on, kept at home: one bundle per pool and window, and the report itself before it is first sent.

    POOL-END.evidence.json.gz   a bundle (api.evidence_document) whose window the hub has not settled yet
    POOL-END.bundle.json.gz     the same with the claim, and all that report and claim can be computed from again
    POOL-END.reports.json       the signed report's objects

Only the SHA-256 of the evidence leaves. Files are written whole or not at all; what is older than the retention, or too
much, is removed, oldest first.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from homefed.api import dsse
from homefed.api.errors import Invalid, Refused
from homefed.api.evidence_document import Bundle, Settled
from homefed.core import evidence
from homefed.core.windows import Window

logger = logging.getLogger(__name__)

MAX_BYTES: Final = 512 * 2**20
KEEP_SECONDS: Final = 35 * 86_400

_EVIDENCE: Final = ".evidence.json.gz"
_BUNDLE: Final = ".bundle.json.gz"
_OUTBOX: Final = ".reports.json"


class EvidenceStore:
    """A folder of its own. Methods block: call them in a thread. Errors: Refused where the folder cannot be written."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES, keep_seconds: int = KEEP_SECONDS) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._keep_seconds = keep_seconds

    def keep(self, pool: str, window: Window, found: bytes, reports: Sequence[dsse.Envelope]) -> Path:
        """Store what a report rests on (as `core.evidence.encode` gave it) with the report; a claim that is there
        already stays."""
        before = self.read(pool, window.end)
        settled = before.settled if before is not None else None
        data = evidence.write(found, [one.to_json() for one in reports], settled)
        return self._write(self._path(pool, window.end, _EVIDENCE if settled is None else _BUNDLE), data)

    def settle(self, pool: str, end: int, settled: Settled) -> Path:
        """Add the hub's side to the bundle of the window that ends at `end`; without one, it is all there is."""
        before = self.read(pool, end) or Bundle(reports=[])
        data = evidence.write_again(before.model_copy(update={"settled": settled}))
        path = self._write(self._path(pool, end, _BUNDLE), data)
        self._path(pool, end, _EVIDENCE).unlink(missing_ok=True)
        return path

    def read(self, pool: str, end: int) -> Bundle | None:
        """A stored bundle; None where there is none, or where it cannot be read any more."""
        for suffix in (_BUNDLE, _EVIDENCE):
            path = self._path(pool, end, suffix)
            try:
                return evidence.read(path.read_bytes())
            except FileNotFoundError:
                continue
            except Invalid as error:
                logger.warning("evidence %s is not used: %s", path.name, error.message)
        return None

    def ends(self, pool: str, *, settled: bool) -> list[int]:
        """Ends of the windows whose bundles have a claim, or have none yet; ascending."""
        suffix = _BUNDLE if settled else _EVIDENCE
        return sorted(end for end, path, _ in self._files() if path == self._path(pool, end, suffix))

    def reported(self, pool: str, until: int) -> Iterator[dict[str, Any]]:
        """Objects of the reports of windows that end by then, newest first."""
        files = [(end, path) for end, path, _ in self._files() if path == self._path(pool, end, _OUTBOX)]
        for end, _ in sorted(files, reverse=True):
            if end <= until:
                yield from self._prepared(pool, end)

    def prepare(self, pool: str, window: Window, objects: Sequence[dict[str, Any]]) -> None:
        """Store a report's objects before the first is sent, so that a killed agent sends the same ones again."""
        self._write(self._path(pool, window.end, _OUTBOX), json.dumps(list(objects)).encode())

    def prepared(self, pool: str, window: Window) -> list[dict[str, Any]]:
        """Objects of a report that was prepared; empty where none was."""
        return self._prepared(pool, window.end)

    def _prepared(self, pool: str, end: int) -> list[dict[str, Any]]:
        try:
            found = json.loads(self._path(pool, end, _OUTBOX).read_bytes())
        except (FileNotFoundError, ValueError):
            return []
        return found if isinstance(found, list) else []

    def prune(self, now: int) -> int:
        """Remove what ended more than the retention before `now` (seconds), then the oldest until the rest fits.

        Returns the number of files removed.
        """
        files = sorted(self._files())
        total = sum(size for _, _, size in files)
        removed = 0
        for end, path, size in files:
            if now - end <= self._keep_seconds and total <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total, removed = total - size, removed + 1
        return removed

    def _files(self) -> Iterable[tuple[int, Path, int]]:
        """(end of window, path, size)."""
        for path in self._folder.glob("*") if self._folder.is_dir() else ():
            end = path.name.split(".", 1)[0].rpartition("-")[2]
            if end.isdecimal() and path.name.endswith((_EVIDENCE, _BUNDLE, _OUTBOX)):
                yield int(end), path, path.stat().st_size

    def _path(self, pool: str, end: int, suffix: str) -> Path:
        return self._folder / f"{pool}-{end}{suffix}"

    def _write(self, path: Path, data: bytes) -> Path:
        temporary = path.with_name(f".{path.name}.new")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise Refused(f"evidence cannot be written: {error}", reason="EvidenceNotWritable") from error
        return path
