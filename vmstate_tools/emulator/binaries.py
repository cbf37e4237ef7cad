"""What a QEMU binary says of itself: its release, its target, the machine types and CPU models that it lists."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from vmstate_tools.emulator.process import Qemu
from vmstate_tools.errors import QemuError


def find_binary(binary: str | os.PathLike[str]) -> str:
    """Returns the absolute path of a QEMU binary. Raises QemuError where there is none."""
    found = shutil.which(os.fspath(binary))
    if found is None:
        raise QemuError(f"there is no program {os.fspath(binary)}")
    return str(Path(found).absolute())


async def ask(binary: str, *arguments: str, timeout: float) -> str:
    """Returns what a QEMU prints for `-version`, `-machine help` and the like. Raises QemuError after `timeout` s."""
    async with Qemu(binary, arguments, timeout=timeout, monitor=False) as qemu:
        await qemu.exited()
        return qemu.output()


async def release_of(binary: str, timeout: float) -> str:
    """Returns the release of a binary, `7.2.22`. Raises QemuError where it says none."""
    text = await ask(binary, "-version", timeout=timeout)
    match = re.search(r"version (\d+\.\d+(?:\.\d+)*)", text)
    if match is None:
        raise QemuError(f"{binary} does not say its version", output=text[:2000])
    return match[1]


async def arch_of(binary: str, timeout: float) -> str:
    """Returns the target of a binary, by its name, or else by asking it: `ppc64`."""
    match = re.search(r"qemu-system-(\w+)", Path(binary).name)
    if match:
        return match[1]
    async with Qemu(binary, ["-S", "-nodefaults", "-nographic", "-machine", "none"], timeout=timeout) as qemu:
        return await qemu.monitor.text("query-target", "arch")


async def matching(binary: str, option: str, patterns: Sequence[str], timeout: float) -> list[str]:
    """Returns the names that globs match in what `option` (`-machine`, `-cpu`) lists, in its order.

    A name without a glob is taken as it is; aliases match only where nothing else does. Raises QemuError where a glob
    matches nothing.
    """
    found: dict[str, None] = {}
    listed: list[tuple[str, bool]] | None = None
    for pattern in patterns:
        if not set(pattern) & set("*?["):
            found[pattern] = None
            continue
        if listed is None:
            listed = listed_names(await ask(binary, option, "help", timeout=timeout))
        for aliases in (False, True):
            matches = [n for n, alias in listed if alias == aliases and fnmatch.fnmatchcase(n, pattern)]
            if matches:
                break
        else:
            raise QemuError(f"{binary} {option} help lists nothing that matches {pattern!r}")
        found |= dict.fromkeys(matches)
    return list(found)


def listed_names(text: str) -> list[tuple[str, bool]]:
    """Returns each name that `-machine help` or `-cpu help` lists, and whether it is an alias."""
    found: list[tuple[str, bool]] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[-1].endswith(":"):
            if found:
                break  # x86 lists flags after the CPUs
            continue
        if words[0] in ("PowerPC", "x86", "s390") and len(words) > 1:  # before each CPU's name, until 9.0
            words = words[1:]
        if not re.fullmatch(r"[\w.,+-]+", words[0]):
            continue  # a warning of QEMU's, or of GLib's, which 1.6 provokes
        found.append((words[0], "(alias" in words[1:]))
    return found
