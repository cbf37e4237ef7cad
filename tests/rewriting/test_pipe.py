"""A stream on its way through a pipe, in pieces of any size, walked as a file is."""

from __future__ import annotations

import io

import pytest
from writer import toy

import vmstate_tools as vt
from vmstate_tools.errors import StreamError
from vmstate_tools.rewriting.pipe import pass_through


class Drops:
    """A source that gives so many bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.size, self.at = data, size, 0

    def readinto(self, buffer: memoryview) -> int:
        piece = self.data[self.at : self.at + min(self.size, len(buffer))]
        buffer[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_pieces_of_any_size(size: int) -> None:
    data = toy().finish()
    out = io.BytesIO()
    seen: list[list[str]] = []

    def edit(stream: vt.Stream) -> list[object]:
        seen.append([s.idstr for s in stream.sections])
        return []

    assert pass_through(Drops(data, size), out, edit) == []
    assert out.getvalue() == data
    with vt.open(data) as stream:
        devices = [s.idstr for s in stream.sections if s.part == "full"]
    assert seen == [devices]


@pytest.mark.parametrize("size", [1, 4096])
def test_a_pipe_that_ends_says_where(size: int) -> None:
    data = toy().finish()
    with vt.open(data) as stream:
        ram = next(s for s in stream.sections if s.how == "ram" and s.payload_size > 100)
    cut = ram.payload_offset + 50
    with pytest.raises(StreamError) as error:
        pass_through(Drops(data[:cut], size), io.BytesIO(), lambda _: [])
    assert error.value.message == f"the stream ends here, in section {ram.label}"
    assert error.value.offset == cut
