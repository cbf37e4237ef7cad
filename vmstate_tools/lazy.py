"""Modules that take long to import, imported when they are first used: `vmstate info` does without them."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Lazy:
    """Stands for a module; what was taken from it once is kept, so that a loop does not pay for it."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, attribute: str) -> Any:
        __import__(self.__name__)
        found = getattr(sys.modules[self.__name__], attribute)
        setattr(self, attribute, found)
        return found
