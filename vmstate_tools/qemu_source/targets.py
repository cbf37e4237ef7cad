"""The configurations QEMU's source is read for: a full build of the system emulators, target by target."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

#: Options of configure that a full build on Linux does not have, and what only other hosts define.
_OFF = re.compile(
    r"CONFIG_(?:USER_ONLY|LINUX_USER|BSD_USER|WIN32|DARWIN|HVF|WHPX|NVMM|HAX|SOLARIS|BSD|COCOA|HAIKU|AIX|EMSCRIPTEN"
    r"|MSHV|DEBUG_\w+|TCG_INTERPRETER|PROFILER|TSAN|CFI|GPROF|SKIP_\w+|XEN_CTRL_INTERFACE_VERSION|MINIKVM)"
)
_KNOWN_NAMES = re.compile(r"(?:CONFIG|TARGET|HOST)_\w+|__\w+|_WIN32")

#: Names with a value in every configuration.
_ALWAYS = {
    "CONFIG_SOFTMMU": "1",
    "NEED_CPU_H": "",
    "COMPILING_PER_TARGET": "",
    "HOST_LONG_BITS": "64",
    "HOST_BIG_ENDIAN": "0",
    "__x86_64__": "1",
    "__linux__": "1",
    "__GNUC__": "12",
    "__SIZEOF_INT128__": "16",
    "__SIZEOF_POINTER__": "8",
    "UINTPTR_MAX": "0xffffffffffffffffUL",
    "ULONG_MAX": "0xffffffffffffffffUL",
    "UINT64_MAX": "0xffffffffffffffffUL",
    "UINT32_MAX": "0xffffffffU",
    "TCG_TARGET_REG_BITS": "64",
    "CONFIG_ATOMIC64": "1",
    "CONFIG_INT128": "1",
    "SIZEOF_LONG": "8",
}


@dataclass(frozen=True)
class Target:
    """A system emulator: its name, the folder of target/ its CPU is in, and the width of its words in bits."""

    name: str
    folder: str
    bits: int
    big_endian: bool = False
    defines: frozenset[str] = field(default=frozenset())

    def value(self, name: str) -> str | None:
        """Returns what a name of the configuration is defined as; None where it is not defined.

        A name that is neither the configuration's nor the compiler's is not defined here.
        """
        if name in _ALWAYS:
            return _ALWAYS[name]
        if name == "TARGET_LONG_BITS":
            return str(self.bits)
        if name in ("TARGET_BIG_ENDIAN", "TARGET_WORDS_BIGENDIAN"):
            # Since 7.2 (ded625e7aa) a number; before, defined or not.
            return "1" if self.big_endian else ("0" if name == "TARGET_BIG_ENDIAN" else None)
        if name.startswith("TARGET_"):
            return "1" if name in self.defines else None
        if name.startswith("CONFIG_"):
            return None if _OFF.fullmatch(name) else "1"
        return None

    @staticmethod
    def knows(name: str) -> bool:
        """Tells whether a name belongs to the configuration, so that no header defines it."""
        return name in _ALWAYS or bool(_KNOWN_NAMES.fullmatch(name))


def _target(name: str, folder: str, bits: int, big: bool = False, *defines: str) -> Target:
    return Target(name, folder, bits, big, frozenset({f"TARGET_{folder.upper()}", *defines}))


#: The target a file of no target is read for comes first.
TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        _target("x86_64", "i386", 64, False, "TARGET_X86_64"),
        _target("i386", "i386", 32),
        _target("ppc64", "ppc", 64, True, "TARGET_PPC64"),
        _target("ppc", "ppc", 32, True),
        _target("aarch64", "arm", 64, False, "TARGET_AARCH64"),
        _target("arm", "arm", 32),
        _target("s390x", "s390x", 64, True),
        _target("mips64", "mips", 64, True, "TARGET_MIPS64"),
        _target("mips", "mips", 32, True),
        _target("sparc64", "sparc", 64, True, "TARGET_SPARC64"),
        _target("sparc", "sparc", 32, True),
        _target("riscv64", "riscv", 64, False, "TARGET_RISCV64"),
        _target("riscv32", "riscv", 32, False, "TARGET_RISCV32"),
        _target("alpha", "alpha", 64),
        _target("avr", "avr", 32),
        _target("cris", "cris", 32),
        _target("hexagon", "hexagon", 32),
        _target("hppa", "hppa", 64, True),
        _target("lm32", "lm32", 32, True),
        _target("loongarch64", "loongarch", 64, False, "TARGET_LOONGARCH64"),
        _target("m68k", "m68k", 32, True),
        _target("microblaze", "microblaze", 64, True),
        _target("moxie", "moxie", 32, True),
        _target("nios2", "nios2", 32),
        _target("or1k", "openrisc", 32, True),
        _target("rx", "rx", 32),
        _target("sh4", "sh4", 32),
        _target("tricore", "tricore", 32),
        _target("unicore32", "unicore32", 32),
        _target("xtensa", "xtensa", 32),
    )
}

#: Folders under hw/ that are a target's.
_HW = {"i386": "i386", "xen": "i386", "ppc": "ppc", "arm": "arm", "s390x": "s390x", "mips": "mips", "sparc": "sparc",
       "sparc64": "sparc", "riscv": "riscv", "alpha": "alpha", "avr": "avr", "cris": "cris", "hppa": "hppa",
       "lm32": "lm32", "loongarch": "loongarch", "m68k": "m68k", "microblaze": "microblaze", "moxie": "moxie",
       "nios2": "nios2", "openrisc": "openrisc", "rx": "rx", "sh4": "sh4", "tricore": "tricore",
       "unicore32": "unicore32", "xtensa": "xtensa"}  # fmt: skip


def targets_of(path: str) -> list[Target]:
    """Returns the targets that a file is compiled for, as far as its folder says; the widest comes first.

    A file of a folder that all targets share is read as x86_64's.
    """
    match = re.match(r"target[-/](\w+)/", path)
    folder = match[1] if match else ""
    if not folder:
        match = re.match(r"hw/(\w+)/", path)
        folder = _HW.get(match[1], "") if match else ""
    found = [t for t in TARGETS.values() if t.folder == folder]
    if re.match(r"hw/sparc64/", path):
        return [TARGETS["sparc64"]]
    return found or [TARGETS["x86_64"]]
