"""Facts about QEMU's loader, release by release, read from data/compat."""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

from vmstate_tools.data import data_path


@functools.lru_cache(maxsize=4096)
def version(text: str | None) -> tuple[int, int, int] | None:
    """'2.7.0', '2.7', 'v11.1' or the tail of 'pseries-2.12-sxxm' as three numbers; None where there is none."""
    match = re.search(r"(?:^|[-v])(\d+)\.(\d+)(?:\.(\d+))?(?:-|$)", text or "")
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


@functools.cache
def rows(name: str) -> list[dict[str, str]]:
    """The rows of data/compat/NAME.csv."""
    with data_path("compat", f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def holds(row: Mapping[str, str], release: tuple[int, int, int] | None) -> bool:
    """Is a release within a row's `since` and `until`? A last release of two numbers stands for its stable ones too."""
    if release is None:
        return True
    since, until = version(row["since"]), version(row["until"])
    stable = row["until"].count(".") == 1
    return (since is None or since <= release) and (until is None or (release[:2] if stable else release) <= until)


class Family(NamedTuple):
    """A POWER family: its PVR, the ISA levels it can run as, and the families whose PVR its class matches."""

    name: str
    pvr: int
    mask: int
    levels: frozenset[str]
    matches: frozenset[str]
    best_mask: int


@functools.cache
def families() -> tuple[Family, ...]:
    """target/ppc/cpu-models.h: `CPU_POWERPC_*_BASE`; cpu_init.c (translate_init.c): `pvr_match`, `pcr_supported`."""
    return tuple(
        Family(
            row["family"],
            int(row["pvr"], 16),
            int(row["mask"], 16),
            frozenset(row["levels"].split()),
            frozenset(row["matches"].split()),
            int(row["best_mask"] or "ffffffff", 16),
        )
        for row in rows("pvr")
    )


def family(pvr: int) -> Family | None:
    """The family that a PVR belongs to."""
    return next((f for f in families() if pvr & f.mask == f.pvr), None)


# Logical PVR -> ISA level; 2.06+ needs what 2.06 needs (target/ppc/compat.c: `compat_table`).
LOGICAL_PVR = {
    0x0F000002: "2.05",
    0x0F000003: "2.06",
    0x0F100003: "2.06",
    0x0F000004: "2.07",
    0x0F000005: "3.00",
    0x0F000006: "3.10",
    0x0F000007: "3.10",
}


class Cap(NamedTuple):
    """A pseries capability: its subsection, since which release, the ISA level without which it is 0, its default."""

    name: str
    subsection: str
    since: tuple[int, int, int]
    needs: str
    default: int


@functools.lru_cache(maxsize=256)
def spapr_caps(release: tuple[int, int, int] | None, machine: str | None) -> tuple[Cap, ...]:
    """The capabilities of a release with the defaults of a machine type (hw/ppc/spapr.c, spapr_caps.c)."""
    of_machine = version(machine)
    found: dict[str, Cap] = {}
    for row in rows("spapr_caps"):
        since, until = version(row["since"]), version(row["until_machine"])
        assert since is not None
        if row["cap"] in found or (release is not None and release < since):
            continue
        if until is not None and (of_machine is None or of_machine > until):
            continue
        default = row["sxxm"] if row["sxxm"] and (machine or "").endswith("-sxxm") else row["default"]
        found[row["cap"]] = Cap(row["cap"], row["subsection"], since, row["needs"], int(default))
    return tuple(found.values())
