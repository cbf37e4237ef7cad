"""What a destination checks by code of its own: post_load hooks and hand-written loaders, release by release."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from vmstate_tools.compat import facts
from vmstate_tools.compat.blame import blame
from vmstate_tools.compat.verdict import Obstacle
from vmstate_tools.format import framing as wire
from vmstate_tools.vmstate.description import FieldDescription

if TYPE_CHECKING:
    from vmstate_tools.compat.destination import Destination
    from vmstate_tools.compat.expectation import Entry
    from vmstate_tools.compat.load import Load
    from vmstate_tools.compat.policy import Context
    from vmstate_tools.compat.program import Reader
    from vmstate_tools.stream.records import Section
    from vmstate_tools.stream.stream import Stream

SPR_PVR = 287  # target/ppc/cpu.h

# Sections QEMU registers by itself, whatever the devices.
INTERNAL = frozenset({"globalstate", "ram", "timer", "block", "dirty-bitmap"})

# The sanity-check words of the ppc CPU section, by the names they have had (target/ppc/machine.c).
SANITY = {
    f"{prefix}{word}": word
    for prefix in ("env.", "mig_")
    for word in ("msr_mask", "insns_flags", "insns_flags2", "nb_BATs")
}

# vmsd -> fields that the rules below ask for.
WANTED = {
    "cpu": {"env.spr", "env.gpr", "cpreg_vmstate_indexes", "cpreg_vmstate_values", *SANITY},
    "cpu/compat": {"compat_pvr"},
    "PCIDevice": {"config"},
    "PCIEDevice": {"config"},
}


@functools.lru_cache(maxsize=1 << 16)
def wanted(vmsd: str, name: str) -> bool:
    """Do the rules need this field's value?"""
    return name in WANTED.get(vmsd, ()) or vmsd.startswith("spapr/cap/")


# -- F: compared fields ----------------------------------------------------------------------------------------------


def compare(path: str, field: FieldDescription, value: Any, own: Any) -> Obstacle | None:
    """`VMSTATE_*_EQUAL` and `VMSTATE_INT32_POSITIVE_LE`: the value in the stream against the destination's own."""
    if own is None:
        return None
    if field.type == "int32 le":
        if 0 <= value <= own:
            return None
        message = f"{path} is {value}, the destination takes 0 to {own}"
        return Obstacle("F", "too large", message, None, None, path, value, own)
    if value == own:
        return None
    message = f"{path} must equal the destination's"
    return Obstacle("F", "not equal", message, None, None, path, value, own)


def context(word: str, path: str, destination: Destination, entry: Entry, r: Reader | None = None) -> Context:
    """What a policy is told: the stream's PVR stands before the words."""
    from vmstate_tools.compat.policy import Context

    width = target_ulong(entry)
    spr = r.kept.get(("cpu", "env.spr"), b"") if r is not None else b""
    pvr = int.from_bytes(spr[SPR_PVR * width : (SPR_PVR + 1) * width], "big") if spr else None
    d = destination
    return Context(word, path, d.release, d.machine, d.accel, d.pvr, pvr, width)


def target_ulong(entry: Entry) -> int:
    """Bytes of a target_ulong, by the size of a general register."""
    fields = entry.vmsd.fields if entry.vmsd is not None else ()
    return next((f.size for f in fields if f.name == "env.gpr"), 8)


def name_flags(obstacle: Obstacle, word: str, destination: Destination, stream_pvr: int | None) -> Obstacle:
    """Add the names of the flags that differ, the commits that brought them, and a remedy."""
    values = (obstacle.stream_value, obstacle.destination_value)
    if word != "nb_BATs" and None not in values:
        found = blame(word, *values, destination.pvr, destination.accel, destination.machine)
        obstacle.flags_only_in_stream, obstacle.flags_only_in_destination, obstacle.commits = map(list, found)
    if None not in (stream_pvr, destination.pvr) and stream_pvr != destination.pvr:
        obstacle.remedy = "destination: -cpu with the stream's CPU model"
    elif destination.version is None or destination.version < (2, 8, 0):
        obstacle.remedy = "destination 2.7.1 or newer, or `vmstate rewrite` with the destination's words"
    return obstacle


# -- A to C: configuration, commands, RAM ----------------------------------------------------------------------------


