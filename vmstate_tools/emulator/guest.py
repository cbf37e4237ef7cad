"""What a captured QEMU has in place of firmware: zeros, or a few instructions of our own that fill the registers.

The program loads GPRn with the byte n repeated, FPRn with the byte 0x40+n repeated, stores a word at guest address
1 MiB and then jumps to itself. On x86 the eight general registers get 0x11111111 to 0x88888888, then it halts.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Sequence
from pathlib import Path


def _word(*fields: tuple[int, int]) -> bytes:
    """Builds a ppc instruction from (value, left shift) pairs."""
    return struct.pack(">I", sum(value << shift for value, shift in fields))


def _load32(register: int, value: int) -> bytes:
    lis = _word((15, 26), (register, 21), (value >> 16, 0))
    return lis + _word((24, 26), (register, 21), (register, 16), (value & 0xFFFF, 0))  # ori


def _store(register: int, base: int, offset: int) -> bytes:
    return _word((36, 26), (register, 21), (base, 16), (offset, 0))  # stw


@functools.cache
def ppc_program(bits: int) -> bytes:
    """Returns the program for a Book3S CPU in real mode, position independent; it uses 8 bytes of RAM at 0x2000."""
    code = _word((31, 26), (3, 21), (83, 1))  # mfmsr r3
    code += _word((24, 26), (3, 21), (3, 16), (0x2000, 0))  # ori r3, r3, MSR[FP]
    code += _word((31, 26), (3, 21), (146, 1))  # mtmsr r3
    code += _word((19, 26), (150, 1))  # isync
    for n in range(32):
        code += _load32(3, (0x40 + n) * 0x01010101) + _store(3, 0, 0x2000) + _store(3, 0, 0x2004)
        code += _word((50, 26), (n, 21), (0x2000, 0))  # lfd
    code += _word((15, 26), (4, 21), (0x10, 0)) + _store(3, 4, 0)  # lis r4, 0x10
    for spr, value in ((8, 0x4C4C4C4C), (9, 0x43434343)):  # lr, ctr
        code += _load32(3, value) + _word((31, 26), (3, 21), (spr, 16), (467, 1))  # mtspr
    for n in range(32):
        code += _load32(n, n * 0x01010101)
        if bits == 64:
            code += _word((30, 26), (n, 21), (n, 16), (3, 2), (1, 1))  # rldimi n, n, 32, 0
    return code + _word((18, 26))  # b .


@functools.cache
def x86_program() -> bytes:
    """Returns the last 64 KiB below 4 GiB: real mode code, entered at 16 bytes before their end."""
    code = b"".join(b"\x66" + bytes([0xB8 + r]) + bytes([0x11 * (r + 1)] * 4) for r in range(8))  # mov r32, imm32
    code += b"\xf4\xeb\xfd"  # hlt; jmp back to it
    return bytes(0xFF00) + code.ljust(0xF0, b"\x90") + b"\xe9\x0d\xff".ljust(16, b"\x90")


def _elf(address: int, content: bytes) -> bytes:
    """Builds a 32-bit big-endian ELF program of one segment."""
    header = b"\x7fELF\x01\x02\x01".ljust(16, b"\0")
    header += struct.pack(">HHIIIIIHHHHHH", 2, 20, 1, address + 0x100, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    program = struct.pack(">8I", 1, 84, address, address, len(content), len(content), 7, 4)
    return header + program + content


_MOST_ZEROS = 64 << 10  # KiB: the flash of Arm's virt machine
_AT_0X100 = bytes(0x100)  # the reset vector of Book3S, and where pseries starts its firmware


@functools.cache
def files() -> dict[str, bytes]:
    """Returns the files that a QEMU's working directory may have, by name. All are ours."""
    program = _AT_0X100 + ppc_program(64)
    found = {
        "zero.bin": bytes(1 << 16),
        "ran.bin": program.ljust(1 << 16, b"\0"),
        "ran_novec.bin": program.ljust(1 << 16, b"\0"),
        "ran128k.bin": bytes(1 << 16) + x86_program(),
        "ppc32bios.elf": _elf(0xFFF00000, _AT_0X100 + ppc_program(32)),
        "e500bios.elf": _elf(0x00F00000, bytes(512)),
        "disk.raw": bytes(1 << 20),
    }
    # Before 6.0 a pseries machine does not start without an RTAS blob; s390x not without a loader.
    found |= {f"bios/{name}": bytes(512) for name in ("spapr-rtas.bin", "s390-ccw.img", "s390-netboot.img")}
    found["bios/kvmvapic.bin"] = bytes(9216)
    return found


def zeros(kib: int) -> str:
    """Returns the name of a file of zeros of this size, which `write` makes where it is named."""
    return f"zero{kib}k.bin"


def is_firmware(name: str) -> bool:
    """Tells whether a file of this name is firmware of ours."""
    return (name in files() and name != "disk.raw" and "/" not in name) or _kib_of_zeros(name) is not None


def _kib_of_zeros(name: str) -> int | None:
    match = re.fullmatch(r"zero(\d{1,5})k\.bin", name)
    return int(match[1]) if match and 0 < int(match[1]) <= _MOST_ZEROS else None


def write(folder: Path, arguments: Sequence[str]) -> None:
    """Writes the files into a folder that a command line names: `-bios zero.bin`, `file=disk.raw`, `-L bios`."""
    words = {word for argument in arguments for word in re.split("[=,]", argument)}
    for word in words:
        if (kib := _kib_of_zeros(word)) is not None:
            with (folder / word).open("wb") as file:
                file.truncate(kib << 10)
    for name, content in files().items():
        if name.partition("/")[0] in words:
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)


def firmware(arch: str, machine: str, ran: bool) -> list[str] | None:
    """Returns the options that put our blob where the machine looks for firmware; None: there is no program to run."""
    if arch.startswith("ppc"):
        if machine.startswith("pseries"):
            return ["-bios", "ran.bin" if ran else "zero.bin"]
        if machine in ("g3beige", "mac99"):
            return ["-bios", "ppc32bios.elf"]
        e500 = machine.startswith(("ppce500", "mpc8544ds"))
        return None if ran else ["-bios", "e500bios.elf" if e500 else "zero.bin", "-serial", "null"]
    if arch in ("x86_64", "i386"):
        return ["-bios", "ran128k.bin" if ran else zeros(128)]
    if ran:
        return None
    return ["-bios", "zero.bin"] if arch in ("aarch64", "arm") and machine.startswith("virt") else []


def is_done(registers: str) -> bool:
    """Tells by what `info registers` prints whether the program has come to its end."""
    if "HLT=1" in registers:
        return True
    match = re.search(r"NIP ([0-9a-f]+)", registers)
    if match is None:
        return False
    ends = {base + 0x100 + len(ppc_program(b)) - 4 for base, b in ((0, 64), (0xFFF00000, 32))}
    return int(match[1], 16) in ends
