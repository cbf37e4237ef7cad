"""Streams from real QEMUs: many, each of a VM that was started for it, or one from a VM that runs."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import fcntl
import fnmatch
import hashlib
import os
import re
import shlex
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vmstate_tools.emulator import guest
from vmstate_tools.emulator.process import Monitor, Qemu, ask, find_binary, run, version_of
from vmstate_tools.errors import QemuError, printable
from vmstate_tools.source import zstd
from vmstate_tools.source.new_file import new_file, new_text_file

if TYPE_CHECKING:
    import pandas as pd

Path_ = str | os.PathLike[str]

MANIFEST = (
    "file", "release", "arch", "machine", "cpu", "config", "memory_mib", "arguments", "capabilities", "parameters",
    "qemu_package", "sha256", "size", "stderr",
)  # fmt: skip
"""Columns of `manifest.csv`; `size` and `sha256` are of the stream itself, not of the compressed file."""

REFUSED = ("release", "arch", "machine", "cpu", "config", "arguments", "returncode", "message")
"""Columns of `refused.csv`: what a QEMU would not start or save."""

_UNLIMITED = 1 << 40  # bytes per second; QEMU before 6.0 starts with 32 MiB/s
# With these on the source the stream is not one file that a reader can take in one piece.
_MORE_THAN_A_FILE = {"multifd", "x-multifd", "postcopy-ram", "x-postcopy-ram", "x-colo", "rdma-pin-all", "mapped-ram"}


@dataclass(frozen=True)
class _Job:
    binary: str
    release: str
    arch: str
    machine: str
    cpu: str | None
    file: str


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
    """A stream of each combination of QEMU binary, machine type and CPU.

    QEMU is started paused and without firmware (`vmstate_tools.emulator.guest`), and migrates over QMP into
    `out/qemu-RELEASE/MACHINE/CPU[+CONFIG].mig.zst`; `out/manifest.csv` gets a row for each. What QEMU refuses goes
    to `out/refused.csv` with its message.

    Parameters
    ----------
    qemu : binaries, any release from 1.6 on.
    machine, cpu : names, or globs over what the binary lists (`pseries-2.*`); aliases only where nothing else
        matches. Without `cpu` the machine type's default.
    jobs : how many QEMUs at a time; by default one per processor.
    ran : let the guest run a small program that fills the registers first; `info registers` of that moment is kept
        beside the stream as `.registers.txt`. pseries, g3beige, mac99 and x86.
    memory_mib : guest memory in MiB; without it the machine type's default.
    arguments : further options for QEMU; relative paths in them are those of a private directory.
    config : what to call the configuration in file name and manifest; 'ran' with `ran`.
    capabilities : migration capabilities to switch on.
    timeout : seconds for the start, and for the migration.
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
    table = _Table(Path(out), overwrite)

    async def work() -> list[dict[str, Any]]:
        planned = [
            _Job(binary, release, arch, name, model, _file(release, name, model, config))
            for binary, release, arch, name, model in await _combinations(_list(qemu), _list(machine), _list(cpu))
        ]
        limit = asyncio.Semaphore(jobs or os.cpu_count() or 1)

        async def one(job: _Job) -> dict[str, Any]:
            async with limit:
                row = table.kept(job.file)
                if row is None:
                    row = await _row(
                        job, Path(out), config, memory_mib, ran, accel, arguments, capabilities, timeout, overwrite
                    )
                    table.add(row)
            bar.update()
            return row

        from tqdm.auto import tqdm

        with tqdm(total=len(planned), unit="stream", disable=_no_bar(progress)) as bar:
            tasks = [asyncio.ensure_future(one(job)) for job in planned]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    frame = pd.DataFrame(run(work()), columns=[*MANIFEST, "refused"])
    for name in ("memory_mib", "size"):
        frame[name] = pd.to_numeric(frame[name]).astype("Int64")
    return frame


def _no_bar(progress: bool | None) -> bool | None:
    return None if progress is None else not progress


def _list(values: Path_ | Iterable[Path_] | None) -> list[str]:
    if values is None:
        return []
    return [os.fspath(v) for v in ([values] if isinstance(values, (str, os.PathLike)) else values)]


async def _combinations(
    binaries: list[str], machines: list[str], cpus: list[str]
) -> list[tuple[str, str, str, str, str | None]]:
    found = []
    for given in binaries:
        binary = find_binary(given)
        release, arch = await version_of(binary), await arch_of(binary)
        names = await _matching(binary, "-machine", machines)
        models: list[str | None] = [*await _matching(binary, "-cpu", cpus)] if cpus else [None]
        found += [(binary, release, arch, name, model) for name in names for model in models]
    return found


