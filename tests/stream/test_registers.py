"""Decoded CPU registers and guest memory against what QEMU itself printed: `info registers` of the same moment.

The guest ran a program that loads known patterns, then stopped; `….registers.txt` beside the stream is what the
monitor said (target/ppc/cpu_init.c: `ppc_cpu_dump_state`; before 6.0 target/ppc/translate.c).
"""

from __future__ import annotations

from typing import Any

import captures as real
import pytest
from registers import printed_registers

import vmstate_tools as vt

# Special purpose registers that `info registers` prints -> their number (target/ppc/cpu.h: SPR_*).
SPRS = {
    "XER": 1,
    "LR": 8,
    "CTR": 9,
    "DSISR": 18,
    "DAR": 19,
    "SDR1": 25,
    "SRR0": 26,
    "SRR1": 27,
    "CFAR": 28,
    "VRSAVE": 256,
    **{f"SPRG{i}": 272 + i for i in range(8)},
    "PVR": 287,
    "HSRR0": 314,
    "HSRR1": 315,
    "LPCR": 318,
    "PTCR": 464,
    "HID0": 1008,
}

# Printed, but not what the stream carries. Time base and decrementer run on between print and capture; HF is what the
# translator made of the MSR and more, of which the stream has only bits that no MSR gives (`hflags_nmsr`).
UNCOMPARED = {"TB", "DECR", "TB_OFFSET", "HF"}

# What every dump must have; CFAR, LPCR, HSRR0/1, SDR1, PTCR, DAR and DSISR depend on CPU model and release.
ALWAYS = {f"{r}{i}" for r, n in {"GPR": 32, "FPR": 32, "CR": 8, "SPRG": 8}.items() for i in range(n)} | {
    *("NIP", "LR", "CTR", "XER", "MSR", "HID0", "RES", "FPSCR", "SRR0", "SRR1", "PVR", "VRSAVE")
}

# The program wrote 8,192 doublewords at guest address 1 MiB, each this much more than the one before …
PATTERN = [(0x1111222233334444 + i * 0x0101010101010101) & 0xFFFF_FFFF_FFFF_FFFF for i in range(8192)]
# … and where the CPU has them loaded VSR n (lxvd2x) and AltiVec register n (lvx) from these on.
VSR_WORD, AVR_WORD = 0x800 // 8, 0x400 // 8


def stream_registers(fields: dict[tuple[str, str], Any]) -> dict[str, int]:
    """The same registers as the stream's `cpu` section carries them."""
    found = {f"GPR{i}": fields["cpu", f"env.gpr[{i}]"] for i in range(32)}
    found |= {f"CR{i}": fields["cpu", f"env.crf[{i}]"] for i in range(8)}
    found |= {"NIP": fields["cpu", "env.nip"], "MSR": fields["cpu", "env.msr"]}
    found |= {name: fields["cpu", f"env.spr[{number}]"] for name, number in SPRS.items()}
    if ("cpu", "env.reserve_addr") in fields:  # not sent since 8.2
        found["RES"] = fields["cpu", "env.reserve_addr"]
    fpr = "env.fpr" if ("cpu/fpu", "env.fpr[0]") in fields else "env.vsr"  # its name since 4.0
    found |= {f"FPR{i}": fields["cpu/fpu", f"{fpr}[{i}]"] for i in range(32)}
    return found | {"FPSCR": fields["cpu/fpu", "env.fpscr"]}


def expected_registers(text: str, release: str) -> dict[str, int]:
    """What the stream must carry by what was printed."""
    printed = printed_registers(text)
    major_minor = tuple(map(int, release.split(".")[:2]))
    if major_minor < (2, 6):
        # SO, OV and CA live apart from `env->xer` and went out with it only since commit aa378598fe.
        printed["XER"] &= ~0xE000_0000
    if major_minor >= (8, 2):
        printed.pop("RES", None)
    return {name: value for name, value in printed.items() if name not in UNCOMPARED}


