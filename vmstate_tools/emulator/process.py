"""One QEMU process and its monitor, and the end of both whatever happens to us.

QEMU runs in a private directory (mode 0700) that holds the guest blobs and the monitor's UNIX socket. Streams go
through socket pairs whose one end QEMU is given: no path and no shell is in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

from qemu.qmp import QMPClient
from qemu.qmp.error import QMPError
from qemu.qmp.qmp_client import ExecuteError

from vmstate_tools.emulator import guest
from vmstate_tools.errors import QemuError

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_MOST_OUTPUT = 1 << 20  # bytes of what QEMU printed that are kept


def _die_with(parent: int) -> None:
    """In the child, before exec: the kernel kills it when its parent is gone."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, in a thread of its own where this one has a loop already (a notebook).

    Ctrl-C and SIGTERM cancel the work, so that it can end its processes, and then take their usual course.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_cancelled_by_sigterm(work))
    result: list[T] = []
    failure: list[BaseException] = []
    started: asyncio.Future[Any] | None = None
    loop = asyncio.new_event_loop()

    async def main() -> T:
        nonlocal started
        started = asyncio.current_task()
        return await work

    def body() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                result.append(runner.run(main()))
        except BaseException as err:
            failure.append(err)

    thread = threading.Thread(target=body, name="vmstate-qemu", daemon=True)
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: started and started.cancel())
        thread.join()
        raise
    if failure:
        raise failure[0]
    return result[0]


async def _cancelled_by_sigterm(work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.current_task()
    assert task is not None
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    told: list[int] = []
    if ours:

        def stop(number: int, _frame: FrameType | None) -> None:
            told.append(number)
            loop.call_soon_threadsafe(task.cancel)

        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGTERM, stop)
    try:
        return await work
    except asyncio.CancelledError:
        if told:
            raise SystemExit(128 + told[0]) from None
        raise
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def find_binary(binary: str | os.PathLike[str]) -> str:
    """The absolute path of a QEMU binary. Raises QemuError where there is none."""
    found = shutil.which(os.fspath(binary))
    if found is None:
        raise QemuError(f"there is no program {os.fspath(binary)}")
    return str(Path(found).absolute())


async def ask(binary: str, *arguments: str, timeout: float = 30) -> str:
    """What a QEMU prints for `-version`, `-machine help` and the like."""
    async with Qemu(binary, arguments, timeout=timeout, monitor=False) as qemu:
        await qemu.exited()
        return qemu.output()


async def version_of(binary: str) -> str:
    """The release of a binary: `7.2.22`."""
    text = await ask(binary, "-version")
    match = re.search(r"version (\d+\.\d+(?:\.\d+)*)", text)
    if match is None:
        raise QemuError(f"{binary} does not say its version", output=text)
    return match[1]