async def arch_of(binary: str) -> str:
    """The target of a binary, by its name, or else by asking it: `ppc64`."""
    match = re.search(r"qemu-system-(\w+)", Path(binary).name)
    if match:
        return match[1]
    async with Qemu(binary, ["-S", "-nodefaults", "-nographic", "-machine", "none"]) as qemu:
        return str((await qemu.execute("query-target"))["arch"])


async def _matching(binary: str, option: str, patterns: list[str]) -> list[str]:
    """The names that the patterns mean, in the order in which QEMU lists them."""
    found: dict[str, None] = {}
    listed: list[tuple[str, bool]] | None = None
    for pattern in patterns:
        if not set(pattern) & set("*?["):
            found[pattern] = None
            continue
        if listed is None:
            listed = _names(await ask(binary, option, "help"))
        for aliases in (False, True):
            matches = [n for n, alias in listed if alias == aliases and fnmatch.fnmatchcase(n, pattern)]
            if matches:
                break
        else:
            raise QemuError(f"{binary} {option} help lists nothing that matches {pattern!r}")
        found |= dict.fromkeys(matches)
    return list(found)


def _names(text: str) -> list[tuple[str, bool]]:
    """What `-machine help` or `-cpu help` lists: each name, and whether it is an alias."""
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


def _file(release: str, machine: str, cpu: str | None, config: str) -> str:
    def safe(name: str) -> str:
        return re.sub(r"[^\w.,=+-]", "_", name).lstrip(".") or "_"

    name = safe(cpu or "default") + (f"+{safe(config)}" if config else "")
    return f"qemu-{release}/{safe(machine)}/{name}.mig.zst"


def _command_line(
    arch: str, machine: str, cpu: str | None, accel: str, memory_mib: int | None, ran: bool, more: Sequence[str]
) -> list[str]:
    line = ["-S", "-nodefaults", "-nographic", "-display", "none", "-machine", f"{machine},accel={accel}"]
    if cpu is not None:
        line += ["-cpu", cpu]
    if memory_mib is not None:
        line += ["-m", str(memory_mib)]
    if "-bios" not in more:
        firmware = guest.firmware(arch, machine, ran)
        if firmware is None:
            raise QemuError(f"there is no program to run on {arch} machine {machine}")
        line += firmware
    return [*line, "-L", "bios", *more]


async def _row(
    job: _Job,
    out: Path,
    config: str,
    memory_mib: int | None,
    ran: bool,
    accel: str,
    arguments: Sequence[str],
    capabilities: Sequence[str],
    timeout: float,
    overwrite: bool,
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(MANIFEST, "")
    row |= {
        "release": job.release,
        "arch": job.arch,
        "machine": job.machine,
        "cpu": job.cpu or "",
        "config": config,
        "memory_mib": memory_mib,
        "capabilities": " ".join(capabilities),
        "size": None,
        "refused": "",
    }
    target = out / job.file
    try:
        line = _command_line(job.arch, job.machine, job.cpu, accel, memory_mib, ran, arguments)
        row["arguments"] = shlex.join(line)
        async with Qemu(job.binary, line, timeout=timeout) as qemu:
            assert qemu.monitor is not None
            target.parent.mkdir(parents=True, exist_ok=True)
            row["qemu_package"] = (await qemu.execute("query-version")).get("package", "").strip().strip("()")
            await unthrottle(qemu.monitor)
            if ran:
                await _until_done(qemu, timeout)
            try:
                taken = await migrate_out(
                    qemu.monitor, target, capabilities=capabilities, timeout=timeout, overwrite=overwrite
                )
            except FileExistsError as err:
                raise QemuError(f"{target}: {err.strerror}") from None
            except QemuError as err:
                raise QemuError(err.message, output=qemu.output()) from None
            if ran:
                registers = target.with_name(target.name.removesuffix(".mig.zst") + ".registers.txt")
                with new_text_file(registers, overwrite=True, guest_memory=True) as file:
                    file.write(await qemu.monitor.human("info registers"))
            row |= {"file": job.file, **taken, "stderr": _one_line(qemu.output())}
    except QemuError as err:
        row["refused"] = str(err)
        row["returncode"] = err.returncode
    return row


async def _until_done(qemu: Qemu, timeout: float) -> None:
    """Let the guest run our program to its end, then stop it."""
    assert qemu.monitor is not None
    await qemu.execute("cont")
    try:
        async with asyncio.timeout(timeout):
            while not guest.is_done(await qemu.monitor.human("info registers")):
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise QemuError("the guest did not come to the end of our program") from None
    await qemu.execute("stop")


def _one_line(text: str) -> str:
    return " | ".join(printable(line) for line in text.splitlines() if line.strip())


# -- the migration ------------------------------------------------------------------------------------------------


async def migrate_out(
    monitor: Monitor,
    out: Path,
    *,
    capabilities: Sequence[str] = (),
    timeout: float,
    overwrite: bool,
) -> dict[str, Any]:
    """Migrate into a file (zstd where it is called `.zst`); its `sha256` and `size` before compression."""
    with new_file(out, overwrite=overwrite, guest_memory=True) as file:
        return await _migrate_into(monitor, file, out.suffix == ".zst", capabilities, timeout)


async def _migrate_into(
    monitor: Monitor, file: BinaryIO, compressed: bool, capabilities: Sequence[str], timeout: float
) -> dict[str, Any]:
    if capabilities:
        on = [{"capability": name, "state": True} for name in capabilities]
        await monitor.execute("migrate-set-capabilities", {"capabilities": on})
    ours, theirs = socket.socketpair()
    writing = asyncio.ensure_future(asyncio.to_thread(_spool, ours, file, compressed))
    try:
        await monitor.give("vmstate-out", theirs)
        await monitor.execute("migrate", {"uri": "fd:vmstate-out"})
        async with asyncio.timeout(timeout):
            await _completed(monitor)
            digest, size = await asyncio.shield(writing)
    except TimeoutError:
        raise QemuError(f"the migration is not done after {timeout:g} s") from None
    finally:
        with contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)  # ends the thread, whatever it waits for
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writing
        ours.close()
    return {"sha256": digest, "size": size}


