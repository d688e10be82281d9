"""The demo's narrator, and how it is interrupted."""

from __future__ import annotations

import contextlib
import io
import signal

import pytest
from rich.console import Console

from testbed.demo import Teller


def test_an_interruption_that_a_finalizer_swallowed_ends_the_demo_at_its_next_step() -> None:
    tell = Teller(Console(file=io.StringIO()))
    with tell.step("before"), contextlib.suppress(KeyboardInterrupt):
        tell.interruption.arrive(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt), tell.step("after"):
        pytest.fail("the next step began")
