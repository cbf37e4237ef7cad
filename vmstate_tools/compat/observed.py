"""Expectations extracted from captures, so that the captures need not ship: `data/compat/expectations.json.zst`.

A configuration is a release, machine type, CPU model and options that a capture was made with. `compat.observe` writes
the file; descriptions and values that captures share are in it once.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

from vmstate_tools.compat.expectation import Entry, Expectation
from vmstate_tools.data import data_path
from vmstate_tools.facts.machines import canonical, version_of
from vmstate_tools.release import Release
from vmstate_tools.source import zstd
from vmstate_tools.vmstate.description import Vmsd, built_in

COLUMNS = ("release", "arch", "machine", "cpu", "config", "arguments")


@dataclass(frozen=True, eq=False)
class Configuration:
    """A Configuration was observed: which QEMU it was, and its expectation as the file has it."""

    release: str
    arch: str
    machine: str
    cpu: str
    config: str
    arguments: str
    stored: dict[str, Any]

    @functools.cached_property
    def version(self) -> Release:
        """Returns its release."""
        return Release(self.release)

    @functools.cached_property
    def machine_type(self) -> str:
        """Returns the machine type, with its version where the name that was given stands for the newest one."""
        return canonical(self.machine, self.version)

    @functools.cached_property
    def machine_version(self) -> Release | None:
        """Returns the version of the machine type, None where it has none."""
        return version_of(self.machine_type)

    @functools.cached_property
    def expectation(self) -> Expectation:
        """Returns what was expected; shared, so not to be changed: see `copied`."""
        return _restored(self.stored)

    def copied(self) -> Expectation:
        """Returns the expectation made anew, to be changed."""
        return _restored(self.stored)


@functools.cache
def _stored() -> dict[str, list[Any]]:
    text = zstd.decompress(data_path("compat", "expectations.json.zst").read_bytes())
    tables: dict[str, list[Any]] = json.loads(text)
    return tables


@functools.cache
def configurations() -> tuple[Configuration, ...]:
    """Returns all configurations that were observed."""
    return tuple(Configuration(**{c: row[c] for c in COLUMNS}, stored=row) for row in _stored()["captures"])


@functools.lru_cache(maxsize=32)
def devices(series: tuple[int, ...]) -> dict[str, Entry]:
    """Returns one section of each device observed in a series of releases, by the last part of their idstr."""
    found: dict[str, Entry] = {}
    for configuration in configurations():
        if configuration.version.numbers[:2] == series:
            for entry in configuration.expectation.entries.values():
                found.setdefault(entry.idstr.rpartition("/")[2], entry)
    return found


@functools.cache
def _tree(number: int) -> Vmsd:
    return built_in({"name": "", "instance_id": 0, **_stored()["trees"][number]}).vmsd


@functools.cache
def _values(number: int) -> dict[tuple[str, str], Any]:
    return {
        (vmsd, path): bytes.fromhex(value) if isinstance(value, str) else value
        for vmsd, path, value in _stored()["values"][number]
    }


def _restored(row: dict[str, Any]) -> Expectation:
    expectation = Expectation(
        configuration=row["configuration"],
        page_bits=row["page_bits"],
        capabilities=tuple(row["capabilities"]),
        footers=row["footers"],
        ram=row["ram"],
        page_size=row["page_size"],
    )
    for idstr, instance, version, tree, values, kind in (_stored()["sections"][n] for n in row["sections"]):
        vmsd = None if tree is None else _tree(tree)
        entry = Entry(idstr, instance, version, vmsd, _values(values))
        entry.iterable, entry.old_style = kind == "iterable", kind == "old style"
        expectation.add([entry])
    return expectation
