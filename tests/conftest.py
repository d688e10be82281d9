"""What all tests share: the testbed's tiers as fixtures, and property tests that judge no speed.

Two profiles of hypothesis: `homefed`, with its usual number of examples, and `unit` (`make unit`), with a quarter of
them. A test that sets its own number has that in both.
"""

import gc

from hypothesis import HealthCheck, settings

pytest_plugins = ["testbed.fixtures", "testbed.real", "testbed.side_by_side"]

settings.register_profile("homefed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("unit", settings.get_profile("homefed"), max_examples=25, database=None)
settings.load_profile("homefed")


def pytest_collection_finish() -> None:
    """Collected tests are not looked through for garbage again and again: a sixth of all pure tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
