"""What a real QEMU does with a stream, and whether that is what was predicted."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import fcntl
import itertools
import os
import re
import shlex
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vmstate_tools.emulator.capture import Path_, _command_line, arch_of
from vmstate_tools.emulator.process import Qemu, ask, find_binary, run, version_of
from vmstate_tools.errors import QemuError, VmstateError, printable
from vmstate_tools.source.new_file import new_text_file

if TYPE_CHECKING:
    import pandas as pd

OUTCOMES = (
    "arch", "machine", "cpu_src", "cpu_dst", "src_version", "dst_version", "loaded", "returncode", "timeout",
    "status", "seconds", "config", "dst_extra", "vmstate_loaded", "fail_field", "stderr", "stream",
)  # fmt: skip
"""Columns of a table of outcomes."""

_TRACED = (
    "vmstate_load_state_field",
    "vmstate_load_field_error",
    "vmstate_load_state_end",  # 10.2 has it, 11.1 not
    "vmstate_load_state_fail",  # in 11.1 instead
)


@dataclass(frozen=True)
class Outcome:
    """What became of one load.

    `loaded`: QEMU took the whole stream and stayed alive. `vmstate_loaded`: it took the whole stream; it may have
    failed afterwards (2.4 and 2.5 abort on the run state of a guest that never started). `fail_field`: the last field
    it read when it gave up, and the value QEMU's function returned, `cpu:env.msr_mask=-22`; "" where QEMU has no
    tracing to tell. `status`: the run state after the load, or how QEMU ended. `registers`: `info registers` after
    the load, where asked for. The other names are the columns of a table of outcomes.
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
    vmstate_loaded: bool
    fail_field: str
    stderr: str
    stream: str
    arguments: str = ""
    registers: str | None = field(default=None, repr=False)

    @property
    def message(self) -> str:
        """What QEMU said."""
        return self.stderr

    def row(self) -> dict[str, Any]:
        """The columns of a table of outcomes."""
        return {name: getattr(self, name) for name in OUTCOMES}

    def __str__(self) -> str:
        name = f"QEMU {self.dst_version}, {self.machine}, {self.cpu_dst or 'default CPU'}"
        lines = [f"{self.stream} -> {name}: " + ("loads" if self.vmstate_loaded else "refused")]
        if self.vmstate_loaded and not self.loaded:
            lines.append(f"  then {self.status}")
        if self.fail_field:
            lines.append(f"  at {self.fail_field}")
        return "\n".join(lines + [f"  {line}" for line in self.stderr.split(" | ") if line])


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
) -> Outcome:
    """Give a stream to a real QEMU.

    The destination is configured as the stream's manifest row says; what is given here goes before that. Without a
    manifest the machine type is the stream's, and its memory the largest RAM block's.

    Parameters
    ----------
    file : a stream, in whatever holds it.
    qemu : the binary.
    machine, cpu, memory_mib, accel : of the destination. `machine` with its properties: 'pseries-2.7,cap-htm=off'.
    arguments : further options for QEMU.
    outcomes : a CSV file that the result is appended to (see `OUTCOMES`).
    registers : keep what `info registers` prints after the load.
    trace : find the field it stopped at, if this QEMU traces to a log (2.7 and later, as built by most).
    timeout : seconds for the start, and for the load.
    manifest : the `manifest.csv` that names the stream; without it the one in the stream's own folder.

    Raises
    ------
    QemuError : no such binary, or it starts and does not answer.
    VmstateError : no machine type is known, or `outcomes` is a table of something else.
    StreamError, OSError : the stream cannot be opened.
    """
    return run(
        _try(
            Path(file), qemu, machine, cpu, memory_mib, accel, arguments, outcomes, registers, trace, timeout, manifest
        )
    )


async def _try(
    file: Path,
    qemu: Path_,
    machine: str | None,
    cpu: str | None,
    memory_mib: int | None,
    accel: str | None,
    arguments: Sequence[str],
    outcomes: Path_ | None,
    registers: bool,
    trace: bool,
    timeout: float,
    manifest: Path_ | None,
) -> Outcome:
    from vmstate_tools.frames.manifest import manifest_rows
    from vmstate_tools.source import open_source

    if outcomes is not None:
        _check_table(Path(outcomes))
    binary = find_binary(qemu)
    release, arch = await version_of(binary), await arch_of(binary)
    told = manifest_rows([file], manifest).get(os.fspath(file), {})
    line = [*_destination(file, told, arch, machine, cpu, memory_mib, accel), *arguments]
    traced = await _trace_options(binary) if trace else []
    started = time.monotonic()
    with open_source(file) as source:
        code, late, status, output, log, printed = await _load(
            binary, [*line, *traced], source.view[source.start :], timeout, registers
        )
    seconds = time.monotonic() - started
    loaded = code is None and not late and status != "load failed"
    aborted = code == -6 and "invalid runstate transition" in output
    name, *properties = _option(line, "-machine").split(",")
    extra = [p for p in properties if not p.startswith("accel=")]
    outcome = Outcome(
        arch=arch,
        machine=name,
        cpu_src=str(told.get("cpu", "")),
        cpu_dst=_option(line, "-cpu"),
        src_version=str(told.get("release", "")),
        dst_version=release,
        loaded=loaded,
        returncode=code,
        timeout=late,
        status=status,
        seconds=round(seconds, 3),
        config=str(told.get("config", "")),
        dst_extra=" ".join([*([",".join(extra)] if extra else []), *arguments]),
        vmstate_loaded=loaded or aborted,
        fail_field="" if loaded or aborted else _field(log),
        stderr=" | ".join(printable(text) for text in output.splitlines() if text.strip()),
        stream=_name(file) if told else str(file),
        arguments=shlex.join(line),
        registers=printed,
    )
    if outcomes is not None:
        append_outcome(Path(outcomes), outcome)
    return outcome