def configuration(stream: Stream, destination: Destination) -> Iterator[Obstacle]:
    """The subsections of the configuration (migration/savevm.c: `configuration_post_load`)."""
    local = destination.expectation
    release = destination.version
    sent = stream.configuration
    bits = sent.get("page_bits")
    if bits is not None:
        if release is not None and release < (2, 8, 0):
            name = "configuration/target-page-bits"
            message = f"the destination does not know the subsection {name} (since 2.8)"
            yield Obstacle("G", "unknown subsection", message, "configuration", 0, name, bits)
        elif local.page_bits is not None and bits != local.page_bits:
            message = f"target page bits {bits}, the destination has {local.page_bits}"
            yield Obstacle("B", "page bits", message, "configuration", 0, "target_page_bits", bits, local.page_bits)
    theirs, ours = set(sent.get("capabilities", ())), set(local.capabilities)
    if theirs and release is not None and release < (4, 0, 0):
        name = "configuration/capabilities"
        message = f"the destination does not know the subsection {name} (since 4.0)"
        yield Obstacle("G", "unknown subsection", message, "configuration", 0, name)
    elif theirs != ours and stream.machine is not None:
        for name in sorted(theirs ^ ours):
            on = name in theirs
            message = f"capability {name} is {'on' if on else 'off'} in the stream, not so at the destination"
            remedy = f"destination: migrate_set_capability {name} {'on' if on else 'off'}"
            yield Obstacle("B", "capability", message, "configuration", 0, name, on, not on, remedy=remedy)


def command(record: wire.Parsed, destination: Destination) -> list[Obstacle]:
    """Commands came with 2.5 (migration/savevm.c: `loadvm_process_command`)."""
    release = destination.version
    number = record.value.command
    since = {8: (3, 1, 0), 9: (3, 0, 0), 10: (3, 0, 0), 11: (10, 0, 0)}.get(number, (2, 5, 0))
    if release is None or release >= since:
        return []
    message = f"the destination does not know command {number} (since {since[0]}.{since[1]})"
    return [Obstacle("D", "unknown command", message, stream_value=number)]


def iterable(section: Section, entry: Entry, stream: Stream, destination: Destination) -> list[Obstacle]:
    """Sections with a loader of their own."""
    if section.idstr == "ram":
        return list(_ram(stream, destination))
    if section.idstr == "spapr/htab":
        return list(_htab(section, entry, destination))
    return []


def _ram(stream: Stream, destination: Destination) -> Iterator[Obstacle]:
    """The block list against the destination's, then the kinds of page records (migration/ram.c: `ram_load`)."""
    expectation = destination.expectation
    local = expectation.ram
    for name, size in blocks_of(stream).items():
        own = local.get(name)
        if own is None and (expectation.ram_complete or name in expectation.ram_gone):
            message = f"the destination has no RAM block {name}"
            remedy = "give the destination the same devices and memory"
            yield Obstacle("C", "unknown RAM block", message, field=name, stream_value=size, remedy=remedy)
        elif own is not None and size != own and not destination.resizable(name):
            message = f"RAM block {name} has {size} bytes, the destination's has {own}"
            yield Obstacle("C", "RAM block size", message, field=name, stream_value=size, destination_value=own)
    yield from _records(stream, destination)


def _records(stream: Stream, destination: Destination) -> Iterator[Obstacle]:
    """Kinds of records that a release does not know (data/compat/ram_records.csv), or takes only when told to."""
    release, sent = destination.version, record_kinds(stream)
    if release is None:
        return
    for row in facts.rows("ram_records"):
        flag = int(row["flag"], 16)
        if not sent & flag or destination.expectation.ram_records & flag:
            continue
        since, until, needed = (facts.version(row[c]) for c in ("since", "until", "needs_since"))
        name, needs = row["record"], row["needs"]
        if (since and release < since) or (until and release[:2] > until[:2]):
            until_text = f" to {row['until']}" if row["until"] else " on"
            message = f"the stream has {name} records, which QEMU knows from {row['since']}{until_text}"
            yield Obstacle("C", "unknown RAM record", message, field=name, stream_value=flag)
        elif needed and release >= needed and destination.options.get(needs) != "on":
            message = f"the stream has {name} records, which the destination takes only with capability {needs}"
            remedy = f"destination: migrate_set_capability {needs} on"
            yield Obstacle("C", "unknown RAM record", message, field=name, stream_value=flag, remedy=remedy)
    if release >= (8, 2, 0) and stream.ram._filled:  # 413d64fedc
        message = "the stream has pages filled with one byte that is not 0, which no release since 8.2 takes"
        yield Obstacle("C", "unknown RAM record", message, field="zero page")


def blocks_of(stream: Stream) -> dict[str, int]:
    """RAM block name -> bytes."""
    return {b.name: b.used_length for b in stream.ram.block_list}


