"""One QEMU process and its end, whatever happens to us.

QEMU runs in a private directory (mode 0700), in a process group that a watchdog leads: a shell that waits on a pipe of
ours. When we are gone, SIGKILL included, the pipe ends, and the watchdog removes the directory and ends the group: QEMU
and, where a script stands in QEMU's place, the script's children. Streams go through socket pairs whose one end QEMU
is given: no path and no shell is in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from vmstate_tools.emulator import guest
from vmstate_tools.emulator.monitor import Monitor, MonitorClosedError
from vmstate_tools.errors import QemuError

SANDBOX = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
"""Has QEMU refuse to start programs or gain privileges (qemu-options.hx: `sandbox`; these words since 2.11)."""

_MOST_OUTPUT = 1 << 20  # bytes of what QEMU printed that are held, at its beginning and at its end
_MOST_LOG = 16 << 20
_WATCHDOG = 'trap "" HUP INT TERM; read -r _; rm -rf -- "$1"; kill -KILL 0'


class Qemu:
    """A Qemu is a running QEMU: an async context manager that leaves nothing behind.

    Parameters
    ----------
    binary, arguments : the command line. Its working directory is empty but for the files of `guest` that it names.
    incoming : our end of a socket pair to load a stream from: QEMU gets it as `-incoming fd:N`.
    timeout : seconds for the start and for each command.
    monitor : give it a QMP monitor, and have it stay in `SANDBOX` where this binary has one and `arguments` set none.
    """

    def __init__(
        self,
        binary: str,
        arguments: Sequence[str],
        *,
        incoming: socket.socket | None = None,
        timeout: float = 60,
        monitor: bool = True,
    ) -> None:
        self.binary = binary
        self.arguments = list(arguments)
        self.timeout = timeout
        self.monitor = Monitor(timeout)
        self._monitored = monitor
        self._incoming = incoming
        self._folder: Path | None = None
        self._group: subprocess.Popen[bytes] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._output = Output()

    async def __aenter__(self) -> Qemu:
        try:
            # Who sets a sandbox of their own knows why: a network script needs spawn=allow.
            if not self._monitored or "-sandbox" in self.arguments:
                await self._start([])
                return self
            try:
                await self._start(SANDBOX)
            except QemuError as err:
                # A QEMU before 2.11, or one built without seccomp, says so and ends.
                if err.returncode is None or "sandbox" not in err.output:
                    raise
                await self._end()
                self._output = Output()
                await self._start([])
        except BaseException:
            await self._end()
            raise
        finally:
            if self._incoming is not None:
                self._incoming.close()
        return self

    async def _start(self, sandbox: Sequence[str]) -> None:
        self._folder = _private_folder()
        work = self._folder / "work"
        work.mkdir()
        guest.write(work, self.arguments)
        self._group = _watchdog(self._folder)
        command = [self.binary, *self.arguments, *sandbox]
        fds = []
        with contextlib.ExitStack() as stack:
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            if self._monitored:
                listening.bind(str(self._folder / "qmp"))
                listening.listen(1)
                command += ["-qmp", "unix:../qmp"]  # 11.1 has deprecated -mon
            if self._incoming is not None:
                fds.append(self._incoming.fileno())
                command += ["-incoming", f"fd:{self._incoming.fileno()}"]
            theirs = stack.enter_context(await self._output.open())
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    cwd=work,
                    stdin=subprocess.DEVNULL,
                    stdout=theirs,
                    stderr=theirs,
                    env={**os.environ, "LC_ALL": "C", "QEMU_AUDIO_DRV": "none"},
                    pass_fds=fds,
                    process_group=self._group.pid,  # a Ctrl-C on the terminal is ours to handle
                )
            except OSError as err:
                raise QemuError(f"{self.binary} does not start: {err.strerror}") from None
            finally:
                theirs.close()  # or its end would not be seen
            if self._monitored:
                await self._connect(listening)

    async def _connect(self, listening: socket.socket) -> None:
        """Waits for QEMU to call us, or to end."""
        listening.setblocking(False)
        accept = asyncio.ensure_future(asyncio.get_running_loop().sock_accept(listening))
        exit_ = asyncio.ensure_future(self.exited())
        try:
            done, _ = await asyncio.wait({accept, exit_}, timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED)
            if accept in done:
                await self.monitor.connect(accept.result()[0])
                return
        except MonitorClosedError:
            await asyncio.wait({exit_}, timeout=min(self.timeout, 5))  # it is about to end
        except QemuError as err:
            raise QemuError(err.message, output=self.output().strip()) from None
        finally:
            for task in (accept, exit_):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, QemuError):
                    await task
        if self.running:
            raise self.error(f"QEMU does not answer in {self.timeout:g} s")
        await self._output.ended(min(self.timeout, 1))
        raise self.error("QEMU ended")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def returncode(self) -> int | None:
        """Returns the exit code, or the negative number of the signal that ended it; None as long as it runs."""
        return self._process.returncode if self._process else None

    async def exited(self, timeout: float | None = None) -> int:
        """Waits for its end and returns the exit code. Raises QemuError after `timeout` seconds."""
        assert self._process is not None
        wait = self.timeout if timeout is None else timeout
        try:
            code = await asyncio.wait_for(self._process.wait(), wait)
        except TimeoutError:
            raise self.error(f"QEMU still runs after {wait:g} s") from None
        # The last of what it printed; a child may hold the pipe open.
        await self._output.ended(min(self.timeout, 1))
        return code

    def output(self) -> str:
        """Returns what it printed on stdout and stderr: the first and the last MiB of it."""
        return self._output.text()

    def log(self, name: str) -> str:
        """Returns the last 16 MiB of a file in its working directory; "" where there is none."""
        if self._folder is None:
            return ""
        try:
            with (self._folder / "work" / name).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _MOST_LOG))
                return file.read(_MOST_LOG).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def error(self, message: str) -> QemuError:
        """Returns an error with what QEMU said."""
        return QemuError(message, output=self.output().strip(), returncode=self.returncode)

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Returns a QMP command's answer. Raises QemuError, with what QEMU printed if it ended."""
        try:
            return await self.monitor.execute(command, arguments)
        except QemuError as err:
            err.output = err.output or self.output().strip()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        group, self._group = self._group, None
        try:
            if group is not None:
                # The watchdog is not waited for yet, so the group's number is still ours.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group.pid, signal.SIGKILL)
                assert group.stdin is not None
                group.stdin.close()
                group.wait()
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()  # in case it left the group
                await self._process.wait()
            await self.monitor.close()
        finally:
            self._output.close()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)


