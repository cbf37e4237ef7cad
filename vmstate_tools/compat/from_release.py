"""What a destination expects that is known by release, machine type, CPU and accelerator alone.

It is put together from the nearest configurations that were observed, what QEMU's source says of the release, and the
catalog's CPU words. Everything assumed on the way is said.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from vmstate_tools.compat import observed, startup
from vmstate_tools.compat.adjust import Adjustment
from vmstate_tools.compat.expectation import Entry, Expectation, Values
from vmstate_tools.compat.neighbours import Place
from vmstate_tools.compat.observed import Configuration
from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import catalog, framing
from vmstate_tools.facts.cpu_section import WORD_OF_FIELD
from vmstate_tools.facts.machines import base_of, canonical
from vmstate_tools.release import Release

# pseries, pc and virt machine types up to this one have no configuration section, footers or globalstate.
_OLD_FRAMING = Release("2.3")

# Until it pseries machine types up to 2.3 did not leave out the configuration section (hw/ppc/spapr.c).
_PSERIES_LEAVES_OUT = Release("2.6")

# RAM blocks whose size goes with -m, with a file, or with a device's options.
_FREE_SIZE = re.compile(r"ram\Z|ram-node|\.rom\Z|/rom@|memory|/")

_ARM_REGISTERS = "cpreg_vmstate_"
_ARM_LENGTH = "cpu", f"{_ARM_REGISTERS}array_len"
_ARM_INDEXES = "cpu", f"{_ARM_REGISTERS}indexes"


class Derived(NamedTuple):
    """A Derived is an expectation, and what was assumed to get it."""

    expectation: Expectation
    assumptions: tuple[str, ...]


def expectation(
    release: Release, machine: str, cpu: str | None, accel: str | None, options: Mapping[str, str]
) -> Derived:
    """Returns what a QEMU of this release expects; `options` are machine options and `-global migration.…`."""
    place = Place(release, canonical(machine, release))
    framing_options = tuple((name, value) for name, value in options.items() if name.startswith("migration."))
    base = _base(place, cpu)
    shared = _without_cpu(place, base, framing_options)
    made = replace(shared.expectation, entries=dict(shared.expectation.entries))
    assumptions = list(shared.assumptions)
    if startup.is_ppc(place.machine):
        same_cpu = base is not None and (cpu is None or base.cpu.lower() == cpu.lower())
        assumptions += _set_ppc_cpu(made, place, cpu, accel, same_cpu)
    elif cpu is not None and base is not None and base.cpu.lower() != cpu.lower():
        _set_cpu_values(made, {})
        assumptions.append(f"CPU {cpu}: taken to be like {base.cpu or 'the default'}")
    return Derived(made, tuple(assumptions))


def _base(place: Place, cpu: str | None) -> Configuration | None:
    """Returns the nearest configuration with this CPU, where it is of this very place; else the nearest."""
    near = place.nearest()
    wanted = (cpu or "").lower()
    own = next((c for c in near if c.cpu.lower() == wanted and place.is_that_of(c)), None)
    return own if own is not None and not own.config else next(iter(near), None)


@functools.lru_cache(maxsize=4096)
def _without_cpu(place: Place, base: Configuration | None, framing_options: tuple[tuple[str, str], ...]) -> Derived:
    """Returns what does not depend on the CPU model; its entries, and the plans made for them, are shared."""
    if base is None:
        made = Expectation(exact=False, ram_complete=False)
        _set_framing(made, place, dict(framing_options))
        text = "the destination has the sections of the stream that QEMU's source knows"
        return Derived(made, (f"no machine like {place.machine} was seen: {text}",))
    made = base.copied()
    made.exact = place.is_that_of(base)
    assumptions: list[str] = []
    if not made.exact:
        assumptions.append(
            f"sections: as QEMU {base.release} {base.machine} ({base.cpu or 'default CPU'}) has them, "
            f"but for what QEMU's source says of {place.release}"
        )
        adjustment = Adjustment(place, base)
        made.entries = adjustment.entries(made)
        assumptions += adjustment.assumptions
    if not made.exact or framing_options:
        _set_framing(made, place, dict(framing_options))
    assumptions += _set_arm_registers(made, place, base)
    if base.config:
        assumptions.append(f"devices: those of configuration {base.config!r}, if the stream has them")
    made.ram, made.ram_gone, made.ram_complete = *_ram(place), False
    assumptions.append("devices, and memory that the machine type does not fix: as in the stream")
    return Derived(made, tuple(assumptions))


def _set_framing(made: Expectation, place: Place, options: Mapping[str, str]) -> None:
    """Sets configuration section and footers: since 2.4, off for machine types up to 2.3 (include/hw/compat.h)."""
    release, version = place.release, place.version
    old = version is not None and version <= _OLD_FRAMING
    footers = release >= framing.since("footer") and not old
    made.footers = footers and options.get("migration.send-section-footer") != "off"
    not_left_out = base_of(place.machine) == "pseries" and release < _PSERIES_LEAVES_OUT
    named = release >= framing.since("configuration") and (not old or not_left_out)
    made.configuration = place.machine if named and options.get("migration.send-configuration") != "off" else None
    # A version that a distribution made (`pc-q35-rhel7.6.0`) may stand for any of QEMU's.
    made.framing_known = version is not None or not re.match(r"(pc|pseries|virt|s390-ccw-virtio)-\w", place.machine)


# -- RAM ---------------------------------------------------------------------------------------------------------------


def _ram(place: Place) -> tuple[dict[str, int], frozenset[str]]:
    """Returns the RAM blocks of this kind of machine: the ones with a fixed size, and the ones of other releases only.

    What the nearest release on each side agrees on is taken to hold in between, and what the last one has, beyond.
    """
    plain = [c for c in place.nearest() if not c.config]
    own = place.release.numbers[:2]
    older = next((c for c in plain if c.version.numbers[:2] <= own), None)
    newer = next((c for c in plain if c.version.numbers[:2] >= own), older)
    older = older or newer
    if older is None or newer is None:
        return {}, frozenset()
    one, two = older.stored["ram"], newer.stored["ram"]
    fixed = {name: size for name, size in one.items() if two.get(name) == size and not _FREE_SIZE.search(name)}
    ever = {name for c in plain for name in c.stored["ram"] if "/" not in name}
    return fixed, frozenset(ever - one.keys() - two.keys())


# -- CPUs --------------------------------------------------------------------------------------------------------------


def _set_cpu_values(made: Expectation, values: Values) -> None:
    """Gives all CPUs these values."""
    made.add(replace(e, values=values, plans={}) for e in list(made.entries.values()) if e.idstr == "cpu")


def _set_arm_registers(made: Expectation, place: Place, base: Configuration) -> list[str]:
    """Gives an Arm CPU the system registers of its release, which grow from release to release.

    A release that was not observed has at most as many as the next newer one that was. How many it has indeed
    is not known: a stream with fewer than that is taken to load, and the assumption that is returned says so.
    """
    entry = made.find("cpu", 0)
    if entry is None or made.exact or _ARM_INDEXES not in entry.values:
        return []
    own = place.release.numbers[:2]
    alike = [c for c in place.nearest() if c.cpu.lower() == base.cpu.lower() and not c.config]
    newer = min((c for c in alike if c.version.numbers[:2] >= own), key=lambda c: c.version, default=None)
    older = max((c for c in alike if c.version.numbers[:2] <= own), key=lambda c: c.version, default=None)
    values = {p: v for p, v in entry.values.items() if not p[1].startswith(_ARM_REGISTERS)}
    nearest = newer or older
    if nearest is not None:
        values |= {p: v for p, v in _cpu_of(nearest).values.items() if p[1].startswith(_ARM_REGISTERS)}
    if newer is None:
        values.pop(_ARM_LENGTH, None)  # how many came since is not known
    most = values.get(_ARM_LENGTH)
    least = _cpu_of(older).values.get(_ARM_LENGTH) if older is not None else None
    others = [c for c in alike if c.version.numbers[:2] != own]
    lists = [_cpu_of(c).values.get(_ARM_INDEXES) for c in others]
    made.foreign_registers = frozenset(registers for registers in lists if registers is not None)
    _set_cpu_values(made, values)
    if most is not None and most == least:
        return []
    return [f"cpu: QEMU {place.release} has the system registers of the stream; how many it has was not seen"]


def _cpu_of(configuration: Configuration) -> Entry:
    return configuration.expectation.entries["cpu", 0]


def _set_ppc_cpu(made: Expectation, place: Place, cpu: str | None, accel: str | None, same_cpu: bool) -> list[str]:
    """Gives a ppc CPU the words and the PVR of its model under this accelerator; returns assumptions."""
    entry = made.find("cpu", 0)
    if entry is None:
        return []
    try:
        model, words = _ppc_words(place, cpu, accel or "tcg")
    except CatalogError as err:
        return [f"the CPU's words: as seen in a like configuration ({err})"]
    values = {p: v for p, v in entry.values.items() if p[0] == "cpu" or same_cpu}
    values |= _ppc_sizes(model.name.lower())
    values["cpu", "pvr"] = values["cpu", "env.spr[SPR_PVR]"] = model.pvr
    values |= {("cpu", field): words[word] for field, word in WORD_OF_FIELD.items() if word in words}
    _set_cpu_values(made, values)
    return ["accelerator: tcg"] if accel is None else []


@functools.lru_cache(maxsize=4096)
def _ppc_words(place: Place, cpu: str | None, accel: str) -> tuple[catalog.Model, dict[str, int]]:
    release = str(place.release)
    model = startup.model_of(cpu or catalog.default_cpu(place.machine, release, nearest=True), place.release)
    return model, catalog.stream_words(release, place.machine, model.name, accel, nearest=True)


@functools.lru_cache(maxsize=4096)
def _ppc_sizes(model: str) -> Values:
    """Returns what subsections of the CPU are compared with: the sizes of TLB and SLB, which go with the model.

    Some of them only old releases send: the oldest configuration goes first, the newest has the last word.
    """
    seen = [c for c in observed.configurations() if c.cpu and c.arch.startswith("ppc")]
    like = sorted((c for c in seen if _family(c.cpu) == _family(model)), key=lambda c: c.version)
    same = [c for c in like if c.cpu.lower() == model]
    found: Values = {}
    for configuration in (*like[:1], *same[:1], *same[-1:]):
        entry = configuration.expectation.find("cpu", 0)
        found |= {place: v for place, v in entry.values.items() if place[0] != "cpu"} if entry is not None else {}
    return found


@functools.lru_cache(maxsize=1024)  # asked for of each of 1,646 captures, which have few models
def _family(cpu: str) -> str:
    """Returns a CPU model's name without its version."""
    return re.sub(r"_v[\d.]+$", "", cpu.lower()).rstrip("+p")
