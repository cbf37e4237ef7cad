"""Fuzzing: see README.md. What builds, mutates and reads streams is shared with the tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
