"""Commits of QEMU: tables have all 40 digits of a hash; what is printed for people has the first 10.

Ten digits are what QEMU's own commit messages mostly cite, and tell all of its commits apart.
"""

from __future__ import annotations

import re

_DIGITS = 10
_HASH = re.compile(r"\b[0-9a-f]{40}\b")


def short(commit: str) -> str:
    """Returns a commit's hash as it is printed: its first 10 digits."""
    return commit[:_DIGITS]


def shortened(text: str) -> str:
    """Returns a text with each full hash in it as it is printed."""
    return _HASH.sub(lambda match: short(match[0]), text)