class Qemu:
    """A running QEMU; an async context manager that leaves nothing behind.

    Parameters
    ----------
    binary, arguments : the command line. Relative paths in it are those of the private directory (`guest.FILES`).
    incoming : our caller's end of a socket pair to load a stream from: passed as `-incoming fd:N`.
    timeout : seconds for the start and for each command.
    monitor : give it a QMP monitor.
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
        self.monitor = Monitor(timeout) if monitor else None
        self._incoming = incoming
        self._folder: Path | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Qemu:
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def _start(self) -> None:
        self._folder = _private_folder()
        guest.write(self._folder)
        command = [self.binary, *self.arguments]
        listening = None
        keep = []
        if self.monitor is not None:
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(str(self._folder / "qmp"))
            listening.listen(1)
            command += ["-qmp", "unix:qmp"]  # 11.1 has deprecated -mon
        if self._incoming is not None:
            keep.append(self._incoming.fileno())
            command += ["-incoming", f"fd:{self._incoming.fileno()}"]
        parent = os.getpid()
        try:
            with (self._folder / "output").open("wb") as output:
                try:
                    self._process = await asyncio.create_subprocess_exec(
                        *command,
                        cwd=self._folder,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        env={**os.environ, "LC_ALL": "C", "QEMU_AUDIO_DRV": "none"},
                        pass_fds=keep,
                        start_new_session=True,  # a Ctrl-C on the terminal is ours to handle
                        preexec_fn=lambda: _die_with(parent),
                    )
                except OSError as err:
                    raise QemuError(f"{self.binary} does not start: {err.strerror}") from None
                finally:
                    if self._incoming is not None:
                        self._incoming.close()
            if self.monitor is not None and listening is not None:
                await self._connect(self.monitor, listening)
        finally:
            if listening is not None:
                listening.close()

    async def _connect(self, monitor: Monitor, listening: socket.socket) -> None:
        """Wait for QEMU to call us, or to end."""
        listening.setblocking(False)
        accept = asyncio.ensure_future(asyncio.get_running_loop().sock_accept(listening))
        exit_ = asyncio.ensure_future(self.exited())
        try:
            done, _ = await asyncio.wait({accept, exit_}, timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED)
            if accept in done:
                await monitor.connect(accept.result()[0])
                return
        except (OSError, EOFError, QMPError):
            await asyncio.wait({exit_}, timeout=5)  # it is about to end
        finally:
            for task in (accept, exit_):
                task.cancel()
        raise self.error("QEMU does not answer" if self.running else "QEMU ended")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def returncode(self) -> int | None:
        """Exit code, or the negative number of the signal that ended it; None as long as it runs."""
        return self._process.returncode if self._process else None

    async def exited(self, timeout: float | None = None) -> int:
        """Wait for its end; the exit code. Raises QemuError after `timeout` seconds."""
        assert self._process is not None
        wait = self.timeout if timeout is None else timeout
        try:
            return await asyncio.wait_for(self._process.wait(), wait)
        except TimeoutError:
            raise self.error(f"QEMU still runs after {wait:g} s") from None

    def output(self) -> str:
        """What it printed on stdout and stderr: the first and the last MiB of it."""
        return self.log("output")

    def log(self, name: str) -> str:
        """The first and the last MiB of a file in its private directory; "" where there is none."""
        if self._folder is None:
            return ""
        try:
            with (self._folder / name).open("rb") as file:
                text = file.read(_MOST_OUTPUT)
                end = file.seek(0, os.SEEK_END)
                if end > len(text):
                    file.seek(max(len(text), end - _MOST_OUTPUT))
                    text += file.read(_MOST_OUTPUT)
        except FileNotFoundError:
            return ""
        return text.decode("utf-8", "replace")

    def error(self, message: str) -> QemuError:
        """An error with what QEMU said."""
        output = self.output().strip()
        return QemuError(message, output=output, returncode=self.returncode)

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """A QMP command's answer. Raises QemuError, with what QEMU printed if it ended."""
        assert self.monitor is not None
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
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        try:
            if process is not None:
                await process.wait()
            if self.monitor is not None:
                await self.monitor.close()
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)


def _private_folder() -> Path:
    """A new directory that only we may enter, its path short enough for a UNIX socket's (108 bytes)."""
    folder = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="vmstate-", dir="/tmp" if len(os.fsencode(folder)) > 80 else None))


class Monitor:
    """A QMP connection; all that is asked of it is what every QEMU since 1.6 answers, or is asked for first."""

    failures = QMPError
    """What `connect` raises where something else than a QEMU answers."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._client = QMPClient("vmstate")
        # QEMU ending is ours to notice; the library tells it as an error.
        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
        self._commands: set[str] | None = None

    async def connect(self, where: socket.socket | str) -> None:
        await asyncio.wait_for(self._client.connect(where), self.timeout)

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """A command's answer. Raises QemuError."""
        try:
            return await asyncio.wait_for(self._client.execute(command, arguments), self.timeout)
        except ExecuteError as err:
            raise QemuError(f"{command}: {err}") from None
        except TimeoutError:
            raise QemuError(f"{command}: no answer in {self.timeout:g} s") from None
        except (QMPError, OSError, EOFError) as err:
            raise QemuError(f"{command}: the connection to QEMU ended ({type(err).__name__})") from None

    async def commands(self) -> set[str]:
        """The commands it knows."""
        if self._commands is None:
            self._commands = {each["name"] for each in await self.execute("query-commands")}
        return self._commands

    async def human(self, line: str) -> str:
        """What the human monitor prints for a command."""
        return str(await self.execute("human-monitor-command", {"command-line": line}))

    async def give(self, name: str, end: socket.socket) -> None:
        """Hand over a socket under a name, for `fd:NAME`; our copy of it is closed."""
        try:
            self._client.send_fd_scm(end.fileno())
            await self.execute("getfd", {"fdname": name})
        finally:
            end.close()

    async def close(self) -> None:
        # Whatever ended the connection was told to who asked last.
        with contextlib.suppress(QMPError, OSError, EOFError, asyncio.TimeoutError):
            await asyncio.wait_for(self._client.disconnect(), 10)
