"""What a difference between two streams, or two descriptions, is."""

from __future__ import annotations

from typing import Any, NamedTuple


class Difference(NamedTuple):
    """A Difference is where two streams or descriptions differ: a row of `diff`.

    `flags` holds `-NAME` for each flag that only `a` has, `+NAME` for each that only `b` has, where the values are
    flag words. `pages` is the number of guest pages that differ, in rows of kind `pages`.
    """

    section: str
    instance_id: int | None
    vmsd: str
    path: str
    kind: str
    a: Any = None
    b: Any = None
    flags: tuple[str, ...] = ()
    pages: int | None = None
