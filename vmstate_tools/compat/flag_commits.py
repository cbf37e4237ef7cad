"""Which flags of a CPU word differ, and which commits made them differ."""

from __future__ import annotations

import functools
from typing import NamedTuple

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import catalog, flags
from vmstate_tools.facts.families import family_words
from vmstate_tools.facts.releases import mainline


class FlagDifference(NamedTuple):
    """The names of the flags that only one side has, and the commits that changed any of them (40 digits each)."""

    only_in_stream: tuple[str, ...]
    only_in_destination: tuple[str, ...]
    commits: tuple[str, ...]


@functools.lru_cache(maxsize=1 << 14)
def difference(
    word: str, stream: int, own: int, pvr: int | None, accel: str | None, machine: str | None
) -> FlagDifference:
    """Returns what two values of a flag word differ in, for a CPU of this PVR; commits oldest first."""
    gone, come = (tuple(flags.decode(word, bits & (1 << 64) - 1)) for bits in (stream & ~own, own & ~stream))
    pseries = machine if machine is not None and machine.startswith("pseries") else None
    differ = stream ^ own
    changes = _changes(pvr, accel or "tcg", pseries) if pvr else ()
    commits = dict.fromkeys(commit for commit, of, bits in changes if of == word and bits & differ)
    return FlagDifference(gone, come, tuple(commits))


@functools.lru_cache(maxsize=256)
def _changes(pvr: int, accel: str, machine: str | None) -> tuple[tuple[str, str, int], ...]:
    """Returns commit, word and bits of all that ever changed a word of the family with this PVR, oldest first."""
    releases = mainline()
    name = next((m.family for r in reversed(releases) for m in catalog.model_of_pvr(pvr, r)), "")
    found: list[tuple[str, str, int]] = []
    before: dict[str, int] = {}
    for release in releases if name else ():
        try:
            now = dict(family_words(name, release, accel, machine)._asdict())
        except CatalogError:
            before = {}
            continue
        if before and before != now:
            causes = catalog.causes(release, before, now, {name}, (), accel, machine)
            found += [(c["commit"], c["word"], c["bits"]) for c in causes]
        before = now
    return tuple(found)