def _spool(end: socket.socket, file: BinaryIO, compressed: bool) -> tuple[str, int]:
    """Write what comes through a socket, until it ends."""
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(1 << 20))
    with contextlib.ExitStack() as stack:
        to: Any = file
        if compressed:
            to = stack.enter_context(zstd.writer(file))
        while n := end.recv_into(buffer):
            digest.update(buffer[:n])
            to.write(buffer[:n])
            size += n
    return digest.hexdigest(), size


async def _completed(monitor: Monitor) -> None:
    wait = 0.005
    while True:
        told = await monitor.execute("query-migrate")
        status = told.get("status")
        if status == "completed":
            return
        if status in ("failed", "cancelled"):
            raise QemuError(f"the migration {status}" + (f": {told['error-desc']}" if "error-desc" in told else ""))
        await asyncio.sleep(wait)
        wait = min(wait * 2, 0.2)


async def unthrottle(monitor: Monitor) -> Any:
    """Lift the limit on the migration's speed; what it was, where QEMU tells (2.8 on)."""
    commands = await monitor.commands()
    if "query-migrate-parameters" in commands:
        before = (await monitor.execute("query-migrate-parameters")).get("max-bandwidth")
        if before is not None:
            await monitor.execute("migrate-set-parameters", {"max-bandwidth": _UNLIMITED})
            return before
    if "migrate_set_speed" in commands:  # until 5.2
        await monitor.execute("migrate_set_speed", {"value": _UNLIMITED})
    return None


# -- a running VM -------------------------------------------------------------------------------------------------


def attach(qmp_socket: Path_, *, timeout: float = 30) -> Running:
    """A running VM, by its QMP socket. `timeout`: seconds for each command."""
    return Running(os.fspath(qmp_socket), timeout)


