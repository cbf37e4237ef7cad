"""Which observed configurations are most like a destination that was not observed."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from vmstate_tools.compat import observed, source_descriptions
from vmstate_tools.compat.observed import Configuration
from vmstate_tools.facts.machines import base_of, version_of
from vmstate_tools.release import Release
from vmstate_tools.vmstate.description import Vmsd

# A machine type without a version stands before all versions.
_NO_VERSION = Release("0.0")

# Configurations made with options that take away what the machine type has, or change how streams are written.
_ODD = ("no-", "minimal", "x-ignore", "mapped", "cap-", "file")


@dataclass(frozen=True)
class Place:
    """A Place is a release and a machine type of it, with its version: `pseries-2.6`, not `pseries`."""

    release: Release
    machine: str

    @property
    def version(self) -> Release | None:
        """Returns the version of the machine type, None where it has none."""
        return version_of(self.machine)

    def nearest(self) -> tuple[Configuration, ...]:
        """Returns the configurations of the same kind of machine, nearest first."""
        return _nearest(self)

    def is_that_of(self, configuration: Configuration) -> bool:
        """Tells whether a configuration is of this series of releases and this machine type."""
        same_series = configuration.version.numbers[:2] == self.release.numbers[:2]
        return same_series and configuration.machine_type == self.machine

    def describes_alike(self, vmsd: Vmsd, configuration: Configuration) -> bool:
        """Tells whether a description has the same fields here as in a configuration.

        By QEMU's source in both releases, and by the properties that both machine types set.
        """
        here = source_descriptions.find(vmsd, self.release)
        there = source_descriptions.find(vmsd, configuration.version)
        if here is None or there is None or here.shape != there.shape:
            return False
        mine, theirs = self.version, configuration.machine_version
        return mine is None or theirs is None or all((mine < gate) == (theirs < gate) for gate in here.gates)


@functools.cache
def _by_kind() -> dict[str, list[Configuration]]:
    """Returns the configurations of each kind of machine (`pseries`)."""
    found: dict[str, list[Configuration]] = {}
    for configuration in observed.configurations():
        if not configuration.config.startswith(_ODD):
            found.setdefault(base_of(configuration.machine_type), []).append(configuration)
    return found


@functools.cache
def _series() -> frozenset[tuple[int, ...]]:
    return frozenset(configuration.version.numbers[:2] for configuration in observed.configurations())


@functools.lru_cache(maxsize=4096)
def _nearest(place: Place) -> tuple[Configuration, ...]:
    """Orders by how many observed releases and machine types lie between; among equals an older release goes first."""
    alike = _by_kind().get(base_of(place.machine), [])
    own, wanted = place.release.numbers[:2], place.version or _NO_VERSION
    releases = {series: i for i, series in enumerate(sorted({*_series(), own}))}
    versions = {c.machine_version or _NO_VERSION for c in alike} | {wanted}
    machines = {version: i for i, version in enumerate(sorted(versions))}

    def distance(configuration: Configuration) -> tuple[int, ...]:
        gap = releases[configuration.version.numbers[:2]] - releases[own]
        steps = 2 * abs(gap) - (gap < 0)
        odd = {"": 0, "htmoff": 1}.get(configuration.config, 2)
        apart = abs(machines[configuration.machine_version or _NO_VERSION] - machines[wanted])
        return apart + steps, odd, steps

    return tuple(sorted(alike, key=distance))