class Output:
    """An Output has the beginning and the end of what a process prints; of the middle only how long it was."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0
        self._transport: asyncio.ReadTransport | None = None
        self._reading: asyncio.Future[None] | None = None

    async def open(self) -> BinaryIO:
        """Makes a pipe, reads from it as long as the loop runs, and returns the end to write to."""
        ours, theirs = os.pipe()
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", 0)
        )
        self._reading = asyncio.ensure_future(self._read(reader))
        return os.fdopen(theirs, "wb", 0)

    async def ended(self, timeout: float) -> None:
        """Waits until nobody writes any more, at most `timeout` seconds."""
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=timeout)

    def close(self) -> None:
        if self._transport is not None and self._reading is not None:
            self._transport.close()
            self._reading.cancel()

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while piece := await stream.read(1 << 16):
            if len(self._head) < _MOST_OUTPUT:
                self._head += piece
                continue
            self._tail += piece
            if len(self._tail) > 2 * _MOST_OUTPUT:
                self._left_out += len(self._tail) - _MOST_OUTPUT
                del self._tail[:-_MOST_OUTPUT]

    def text(self) -> str:
        gap = f"\n… {self._left_out} bytes left out …\n".encode() if self._left_out else b""
        return (self._head + gap + self._tail).decode("utf-8", "replace")


def _private_folder() -> Path:
    """Makes a directory that only we may enter, its path short enough for a UNIX socket's (108 bytes)."""
    folder = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="vmstate-", dir="/tmp" if len(os.fsencode(folder)) > 80 else None))


def _watchdog(folder: Path) -> subprocess.Popen[bytes]:
    """Starts the leader of a process group, which ends the group and removes the folder when we are gone."""
    return subprocess.Popen(
        ["/bin/sh", "-c", _WATCHDOG, "sh", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
        cwd="/",
    )
