"""The RAM of one stream: its blocks, how many pages it sent, and the guest's memory."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import numpy as np

from vmstate_tools.errors import StreamError
from vmstate_tools.format.ram_blocks import Block, number_of
from vmstate_tools.stream.block_memory import BlockMemory
from vmstate_tools.stream.page_counts import page_counts
from vmstate_tools.stream.ram_bytes import RamBytes
from vmstate_tools.stream.ram_reader import RamReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, BinaryIO

    import pandas as pd

    from vmstate_tools.format.multifd_channel import Channel


class Ram:
    """A Ram is all RAM state of one stream: RAM blocks and page records, over all sections of `ram`.

    Parameters
    ----------
    view : the whole stream; it must stay open as long as this object is used (see `close`).
    page_size, capabilities, postcopy, forget, most_runs : as for `RamReader`.
    files : names of the files that the view comes from: `extract` replaces none of them.
    locate : names the file in an error.
    """

    def __init__(
        self,
        view: memoryview,
        *,
        page_size: int | None = None,
        capabilities: frozenset[str] = frozenset(),
        postcopy: bool = False,
        forget: Callable[[int, int], None] | None = None,
        files: Sequence[str] = (),
        locate: Callable[[StreamError], object] | None = None,
        most_runs: int = 1 << 62,
    ) -> None:
        self.reader = RamReader(
            view, page_size=page_size, capabilities=capabilities, postcopy=postcopy, forget=forget, most_runs=most_runs
        )
        self._memory = BlockMemory(self.reader, view)
        self._files = files
        self._locate = locate

    @contextlib.contextmanager
    def _located(self) -> Iterator[None]:
        """Names the file and the section in every StreamError that passes."""
        try:
            yield
        except StreamError as error:
            error.section = error.section or "ram/0"
            if self._locate is not None:
                self._locate(error)
            raise

    # -- reading ---------------------------------------------------------------------------------------------

    def connect(self, view: memoryview) -> None:
        """Goes on with what another connection carried: `view` reaches from the same beginning to its end."""
        self._memory.connect(view)
        self.reader.connect(view)

    def parse(self, offset: int, *, part: str) -> int:
        """Reads the payload that starts at `offset` and returns its end; see `RamReader.parse`.

        `part` is "start", "part" or "end"; QEMU reads all three alike.
        """
        if part not in ("start", "part", "end"):
            raise ValueError(f"part is {part!r}, not 'start', 'part' or 'end'")
        self._memory.forget()
        return self.reader.parse(offset)

    def add_channel(self, view: memoryview, name: str = "") -> Channel:
        """Joins the pages of a multifd connection. The main stream's RAM must have been read before."""
        from vmstate_tools.format.multifd_channel import Channel

        try:
            channel = Channel(view, page_size=self.page_size)
        except StreamError as error:
            error.file = error.file or name or None
            raise
        channel.name = name
        if not self.page_size:
            self.reader.page_size, self.reader.page_size_source = channel.page_size, "inferred"
        self._memory.add_channel(channel)
        return channel

    # -- what was read ---------------------------------------------------------------------------------------

    @property
    def parsed_to(self) -> int:
        """Returns the end of the last record that was read whole, in bytes from the start of the view."""
        return self.reader.parsed_to

    @property
    def page_size(self) -> int | None:
        """Returns the target's page size in bytes; None as long as nothing says it."""
        return self.reader.page_size or None

    @property
    def page_size_source(self) -> str | None:
        """Returns what says the page size: 'given', 'mapped-ram header', 'inferred' or 'assumed'."""
        return self.reader.page_size_source

    @property
    def flags(self) -> int:
        """Returns all flags (`RAM_SAVE_FLAG_*`) that records carry, together."""
        return self.reader.table.flags

    @property
    def fill_bytes(self) -> bool:
        """Tells whether a zero page had a fill byte other than 0: QEMU before 1.5 sends one, and 8.2 refuses it."""
        return self.reader.fill_bytes

    @property
    def block_list(self) -> list[Block]:
        """Returns the RAMBlocks in the stream's order."""
        return list(self.reader.blocks)

    @property
    def blocks(self) -> pd.DataFrame:
        """Returns one row per RAMBlock, in the stream's order.

        block (str), used_length (UInt64, bytes), page_size (Int64, bytes: the pages it is migrated in),
        host_page_size (Int64: of the memory behind it, where the stream says), gpa (UInt64, where sent:
        `x-ignore-shared`), bitmap_offset and pages_offset (Int64, in the file: `mapped-ram`).
        """
        import pandas as pd

        listed = self.reader.blocks
        return pd.DataFrame(
            {
                "block": pd.array([b.name for b in listed], "str"),
                "used_length": pd.array([b.used_length for b in listed], "UInt64"),
                "page_size": pd.array([self.page_size] * len(listed), "Int64"),
                "host_page_size": pd.array([b.page_size for b in listed], "Int64"),
                "gpa": pd.array([b.gpa for b in listed], "UInt64"),
                "bitmap_offset": pd.array([b.bitmap_offset for b in listed], "Int64"),
                "pages_offset": pd.array([b.pages_offset for b in listed], "Int64"),
            }
        )

    @property
    def pages(self) -> pd.DataFrame:
        """Returns the page records per RAMBlock, by kind: a page sent twice counts twice.

        block (str), zero, normal, xbzrle, compressed, multifd_zero, multifd_normal (int64), bytes (int64:
        what they take in the stream, headers included, and in the channels, as far as it can be told apart by
        block). With `mapped-ram` normal are the pages present in the file, zero all others.
        """
        import pandas as pd

        return pd.DataFrame(self.page_counts()).astype({"block": "str"})

    def page_counts(self) -> dict[str, Any]:
        """Returns the columns of `pages`: for `block` a list of names, for the others arrays of int64."""
        with self._located():
            return page_counts(self._memory)

    # -- bytes of the stream -----------------------------------------------------------------------------------

    def records(self, start: int, end: int) -> list[tuple[int, int, str, str]]:
        """Returns what the payload [start, end) consists of: (offset, size, what, detail), no gap, no overlap.

        Pages of one kind and block in a row are one entry, `detail` being their number and the block.
        """
        return RamBytes(self.reader, self._memory.view).records(start, end)

    def build(self, start: int, end: int) -> Iterator[bytes | memoryview]:
        """Yields the bytes of the payload [start, end) again, made from what was read.

        Headers, names and lengths come from the runs and blocks; page contents, compressed data, fill bytes,
        mapped-ram bitmaps and padding from the stream.
        """
        return RamBytes(self.reader, self._memory.view).build(start, end)

    # -- guest memory ----------------------------------------------------------------------------------------

    def read(self, block: str | bytes, offset: int, size: int) -> bytes:
        """Returns `size` bytes of guest memory at `offset` in a RAMBlock, as the destination would have them.

        `block` is its name as it is shown, or its bytes in the stream where several are shown alike.
        The last write of a page wins; what was never sent is zero. Raises `KeyError` for an unknown block,
        `ValueError` for a range outside it, `StreamError` where a page cannot be decoded.
        """
        number = number_of(self.reader.blocks, block)
        length = self.reader.blocks[number].used_length
        if not 0 <= offset <= offset + size <= length:
            raise ValueError(f"bytes {offset} to {offset + size} of a RAM block of {length}")
        out = bytearray(size)
        with self._located():
            for at, data in self._memory.pieces(number, offset, offset + size):
                begin, end = max(at, offset), min(at + len(data), offset + size)
                out[begin - offset : end - offset] = data[begin - at : end - at]
        return bytes(out)

    def contents(self, block: str | bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, memoryview]]:
        """Yields what a RAMBlock holds that is not zero, as it was sent: offset in the block, and bytes.

        A piece begins at a page, is good until the next is asked for, and goes over an earlier one at its place.
        `start`, `end` : only of the pages that these bytes of the block lie in. Raises as `read` does.
        """
        number = number_of(self.reader.blocks, block)
        with self._located():
            yield from self._memory.pieces(
                number, start, self.reader.blocks[number].used_length if end is None else end
            )

    def stretches(self, block: str | bytes) -> np.ndarray:
        """Returns where `contents` has something: an (n, 2) int64 array of starts and ends in bytes, in any order."""
        number = number_of(self.reader.blocks, block)
        with self._located():
            return np.minimum(self._memory.of(number).stretches(), self.reader.blocks[number].used_length)

    def extract(
        self,
        block: str | bytes,
        out: BinaryIO | str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: bool = True,
    ) -> int:
        """Writes one RAMBlock's content, with holes where it is zero; returns the number of bytes that are not holes.

        `out` is a path (which must not exist unless `overwrite`) or an empty file opened for writing in
        binary. A file gets no more permissions than the stream's files have.
        """
        from tqdm.auto import tqdm

        from vmstate_tools.source.new_file import new_file

        number = number_of(self.reader.blocks, block)
        length = self.reader.blocks[number].used_length
        written = 0
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._located())
            if isinstance(out, (str, os.PathLike)):
                out = stack.enter_context(new_file(out, overwrite=overwrite, inputs=self._files, guest_memory=True))
            name = self.reader.blocks[number].name
            bar = stack.enter_context(tqdm(total=length, unit="B", unit_scale=True, desc=name, disable=not progress))
            try:
                out.truncate(length)
            except (OSError, OverflowError) as error:
                raise StreamError(f"RAM block {name!r} of {length} bytes: {error}") from None
            for at, data in self._memory.pieces(number, 0, length):
                out.seek(at)
                out.write(data)
                written += len(data)
                bar.update(len(data))
        return written

    def close(self) -> None:
        """Lets go of the view, so that the memory map under it can be closed. What was read stays in place."""
        self._memory.close()
        self.reader.close()