def _name(file: Path) -> str:
    """The file as its manifest calls it."""
    for folder in file.absolute().parents:
        if (folder / "manifest.csv").is_file():
            return file.absolute().relative_to(folder).as_posix()
    return str(file)


class _Loaded(NamedTuple):
    returncode: int | None
    late: bool
    status: str
    output: str
    log: str
    registers: str | None


async def _load(binary: str, line: list[str], stream: memoryview, timeout: float, registers: bool) -> _Loaded:
    """Start the destination, send it the stream, and see what becomes of it."""
    ours, theirs = socket.socketpair()
    sending: asyncio.Future[None] | None = None
    try:
        async with Qemu(binary, line, incoming=theirs, timeout=timeout) as process:
            sending = asyncio.ensure_future(asyncio.to_thread(_send, ours, stream))
            status, late, printed = await _watch(process, timeout, registers)
            code = process.returncode
            return _Loaded(code, late, status, process.output(), process.log("trace.log"), printed)
    except QemuError as err:  # it did not get as far as loading
        if err.returncode is None:
            raise
        return _Loaded(err.returncode, False, f"exited rc={err.returncode}", err.output, "", None)
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
    """Wait until the load is over: the run state or how QEMU ended, whether time ran out, the registers."""
    wait, end = 0.005, time.monotonic() + timeout
    try:
        while time.monotonic() < end:
            status = (await process.execute("query-status"))["status"]
            if status != "inmigrate":
                # The run state that came with the stream is set before the load is over.
                told = (await process.execute("query-migrate")).get("status", "completed")
                if told == "completed":
                    assert process.monitor is not None
                    printed = await process.monitor.human("info registers") if registers else None
                    return status, False, printed
                if told == "failed":
                    return "load failed", False, None
            await asyncio.sleep(wait)
            wait = min(wait * 2, 0.1)
    except QemuError:
        with contextlib.suppress(QemuError):
            return f"exited rc={await process.exited(5)}", False, None
    return "no end", True, None


def _destination(
    file: Path,
    told: Mapping[str, Any],
    arch: str,
    machine: str | None,
    cpu: str | None,
    memory_mib: int | None,
    accel: str | None,
) -> list[str]:
    """The destination's options."""
    line = shlex.split(str(told.get("arguments", "")))
    if line:
        old = _option(line, "-machine").split(",")
        accels = [f"accel={accel}"] if accel else [p for p in old if p.startswith("accel=")]
        name, *properties = machine.split(",") if machine else [p for p in old if not p.startswith("accel=")]
        if name:
            _set_option(line, "-machine", ",".join([name, *accels, *properties]))
        if cpu is not None:
            _set_option(line, "-cpu", cpu)
        if memory_mib is not None:
            _set_option(line, "-m", str(memory_mib))
        return line
    if machine is None or memory_mib is None:
        from vmstate_tools.stream.stream import open_stream

        with open_stream(file) as stream:
            machine = machine or told.get("machine") or stream.machine
            largest = max((int(size) for size in stream.ram.blocks["used_length"]), default=0)
            memory_mib = memory_mib or largest >> 20 or None
    if not machine:
        raise VmstateError(f"{file} does not say its machine type; name it")
    return _command_line(arch, machine, cpu or told.get("cpu") or None, accel or "tcg", memory_mib, False, ())


def _option(line: Sequence[str], name: str) -> str:
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


async def _trace_options(binary: str) -> list[str]:
    """The options that have the load's fields written to `trace.log`; none where this QEMU cannot."""
    known = set((await ask(binary, "-trace", "help")).split())
    if _TRACED[0] not in known:
        return []
    return ["-D", "trace.log", *(word for event in _TRACED if event in known for word in ("-trace", event))]


