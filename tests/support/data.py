"""The conformance data of this project, in its own form: sequence numbers, bytes and outcomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent.parent / "data"


def load(name: str) -> Any:
    return json.loads((_FOLDER / name).read_text(encoding="utf-8"))
