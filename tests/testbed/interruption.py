"""Ctrl-C of a program that has much to take down: it ends it however it was started and wherever it comes."""

import signal
import time
from types import FrameType
from typing import Self

LOOK_AGAIN_S = 0.5


class Interruption:
    """SIGINT and SIGTERM as a KeyboardInterrupt, and as something that can be asked for later: Python drops what a
    handler raises while a finalizer happens to run."""

    def __init__(self) -> None:
        self._arrived = False

    def listen(self) -> Self:
        """Takes both signals. SIGINT too: Python leaves it ignored in what a shell starts in its background."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.arrive)
        return self

    def arrive(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler."""
        self._arrived = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raises KeyboardInterrupt if there was an interruption."""
        if self._arrived:
            raise KeyboardInterrupt

    def wait(self, timeout_s: float = float("inf")) -> None:
        """Raises KeyboardInterrupt at the interruption; returns if none came within the time."""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, LOOK_AGAIN_S))
        self.check()
