"""Loopback ports that nobody else will take: neither another thread, nor another test run, nor an outgoing connection.

Binding to port 0 and closing again, as is often done, loses the port to the first connection that needs a source port:
that is what the ephemeral range is for. So ports are taken from below that range, and each is held by a file lock for
as long as the process that reserved it lives; the kernel releases it whichever way that process ends.
"""

import fcntl
import os
import random
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

from testbed.errors import Unavailable

RANGE = range(20000, 32000)
LOCKS = Path("/tmp") / f"homefed-testbed-ports-{os.getuid()}"  # whatever TMPDIR says: ports are the machine's

_held: dict[int, int] = {}  # port -> file descriptor whose lock holds it
_guard = threading.Lock()


def reserve(count: int, address: str = "127.0.0.1", candidates: Iterable[int] | None = None) -> list[int]:
    """`count` distinct ports on `address` on which nothing listens, held until `release` or the end of the process.

    `candidates` are tried in their order (default: RANGE, shuffled). Raises Unavailable when they do not suffice."""
    LOCKS.mkdir(mode=0o700, exist_ok=True)
    found: list[int] = []
    for port in random.sample(RANGE, len(RANGE)) if candidates is None else candidates:
        if len(found) == count:
            break
        if _hold(port, address):
            found.append(port)
    if len(found) < count:
        release(found)
        raise Unavailable(f"{count} free ports on {address} are needed, {len(found)} were found")
    return found


def release(ports: Iterable[int]) -> None:
    """Gives ports back, for others to reserve."""
    with _guard:
        for port in ports:
            if (descriptor := _held.pop(port, None)) is not None:
                os.close(descriptor)


def _hold(port: int, address: str) -> bool:
    with _guard:
        if port in _held:
            return False
        descriptor = os.open(LOCKS / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        if not _is_free(port, address):
            os.close(descriptor)
            return False
        _held[port] = descriptor
        return True


def _is_free(port: int, address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT are no obstacle
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
