"""What the testbed raises, in one place, so that fixtures can tell "cannot run here" from "went wrong".

TestbedError
├── Unavailable      this machine lacks something; the message says what, and the remedy
├── BuildFailed      a binary could not be built; the message carries the tail of the build's log
└── ProcessFailed    a child ended, or did not become ready in time; the message carries the tail of its log
"""


class TestbedError(Exception):
    """Root of every error that the testbed raises on purpose."""

    __test__ = False  # the name begins with Test, and pytest would try to collect it


class Unavailable(TestbedError):
    """This machine lacks something that the testbed needs. The message names it and says how to get it."""


class BuildFailed(TestbedError):
    """A build ended with an error."""


class ProcessFailed(TestbedError):
    """A process ended, or was not ready in time."""
