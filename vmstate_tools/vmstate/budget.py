"""How much guessing a stream is worth."""

from __future__ import annotations


class Budget:
    """What is left of a number of steps that all sections of a stream share."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, steps: int) -> bool:
        """Spend so many steps; False, and nothing spent, where there are not as many left."""
        if steps > self.left:
            return False
        self.left -= steps
        return True
