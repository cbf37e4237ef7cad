"""Streams from real QEMUs: of each combination of binary, machine type and CPU, a VM that is started for it."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmstate_tools.emulator import guest
from vmstate_tools.emulator.binaries import arch_of, find_binary, matching, release_of
from vmstate_tools.emulator.event_loop import run
from vmstate_tools.emulator.migration import migrate_out, unthrottle
from vmstate_tools.emulator.process import Qemu
from vmstate_tools.emulator.tables import MANIFEST, Manifest
from vmstate_tools.errors import QemuError, printable
from vmstate_tools.source.new_file import new_text_file

if TYPE_CHECKING:
    import pandas as pd

Path_ = str | os.PathLike[str]


@dataclass(frozen=True)
class Request:
    """A Request says how guests are started and saved, in all combinations alike; `capture` explains each name."""

    out: Path
    config: str
    ran: bool
    memory_mib: int | None
    accel: str
    arguments: Sequence[str]
    capabilities: Sequence[str]
    timeout: float
    overwrite: bool


@dataclass(frozen=True)
class Combination:
    """A Combination is one binary with one machine type and one CPU model; None is the machine type's own model."""

    binary: str
    release: str
    arch: str
    machine: str
    cpu: str | None

    def file(self, config: str) -> str:
        """Returns the path of its stream below the folder of all."""
        name = _safe(self.cpu or "default") + (f"+{_safe(config)}" if config else "")
        return f"qemu-{self.release}/{_safe(self.machine)}/{name}.mig.zst"


