"""Bytes in one piece: a mapped file, or unpacked ones, in memory while few and in a sparse file when many."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError
from vmstate_tools.source.magic import LEAD_LIMIT, LIBVIRT_FORMAT_AT, LIBVIRT_SPARSE, glance, identify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Self

MEMORY_LIMIT = 64 << 20
"""Unpacked content up to this many bytes stays in memory; more goes to an unlinked temporary file."""

MAX_SIZE = 64 << 30
"""Unpacked bytes taken when the caller names no `max_size`. Runs of zeros count, though they cost no disk."""

MAX_RATIO = 8192
"""Unpacked bytes per packed byte, beyond the first `MEMORY_LIMIT`, past which content is refused as a bomb.

Streams that carry zero pages in full (`zero-page-detection=none`) pack best: 8 changing bytes in every 4104.
With nothing else in 128 MiB that gave 479 (gzip), 1663 (zstd), 1668 (xz) and 7271 (bzip2).
"""

MAX_REPEAT = 64 << 20
"""Bytes of one 64 KiB block over and over past which content is refused as a bomb.

A plain stream has a record at least with each page, so its blocks differ. Only mapped-ram leaves holes as
large as guest memory. A stream that announces it is exempt from both limits, a qcow2 image from this one, and
everything when the caller names `max_size`.
"""

DISK_SHARE = 0.5
"""The share of the free disk space that unpacked content may fill."""

_BLOCK = 64 << 10
_ZEROS = bytes(_BLOCK)
_HEAD = 64 << 10
_CONFIGURATION = 4 << 10  # a stream's configuration section, with its capabilities, ends well before


class Content:
    """One contiguous read-only `view` of bytes, and what must be closed after it."""

    def __init__(self, data: bytes | bytearray | mmap.mmap) -> None:
        self._map = data if isinstance(data, mmap.mmap) else None
        self.damage: StreamError | None = None
        self.view = memoryview(data).toreadonly()

    @classmethod
    def of_file(cls, file: IO[bytes]) -> Content:
        """Map a whole file, which may be closed afterwards. An empty one cannot be mapped."""
        if not os.fstat(file.fileno()).st_size:
            return cls(b"")
        return cls(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def forget(self, start: int, stop: int) -> None:
        """Drop the resident pages that lie wholly in `[start, stop)`; they are read again when touched."""
        page = mmap.PAGESIZE
        start = -(-max(start, 0) // page) * page
        stop = min(stop, len(self.view)) // page * page
        if self._map is not None and start < stop:
            self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)

    def close(self) -> None:
        """Release the mapping; where arrays made over the view are alive it goes with the last of them."""
        try:
            self.view.release()
            if self._map is not None:
                self._map.close()
        except BufferError:
            pass


def collect(pieces: Iterator[tuple[int, bytes]], name: str, max_size: int | None, total: int | None = None) -> Content:
    """Gather unpacked pieces into one `Content`, watching that they are a stream and no bomb.

    `pieces` yields (packed bytes read so far, next unpacked bytes); `total` is how many there are packed.
    What has come is looked at after 64 KiB, and again while all of it may be a lead-in: content of an unknown
    kind is refused before more is unpacked. An error that `pieces` raises becomes the content's `damage`.

    Raises
    ------
    StreamError : the content is nothing this package reads, or goes past one of this module's limits.
    """
    gate = _Gate(name, max_size)
    damage = None
    with _Sink() as sink:
        bar = None
        while True:
            try:
                step = next(pieces, None)
            except StreamError as error:
                damage = error
                break
            if step is None:
                break
            packed, data = step
            sink.add(data)
            gate.check(packed, sink)
            if bar is None and sink.size > MEMORY_LIMIT:
                from tqdm.auto import tqdm

                bar = tqdm(total=total, unit="B", unit_scale=True, desc="unpacking", leave=False, delay=1)
            if bar is not None:
                bar.update(packed - bar.n)
        if bar is not None:
            bar.close()
        content = sink.content()
    content.damage = damage
    return content


class _Gate:
    """Decides, while content is being unpacked, whether to go on."""

    def __init__(self, name: str, max_size: int | None) -> None:
        self.name = name
        self.limit = MAX_SIZE if max_size is None else max_size
        self.kind: str | None = None
        self.looked = 0
        self.ratio = max_size is None
        self.repeat = max_size is None

    def check(self, packed: int, sink: _Sink) -> None:
        if sink.size > self.limit:
            raise self._refusal(f"unpacks to more than {self.limit} bytes", "a larger max_size=")
        if self.kind is None and sink.size >= max(_HEAD, 2 * self.looked):
            with sink.head() as head:
                self._look(head)
        if sink.size <= MEMORY_LIMIT:
            return
        if self.ratio and sink.size > MAX_RATIO * packed:
            raise self._refusal(f"{packed} bytes unpack to {sink.size} and more")
        if self.repeat and sink.repeat > MAX_REPEAT:
            raise self._refusal(f"unpacks to {sink.repeat} and more bytes of the same")

    def _look(self, head: memoryview) -> None:
        self.looked = len(head)
        found = glance(head)
        if found is None:
            if len(head) > LEAD_LIMIT:
                identify(head, self.name)
            return
        kind, at = found
        if at + _CONFIGURATION > len(head):
            return
        self.kind = kind
        mapped_ram = (
            head[at + LIBVIRT_FORMAT_AT :][:4] in LIBVIRT_SPARSE
            if kind == "libvirt"
            else b"\x0amapped-ram" in bytes(head[at : at + _CONFIGURATION])
        )
        self.ratio = self.ratio and not mapped_ram
        self.repeat = self.repeat and not mapped_ram and kind != "qcow2"

    def _refusal(self, what: str, expected: str = "less, or max_size=") -> StreamError:
        return StreamError(what, expected=expected, file=self.name)


class _Sink:
    """Collects bytes in memory, then in a temporary file whose zero blocks are holes."""

    def __init__(self) -> None:
        self.size = 0
        self.repeat = 0  # bytes at the end so far that repeat one block; counted once there is a file
        self._last: bytes | bytearray = b""
        self._memory: bytes | bytearray = b""
        self._file: IO[bytes] | None = None
        self._room = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if self._file is not None:
            self._write(data)
            return
        if not self._memory:
            self._memory = data  # one piece is not copied
        else:
            if isinstance(self._memory, bytes):
                self._memory = bytearray(self._memory)
            self._memory += data
        if self.size > MEMORY_LIMIT:
            self._spill()

    def head(self) -> memoryview:
        """What has been collected, while it is still in memory (a lead-in is shorter than `MEMORY_LIMIT`)."""
        return memoryview(self._memory)

    def content(self) -> Content:
        if self._file is None:
            return Content(self._memory)
        self._file.truncate(self.size)
        return Content.of_file(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            self._file.close()

    def _spill(self) -> None:
        # /tmp is often memory; /var/tmp is where large temporary files belong.
        import shutil
        import tempfile

        folder = os.environ.get("TMPDIR") or ("/var/tmp" if os.path.isdir("/var/tmp") else tempfile.gettempdir())
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._room = int(shutil.disk_usage(folder).free * DISK_SHARE)
        self._write(self._memory)
        self._memory = b""

    def _write(self, data: bytes | bytearray) -> None:
        assert self._file is not None
        for at in range(0, len(data), _BLOCK):
            block = data[at : at + _BLOCK]
            if block == self._last[: len(block)]:
                self.repeat += len(block)
            else:
                self.repeat = len(block)
                self._last = block
            if block == _ZEROS[: len(block)]:
                self._file.seek(len(block), os.SEEK_CUR)
                continue
            self._room -= self._file.write(block)
            if self._room < 0:
                raise StreamError("unpacks to more than the disk can spare", expected="room for temporary files")
