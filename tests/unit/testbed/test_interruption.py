"""An interruption ends what waits for it, in whatever state the process began and wherever the signal came."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.interruption import Interruption

TESTS = Path(__file__).parents[2]
WAITING = """
from testbed.interruption import Interruption
interruption = Interruption().listen()
try:
    print("listens", flush=True)
    interruption.wait(60)
except KeyboardInterrupt:
    print("interrupted")
"""
DROPPED = """
import os, signal
from testbed.interruption import Interruption
interruption = Interruption().listen()
class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):  # the handler runs between two instructions of this finalizer
            pass
interrupted = Interrupted()
del interrupted
print("goes on")
try:
    interruption.wait(60)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_began_with_the_signals_ignored_is_interrupted(number: signal.Signals) -> None:
    ignoring = ["/bin/sh", "-c", 'trap "" INT TERM; exec "$@"', "sh", sys.executable, "-c", WAITING]
    with subprocess.Popen(ignoring, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(TESTS)}) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "listens\n"
            child.send_signal(number)
            assert child.communicate(timeout=30)[0] == "interrupted\n"
        finally:
            child.kill()


def test_an_interruption_that_a_finalizer_swallowed_ends_the_wait() -> None:
    command = [sys.executable, "-c", DROPPED]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=30, env={"PYTHONPATH": str(TESTS)}
    )
    assert "Exception ignored in" in done.stderr
    assert done.stdout == "goes on\ninterrupted\n"


def test_what_was_interrupted_stays_so() -> None:
    interruption = Interruption()
    interruption.check()
    with contextlib.suppress(KeyboardInterrupt):
        interruption.arrive(signal.SIGTERM, None)
    with pytest.raises(KeyboardInterrupt):
        interruption.check()


def test_a_wait_without_an_interruption_ends_with_its_time() -> None:
    Interruption().wait(0.01)
