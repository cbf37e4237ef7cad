"""What a real QEMU does with a stream."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vmstate_tools.data import data_path
from vmstate_tools.emulator.binaries import arch_of, find_binary, release_of
from vmstate_tools.emulator.destination_line import Wishes, destination_line, option
from vmstate_tools.emulator.event_loop import run
from vmstate_tools.emulator.process import Qemu
from vmstate_tools.emulator.tables import append_row, has_columns
from vmstate_tools.emulator.trace import LOG, last_field, trace_options
from vmstate_tools.errors import QemuError, plain_text, printable

Path_ = str | os.PathLike[str]

OUTCOMES = (
    "arch", "machine", "cpu_src", "cpu_dst", "src_version", "dst_version", "loaded", "returncode", "timeout",
    "status", "seconds", "config", "dst_extra", "vmstate_loaded", "fail_field", "stderr", "stream",
)  # fmt: skip
"""Columns of a table of outcomes."""


@dataclass(frozen=True)
class Outcome:
    """An Outcome is what became of one load.

    `started`: QEMU came as far as loading; where it did not, it says nothing of the stream. `loaded`: QEMU took the
    whole stream and stayed alive. `vmstate_loaded`: it took the whole stream; it may have failed afterwards (2.4 and
    2.5 abort on the run state of a guest that never started); None where it did not start. `fail_field`: the last field
    it read when it gave up, and the value QEMU's function returned, `cpu:env.msr_mask=-22`; "" where QEMU has no
    tracing. `status`: the run state after the load, or how QEMU ended. `command`: the command line. `registers`:
    `info registers` after the load, where asked for. The other names are the columns of a table of outcomes.
    """

    arch: str
    machine: str
    cpu_src: str
    cpu_dst: str
    src_version: str
    dst_version: str
    loaded: bool
    returncode: int | None
    timeout: bool
    status: str
    seconds: float
    config: str
    dst_extra: str
    vmstate_loaded: bool | None
    fail_field: str
    stderr: str
    stream: str
    arguments: str = ""
    registers: str | None = field(default=None, repr=False)
    command: str = ""

    @property
    def started(self) -> bool:
        return self.vmstate_loaded is not None

    @property
    def message(self) -> str:
        """Returns what QEMU said."""
        return self.stderr

    def row(self) -> dict[str, Any]:
        """Returns the columns of a table of outcomes."""
        return {name: getattr(self, name) for name in OUTCOMES}

    def __str__(self) -> str:
        name = f"QEMU {self.dst_version}, {self.machine}, {self.cpu_dst or 'default CPU'}"
        what = {True: "loads", False: "refused", None: "not known: this QEMU does not start"}[self.vmstate_loaded]
        lines = [printable(f"{self.stream} -> {name}: {what}")]
        if self.vmstate_loaded and not self.loaded:
            lines.append(f"  then {self.status}")
        if self.fail_field:
            lines.append(f"  at {self.fail_field}")
        lines += [f"  {line}" for line in self.stderr.split(" | ") if line]
        if self.vmstate_loaded is False and "pc.bios" in self.stderr:
            lines.append("  the stream's firmware is not this QEMU's own: give it after -- -bios, or --blank-firmware")
        if self.command:
            lines.append(f"  command line: {printable(self.command)}")
        return "\n".join(lines)


def try_load(
    file: Path_,
    qemu: Path_,
    *,
    machine: str | None = None,
    cpu: str | None = None,
    memory_mib: int | None = None,
    accel: str | None = None,
    arguments: Sequence[str] = (),
    outcomes: Path_ | None = None,
    registers: bool = False,
    trace: bool = True,
    timeout: float = 60,
    manifest: Path_ | None = None,
    trust_manifest: bool = False,
    blank_firmware: bool = False,
) -> Outcome:
    """Gives a stream to a real QEMU, and returns what becomes of it.

    The destination is configured as the stream's manifest row says; what is given here goes before that. Without a
    manifest the machine type is the stream's, its memory the largest RAM block's, its CPUs as many as the stream has,
    its firmware QEMU's own. QEMU runs in an empty directory, and in a sandbox where it has one.

    What the stream and its manifest name reaches QEMU as plain names, and as options that are known to do no harm
    (`vmstate_tools.emulator.harmless`).

    Parameters
    ----------
    file : a stream, in whatever holds it.
    qemu : the binary.
    machine, cpu, memory_mib, accel : of the destination. `machine` with its properties: 'pseries-2.7,cap-htm=off'.
    arguments : further options for QEMU.
    outcomes : a CSV file that the result is appended to (see `OUTCOMES`).
    registers : return what `info registers` prints after the load.
    trace : find the field it stopped at, if this QEMU traces to a log (2.7 and later, as built by most).
    timeout : seconds for all of it.
    manifest : the `manifest.csv` that names the stream; without it the one in the stream's own folder.
    trust_manifest : pass on all options of the manifest; the command line is written to stderr before.
    blank_firmware : zeros in place of QEMU's firmware, of the size of the stream's RAM block for it.

    Raises
    ------
    QemuError : no such binary, or it starts and does not answer.
    VmstateError : no machine type is known, the manifest has options that are not known to do no harm, or `outcomes`
        is another table.
    StreamError, OSError : the stream cannot be opened.
    """
    if outcomes is not None:
        has_columns(Path(outcomes), OUTCOMES)
    wishes = Wishes(machine, cpu, memory_mib, accel, tuple(arguments), blank_firmware, trust_manifest)
    outcome = run(_try(Path(file), qemu, wishes, manifest, registers, trace, timeout))
    if outcomes is not None:
        append_row(Path(outcomes), OUTCOMES, outcome.row())
    return outcome


async def _try(
    file: Path, qemu: Path_, wishes: Wishes, manifest: Path_ | None, registers: bool, trace: bool, timeout: float
) -> Outcome:
    from vmstate_tools.frames.manifest import manifest_rows
    from vmstate_tools.source import open_source

    end = time.monotonic() + timeout

    def left() -> float:
        return max(end - time.monotonic(), 0.01)

    binary = find_binary(qemu)
    row: Mapping[str, Any] = manifest_rows([file], manifest).get(os.fspath(file), {})
    release, arch = await release_of(binary, left()), await arch_of(binary, left())
    with open_source(file) as source:  # once: it may be standard input
        line = destination_line(source, row, arch, wishes)
        command = shlex.join([binary, *line])
        if wishes.trust_manifest:
            sys.stderr.write(f"starting: {printable(command)}\n")
            sys.stderr.flush()
        traced = await trace_options(binary, left()) if trace else []
        started = time.monotonic()
        load = await _load(binary, [*line, *traced], source.view[source.start :], left, registers)
    name, *properties = option(line, "-machine").split(",")
    extra = [p for p in properties if not p.startswith("accel=")]
    taken = load.taken
    return Outcome(
        arch=arch,
        machine=name,
        cpu_src=str(row.get("cpu") or ""),
        cpu_dst=option(line, "-cpu"),
        src_version=str(row.get("release") or ""),
        dst_version=release,
        loaded=load.loaded,
        returncode=load.returncode,
        timeout=load.late,
        status=load.status,
        seconds=round(time.monotonic() - started, 3),
        config=str(row.get("config") or ""),
        dst_extra=" ".join([*([",".join(extra)] if extra else []), *wishes.arguments]),
        vmstate_loaded=taken,
        fail_field="" if taken is not False else last_field(load.log),
        stderr=" | ".join(printable(text) for text in load.output.splitlines() if text.strip()),
        stream=plain_text(_name(file, manifest) if row else str(file)),
        arguments=shlex.join(line),
        registers=load.registers,
        command=command,
    )


def _name(file: Path, manifest: Path_ | None) -> str:
    """Returns the file as its manifest calls it, or as it was given."""
    named = [Path(manifest).absolute().parent] if manifest is not None else []
    for place in named or [data_path("streams"), file.absolute().parent]:
        if file.absolute().is_relative_to(place):
            return file.absolute().relative_to(place).as_posix()
    return str(file)


class _Load(NamedTuple):
    returncode: int | None
    late: bool
    status: str
    output: str
    log: str
    registers: str | None
    started: bool = True

    @property
    def loaded(self) -> bool:
        return self.started and self.returncode is None and not self.late and self.status != "load failed"

    @property
    def taken(self) -> bool | None:
        """Tells whether the stream was taken as a whole; None where QEMU did not start."""
        if not self.started:
            return None
        return self.loaded or (self.returncode == -6 and "invalid runstate transition" in self.output)


async def _load(binary: str, line: list[str], stream: memoryview, left: Any, registers: bool) -> _Load:
    """Starts the destination, sends it the stream, and sees what becomes of it."""
    ours, theirs = socket.socketpair()
    sending: asyncio.Future[None] | None = None
    try:
        async with Qemu(binary, line, incoming=theirs, timeout=left()) as process:
            # Nothing was sent yet: what ended QEMU before this had nothing to do with the stream.
            sending = asyncio.ensure_future(asyncio.to_thread(_send, ours, stream))
            status, late, printed = await _watch(process, left(), registers)
            return _Load(process.returncode, late, status, process.output(), process.log(LOG), printed)
    except QemuError as err:
        if err.returncode is None:
            raise
        return _Load(err.returncode, False, f"not started rc={err.returncode}", err.output, "", None, started=False)
    finally:
        # The thread must be out of the view before it is closed.
        with contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)
        if sending is not None:
            await asyncio.shield(sending)
        ours.close()
        theirs.close()


def _send(end: socket.socket, stream: memoryview) -> None:
    with contextlib.suppress(OSError):  # the destination gave up
        end.sendall(stream)
        end.shutdown(socket.SHUT_WR)


async def _watch(process: Qemu, timeout: float, registers: bool) -> tuple[str, bool, str | None]:
    """Waits until the load is over; returns the run state or how QEMU ended, whether time ran out, the registers."""
    wait, end = 0.005, time.monotonic() + timeout
    process.monitor.timeout = timeout
    try:
        while time.monotonic() < end:
            status = await process.monitor.text("query-status", "status")
            if status != "inmigrate":
                # The run state that came with the stream is set before the load is over.
                load = (await process.monitor.query("query-migrate")).get("status", "completed")
                if load == "completed":
                    return status, False, await process.monitor.human("info registers") if registers else None
                if load == "failed":
                    return "load failed", False, None
            await asyncio.sleep(wait)
            wait = min(wait * 2, 0.1)
    except QemuError:
        left = max(end - time.monotonic(), 0.01)
        try:
            return f"exited rc={await process.exited(min(left, 5))}", False, None
        except QemuError:
            if left > 0.1:  # it runs on, and does not answer as a QEMU does
                raise
    return "no end", True, None
