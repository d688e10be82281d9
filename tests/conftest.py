"""What all tests share: the testbed's tiers as fixtures, and property tests that judge no speed."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["testbed.fixtures", "testbed.real", "testbed.side_by_side"]

settings.register_profile("homefed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("homefed")
