from __future__ import annotations

from hypothesis import settings

# Examples are timed by the tests that mean it; a busy machine is no failure.
settings.register_profile("expression", deadline=None)
settings.load_profile("expression")
