"""What the rules know of a destination: a frozen view of it, made once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vmstate_tools.compat.expectation import Expectation
from vmstate_tools.compat.spapr_caps import Capability
from vmstate_tools.release import Release


@dataclass(frozen=True, slots=True)
class CapabilityLevel:
    """A pseries capability: the level for which the stream sends nothing, and the level that the destination has."""

    capability: Capability
    default: int
    effective: int


@dataclass(frozen=True, slots=True)
class Loader:
    """A Loader is a destination as its loader knows itself.

    Attributes
    ----------
    release : None where it is not known.
    options : machine options and migration capabilities, name → value.
    pvr : of its first CPU, where that is a ppc one.
    caps : the capabilities of a pseries machine type.
    """

    release: Release | None
    machine: str | None
    cpu: str | None
    accel: str | None
    options: Mapping[str, str]
    pvr: int | None
    caps: tuple[CapabilityLevel, ...]
    expectation: Expectation = field(repr=False)
