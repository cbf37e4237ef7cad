"""Why a QEMU would not start at all: machine types, CPU models and capabilities that it does not have."""

from __future__ import annotations

import re

from vmstate_tools.compat.verdict import Obstacle
from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import catalog
from vmstate_tools.facts.machines import base_of, is_versioned, version_of
from vmstate_tools.facts.tables import rows
from vmstate_tools.release import Release

# Since 10.1 versioned machine types are gone after six years (include/hw/boards.h: `MACHINE_VER_DELETION`); a series
# of releases a year has three minors, which the major number counts.
_DELETES = Release("10.1")
_MAJORS = 6

# 2.7 and 2.8 make CPU cores only for machine types with CPU hotplug (hw/ppc/spapr.c: `ppc_spapr_init`).
_CORES, _ALWAYS_CORES = Release("2.7"), Release("2.9")


def obstacle(release: Release, machine: str, cpu: str | None) -> Obstacle | None:
    """Returns why a QEMU with this machine type and CPU does not start, None where nothing is known against it."""
    return _no_machine(release, machine) or (_no_cpu(release, machine, cpu) if is_ppc(machine) else None)


def is_ppc(machine: str) -> bool:
    """Tells whether a machine type is for ppc guests."""
    return base_of(machine) in {base_of(row["machine"]) for row in catalog.table("machines")}


def _no_machine(release: Release, machine: str) -> Obstacle | None:
    version = version_of(machine)
    if version is None or (_has_pseries if base_of(machine) == "pseries" else _has_version)(release, machine, version):
        return None
    message = f"QEMU {release} has no machine type {machine}"
    remedy = _remedy(release, machine, version)
    return Obstacle("start", "no such machine type", message, destination_value=machine, remedy=remedy)


def _has_pseries(release: Release, machine: str, version: Release) -> bool:
    """Tells whether a release has a pseries machine type, by the catalog where it lists the type."""
    listed = [row for row in catalog.table("machines") if row["machine"] == machine]
    if not listed:
        return version.numbers[:2] <= release.numbers[:2]
    # A stable release may bring one (2.11.1: pseries-2.12); none takes one away.
    return any(release >= Release(row["since"]) and _in_series(row["since"], row["until"], release) for row in listed)


def _in_series(since: str, until: str, release: Release) -> bool:
    series = release.numbers[:2]
    return Release(since).numbers[:2] <= series and (not until or series <= Release(until).numbers[:2])


def _has_version(release: Release, machine: str, version: Release) -> bool:
    """Tells whether a release has a machine type of another kind, by the version in its name."""
    return version.numbers[:2] <= release.numbers[:2] and not _deleted(release, machine, version)


def _deleted(release: Release, machine: str, version: Release) -> bool:
    major, minor = release.numbers[:2]
    return is_versioned(machine) and release >= _DELETES and version.numbers[:2] <= (major - _MAJORS, minor)


def _remedy(release: Release, machine: str, version: Release) -> str | None:
    major, minor = version.numbers[:2]
    if (major, minor) > release.numbers[:2]:
        return f"start the source with -machine {base_of(machine)}-{release.series} or older"
    if base_of(machine) != "pseries":
        return f"load it in a release before {major + _MAJORS}.{minor}"
    ends = [Release(row["until"]) for row in catalog.table("machines") if row["machine"] == machine and row["until"]]
    if ends and release > max(ends):
        return f"load it in {max(ends).series} or before, the last release with {machine}"
    return None


def model_of(cpu: str, release: Release) -> catalog.Model:
    """Returns the catalog's model; POWER5+ and POWER7+ may be spelled with a p, as since 9.0 (5bfb75f152).

    Raises
    ------
    CatalogError : the release has no such model.
    """
    try:
        return catalog.model(cpu, str(release), nearest=True)
    except CatalogError:
        for pattern, other in ((r"(?i)(power[57])p(?=_|$)", r"\1+"), (r"(?i)(power[57])\+(?=_|$)", r"\1p")):
            if re.search(pattern, cpu):
                return catalog.model(re.sub(pattern, other, cpu), str(release), nearest=True)
        raise


def _no_cpu(release: Release, machine: str, cpu: str | None) -> Obstacle | None:
    if cpu is None or cpu.lower() in ("host", "max"):
        return None
    try:
        model = model_of(cpu, release).name
    except CatalogError as err:
        return Obstacle("start", "no such CPU model", str(err), destination_value=cpu)
    if not machine.startswith("pseries") or release < _CORES:
        return None
    if release < _ALWAYS_CORES and (version_of(machine) or release) < _CORES:
        return None
    name = model.lower().replace("+", "p")
    cores = [row for row in rows("compat", "spapr_cores") if row["model"] == name]
    if any(_in_series(row["since"], row["until"], release) for row in cores):
        return None
    message = f"pseries of QEMU {release} has no CPU core type {model}"
    return Obstacle("start", "no such CPU model", message, destination_value=model)
