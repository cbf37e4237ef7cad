"""Letters that stand for numbered things, in charts and in tables of text."""

from __future__ import annotations


def letters(number: int) -> str:
    """Returns the letters that stand for a number, counted from 0: A to Z, then AA, AB … as the columns of a sheet."""
    return (letters(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)
