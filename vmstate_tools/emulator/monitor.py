"""The monitor of a QEMU: commands over QMP, and answers that are checked before they are believed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any

from qemu.qmp import QMPClient
from qemu.qmp.error import QMPError
from qemu.qmp.qmp_client import ExecuteError

from vmstate_tools.errors import QemuError

# What the library lets through of a peer that is no QEMU: lines without end, JSON nested too deep, what is no object.
_NONSENSE = (QMPError, OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


class MonitorClosedError(QemuError):
    """The connection ended before it was one: QEMU ended, most likely."""


class Monitor:
    """A Monitor is a QMP connection; it asks only what every QEMU since 1.6 answers, or `query-commands` lists.

    Parameters
    ----------
    timeout : seconds for the connection, and for each command.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._client = QMPClient("vmstate")
        # That QEMU ends is noticed elsewhere; the library reports it as an error.
        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
        self._commands: set[str] | None = None

    async def connect(self, where: socket.socket | str) -> None:
        """Connects to a socket, or accepts QEMU's greeting on one. Raises QemuError where no QEMU answers."""
        try:
            await asyncio.wait_for(self._client.connect(where), self.timeout)
        except TimeoutError:
            raise QemuError(f"no answer in {self.timeout:g} s: does somebody else use this monitor?") from None
        except _NONSENSE as err:
            cause = getattr(err, "exc", err)
            if isinstance(cause, (EOFError, ConnectionResetError, BrokenPipeError)):
                raise MonitorClosedError("the monitor closed the connection") from None
            if isinstance(cause, OSError) and cause.strerror:
                raise QemuError(cause.strerror) from None
            raise QemuError(f"the monitor does not answer as QEMU's does: {_short(err)}") from None

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Returns a command's answer. Raises QemuError."""
        try:
            return await asyncio.wait_for(self._client.execute(command, arguments), self.timeout)
        except ExecuteError as err:
            raise QemuError(f"{command}: {_short(err)}") from None
        except TimeoutError:
            raise QemuError(f"{command}: no answer in {self.timeout:g} s") from None
        except _NONSENSE as err:
            raise QemuError(f"{command}: the connection to QEMU ended ({type(err).__name__})") from None

    async def query(self, command: str) -> dict[str, Any]:
        """Returns the answer of a command that answers with an object. Raises QemuError."""
        answer = await self.execute(command)
        if not isinstance(answer, dict):
            raise _unexpected(command, answer)
        return answer

    async def text(self, command: str, name: str) -> str:
        """Returns the text of this name in a command's answer. Raises QemuError."""
        value = (await self.query(command)).get(name)
        if not isinstance(value, str):
            raise _unexpected(command, value, name)
        return value

    async def objects(self, command: str) -> list[dict[str, Any]]:
        """Returns the answer of a command that answers with a list of objects. Raises QemuError."""
        answer = await self.execute(command)
        if not isinstance(answer, list) or not all(isinstance(each, dict) for each in answer):
            raise _unexpected(command, answer)
        return answer

    async def commands(self) -> set[str]:
        """Returns the names of the commands that this QEMU knows."""
        if self._commands is None:
            self._commands = {str(each.get("name")) for each in await self.objects("query-commands")}
        return self._commands

    async def version(self) -> tuple[str, str]:
        """Returns the release and the package of this QEMU: `("7.2.22", "Debian 1:7.2+dfsg-7")`."""
        answer = await self.query("query-version")
        numbers, package = answer.get("qemu"), answer.get("package", "")
        if not isinstance(numbers, dict) or not isinstance(package, str):
            raise _unexpected("query-version", answer)
        parts = [numbers.get(part) for part in ("major", "minor", "micro")]
        if not all(isinstance(part, int) for part in parts):
            raise _unexpected("query-version", answer)
        return ".".join(map(str, parts)), package.strip().strip("()")

    async def human(self, line: str) -> str:
        """Returns what the human monitor prints for a command."""
        return str(await self.execute("human-monitor-command", {"command-line": line}))

    async def give(self, name: str, end: socket.socket) -> None:
        """Hands over a socket under a name, for `fd:NAME`; our copy of it is closed."""
        try:
            self._client.send_fd_scm(end.fileno())
            await self.execute("getfd", {"fdname": name})
        finally:
            end.close()

    async def close(self) -> None:
        # Whatever ended the connection was an error of the last command already.
        with contextlib.suppress(*_NONSENSE, asyncio.TimeoutError):
            await asyncio.wait_for(self._client.disconnect(), min(self.timeout, 10))


def _short(err: BaseException) -> str:
    text = str(err).strip() or type(err).__name__
    return text if len(text) <= 300 else text[:300] + "…"


def _unexpected(command: str, answer: Any, name: str = "") -> QemuError:
    what = f"{name!r} in its answer" if name else "its answer"
    shown = repr(answer)
    return QemuError(f"{command}: {what} is not what QEMU says: {shown if len(shown) <= 100 else shown[:100] + '…'}")
