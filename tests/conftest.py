"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# A gate has to say the same twice; elsewhere each run looks at new examples.
settings.register_profile("gate", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("gate")
