"""Temporary folders of test runs, which also vanish when the run that made them was killed.

Each run's folder is held by a file lock for as long as the process lives. The next run removes the folders that nobody
holds any more. `HOMEFED_TESTBED_KEEP=1` keeps a run's folder, for a look at its logs, until it is removed by hand.
"""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "homefed-testbed-run-"
OWNER = ".owner"
KEPT = ".kept"


@contextmanager
def workspace(root: Path | None = None) -> Iterator[Path]:
    """A folder for one run's clusters, removed at the end unless HOMEFED_TESTBED_KEEP is set."""
    root = root or Path(tempfile.gettempdir())
    sweep(root)
    made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=root))
    with (made / OWNER).open("w") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        folder = made.rename(root / made.name.removeprefix("."))  # held before a sweep can see it
        keep = bool(os.environ.get("HOMEFED_TESTBED_KEEP"))
        if keep:
            (folder / KEPT).touch()
        try:
            yield folder
        finally:
            if keep:
                print(f"testbed: kept {folder}", file=sys.stderr)
            else:
                shutil.rmtree(folder, ignore_errors=True)


def new_folder(run: Path, name: str) -> Path:
    """A new folder in that of a run, for one of several of a kind, one after another."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=run))


def sweep(root: Path) -> list[Path]:
    """Removes the folders of runs that ended without doing so themselves; returns them."""
    stale = [folder for folder in root.glob(f"{PREFIX}*") if _is_abandoned(folder)]
    for folder in stale:
        shutil.rmtree(folder, ignore_errors=True)
    return stale


def _is_abandoned(folder: Path) -> bool:
    if (folder / KEPT).exists():
        return False
    try:
        with (folder / OWNER).open("r") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError, PermissionError):
        return False  # just being removed, or in use, or somebody else's
    return True
