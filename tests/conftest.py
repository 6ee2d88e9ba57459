"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from small_captures import capture, varied

# A gate has to say the same twice; elsewhere each run looks at new examples.
settings.register_profile("gate", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("gate")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A capture of 60 connections of all kinds."""
    path = tmp_path / "mixed.pcap"
    path.write_bytes(capture(*varied()).getvalue())
    return path
