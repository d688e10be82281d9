"""A worker of `reading`: python -m homefed.ledger.reading_worker FEDERATION KEYS…, with frames on its pipes."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import BinaryIO

from homefed.ledger.frames import LENGTH, framed, unframed
from homefed.ledger.keys import HubKeys
from homefed.ledger.reading import Sent, read_one


def work(federation: str, keys: HubKeys, source: BinaryIO, target: BinaryIO) -> None:
    """Frames from `source`, answers to `target`, until there are no more."""
    while len(head := source.read(LENGTH.size)) == LENGTH.size:
        sent: list[Sent] = unframed(source.read(LENGTH.unpack(head)[0]))
        target.write(framed([read_one(one, federation, keys.for_keyid) for one in sent]))
        target.flush()


def main() -> None:
    """Signals are the ledger's: its end closes our input."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    work(sys.argv[1], HubKeys([Path(path) for path in sys.argv[2:]]), sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
