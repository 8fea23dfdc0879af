"""Settings of the whole suite."""

from hypothesis import settings

# Two busy cores make any time limit flaky; the suite's own time-out bounds a test.
settings.register_profile("turnpike", deadline=None)
settings.load_profile("turnpike")
