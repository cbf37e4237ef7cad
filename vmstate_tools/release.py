"""A release of QEMU: parsed, ordered; and sets of the releases that facts are kept of."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache, total_ordering
from typing import Any

from vmstate_tools.data import data_path
from vmstate_tools.errors import CatalogError, VmstateError

# Text may come from a stream: of thousands of digits Python makes no number.
_NAME = re.compile(r"v?\d{1,9}(\.\d{1,9}){1,3}", re.ASCII)


@total_ordering
class Release:
    """A release of QEMU such as 2.7.0; `2.7`, `2.7.0` and `v2.7.0` name the same one.

    Releases compare by number: 2.6 < 2.7 < 2.7.1 < 2.10. `str()` gives the full name, `2.7.0`.

    Parameters
    ----------
    name : two to four numbers with dots between them, a `v` before them or not; or a Release.

    Raises
    ------
    CatalogError : the text names no release.
    """

    __slots__ = ("numbers",)

    numbers: tuple[int, ...]
    """Three or four numbers: (2, 7, 0)."""

    def __init__(self, name: str | Release) -> None:
        object.__setattr__(self, "numbers", name.numbers if isinstance(name, Release) else numbers(name))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Release does not change: {name} cannot be set")

    def __reduce__(self) -> tuple[type[Release], tuple[str]]:
        return Release, (str(self),)

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers))

    def __repr__(self) -> str:
        return f"Release({str(self)!r})"

    def __hash__(self) -> int:
        return hash(self.numbers)

    def __eq__(self, other: object) -> bool:
        return self.numbers == other.numbers if isinstance(other, Release) else NotImplemented

    def __lt__(self, other: Release) -> bool:
        return self.numbers < other.numbers if isinstance(other, Release) else NotImplemented

    @property
    def short(self) -> str:
        """Returns the name as a chart or a table has room for it: `2.7` for `2.7.0`, `7.2.22` as it is."""
        return str(self).removesuffix(".0") if len(self.numbers) == 3 else str(self)

    @property
    def series(self) -> str:
        """Returns the first two numbers, which the stable releases of 7.2 share: `7.2` for `7.2.22`."""
        return ".".join(map(str, self.numbers[:2]))

    def within(self, since: str | Release | None, until: str | Release | None) -> bool:
        """Tells whether this release is not before `since` and not after `until`; None or "" is no bound."""
        return (not since or self >= Release(since)) and (not until or self <= Release(until))


@lru_cache(4096)
def numbers(release: str) -> tuple[int, ...]:
    """Returns the numbers in a release's name, three or four of them: `2.7` and `2.7.0` both give (2, 7, 0).

    Raises
    ------
    CatalogError : the text names no release.
    """
    if not _NAME.fullmatch(release):
        raise CatalogError(f"{release!r} does not name a release of QEMU (as in 2.7 or 2.7.1)")
    parts = tuple(int(part) for part in release.removeprefix("v").split("."))
    return parts if len(parts) > 2 else (*parts, 0)


@dataclass(frozen=True)
class Covered:
    """The series of releases (`2.7`) that facts are kept of, and sets of them.

    A set is an int, in which the lowest bit stands for the oldest series: what two facts allow together is `a & b`.
    Stable releases (2.7.1) count as their series.
    """

    series: tuple[str, ...]
    """All series, oldest first."""

    newest_read: str
    """The newest series whose source the facts were read from; of later ones only what was gone by then is known."""

    @cached_property
    def bit(self) -> dict[str, int]:
        """Returns series → the set that has it alone."""
        return {release: 1 << i for i, release in enumerate(self.series)}

    @cached_property
    def all(self) -> int:
        """Returns the set of all series."""
        return (1 << len(self.series)) - 1

    @cached_property
    def unread(self) -> int:
        """Returns the set of the series after `newest_read`, whose source was not read."""
        return self.all & -(self.bit[self.newest_read] << 1)

    def span(self, since: str = "", until: str = "") -> int:
        """Returns the set of series from one to another, both included; '' leaves an end open.

        Raises KeyError for a series that is not covered.
        """
        low = self.bit[since] if since else 1
        high = self.bit[until] if until else 1 << (len(self.series) - 1)
        return (high << 1) - low if high >= low else 0

    def names(self, bits: int) -> list[str]:
        """Returns the series in a set, oldest first."""
        return [release for i, release in enumerate(self.series) if bits >> i & 1]

    def runs(self, bits: int) -> str:
        """Returns a set as text: `1.6-2.4 2.6 8.0-`; a run without an end goes on to the newest series."""
        return " ".join(self._runs(bits))

    def _runs(self, bits: int) -> Iterator[str]:
        newest = len(self.series) - 1
        i = 0
        while i <= newest:
            if not bits >> i & 1:
                i += 1
                continue
            j = i
            while bits >> (j + 1) & 1:
                j += 1
            last = "" if j == newest else self.series[j]
            yield self.series[i] if last == self.series[i] else f"{self.series[i]}-{last}"
            i = j + 1

    def parse(self, text: str) -> int:
        """Returns the set that `runs` wrote as text.

        Raises
        ------
        VmstateError : a series that is not covered.
        """
        found = 0
        try:
            for run in text.split():
                low, dash, high = run.partition("-")
                found |= self.span(low, high if dash else low)
        except KeyError as err:
            raise VmstateError(f"{err.args[0]!r} is no QEMU release this package knows") from None
        return found


@cache
def covered() -> Covered:
    """Returns the series of releases in `data/fingerprint/releases.csv`."""
    with data_path("fingerprint", "releases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    read = [row["release"] for row in rows if row["source"] == "read"]
    return Covered(tuple(row["release"] for row in rows), read[-1])
