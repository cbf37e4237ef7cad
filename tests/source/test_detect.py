from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from containers import STREAM

from vmstate_tools.errors import StreamError
from vmstate_tools.source import detect, open_source


@pytest.mark.parametrize("lead", [bytes(4096), b"\x5a" * 512, b"\x01", bytes(16 << 20)])
def test_lead_in(lead: bytes, tmp_path: Path) -> None:
    path = tmp_path / "offset.mig"
    path.write_bytes(lead + STREAM)
    with open_source(path) as source:
        assert (source.start, source.base, source.size) == (len(lead), len(lead), len(STREAM))
        assert source.view[source.start :] == STREAM
        assert len(source.view) == len(lead) + len(STREAM)
    with open_source(gzip.compress(lead + STREAM, 1)) as source:
        assert (source.start, source.base) == (len(lead), 0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"# a text file\nwith lines\n", "not a migration stream but text; expected QEVM"),
        (b'{"pc-q35-9.0": {}}', "JSON"),
        (b"\x7fELF\x02\x01\x01" + bytes(100) + STREAM, "ELF file"),
        (b"KDUMP   \x06" + bytes(100), "kdump"),
        (bytes(257) + b"ustar" + bytes(250) + STREAM, "tar archive"),
        (bytes(20 << 20), "zero bytes"),
        (b"\x00\x01\x02\x03" * 100, "unknown bytes 00 01 02 03"),
        (b"QFI\xfb\x00\x00\x00\x01" + bytes(100), "qcow image of an unknown version"),
        (b"\x11\x22\x33\x44\x00\x00\x00\x01", "a multifd channel of a migration"),
        (gzip.compress(b"", mtime=0), "empty file"),
        (gzip.compress(b"text", mtime=0), "but text"),
    ],
)
def test_no_stream(data: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        open_source(data)


@pytest.mark.parametrize("length", [1, 3, 4, 7, 8, 9])
def test_cut_magic_is_left_to_the_reader_of_the_stream(length: int) -> None:
    with open_source(STREAM[:length]) as source:
        assert source.view == STREAM[:length]


def test_version_2_is_left_to_the_reader_of_the_stream() -> None:
    with open_source(b"QEVM\x00\x00\x00\x02" + bytes(20)) as source:
        assert source.start == 0


def test_lead_limit_holds() -> None:
    with pytest.raises(StreamError, match="zero bytes"):
        open_source(bytes(detect.LEAD_LIMIT + 4096) + STREAM)
