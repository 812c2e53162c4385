"""Property tests: no deadline (the first call compiles), and in CI the same examples each time."""

import os

from hypothesis import settings

settings.register_profile("mmlab", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "mmlab")
