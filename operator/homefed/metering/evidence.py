"""What a report rests on, kept at home: the window's raw samples, and the report itself before it is first sent.

Only the SHA-256 of the samples leaves. Files are written whole or not at all; what is older than the retention, or too
much, is removed, oldest first.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from homefed.api.canonical import canonical
from homefed.api.errors import Refused
from homefed.core.samples import RawSeries
from homefed.core.windows import Window

MAX_BYTES: Final = 512 * 2**20
KEEP_SECONDS: Final = 35 * 86_400

_SAMPLES: Final = ".samples.json.gz"
_OUTBOX: Final = ".reports.json"


def bundle(pool: str, window: Window, series: Iterable[RawSeries]) -> bytes:
    """The canonical JSON of a window's raw samples: the same for the same samples in whatever order they came."""
    rows = [
        {
            "metric": one.metric,
            "labels": dict(one.labels),
            "samples": [[time, value] for time, value in sorted(one.samples)],
        }
        for one in series
    ]
    rows.sort(key=lambda row: (str(row["metric"]), canonical(row["labels"]), canonical(row["samples"])))
    return canonical(
        {"version": 1, "pool": pool, "windowStart": window.start_text, "windowEnd": window.end_text, "series": rows}
    )


def digest(data: bytes) -> str:
    """SHA-256 of a bundle's canonical JSON (not of its compressed form)."""
    return hashlib.sha256(data).hexdigest()


class EvidenceStore:
    """A folder of its own. Methods block: call them in a thread. Errors: Refused where the folder cannot be written."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES, keep_seconds: int = KEEP_SECONDS) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._keep_seconds = keep_seconds

    def keep(self, pool: str, window: Window, data: bytes) -> Path:
        """Store a bundle; one of the same window is replaced."""
        return self._write(self._path(pool, window, _SAMPLES), gzip.compress(data, mtime=0))

    def read(self, pool: str, window: Window) -> bytes | None:
        """A stored bundle, uncompressed."""
        try:
            return gzip.decompress(self._path(pool, window, _SAMPLES).read_bytes())
        except FileNotFoundError:
            return None

    def prepare(self, pool: str, window: Window, objects: Sequence[dict[str, Any]]) -> None:
        """Store a report's objects before the first is sent, so that a killed agent sends the same ones again."""
        self._write(self._path(pool, window, _OUTBOX), json.dumps(list(objects)).encode())

    def prepared(self, pool: str, window: Window) -> list[dict[str, Any]]:
        """Objects of a report that was prepared; empty where none was."""
        try:
            found = json.loads(self._path(pool, window, _OUTBOX).read_bytes())
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
            if end.isdecimal() and path.name.endswith((_SAMPLES, _OUTBOX)):
                yield int(end), path, path.stat().st_size

    def _path(self, pool: str, window: Window, suffix: str) -> Path:
        return self._folder / f"{pool}-{window.end}{suffix}"

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
