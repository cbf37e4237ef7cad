"""A VM that was started by somebody else, and its monitor."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from qemus import qemu

from vmstate_tools.emulator import guest


def until(done: Callable[[], bool]) -> None:
    """Returns once `done` says so; fails after 30 seconds."""
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def listens(where: Path) -> bool:
    """Whether a socket is open to connect to, by the system's table: a connection would be QEMU's only one."""
    listening = 0x10000  # __SO_ACCEPTCON
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return any(row[-1] == str(where) and int(row[3], 16) & listening for row in rows)


class Qmp:
    """A QMP client of a few lines."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *exc) -> None:
        self.file.close()
        self.socket.close()

    def __call__(self, command: str, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while "return" not in (answer := json.loads(self.file.readline())):
            assert "error" not in answer, answer
        return answer["return"]


@contextlib.contextmanager
def running_vm(tmp_path: Path) -> Iterator[Path]:
    """A VM of somebody else's that has run to the end of our program, and its monitor."""
    guest.write(tmp_path, ["ran.bin", "bios"])
    path = tmp_path / "monitor"
    command = [qemu("qemu-system-ppc64"), "-nodefaults", "-nographic", "-display", "none", "-m", "256"]
    command += ["-machine", "pseries-2.7", "-cpu", "970_v2.2", "-bios", "ran.bin", "-L", "bios"]
    process = subprocess.Popen(
        [*command, "-qmp", f"unix:{path},server=on,wait=off"], cwd=tmp_path, stdin=subprocess.DEVNULL
    )
    try:
        until(lambda: listens(path))
        with Qmp(path) as qmp:
            until(lambda: guest.is_done(qmp("human-monitor-command", **{"command-line": "info registers"})))
        yield path
    finally:
        process.kill()
        process.wait()
