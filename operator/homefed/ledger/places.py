"""Where a database may lie, to whom it belongs, and that one process at a time uses it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from homefed.api.errors import Refused

_NETWORK: Final = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs"}


def refuse_network_file_system(path: Path, mounts: Path) -> None:
    """WAL needs shared memory and locks that network file systems do not give. `mounts` is as /proc/self/mounts."""
    directory = path.resolve().parent
    best = ("", "")
    for line in mounts.read_text().splitlines() if mounts.exists() else []:
        _, point, kind, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if directory.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    if best[1] in _NETWORK:
        raise Refused(
            f"{path} lies on {best[1]} ({best[0]}): SQLite loses data there; use a local or block volume",
            reason="NetworkFileSystem",
        )


def exclusive_lock(path: Path) -> int:
    """The descriptor that holds the lock file beside `path`. Errors: Refused when another process holds it."""
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused(f"{lock}: {error.strerror}; give a directory that exists and can be written") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise Refused(
            f"{path} is in use by another ledger process: run exactly one per database", reason="AlreadyRunning"
        ) from error
    return descriptor


def wrong_identity(name: str, stored: str, value: str) -> Refused:
    """The database says that it was made for another federation, or under another key."""
    option = "--federation-id" if name == "federation" else "key file"
    return Refused(
        f"this database is bound to {name} {stored}, not {value}: start the ledger with the {option} that belongs"
        " to it",
        reason="WrongIdentity",
    )