def compare(stream: vt.Stream, text: str, release: str) -> list[str]:
    """Every difference between the stream's CPU and the dump, and between its vector registers and guest memory."""
    frame = stream.fields("cpu")
    fields = dict(zip(zip(frame["vmsd"], frame["path"], strict=True), frame["value"], strict=True))
    expected, found = expected_registers(text, release), stream_registers(fields)
    wrong = [
        f"{name} {found.get(name, 'not there')!r}, printed {value!r}"
        for name, value in expected.items()
        if found.get(name) != value
    ]
    wrong += [f"{name} was not printed" for name in ALWAYS - {"RES"} - expected.keys()]

    if "x-ignore-shared" not in stream.configuration.get("capabilities", ()):  # then memory stays in its file
        memory = stream.ram.read("ppc_spapr.ram", 1 << 20, 8 * len(PATTERN))
        if memory != b"".join(word.to_bytes(8, "big") for word in PATTERN):
            wrong.append("guest memory at 1 MiB")
    if found["NIP"] == 0x700:  # 1.6 and 2.0 stop at the first lxvd2x: a program interrupt, before the GPRs are loaded
        assert release in ("1.6.0", "2.0.0")
        return wrong
    repeated = {2: 1, **{n: n for n in range(3, 32)}}
    wrong += [f"GPR{n} is not byte {b}" for n, b in repeated.items() if found[f"GPR{n}"] != b * 0x0101010101010101]
    if expected["MSR"] & (1 << 23):  # MSR[VSX]
        wrong += [
            f"VSR{i}"
            for i in range(32)
            if (found[f"FPR{i}"], fields["cpu/vsx", f"env.vsr[{i}]"]) != tuple(PATTERN[VSR_WORD + 2 * i :][:2])
        ]
    if expected["MSR"] & (1 << 25):  # MSR[VEC]
        avr = "env.avr" if ("cpu/altivec", "env.avr[0]") in fields else "env.vsr"
        for i in range(32):
            # target/ppc/machine.c: put_avr sends the halves as the host holds them; on these hosts the low one first.
            high, low = PATTERN[AVR_WORD + 2 * i :][:2]
            if fields["cpu/altivec", f"{avr}[{i}]"] != low.to_bytes(8, "big") + high.to_bytes(8, "big"):
                wrong.append(f"AVR{i}")
    return wrong


RAN = real.batches(lambda captures, file: captures.registers(file).is_file())


@pytest.mark.parametrize("batch", RAN)
def test_registers_and_memory_are_what_qemu_printed(batch: real.Batch) -> None:
    wrong = []
    for file in batch.files:
        with vt.open(batch.captures.path(file)) as stream:
            if stream.section("cpu").description is None:
                wrong.append(f"{file}: nothing describes its cpu section")
            else:
                text, release = batch.captures.registers(file).read_text(), batch.captures.manifest[file]["release"]
                wrong += [f"{file}: {w}" for w in compare(stream, text, release)]
    assert not wrong, "\n".join(wrong)


def _sibling(captures: real.Captures, file: str) -> str | None:
    """A capture of the same release and CPU whose cpu section has the same layout, and which describes it."""
    row = captures.manifest[file]
    for other, theirs in captures.manifest.items():
        same = all(row[key] == theirs[key] for key in ("release", "machine", "cpu"))
        if same and theirs["config"] == "ran" and other != file:
            return other
    return None


def test_a_borrowed_description_gives_the_registers_as_well(captures: real.Captures) -> None:
    wrong, compared = [], 0
    for file, row in captures.manifest.items():
        if row["config"] != "no-vmdesc" or not captures.registers(file).is_file():
            continue
        if (sibling := _sibling(captures, file)) is None:
            continue
        with vt.open(captures.path(file), description=captures.path(sibling)) as stream:
            assert stream.vmdesc is None
            assert stream.section("cpu").how == "borrowed"
            wrong += [f"{file}: {w}" for w in compare(stream, captures.registers(file).read_text(), row["release"])]
            compared += 1
    assert not wrong, "\n".join(wrong)
    assert compared