def record_kinds(stream: Stream) -> int:
    """The flags of all records in the RAM section."""
    return int(np.bitwise_or.reduce(stream.ram._runs["head"] & np.uint64(0x3FF), initial=0))


def _htab(section: Section, entry: Entry, destination: Destination) -> Iterator[Obstacle]:
    """The hash table's size (hw/ppc/spapr.c: `htab_load`): to 2.5 it must be the destination's own.

    Since 2.12 (commit 029ff892e1 and before) -1 says that there is no table.
    """
    own = entry.values.get(("", "htab_shift"))
    release = destination.version
    for leaf in section.leaves:
        if leaf.path != "htab_shift" or release is None:
            continue
        if own is not None and leaf.value != own and release < (2, 6, 0):
            message = f"the hash table has shift {leaf.value!r}, the destination's {own}"
            yield Obstacle("F", "not equal", message, None, None, "htab_shift", leaf.value, own)
        elif leaf.value in (-1, 0xFFFFFFFF) and release < (2, 12, 0):
            message = "the guest has no hash table, which the destination cannot read (since 2.12)"
            yield Obstacle("F", "not readable", message, None, None, "htab_shift", leaf.value, own)


# -- H: post_load ----------------------------------------------------------------------------------------------------


def post_load(r: Reader, section: Section, entry: Entry, load: Load) -> list[Obstacle]:
    """The hooks that refuse, of the descriptions in this section."""
    found: list[Obstacle] = []
    for hook in _HOOKS:
        found += hook(r, section, entry, load)
    return found


def _ppc_cpu(r: Reader, section: Section, entry: Entry, load: Load) -> Iterator[Obstacle]:
    """The PVR rule of target/ppc/machine.c: `cpu_post_load`.

    To 2.0 the PVR is a field that must be equal; 2.1 to 2.9 it is not looked at; since 2.10 (commit d5fc133eed) a
    compat PVR must be one the CPU can run as, else the PVR must match the class; since 7.2 (21d3a78ed9) closely.
    """
    spr = r.kept.get(("cpu", "env.spr"))
    own = entry.values.get(("cpu", "pvr"))
    if spr is None or own is None or entry.vmsd is None or entry.vmsd.name != "cpu":
        return
    release = load.destination.version
    if release is None or release < (2, 10, 0):
        return
    width = len(spr) // 1024
    pvr = int.from_bytes(spr[SPR_PVR * width : (SPR_PVR + 1) * width], "big")
    compat = r.kept.get(("cpu/compat", "compat_pvr"), 0)
    mine = facts.family(own)
    if compat:
        level = facts.LOGICAL_PVR.get(compat)
        if mine is not None and level not in mine.levels:
            message = f"compat PVR 0x{compat:08x} ({level or 'unknown'}) is nothing a {mine.name} can run as"
            yield Obstacle("H", "compat PVR", message, None, None, "compat_pvr", compat, own)
        return
    if not pvr_match(own, pvr, best=release >= (7, 2, 0), paired=release >= (8, 1, 0)):
        message = "the PVR does not match the destination's CPU model"
        remedy = "destination: the CPU model of the stream, or on the source -machine max-cpu-compat=… (since 2.10)"
        yield Obstacle("H", "PVR", message, None, None, f"env.spr[{SPR_PVR}]", pvr, own, remedy=remedy)


def pvr_match(own: int, pvr: int, *, best: bool, paired: bool = True) -> bool:
    """Does a CPU class of PVR `own` take a stream of `pvr`? `best`: as closely as since 7.2; `paired`: since 8.1."""
    if own == pvr:
        return True
    mine, theirs = facts.family(own), facts.family(pvr)
    if mine is None or theirs is None or theirs.name not in mine.matches:
        return False
    if not best:
        return True
    if theirs.name != mine.name or (own ^ pvr) & mine.best_mask:
        return False
    if mine.name == "POWER9" and paired and pvr & 0xF00 == 0x200:
        # DD2.0 and 2.1 go together, DD2.2 and 2.3 (cpu_init.c: ppc_pvr_match_power9, 277ee17212)
        return own & 0xF == (0 if pvr & 0xF < 2 else 2)
    return True


