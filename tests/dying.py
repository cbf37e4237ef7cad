"""Work for test_executors.py that takes its process along; it imports little, so that a process starts quickly."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path


def dies_at(items: Sequence[str], marks: Path, poison: str) -> list[str]:
    """Kills its process: at `poison` each time, at 'once' the first time."""
    for item in items:
        if item == poison:
            os._exit(1)
        if item == "once" and not (marks / item).exists():
            (marks / item).touch()
            os._exit(1)
    return [item.upper() for item in items]


def fails_at_b(items: Sequence[str]) -> list[str]:
    if "b" in items:
        raise TypeError(items)
    return [item.upper() for item in items]


def slow(items: Sequence[str]) -> list[tuple[str, int]]:
    time.sleep(0.3)
    return [(item, os.getpid()) for item in items]
