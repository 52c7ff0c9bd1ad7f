"""Settings of all tests: how long property tests search, and that failures can be repeated."""

import os

from hypothesis import HealthCheck, settings

# On a machine shared with other work a slow example is no finding, so no deadline; --hypothesis-seed repeats a failure, and its
# blob is printed. "ci" searches longer and always the same way, so that a change is judged by what it changes.
settings.register_profile("default", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("default"), max_examples=300, derandomize=True)
settings.load_profile(os.environ.get("EDGEKV_TEST_PROFILE", "default"))
