"""Which flags of a CPU word differ, and which commits made them differ."""

from __future__ import annotations

import functools
from typing import NamedTuple

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import catalog, flags


class Blame(NamedTuple):
    """Names of the flags that only one side has, and the commits (12 digits, oldest first) that changed any of them."""

    only_in_stream: tuple[str, ...]
    only_in_destination: tuple[str, ...]
    commits: tuple[str, ...]


@functools.lru_cache(maxsize=1 << 14)
def blame(word: str, stream: int, own: int, pvr: int | None, accel: str | None, machine: str | None) -> Blame:
    """What two values of one flag word differ in, for a CPU of this PVR."""
    gone, come = (tuple(flags.decode(word, bits & (1 << 64) - 1)) for bits in (stream & ~own, own & ~stream))
    pseries = machine if machine is not None and machine.startswith("pseries") else None
    differ = stream ^ own
    changes = _changes(pvr, accel or "tcg", pseries) if pvr else ()
    commits = dict.fromkeys(commit[:12] for commit, of, bits in changes if of == word and bits & differ)
    return Blame(gone, come, tuple(commits))


@functools.lru_cache(maxsize=256)
def _changes(pvr: int, accel: str, machine: str | None) -> tuple[tuple[str, str, int], ...]:
    """(commit, word, bits) of everything that ever changed a word of the family with this PVR, oldest first."""
    releases = [row["release"] for row in catalog.table("releases") if row["kind"] == "release"]
    name = next((m.family for r in reversed(releases) for m in catalog.model_of_pvr(pvr, r)), "")
    found: list[tuple[str, str, int]] = []
    before: dict[str, int] = {}
    for release in releases if name else ():
        try:
            now = dict(catalog.words(name, release, accel, machine)._asdict())
        except CatalogError:
            before = {}
            continue
        if before and before != now:
            causes = catalog.causes(release, before, now, {name}, (), accel, machine)
            found += [(c["commit"], c["word"], c["bits"]) for c in causes]
        before = now
    return tuple(found)
