"""A release of QEMU: parsed, ordered, and ranges of them."""

from __future__ import annotations

import re
from functools import lru_cache, total_ordering
from typing import Any

from vmstate_tools.errors import CatalogError


@total_ordering
class Release:
    """A release of QEMU, such as 2.7.0; `2.7`, `2.7.0` and `v2.7.0` name the same one.

    Releases compare by number (2.6 < 2.7 < 2.10), also with text. `str()` is the full name (`2.7.0`), `short` the one
    that a chart or a table has room for (`2.7`).

    Raises
    ------
    CatalogError : the text names no release.
    """

    __slots__ = ("numbers",)

    def __init__(self, name: str | Release) -> None:
        self.numbers: tuple[int, ...] = name.numbers if isinstance(name, Release) else numbers(name)

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers))

    def __repr__(self) -> str:
        return f"Release({str(self)!r})"

    @property
    def short(self) -> str:
        """The name without a patch level of 0: `2.7` for `2.7.0`, `7.2.22` as it is."""
        return str(self).removesuffix(".0") if len(self.numbers) == 3 else str(self)

    @property
    def series(self) -> str:
        """The first two numbers: `7.2` for `7.2.22`."""
        return ".".join(map(str, self.numbers[:2]))

    def __hash__(self) -> int:
        return hash(self.numbers)

    def __eq__(self, other: Any) -> bool:
        theirs = _given(other)
        return NotImplemented if theirs is None else self.numbers == theirs

    def __lt__(self, other: Any) -> bool:
        theirs = _given(other)
        return NotImplemented if theirs is None else self.numbers < theirs

    def within(self, since: str | Release | None, until: str | Release | None) -> bool:
        """True where this release is at or after `since` and at or before `until`; None or "" is no bound."""
        return (not since or self >= since) and (not until or self <= until)


def _given(other: Any) -> tuple[int, ...] | None:
    """The numbers of what a release is compared with; None where it names no release."""
    if isinstance(other, Release):
        return other.numbers
    if isinstance(other, str):
        try:
            return numbers(other)
        except CatalogError:
            return None
    return None


@lru_cache(4096)
def numbers(release: str) -> tuple[int, ...]:
    """The numbers of a release's name, three or four of them, to sort by: `2.7` and `2.7.0` are one.

    Raises
    ------
    CatalogError : not a release's name.
    """
    if not re.fullmatch(r"v?\d+(\.\d+){1,3}", release):
        raise CatalogError(f"{release!r} does not name a release of QEMU (as in 2.7 or 2.7.1)")
    parts = tuple(int(part) for part in release.removeprefix("v").split("."))
    return parts if len(parts) > 2 else (*parts, 0)
