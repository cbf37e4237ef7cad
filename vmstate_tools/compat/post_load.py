"""What a destination checks when a section has been read: the post_load hooks that refuse, release by release."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vmstate_tools.compat import pvr as pvrs
from vmstate_tools.compat.expectation import Entry
from vmstate_tools.compat.from_stream import pvr_in
from vmstate_tools.compat.loader import Loader
from vmstate_tools.compat.reader import Reader
from vmstate_tools.compat.verdict import Caution, Obstacle
from vmstate_tools.facts.tables import holds, rows
from vmstate_tools.release import Release
from vmstate_tools.stream.cpu_words import SPR_PVR
from vmstate_tools.stream.records import Section

Found = Iterator[Obstacle | Caution]

_REGISTERS_OF_PPC = 1024  # target/ppc/cpu.h: `spr[1024]`


def post_load(read: Reader, section: Section, entry: Entry, loader: Loader) -> Found:
    """Yields what the hooks of the descriptions in a section refuse, or do not refuse but should be known."""
    for hook in _HOOKS:
        yield from hook(read, section, entry, loader)


def _ppc_cpu(read: Reader, section: Section, entry: Entry, loader: Loader) -> Found:
    """Applies the PVR rule of target/ppc/machine.c: `cpu_post_load`.

    To 2.0 the PVR is a field that must be equal; 2.1 to 2.9 do not look at it; since 2.10 (commit d5fc133eed) a
    compat PVR must be one the CPU can run as, else the PVR must match the class; since 7.2 (21d3a78ed9) closely.
    """
    registers, own = read.values.get(("cpu", "env.spr")), entry.values.get(("cpu", "pvr"))
    if registers is None or own is None or entry.vmsd is None or entry.vmsd.name != "cpu":
        return
    release = loader.release
    if release is None or release < Release("2.10"):
        return
    sent = pvr_in(registers, len(registers) // _REGISTERS_OF_PPC) or 0
    compat = read.values.get(("cpu/compat", "compat_pvr"), 0)
    if compat:
        level, mine = pvrs.isa_levels().get(compat), pvrs.family_of(own)
        if mine is not None and level not in mine.levels:
            message = f"compat PVR 0x{compat:08x} ({level or 'unknown'}) is nothing a {mine.name} can run as"
            yield Obstacle("H", "compat PVR", message, None, None, "compat_pvr", compat, own)
    elif not pvrs.matches(own, sent, best=release >= Release("7.2"), paired=release >= Release("8.1")):
        message = "the PVR does not match the destination's CPU model"
        remedy = "destination: the CPU model of the stream, or on the source -machine max-cpu-compat=… (since 2.10)"
        yield Obstacle("H", "PVR", message, None, None, f"env.spr[{SPR_PVR}]", sent, own, remedy=remedy)


def _spapr_caps(read: Reader, section: Section, entry: Entry, loader: Loader) -> Found:
    """Applies hw/ppc/spapr_caps.c: `spapr_caps_post_migration`, since 2.12 (commit be85537d65).

    What the stream does not send counts as the default of this machine type and CPU.
    """
    if section.idstr != "spapr" or (loader.release is not None and loader.release < Release("2.12")):
        return
    levels = {vmsd: value for (vmsd, _), value in reversed(read.values.items())}  # the first of each
    for level in loader.caps:
        cap, have = level.capability, level.effective
        sent = levels.get(cap.subsection, level.default)
        if sent > have:
            message = f"cap-{cap.name} is {sent} in the stream, the destination has {have}"
            remedy = f"destination: -machine cap-{cap.name} at the level of the source"
            yield Obstacle("H", "capability", message, None, None, f"cap-{cap.name}", sent, have, remedy=remedy)
        elif sent < have:
            yield Caution(f"cap-{cap.name} is {sent} in the stream, {have} at the destination")


def _arm_cpu(read: Reader, section: Section, entry: Entry, loader: Loader) -> Found:
    """Checks Arm registers (target/arm/machine.c: `cpu_post_load`): the destination must have each in the stream."""
    release, cpu = loader.release, loader.cpu or ""
    aborts = release is not None and release < Release("11.0") and not cpu.lower().startswith("max")
    if "cpu/wfxt-timer" in read.subsections and aborts:
        message = "the destination aborts on a timer that its CPU does not have (before 11.0 only `max` does)"
        yield Obstacle("F", "abort", message, None, None, "wfxt_timer")
    own, sent = _registers(entry.values), _registers(read.values)
    yield from _forced(sent, release)
    expectation = loader.expectation
    seen = read.values.get(("cpu", "cpreg_vmstate_indexes")) in expectation.foreign_registers
    if not own or not sent or not (expectation.exact or seen):
        return  # the registers of another release tell nothing of a stream that this one may have written
    last = max(own)
    lacking = [i for i in sent if i not in own and i < last]  # beyond the last of ours the loop has ended
    if lacking:
        message = f"the destination lacks {len(lacking)} system registers that the stream has"
        yield Obstacle("H", "system register", message, None, None, "cpreg_vmstate_indexes", lacking[0])
    for index, value in sent.items():
        if index in own and value != own[index] and _is_constant(index):
            message = f"system register 0x{index:x} is constant and has another value at the destination"
            yield Obstacle("H", "system register", message, None, None, f"cpreg 0x{index:x}", value, own[index])


_ID_AA64DFR0 = 0x603000000013C028  # every CPU with AArch64 has it


def _forced(sent: dict[int, int], release: Release | None) -> Iterator[Obstacle]:
    """Yields registers that lack bits which read as set whatever is written: they do not read back as sent."""
    for row in rows("compat", "arm_registers"):
        index, bits, value = int(row["index"], 16), int(row["set"], 16), sent.get(int(row["index"], 16))
        here = release is not None and holds(row, release) and (not row["only"] or _ID_AA64DFR0 in sent)
        if here and value is not None and bits & ~value:
            message = f"{row['register']} always has bits 0x{bits:x} set at the destination, in the stream it has not"
            yield Obstacle("H", "system register", message, None, None, f"cpreg 0x{index:x}", value, value | bits)


def _registers(values: dict[tuple[str, str], Any]) -> dict[int, int]:
    """Returns the Arm system registers among some values, index → value."""
    indexes, contents = (values.get(("cpu", f"cpreg_vmstate_{n}")) for n in ("indexes", "values"))
    if indexes is None or contents is None:
        return {}
    return dict(zip(*(np.frombuffer(a, ">u8").tolist() for a in (indexes, contents)), strict=False))


def _is_constant(index: int) -> bool:
    """Tells whether a register is an identification register, which does not read back what was written.

    `index` is as KVM numbers registers: CRn is 0 for the ID registers (target/arm/kvm-consts.h;
    `write_list_to_cpustate` in target/arm/helper.c).
    """
    if index >> 48 == 0x6030:  # AArch64: op0, op1, CRn, CRm, op2
        op0, op1, crn = index >> 14 & 3, index >> 11 & 7, index >> 7 & 15
        return op0 == 3 and op1 == 0 and crn == 0
    return index >> 16 & 0xFFF == 0xF and index >> 11 & 15 == 0 and index >> 3 & 15 == 0  # cp15 of AArch32


def _pci_config(read: Reader, section: Section, entry: Entry, loader: Loader) -> Found:
    """Checks as hw/pci/pci.c: `get_pci_config_device`: what software cannot write must be the destination's own.

    Compared here are the identity (`pci_init_cmask`) and each capability's id and place (`pci_add_capability`).
    """
    for (vmsd, path), sent in read.values.items():
        own = entry.values.get((vmsd, path))
        if vmsd not in ("PCIDevice", "PCIEDevice") or not isinstance(own, bytes) or min(len(own), len(sent)) < 64:
            continue
        differing = next((place for place in _constant_places(own, len(sent)) if own[place] != sent[place]), None)
        if differing is not None:
            message = f"PCI configuration space differs at 0x{differing:x}, which the guest cannot write"
            yield Obstacle("F", "not equal", message, None, None, path, sent[differing], own[differing])


def _constant_places(config: bytes, size: int) -> list[int]:
    """Returns the places in a PCI configuration space, below `size`, that software cannot write."""
    places = [*range(4), *range(8, 12), 0x0E, 0x34]
    at = config[0x34] if config[6] & 0x10 else 0
    while 64 <= at < min(len(config), size) - 1 and at not in places:
        places += [at, at + 1]
        at = config[at + 1]
    return places


_HOOKS: tuple[Callable[[Reader, Section, Entry, Loader], Found], ...] = (
    _pci_config,
    _ppc_cpu,
    _spapr_caps,
    _arm_cpu,
)
