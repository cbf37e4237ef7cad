"""Machine types: the version in a name, the default CPU, and the CPU properties that a machine type sets."""

from __future__ import annotations

import re
from functools import lru_cache

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts.releases import resolve, rows_at
from vmstate_tools.facts.tables import rows as all_rows
from vmstate_tools.release import Release

_VERSIONED = re.compile(r"(?P<base>.*?)-(?P<version>\d{1,9}\.\d{1,9})(?P<variant>-\w+)?\Z", re.ASCII)


@lru_cache(maxsize=4096)
def version_of(machine: str) -> Release | None:
    """Returns the version in a machine type's name, 2.12 of `pseries-2.12-sxxm`; None where there is none."""
    match = _VERSIONED.match(machine)
    return Release(match["version"]) if match else None


@lru_cache(maxsize=4096)
def base_of(machine: str) -> str:
    """Returns the name without its version: `pseries` of `pseries-2.12-sxxm`."""
    match = _VERSIONED.match(machine)
    return match["base"] if match else machine


@lru_cache(maxsize=4096)
def canonical(machine: str, release: Release | None) -> str:
    """Returns the machine type that a plain name stands for in a release: `pseries-2.6` for `pseries` in 2.6.

    A name that is no alias there (`data/catalog/machine_aliases.csv`) is returned as it is.
    """
    for row in all_rows("catalog", "machine_aliases"):
        if row["alias"] == machine and release is not None and release.within(row["since"], None):
            return f"{row['base']}-{release.series}"
    return machine


def is_versioned(machine: str) -> bool:
    """Tells whether a machine type is of a kind that each release adds a version of (`pc-q35-2.6`)."""
    return base_of(machine) in {row["base"] for row in all_rows("catalog", "machine_aliases")}


def has_machine(machine: str, release: str, nearest: bool = False) -> bool:
    """Tells whether a release has a machine type; only types whose default CPU is known are listed (since 1.5)."""
    return any(row["machine"] == machine for row in rows_at("machines", resolve(release, nearest)))


def default_cpu(machine: str, release: str, nearest: bool = False, arch: str = "ppc64") -> str:
    """Returns the CPU that a machine type takes under TCG where `-cpu` is not given.

    Raises
    ------
    CatalogError : the release lacks the machine type, or its default could not be read from the source.
    """
    release = resolve(release, nearest)
    column = "cpu" if arch == "ppc64" else "cpu_ppc"
    cpus = {row["machine"]: row[column] for row in rows_at("machines", release)}
    if not cpus.get(machine) or (arch == "ppc" and machine.startswith("pseries")):
        raise CatalogError(f"no default CPU known for machine {machine!r} in QEMU {release}")
    return cpus[machine]


def gate(member: str, machine: str, release: str, nearest: bool = False) -> bool:
    """Tells whether a machine type sets a CPU property that gates fields, such as `pre_2_8_migration`.

    Raises
    ------
    CatalogError : the release has no such property.
    """
    release = resolve(release, nearest)
    rows = [row for row in rows_at("gates", release) if row["member"] == member]
    if not rows:
        raise CatalogError(f"no CPU property {member!r} in QEMU {release}")
    version = version_of(machine) if machine.startswith("pseries-") else None
    for row in rows:
        if version is not None and version <= Release(row["machine"]):
            return row["value"] in ("on", "true")
    return rows[0]["default"] == "true"
