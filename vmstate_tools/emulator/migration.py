"""A migration out of a QEMU, into a file."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from vmstate_tools.emulator.monitor import Monitor
from vmstate_tools.errors import QemuError
from vmstate_tools.source import zstd
from vmstate_tools.source.new_file import new_file

UNDER_WAY = ("active", "setup", "device")
"""What `query-migrate` says of a migration that is not over."""

_UNLIMITED = 1 << 40  # bytes per second; QEMU before 6.0 starts with 32 MiB/s


async def migrate_out(
    monitor: Monitor, out: Path, *, capabilities: Sequence[str] = (), timeout: float, overwrite: bool
) -> dict[str, Any]:
    """Migrates into a new file (zstd where it is called `.zst`), which its owner alone may read.

    Returns `sha256` and `size` (bytes) of the stream before compression. Raises QemuError where the migration fails or
    takes more than `timeout` seconds, FileExistsError as `new_file` does.
    """
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
            await completed(monitor)
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
    """Writes what comes through a socket until it ends; returns its SHA-256 and its size in bytes."""
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


async def completed(monitor: Monitor) -> None:
    """Waits until a migration is over. Raises QemuError where it failed."""
    wait = 0.005
    while True:
        answer = await monitor.query("query-migrate")
        status = answer.get("status")
        if status == "completed":
            return
        if status in ("failed", "cancelled"):
            why = f": {answer['error-desc']}" if "error-desc" in answer else ""
            raise QemuError(f"the migration {status}{why}")
        await asyncio.sleep(wait)
        wait = min(wait * 2, 0.2)


async def unthrottle(monitor: Monitor) -> Any:
    """Lifts the limit on the migration's speed; returns what it was, where QEMU says it (2.8 on)."""
    commands = await monitor.commands()
    if "query-migrate-parameters" in commands:
        before = (await monitor.query("query-migrate-parameters")).get("max-bandwidth")
        if before is not None:
            await monitor.execute("migrate-set-parameters", {"max-bandwidth": _UNLIMITED})
            return before
    if "migrate_set_speed" in commands:  # until 5.2
        await monitor.execute("migrate_set_speed", {"value": _UNLIMITED})
    return None