class Running:
    """A VM that somebody else started."""

    def __init__(self, qmp_socket: str, timeout: float) -> None:
        self.qmp_socket = qmp_socket
        self.timeout = timeout

    def __repr__(self) -> str:
        return f"<VM at {self.qmp_socket}>"

    def capture(self, out: Path_, *, stop: bool = True, timeout: float = 600, overwrite: bool = False) -> pd.Series:
        """Take a stream into the file `out` (zstd where it is called `.zst`) and let the VM run on as it did.

        Parameters
        ----------
        stop : pause the guest while its memory is sent; else only at the end, as in a live migration, which a guest
            that writes faster than we read never reaches.
        timeout : seconds for the migration; when they are over it is cancelled.

        Returns
        -------
        The stream's manifest row; it also stands in `manifest.csv` beside `out`.

        Raises
        ------
        QemuError : nobody answers (a monitor talks to one at a time), capabilities are on that send a stream in
            several pieces, or the migration fails. The VM runs on in each case.
        FileExistsError : `out` is there, and not `overwrite`.
        """
        import pandas as pd

        path = Path(out)
        if path.exists() and not overwrite:
            raise FileExistsError(17, "exists already", str(path))
        row = run(self._take(path, stop, timeout, overwrite))
        _Table(path.parent, overwrite=True).add(row)
        return pd.Series({name: row[name] for name in MANIFEST})

    async def _take(self, out: Path, stop: bool, timeout: float, overwrite: bool) -> dict[str, Any]:
        monitor = Monitor(self.timeout)
        try:
            await monitor.connect(self.qmp_socket)
        except TimeoutError:
            raise QemuError(f"{self.qmp_socket} does not answer: does somebody else use this monitor?") from None
        except (OSError, EOFError, monitor.failures) as err:
            raise QemuError(f"{self.qmp_socket}: {err}") from None
        try:
            return await self._migrate(monitor, out, stop, timeout, overwrite)
        finally:
            await monitor.close()

    async def _migrate(
        self, monitor: Monitor, out: Path, stop: bool, timeout: float, overwrite: bool
    ) -> dict[str, Any]:
        if "query-migrate-capabilities" in await monitor.commands():
            told = await monitor.execute("query-migrate-capabilities")
            wrong = sorted(_MORE_THAN_A_FILE & {c["capability"] for c in told if c["state"]})
            if wrong:
                raise QemuError(f"migration capabilities {', '.join(wrong)} are on: the stream would not be one file")
        version = await monitor.execute("query-version")
        release = ".".join(str(version["qemu"][part]) for part in ("major", "minor", "micro"))
        running = (await monitor.execute("query-status"))["running"]
        if (await monitor.execute("query-migrate")).get("status") in ("active", "setup", "device"):
            raise QemuError("a migration is under way")
        bandwidth = await unthrottle(monitor)
        try:
            if running and stop:
                await monitor.execute("stop")
            taken = await migrate_out(monitor, out, timeout=timeout, overwrite=overwrite)
        finally:
            await asyncio.shield(self._resume(monitor, running, bandwidth))
        row: dict[str, Any] = dict.fromkeys(MANIFEST, "")
        return row | {
            "file": out.name,
            "release": release,
            "arch": (await monitor.execute("query-target"))["arch"],
            "machine": _machine_in(out),
            "memory_mib": None,
            "qemu_package": version.get("package", "").strip().strip("()"),
            **taken,
        }

    async def _resume(self, monitor: Monitor, running: bool, bandwidth: Any) -> None:
        if (await monitor.execute("query-migrate")).get("status") in ("active", "setup", "device"):
            await monitor.execute("migrate_cancel")
            with contextlib.suppress(QemuError):
                await _completed(monitor)
        if bandwidth is not None:
            await monitor.execute("migrate-set-parameters", {"max-bandwidth": bandwidth})
        if running:
            await monitor.execute("cont")


def _machine_in(stream: Path) -> str:
    from vmstate_tools.stream.stream import open_stream

    with open_stream(stream) as opened:
        return opened.machine or ""


# -- what is written beside the streams -----------------------------------------------------------------------------


class _Table:
    """`manifest.csv` and `refused.csv` of a folder."""

    def __init__(self, folder: Path, overwrite: bool) -> None:
        self.folder = folder
        self.overwrite = overwrite

    def kept(self, file: str) -> dict[str, Any] | None:
        """The manifest's row of a stream that is there and is not to be made again."""
        if self.overwrite or not (self.folder / file).exists():
            return None
        for row in _read(self.folder / "manifest.csv")[1]:
            if row.get("file") == file:
                return {**row, "size": int(row["size"]), "memory_mib": row["memory_mib"] or None, "refused": ""}
        return None

    def add(self, row: dict[str, Any]) -> None:
        if row.get("refused"):
            key = ("release", "arch", "machine", "cpu", "config")
            put_row(self.folder / "refused.csv", REFUSED, {**row, "message": row["refused"]}, key)
        else:
            put_row(self.folder / "manifest.csv", MANIFEST, row, ("file",))


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or ()), list(reader)
    except FileNotFoundError:
        return [], []


def put_row(path: Path, columns: Sequence[str], row: dict[str, Any], key: Sequence[str]) -> None:
    """Write a row into a table, instead of the one with the same key if there is one; several may do so at once."""
    text = {name: "" if row.get(name) is None else str(row[name]) for name in columns}
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        header, rows = _read(path)
        header += [name for name in columns if name not in header]
        rows = [r for r in rows if any(r.get(name, "") != text[name] for name in key)]
        with new_text_file(path, overwrite=True) as file:
            writer = csv.DictWriter(file, header, restval="")
            writer.writeheader()
            writer.writerows([*rows, text])
    finally:
        os.close(folder)