def _field(log: str) -> str:
    """The field that a trace of a failed load ends in.

    Field after field is named (`vmstate_load_state_field VMSD:FIELD`, since 9.1 also those that are not read, with
    ` exists=0`); one that fails is then named by itself
    (`vmstate_load_field_error field "FIELD" load failed, ret = N`), and each struct around it; a VMStateDescription
    that fails as a whole ends with a number (`vmstate_load_state_end VMSD TEXT/N`), or, since 11.1, with the step that
    failed (`vmstate_load_state_fail VMSD TEXT`).
    """
    failed: list[str] = []
    last = ended = ""
    for line in log.splitlines():
        if match := re.search(r"vmstate_load_state_field (\S+:.*?)(?: exists=(\d))?$", line):
            if match[2] != "0":
                last, failed, ended = match[1], [], ""
        elif match := re.search(r'vmstate_load_field_error field "(.*)" load failed, ret = (-?\d+)', line):
            failed.append(f"{match[1]}={match[2]}")
        elif match := re.search(r"vmstate_load_state_end (.*)/(-?\d+)$", line):
            ended = ended or (f"{match[1]}={match[2]}" if match[2] != "0" else "")
        elif match := re.search(r"vmstate_load_state_fail (.*)$", line):
            ended = ended or match[1]
    if failed:
        vmsd = last.partition(":")[0]
        return " < ".join([f"{vmsd}:{failed[0]}", *failed[1:]])
    if not last:
        return ""
    return f"(last field {last})" + (f" {ended}" if ended else "")


# -- the table ------------------------------------------------------------------------------------------------------


def _check_table(path: Path) -> bool:
    """Is there a table already? Raises VmstateError if it is one of something else."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file), [])
    if tuple(header) != OUTCOMES:
        raise VmstateError(f"{path} is not a table of outcomes: its columns are {', '.join(header)}")
    return True


def append_outcome(path: Path, outcome: Outcome) -> None:
    """Append a row; several processes may do so at once. Raises VmstateError if `path` is another table."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        before = path.read_bytes() if _check_table(path) else b""
        with new_text_file(path, overwrite=True) as file:
            writer = csv.DictWriter(file, OUTCOMES)
            if before:
                file.buffer.write(before if before.endswith(b"\n") else before + b"\r\n")
            else:
                writer.writeheader()
            writer.writerow({k: "" if v is None else v for k, v in outcome.row().items()})
    finally:
        os.close(folder)


# -- prediction and reality -------------------------------------------------------------------------------------------


def confirm(
    verdicts: Any | Iterable[Any],
    binaries: Path_ | Sequence[Path_] | Mapping[str, Path_],
    *,
    progress: bool | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Predictions beside what real QEMUs do.

    Parameters
    ----------
    verdicts : `Verdict`s (of `vmstate_tools.check`): what has `stream`, `destination`, `loads` and `obstacles`.
    binaries : one binary for all, several, or release → binary. A verdict is tried on those of its destination's
        release; on all where its destination names none.
    options : for `try_load`.

    Returns
    -------
    A row per verdict and binary: stream, destination, qemu (its release), predicted, loaded (whether the stream was
    taken), agree, section and field (of the first obstacle), fail_field and message (of QEMU), status.

    Raises
    ------
    QemuError : none of the binaries is of a destination's release, or one does not start.
    """
    import pandas as pd
    from tqdm.auto import tqdm

    if hasattr(verdicts, "loads"):
        verdicts = [verdicts]
    if isinstance(binaries, Mapping):
        known = [(str(release), find_binary(path)) for release, path in binaries.items()]
    else:
        given = [binaries] if isinstance(binaries, (str, os.PathLike)) else list(binaries)
        known = [(run(version_of(find_binary(path))), find_binary(path)) for path in given]
    pairs = [(verdict, *pair) for verdict in verdicts for pair in _of_release(known, str(verdict.destination))]
    rows = []
    for verdict, release, binary in tqdm(pairs, unit="load", disable=None if progress is None else not progress):
        outcome = try_load(verdict.stream, binary, **options)
        first = verdict.obstacles.iloc[0] if len(verdict.obstacles) else {}
        rows.append(
            {
                "stream": str(verdict.stream),
                "destination": str(verdict.destination),
                "qemu": release,
                "predicted": bool(verdict.loads),
                "loaded": outcome.vmstate_loaded,
                "agree": bool(verdict.loads) == outcome.vmstate_loaded,
                "section": first.get("section"),
                "field": first.get("field"),
                "fail_field": outcome.fail_field,
                "message": outcome.message,
                "status": outcome.status,
            }
        )
    columns = ["stream", "destination", "qemu", "predicted", "loaded", "agree", "section", "field", "fail_field"]
    return pd.DataFrame(rows, columns=[*columns, "message", "status"])


def _of_release(known: list[tuple[str, str]], destination: str) -> list[tuple[str, str]]:
    """The binaries of the release a destination's text names: `QEMU 7.2.0, pseries-2.7, …`."""
    match = re.search(r"(?<![\w.-])v?(\d+\.\d+)(?:\.\d+)?\b", destination)
    if match is None:
        return known
    found = [(release, binary) for release, binary in known if re.match(rf"{re.escape(match[1])}(\.|$)", release)]
    if not found:
        have = ", ".join(release for release, _ in known) or "none"
        raise QemuError(f"no binary of release {match[1]} for destination {destination!r}; there are: {have}")
    return found
