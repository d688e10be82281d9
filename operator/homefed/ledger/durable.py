"""Files that are whole and on the disk under their name, or not there at all."""

from __future__ import annotations

import os
from pathlib import Path


def create(path: Path, data: bytes) -> None:
    """A new file, mode 0600, in place of what an interrupted attempt has left. Errors: OSError."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    rename(unfinished, path)


def rename(old: Path, new: Path) -> None:
    """Within one directory; the name is durable when it returns. Errors: OSError."""
    old.rename(new)
    directory = os.open(new.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
