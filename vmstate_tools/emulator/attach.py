"""A stream from a VM that somebody else started."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmstate_tools.emulator.event_loop import run
from vmstate_tools.emulator.migration import UNDER_WAY, completed, migrate_out, unthrottle
from vmstate_tools.emulator.monitor import Monitor
from vmstate_tools.emulator.tables import MANIFEST, Manifest
from vmstate_tools.errors import QemuError
from vmstate_tools.source.new_file import EXISTS

if TYPE_CHECKING:
    import pandas as pd

    Path_ = str | os.PathLike[str]

# With these on the source the stream is not one file that a reader can take in one piece.
_MORE_THAN_A_FILE = {"multifd", "x-multifd", "postcopy-ram", "x-postcopy-ram", "x-colo", "rdma-pin-all", "mapped-ram"}


def attach(qmp_socket: Path_, *, timeout: float = 30) -> Running:
    """Returns a running VM, by its QMP socket. `timeout`: seconds for the connection, and for each command."""
    return Running(os.fspath(qmp_socket), timeout)


class Running:
    """A Running is a VM that somebody else started."""

    def __init__(self, qmp_socket: str, timeout: float) -> None:
        self.qmp_socket = qmp_socket
        self.timeout = timeout

    def __repr__(self) -> str:
        return f"<VM at {self.qmp_socket}>"

    def capture(self, out: Path_, *, stop: bool = True, timeout: float = 600, overwrite: bool = False) -> pd.Series:
        """Takes a stream into the file `out` (zstd where it is called `.zst`) and lets the VM run on as it did.

        Parameters
        ----------
        out : the file; its owner alone may read it.
        stop : pause the guest while its memory is sent; else only at the end, as in a live migration, which a guest
            that writes faster than we read never reaches.
        timeout : seconds for the migration; when they are over it is cancelled.
        overwrite : replace `out` if it exists.

        Returns
        -------
        The stream's manifest row; it also stands in `manifest.csv` beside `out`.

        Raises
        ------
        QemuError : nobody answers (a monitor talks to one at a time), capabilities are on that send a stream in
            several pieces, or the migration fails. The VM runs on in each case.
        FileExistsError : `out` is there, and not `overwrite`; or it is what is never replaced (a link, a device …).
        """
        import pandas as pd

        path = Path(out)
        row = run(self._take(path, stop, timeout, overwrite))
        Manifest(path.parent, overwrite=True).add(row)
        return pd.Series({name: row[name] for name in MANIFEST})

    async def _take(self, out: Path, stop: bool, timeout: float, overwrite: bool) -> dict[str, Any]:
        if os.path.lexists(out) and not overwrite:
            raise FileExistsError(17, EXISTS, str(out))  # before the VM is paused
        monitor = Monitor(self.timeout)
        try:
            await monitor.connect(self.qmp_socket)
        except QemuError as err:
            raise QemuError(f"{self.qmp_socket}: {err.message}") from None
        try:
            return await self._migrate(monitor, out, stop, timeout, overwrite)
        finally:
            await monitor.close()

    async def _migrate(
        self, monitor: Monitor, out: Path, stop: bool, timeout: float, overwrite: bool
    ) -> dict[str, Any]:
        await _expect_one_file(monitor)
        release, package = await monitor.version()
        running = bool((await monitor.query("query-status")).get("running"))
        bandwidth = await unthrottle(monitor)
        try:
            if running and stop:
                await monitor.execute("stop")
            taken = await migrate_out(monitor, out, timeout=timeout, overwrite=overwrite)
        finally:
            await asyncio.shield(_resume(monitor, running, bandwidth))
        row: dict[str, Any] = dict.fromkeys(MANIFEST, "")
        return row | {
            "file": out.name,
            "release": release,
            "arch": await monitor.text("query-target", "arch"),
            "machine": _machine_in(out),
            "memory_mib": None,
            "qemu_package": package,
            **taken,
        }


async def _expect_one_file(monitor: Monitor) -> None:
    """Raises QemuError where the VM would not send one stream now."""
    if "query-migrate-capabilities" in await monitor.commands():
        capabilities = await monitor.objects("query-migrate-capabilities")
        wrong = sorted(_MORE_THAN_A_FILE & {str(c.get("capability")) for c in capabilities if c.get("state")})
        if wrong:
            raise QemuError(f"migration capabilities {', '.join(wrong)} are on: the stream would not be one file")
    if (await monitor.query("query-migrate")).get("status") in UNDER_WAY:
        raise QemuError("a migration is under way")


async def _resume(monitor: Monitor, running: bool, bandwidth: Any) -> None:
    """Has the VM go on as before: no migration, the old limit on its speed, running if it ran."""
    if (await monitor.query("query-migrate")).get("status") in UNDER_WAY:
        await monitor.execute("migrate_cancel")
        with contextlib.suppress(QemuError):
            await completed(monitor)
    if bandwidth is not None:
        await monitor.execute("migrate-set-parameters", {"max-bandwidth": bandwidth})
    if running:
        await monitor.execute("cont")


def _machine_in(stream: Path) -> str:
    from vmstate_tools.stream.stream import open_stream

    with open_stream(stream) as opened:
        return opened.machine or ""
