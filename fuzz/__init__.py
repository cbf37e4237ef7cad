"""Reads inputs that nobody should have written: see README.md. The helpers of the tests build and mutate the streams."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
