"""Where unpacked bytes go: into memory while they are few, then into a temporary file whose zero blocks are holes."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from vmstate_tools.errors import StreamError

if TYPE_CHECKING:
    from typing import Self

MEMORY_LIMIT = 64 << 20
"""Unpacked content up to this many bytes stays in memory; more goes to an unlinked temporary file."""

DISK_SHARE = 0.5
"""The share of the free disk space that unpacked content may fill."""

_BLOCK = 64 << 10
_ZEROS = bytes(_BLOCK)


class Sink:
    """Collects bytes; a context manager that closes the temporary file."""

    def __init__(self) -> None:
        self.size = 0
        self.repeat = 0  # bytes at the end so far that repeat one block; counted once there is a file
        self.memory: bytes | bytearray = b""
        self.file: IO[bytes] | None = None
        self._last: bytes | bytearray = b""
        self._room = 0

    def add(self, data: bytes) -> None:
        """Appends `data`. Raises StreamError where the disk cannot spare the room."""
        self.size += len(data)
        if self.file is not None:
            self._write(data)
            return
        if not self.memory:
            self.memory = data  # one piece is not copied
        else:
            if isinstance(self.memory, bytes):
                self.memory = bytearray(self.memory)
            self.memory += data
        if self.size > MEMORY_LIMIT:
            self._spill()

    def head(self) -> memoryview:
        """Returns what has been collected, while it is still in memory (a lead-in is shorter than `MEMORY_LIMIT`)."""
        return memoryview(self.memory)

    def finish(self) -> None:
        """Gives the file its length, which zeros at its end did not."""
        if self.file is not None:
            self.file.truncate(self.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.file is not None:
            self.file.close()

    def _spill(self) -> None:
        # /tmp is often memory; /var/tmp is where large temporary files belong.
        folder = os.environ.get("TMPDIR") or ("/var/tmp" if Path("/var/tmp").is_dir() else tempfile.gettempdir())
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._room = int(shutil.disk_usage(folder).free * DISK_SHARE)
        self._write(self.memory)
        self.memory = b""

    def _write(self, data: bytes | bytearray) -> None:
        assert self.file is not None
        for at in range(0, len(data), _BLOCK):
            block = data[at : at + _BLOCK]
            if block == self._last[: len(block)]:
                self.repeat += len(block)
            else:
                self.repeat = len(block)
                self._last = block
            if block == _ZEROS[: len(block)]:
                self.file.seek(len(block), os.SEEK_CUR)
                continue
            self._room -= self.file.write(block)
            if self._room < 0:
                raise StreamError("unpacks to more than the disk can spare", expected="room for temporary files")