def _spapr_caps(r: Reader, section: Section, entry: Entry, load: Load) -> Iterator[Obstacle]:
    """hw/ppc/spapr_caps.c: `spapr_caps_post_migration`, since 2.12 (commit be85537d65).

    What the stream does not send counts as the default of this machine type and CPU.
    """
    if section.idstr != "spapr":
        return
    release = load.destination.version
    if release is not None and release < (2, 12, 0):
        return
    effective = load.destination.caps
    for cap in facts.spapr_caps(release, load.destination.machine):
        default = load.destination.cap_default(cap)
        sent = next((v for (vmsd, _), v in r.kept.items() if vmsd == cap.subsection), default)
        have = effective.get(cap.name, default)
        if sent > have:
            message = f"cap-{cap.name} is {sent} in the stream, the destination has {have}"
            remedy = f"destination: -machine cap-{cap.name} at the level of the source"
            yield Obstacle("H", "capability", message, None, None, f"cap-{cap.name}", sent, have, remedy=remedy)
        elif sent < have:
            load.warnings.append(f"cap-{cap.name} is {sent} in the stream, {have} at the destination")


def _arm_cpu(r: Reader, section: Section, entry: Entry, load: Load) -> Iterator[Obstacle]:
    """target/arm/machine.c: `cpu_post_load`: every system register in the stream must be one the destination has."""
    release, cpu = load.destination.version, load.destination.cpu or ""
    known = release is not None and release < (11, 0, 0)
    if "cpu/wfxt-timer" in r.subsections and known and not cpu.lower().startswith("max"):
        message = "the destination aborts on a timer that its CPU does not have (before 11.0 only `max` does)"
        yield Obstacle("F", "abort", message, None, None, "wfxt_timer")
    own = _registers([entry.values.get(("cpu", f"cpreg_vmstate_{n}")) for n in ("indexes", "values")])
    sent = _registers([r.kept.get(("cpu", f"cpreg_vmstate_{n}")) for n in ("indexes", "values")])
    yield from _forced(sent, release)
    expectation = load.destination.expectation
    seen = r.kept.get(("cpu", "cpreg_vmstate_indexes")) in expectation.foreign_registers
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


_ID_AA64DFR0 = 0x603000000013C028  # has every CPU with AArch64


def _forced(sent: dict[int, int], release: tuple[int, int, int] | None) -> Iterator[Obstacle]:
    """Bits that a register reads as set whatever is written: without them it does not read back as sent."""
    for row in facts.rows("arm_registers"):
        index, bits, value = int(row["index"], 16), int(row["set"], 16), sent.get(int(row["index"], 16))
        here = release is not None and facts.holds(row, release) and (not row["only"] or _ID_AA64DFR0 in sent)
        if here and value is not None and bits & ~value:
            message = f"{row['register']} always has bits 0x{bits:x} set at the destination, in the stream it has not"
            yield Obstacle("H", "system register", message, None, None, f"cpreg 0x{index:x}", value, value | bits)


def _registers(arrays: list[Any]) -> dict[int, int]:
    if None in arrays:
        return {}
    return dict(zip(*(np.frombuffer(a, ">u8").tolist() for a in arrays), strict=False))


def _is_constant(index: int) -> bool:
    """Is this an identification register, which does not read back what was written (`write_list_to_cpustate`)?

    `index` is as KVM numbers registers: CRn is 0 for the ID registers (target/arm/kvm-consts.h).
    """
    if index >> 48 == 0x6030:  # AArch64: op0, op1, CRn, CRm, op2
        op0, op1, crn = index >> 14 & 3, index >> 11 & 7, index >> 7 & 15
        return op0 == 3 and op1 == 0 and crn == 0
    return index >> 16 & 0xFFF == 0xF and index >> 11 & 15 == 0 and index >> 3 & 15 == 0  # cp15 of AArch32


def _pci_config(r: Reader, section: Section, entry: Entry, load: Load) -> Iterator[Obstacle]:
    """hw/pci/pci.c: `get_pci_config_device`: what software cannot write must be the destination's own.

    Compared here are the identity (`pci_init_cmask`) and each capability's id and place (`pci_add_capability`).
    """
    for (vmsd, path), theirs in r.kept.items():
        own = entry.values.get((vmsd, path))
        if vmsd not in ("PCIDevice", "PCIEDevice") or not isinstance(own, bytes) or min(len(own), len(theirs)) < 64:
            continue
        places = [*range(4), *range(8, 12), 0x0E, 0x34]
        at = own[0x34] if own[6] & 0x10 else 0
        while 64 <= at < min(len(own), len(theirs)) - 1 and at not in places:
            places += [at, at + 1]
            at = own[at + 1]
        for place in places:
            if own[place] != theirs[place]:
                message = f"PCI configuration space differs at 0x{place:x}, which the guest cannot write"
                yield Obstacle("F", "not equal", message, None, None, path, theirs[place], own[place])
                break


_HOOKS: tuple[Callable[[Reader, Section, Entry, Load], Iterator[Obstacle]], ...] = (
    _pci_config,
    _ppc_cpu,
    _spapr_caps,
    _arm_cpu,
)
