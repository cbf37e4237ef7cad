"""Reads any bytes in every way: as hypothesis makes them, and those that once went wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import vmstate_tools as vt
from vmstate_tools.errors import StreamError
from vmstate_tools.stream.stream import Stream


def exercise(data: bytes | list[bytes], *, partial: bool = False) -> list[StreamError]:
    """Read all there is in `data`, or in these connections of one migration; the errors, each a StreamError.

    Any other exception is a bug and passes. Where a stream opens and can be told as a whole, its records and fields
    must tile the file, and what is built from them must be the file again.
    """
    errors: list[StreamError] = []
    try:
        stream = vt.open(data, partial=partial)
    except StreamError as error:
        str(error)
        return [error]
    with stream:
        for step in _steps(stream):
            try:
                step()
            except StreamError as error:
                str(error)
                errors.append(error)
    return errors


def _steps(stream: Stream) -> Iterator[Callable[[], Any]]:
    yield lambda: [repr(s) for s in stream.sections]
    yield lambda: len(stream.fields())
    yield lambda: _tiles(stream)
    yield lambda: _builds(stream)
    yield lambda: stream.ram.pages
    yield lambda: _reads(stream)
    yield stream._repr_html_


def _tiles(stream: Stream) -> None:
    frame = stream.coverage()
    at = 0
    for offset, size in zip(frame["offset"].tolist(), frame["size"].tolist(), strict=True):
        assert offset == at, f"a gap or overlap at {at}: {offset}"
        at += size
    assert at == len(stream.source.view)


def _builds(stream: Stream) -> None:
    assert stream.build() == stream.source.view


def _reads(stream: Stream) -> None:
    for block in stream.ram.block_list[:4]:
        stream.ram.read(block.name, 0, min(block.used_length, 8192))
        stream.ram.read(block.name, max(block.used_length - 100, 0), min(block.used_length, 100))