def capture(
    qemu: Path_ | Iterable[Path_],
    machine: str | Iterable[str],
    cpu: str | Iterable[str] | None = None,
    *,
    out: Path_,
    jobs: int | None = None,
    ran: bool = False,
    memory_mib: int | None = None,
    accel: str = "tcg",
    arguments: Sequence[str] = (),
    config: str | None = None,
    capabilities: Sequence[str] = (),
    timeout: float = 120,
    overwrite: bool = False,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Takes a stream of each combination of QEMU binary, machine type and CPU.

    QEMU is started paused and without firmware (`vmstate_tools.emulator.guest`), and migrates over QMP into
    `out/qemu-RELEASE/MACHINE/CPU[+CONFIG].mig.zst`; `out/manifest.csv` gets a row for each. What QEMU refuses goes
    to `out/refused.csv` with its message.

    Parameters
    ----------
    qemu : binaries, any release from 1.6 on.
    machine, cpu : names, or globs over what the binary lists (`pseries-2.*`); aliases only where nothing else
        matches. Without `cpu` the machine type's default.
    jobs : how many QEMUs at a time; by default one per processor.
    ran : let the guest run a small program that fills the registers first; `info registers` of that moment is written
        beside the stream as `.registers.txt`. pseries, g3beige, mac99 and x86.
    memory_mib : guest memory in MiB; without it the machine type's default.
    arguments : further options for QEMU; relative paths in them are those of a private directory.
    config : what to call the configuration in file name and manifest; 'ran' with `ran`.
    capabilities : migration capabilities to switch on.
    timeout : seconds for each question to a binary, and for each stream from QEMU's start to the migration's end.
    overwrite : make again what is there already.
    progress : show a bar; by default where stderr is a terminal.

    Returns
    -------
    A row per combination in the order given: the manifest's columns, and `refused`, the message or "".

    Raises
    ------
    QemuError : no such binary, a binary that does not say its version, or a glob that nothing matches.
    OSError : `out` cannot be written.
    """
    import pandas as pd

    config = config or ("ran" if ran else "")
    request = Request(
        Path(out), config, ran, memory_mib, accel, tuple(arguments), tuple(capabilities), timeout, overwrite
    )
    hidden = None if progress is None else not progress
    rows = run(_all(request, _list(qemu), _list(machine), _list(cpu), jobs or os.cpu_count() or 1, hidden))
    frame = pd.DataFrame(rows, columns=[*MANIFEST, "refused"])
    for name in ("memory_mib", "size"):
        frame[name] = pd.to_numeric(frame[name]).astype("Int64")
    return frame


async def _all(
    request: Request, binaries: list[str], machines: list[str], cpus: list[str], jobs: int, hidden: bool | None
) -> list[dict[str, Any]]:
    """Takes the streams, `jobs` at a time, and returns their rows in order."""
    from tqdm.auto import tqdm

    combinations = await _combinations(binaries, machines, cpus, request.timeout)
    table = Manifest(request.out, request.overwrite)
    limit = asyncio.Semaphore(jobs)

    async def one(combination: Combination) -> dict[str, Any]:
        async with limit:
            row = table.present(combination.file(request.config))
            if row is None:
                row = await _row(combination, request)
                table.add(row)
        bar.update()
        return row

    with tqdm(total=len(combinations), unit="stream", disable=hidden) as bar:
        tasks = [asyncio.ensure_future(one(combination)) for combination in combinations]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _list(values: Path_ | Iterable[Path_] | None) -> list[str]:
    if values is None:
        return []
    return [os.fspath(v) for v in ([values] if isinstance(values, (str, os.PathLike)) else values)]


async def _combinations(binaries: list[str], machines: list[str], cpus: list[str], timeout: float) -> list[Combination]:
    found = []
    for given in binaries:
        binary = find_binary(given)
        release, arch = await release_of(binary, timeout), await arch_of(binary, timeout)
        names = await matching(binary, "-machine", machines, timeout)
        models: list[str | None] = [*await matching(binary, "-cpu", cpus, timeout)] if cpus else [None]
        found += [Combination(binary, release, arch, name, model) for name in names for model in models]
    return found


def _safe(name: str) -> str:
    """Returns a name as a part of a path that stays where it is put."""
    return re.sub(r"[^\w.,=+-]", "_", name).lstrip(".") or "_"


async def _row(combination: Combination, request: Request) -> dict[str, Any]:
    """Takes one stream and returns its row."""
    row: dict[str, Any] = dict.fromkeys(MANIFEST, "")
    row |= {
        "release": combination.release,
        "arch": combination.arch,
        "machine": combination.machine,
        "cpu": combination.cpu or "",
        "config": request.config,
        "memory_mib": request.memory_mib,
        "capabilities": " ".join(request.capabilities),
        "size": None,
        "refused": "",
    }
    try:
        line = _command_line(combination, request)
        row["arguments"] = shlex.join(line)
        async with asyncio.timeout(request.timeout):
            return row | await _taken(combination, request, line)
    except TimeoutError:
        row["refused"] = f"QEMU does not answer: no stream after {request.timeout:g} s"
    except FileExistsError as err:
        row["refused"] = f"{err.filename}: {err.strerror}"
    except QemuError as err:
        row["refused"] = str(err)
        row["returncode"] = err.returncode
    return row


def _command_line(combination: Combination, request: Request) -> list[str]:
    machine = f"{combination.machine},accel={request.accel}"
    line = ["-S", "-nodefaults", "-nographic", "-display", "none", "-machine", machine]
    if combination.cpu is not None:
        line += ["-cpu", combination.cpu]
    if request.memory_mib is not None:
        line += ["-m", str(request.memory_mib)]
    if "-bios" not in request.arguments:
        firmware = guest.firmware(combination.arch, combination.machine, request.ran)
        if firmware is None:
            raise QemuError(f"there is no program to run on {combination.arch} machine {combination.machine}")
        line += firmware
    return [*line, "-L", "bios", *request.arguments]


async def _taken(combination: Combination, request: Request, line: list[str]) -> dict[str, Any]:
    """Starts the guest and migrates it to its file; returns what the manifest says of the stream."""
    file = combination.file(request.config)
    target = request.out / file
    async with Qemu(combination.binary, line, timeout=request.timeout) as qemu:
        target.parent.mkdir(parents=True, exist_ok=True)
        _, package = await qemu.monitor.version()
        await unthrottle(qemu.monitor)
        if request.ran:
            await _run_program(qemu)
        try:
            taken = await migrate_out(
                qemu.monitor,
                target,
                capabilities=request.capabilities,
                timeout=request.timeout,
                overwrite=request.overwrite,
            )
        except QemuError as err:
            raise QemuError(err.message, output=qemu.output()) from None
        if request.ran:
            registers = target.with_name(target.name.removesuffix(".mig.zst") + ".registers.txt")
            with new_text_file(registers, overwrite=request.overwrite, guest_memory=True) as text:
                text.write(await qemu.monitor.human("info registers"))
        return {"file": file, "qemu_package": package, **taken, "stderr": _one_line(qemu.output())}


async def _run_program(qemu: Qemu) -> None:
    """Lets the guest run our program to its end, then stops it."""
    await qemu.execute("cont")
    while not guest.is_done(await qemu.monitor.human("info registers")):
        await asyncio.sleep(0.02)
    await qemu.execute("stop")


def _one_line(text: str) -> str:
    return " | ".join(printable(line) for line in text.splitlines() if line.strip())
