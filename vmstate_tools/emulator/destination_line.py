"""The command line of a QEMU that shall load a stream: from a manifest, or from the stream itself."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmstate_tools.emulator import guest
from vmstate_tools.emulator.harmless import is_plain, screen
from vmstate_tools.errors import VmstateError, printable
from vmstate_tools.stream.stream import Stream

if TYPE_CHECKING:
    from vmstate_tools.source import Source

_MOST_FIRMWARE = 64 << 20


@dataclass(frozen=True)
class Wishes:
    """Wishes are what the user says of a destination; what is None comes from the manifest, else from the stream.

    `arguments` are passed on as they are. `blank_firmware`: zeros in place of the firmware that QEMU brings.
    `trust_manifest`: pass on all that a manifest has, not only what is known to do no harm.
    """

    machine: str | None = None
    cpu: str | None = None
    memory_mib: int | None = None
    accel: str | None = None
    arguments: Sequence[str] = ()
    blank_firmware: bool = False
    trust_manifest: bool = False


def destination_line(source: Source, row: Mapping[str, Any], arch: str, wishes: Wishes) -> list[str]:
    """Returns the options for a destination of a stream: by its manifest row, else by what it says itself.

    Raises VmstateError where the stream or its manifest names what is no plain name, or an option that is not known to
    do no harm.
    """
    if str(row.get("arguments") or "").strip():
        return [*_from_manifest(str(row["arguments"]), wishes), *wishes.arguments]
    return [*_from_stream(Stream(source, partial=True), row, arch, wishes), *wishes.arguments]


def _from_manifest(arguments: str, wishes: Wishes) -> list[str]:
    screened = screen(arguments)
    if screened.others and not wishes.trust_manifest:
        raise VmstateError(
            "the manifest has options that could open files or run programs: "
            f"{printable(shlex.join(screened.others))}; --trust-manifest passes on all of its command line: "
            f"{printable(arguments)}"
        )
    line = screened.harmless
    if screened.others:
        try:
            line = shlex.split(arguments)
        except ValueError as err:
            raise VmstateError(f"the manifest's command line cannot be taken apart: {err}") from None
    if "-S" not in line:
        line.insert(0, "-S")  # a stranger's guest does not run here
    if not {"-nographic", "-display"} & set(line):
        line += ["-display", "none"]
    old = option(line, "-machine").split(",")
    accels = [f"accel={wishes.accel}"] if wishes.accel else [p for p in old if p.startswith("accel=")]
    others = [p for p in old if not p.startswith("accel=")]
    name, *properties = wishes.machine.split(",") if wishes.machine else others
    if name:
        _set_option(line, "-machine", ",".join([name, *accels, *properties]))
    if wishes.cpu is not None:
        _set_option(line, "-cpu", wishes.cpu)
    if wishes.memory_mib is not None:
        _set_option(line, "-m", str(wishes.memory_mib))
    return line


def _from_stream(stream: Stream, row: Mapping[str, Any], arch: str, wishes: Wishes) -> list[str]:
    machine = wishes.machine or _named(row.get("machine") or stream.machine, "machine type", "--machine")
    cpu = wishes.cpu or _named(row.get("cpu"), "CPU model", "--cpu")
    if not machine:
        raise VmstateError(f"{printable(stream.name)} does not say its machine type; name it with --machine")
    line = ["-S", "-display", "none", "-machine", f"{machine},accel={wishes.accel or 'tcg'}"]
    if not _has_default_devices(stream):
        line.append("-nodefaults")
    if cpu:
        line += ["-cpu", cpu]
    largest = max((int(block.used_length) for block in stream.ram.block_list), default=0)
    if memory_mib := wishes.memory_mib or row.get("memory_mib") or largest >> 20:
        line += ["-m", str(memory_mib)]
    cpus = len({section.instance_id for section in stream.sections if section.idstr == "cpu"})
    if cpus > 1 and "-smp" not in wishes.arguments:
        line += ["-smp", str(cpus)]
    if wishes.blank_firmware:
        line += _blank_firmware(arch, machine.partition(",")[0], stream)
    return line


def _named(name: str | None, what: str, how: str) -> str | None:
    """Returns a name out of a file. Raises VmstateError where it is not a plain one."""
    if name and not is_plain(name):
        raise VmstateError(f"{name!r} is no {what}; what stands in a file reaches QEMU as a plain name only: {how}")
    return name


def _has_default_devices(stream: Stream) -> bool:
    """Tells whether the guest was started without `-nodefaults`.

    QEMU then brings a network (net/slirp.c: section `slirp`) on each machine type with a default NIC, and with it a
    display, serial lines and drives. Without that section none of them is given to the destination.
    """
    return any(section.idstr == "slirp" for section in stream.sections)


def _blank_firmware(arch: str, machine: str, stream: Stream) -> list[str]:
    """Returns the options for firmware of zeros, of the size of the stream's RAM block for it (x86: `pc.bios`)."""
    size = next((block.used_length for block in stream.ram.block_list if block.name == "pc.bios"), 0)
    if size:
        if size % 1024 or size > _MOST_FIRMWARE:
            raise VmstateError(f"a RAM block for firmware of {size} bytes")
        return ["-bios", guest.zeros(size >> 10), "-L", "bios"]
    return [*(guest.firmware(arch, machine, False) or ()), "-L", "bios"]


def option(line: Sequence[str], name: str) -> str:
    """Returns the value of an option, "" where it is not there."""
    for flag, value in itertools.pairwise(line):
        if flag in (name, "-M" if name == "-machine" else name):
            return value
    return ""


def _set_option(line: list[str], name: str, value: str) -> None:
    for i, flag in enumerate(line[:-1]):
        if flag in (name, "-M" if name == "-machine" else name):
            line[i + 1] = value
            return
    line += [name, value]
