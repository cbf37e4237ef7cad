"""A limit that all sections of one stream share."""

from __future__ import annotations


class SharedLimit:
    """A SharedLimit is how many steps are left: how much a stream may make this package guess, unfold or cache."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, steps: int) -> bool:
        """Spends so many steps and returns True; returns False, and spends none, where fewer are left."""
        if steps > self.left:
            return False
        self.left -= steps
        return True
