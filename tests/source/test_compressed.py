from __future__ import annotations

import functools
import gzip
import struct
import time

import lz4.frame
import pytest
from containers import COMPRESS, STREAM

from vmstate_tools.errors import StreamError
from vmstate_tools.source import open_source, zstd


@pytest.mark.parametrize("kind", COMPRESS)
def test_compressed(kind: str) -> None:
    packed = COMPRESS[kind](STREAM)
    with open_source(packed) as source:
        assert (source.container, source.base, source.start) == (kind, 0, 0)
        assert source.view == STREAM


@pytest.mark.parametrize("kind", COMPRESS)
def test_members_one_after_another(kind: str) -> None:
    cuts = [STREAM[:1000], b"", STREAM[1000:90_000], STREAM[90_000:]]
    with open_source(b"".join(map(COMPRESS[kind], cuts))) as source:
        assert source.view == STREAM


def test_many_tiny_members_take_linear_time() -> None:
    packed = gzip.compress(STREAM) + gzip.compress(b"") * 100_000
    began = time.process_time()
    with open_source(packed) as source:
        assert source.size == len(STREAM)
    assert time.process_time() - began < 3


def test_zero_padding_behind_the_last_member() -> None:
    with open_source(gzip.compress(STREAM) + bytes(5000)) as source:
        assert source.view == STREAM
    with pytest.raises(StreamError, match="damaged"):
        open_source(gzip.compress(STREAM) + b"more")


def test_skippable_frames_come_first() -> None:
    skippable = b"\x50\x2a\x4d\x18" + struct.pack("<I", 9) + b"parallel!"
    for kind in ("zstd", "lz4"):
        with open_source(skippable * 2 + COMPRESS[kind](STREAM)) as source:
            assert (source.view, source.container) == (STREAM, kind)


@pytest.mark.parametrize("kind", COMPRESS)
def test_cut_short(kind: str) -> None:
    data = STREAM * 12
    packed = COMPRESS[kind](data) if kind != "lz4" else lz4.frame.compress(data, block_linked=False)
    packed = packed[: len(packed) * 2 // 3]
    with pytest.raises(StreamError, match=f"{kind} data is cut short") as caught:
        open_source(packed)
    assert caught.value.offset == len(packed)
    assert caught.value.file == "<bytes>"
    with open_source(packed, partial=True) as source:
        assert source.size > 0
        assert data[: source.size] == source.view
        assert "cut short" in str(source.damage)


def test_partial_gives_all_that_was_whole() -> None:
    packed = gzip.compress(STREAM, 0)
    with open_source(packed[:100_000], partial=True) as source:
        assert 99_000 < source.size < 100_000
        assert STREAM[: source.size] == source.view


@pytest.mark.parametrize("kind", ["zstd", "gzip", "xz", "bz2", "lzop"])
def test_damaged(kind: str) -> None:
    summed = functools.partial(zstd.compress, options={int(zstd.CompressionParameter.checksum_flag): 1})
    packed = bytearray((summed if kind == "zstd" else COMPRESS[kind])(STREAM))
    packed[len(packed) // 2] ^= 0x10
    with pytest.raises(StreamError, match=f"{kind} data is damaged"):
        open_source(bytes(packed))
