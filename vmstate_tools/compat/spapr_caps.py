"""Capabilities of pseries machine types (hw/ppc/spapr_caps.c): `data/compat/spapr_caps.csv`."""

from __future__ import annotations

import functools
from typing import NamedTuple

from vmstate_tools.facts.machines import version_of
from vmstate_tools.facts.tables import rows
from vmstate_tools.release import Release

LEVELS = {"off": 0, "on": 1, "broken": 0, "workaround": 1, "fixed": 2, "fixed-ibs": 2, "fixed-ccd": 3, "fixed-na": 4}
"""What `-machine cap-…=` takes → the level that the stream carries."""


class Capability(NamedTuple):
    """A capability: its subsection, the ISA level without which it is 0, and its default level."""

    name: str
    subsection: str
    needs: str
    default: int


@functools.lru_cache(maxsize=256)
def capabilities(release: Release | None, machine: str | None) -> tuple[Capability, ...]:
    """Returns the capabilities of a release (None: of any) with the defaults of a machine type (hw/ppc/spapr.c)."""
    of_machine = version_of(machine or "")
    found: dict[str, Capability] = {}
    for row in rows("compat", "spapr_caps"):  # defaults of the oldest machine types first
        if row["cap"] in found or (release is not None and release < Release(row["since"])):
            continue
        until = row["until_machine"]
        if until and (of_machine is None or of_machine > Release(until)):
            continue
        default = row["sxxm"] if row["sxxm"] and (machine or "").endswith("-sxxm") else row["default"]
        found[row["cap"]] = Capability(row["cap"], row["subsection"], row["needs"], int(default))
    return tuple(found.values())


@functools.lru_cache(maxsize=256)
def refused_by_tcg(release: Release) -> dict[str, str]:
    """Returns the capabilities that TCG does not start with unless they are 0, and the value that makes them so."""
    return {row["cap"]: row["off"] for row in rows("compat", "spapr_tcg") if release.within(None, row["until"])}
