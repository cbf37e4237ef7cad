"""The bytes of a file, or of what was in a container, as one read-only view."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, cast

from vmstate_tools.errors import StreamError
from vmstate_tools.source.files import COPY_LIMIT, FileView, read_range
from vmstate_tools.source.limits import Clock, Gate
from vmstate_tools.source.sink import MEMORY_LIMIT, Sink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO


class Content:
    """A Content is one read-only `view` of bytes, and what must be closed after it.

    Attributes
    ----------
    view : a memoryview; of a large file of the user's a `FileView`, which gives the same slices.
    damage : what ended the content early, if something did.
    """

    def __init__(self, data: bytes | bytearray | mmap.mmap | FileView, file: IO[bytes] | None = None) -> None:
        self._map = data if isinstance(data, mmap.mmap) else None
        self._file = file
        self.damage: StreamError | None = None
        self.view = cast("memoryview", data) if isinstance(data, FileView) else memoryview(data).toreadonly()

    @classmethod
    def of_file(cls, file: IO[bytes], name: str, size: int) -> Content:
        """Returns the content of a user's file of `size` bytes; it closes it, a large one with the content."""
        if size > COPY_LIMIT:
            return cls(FileView(file.fileno(), name, 0, size), file)
        with file:
            return cls(read_range(file.fileno(), 0, size, name))

    @classmethod
    def of_sink(cls, sink: Sink) -> Content:
        """Returns what was unpacked. A temporary file is mapped: it has no name, so nobody else can truncate it."""
        if sink.file is None:
            return cls(sink.memory)
        sink.finish()
        return cls(mmap.mmap(sink.file.fileno(), 0, access=mmap.ACCESS_READ))

    def forget(self, start: int, stop: int) -> None:
        """Drops the resident pages that lie wholly in `[start, stop)`; they are read again when touched."""
        page = mmap.PAGESIZE
        start = -(-max(start, 0) // page) * page
        stop = min(stop, len(self.view)) // page * page
        if self._map is not None and start < stop:
            self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)

    def close(self) -> None:
        """Lets go of the bytes. Where arrays made over a mapping are alive, it goes with the last of them."""
        try:
            self.view.release()
            if self._map is not None:
                self._map.close()
        except BufferError:
            pass
        if self._file is not None:
            self._file.close()


def collect(
    pieces: Iterator[tuple[int, bytes]], name: str, max_size: int | None, clock: Clock, total: int | None = None
) -> Content:
    """Gathers unpacked pieces into one `Content`, watching that they are a stream and no bomb.

    `pieces` yields (packed bytes read so far, next unpacked bytes); `total` is how many there are packed.
    What has come is looked at after 64 KiB, and again while all of it may be a lead-in: content of an unknown
    kind is refused before more is unpacked. An error that `pieces` raises becomes the content's `damage`.

    Raises
    ------
    StreamError : the content is nothing this package reads, or goes past one of the `limits`.
    """
    gate = Gate(name, max_size, clock)
    damage = None
    with Sink() as sink:
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
        content = Content.of_sink(sink)
    content.damage = damage
    return content
