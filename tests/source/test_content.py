from __future__ import annotations

import gzip
import time
import tracemalloc
from pathlib import Path

import pytest
from containers import STREAM, bomb

from vmstate_tools.errors import StreamError
from vmstate_tools.source import open_source


@pytest.mark.parametrize("kind", ["gzip", "bz2", "xz", "zstd"])
@pytest.mark.parametrize("head", [b"", b"text", STREAM[:5000], b"QFI\xfb", b"LibvirtQemudSave\x02\x00\x00\x00"])
def test_bomb(kind: str, head: bytes) -> None:
    packed = bomb(kind, head, count=2000 << 20 if kind == "zstd" else 160 << 20)
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(StreamError):
        open_source(packed)
    took = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < 2  # under 1 s, and a slow machine
    assert peak < 256 << 20


def test_bomb_of_other_than_zeros() -> None:
    for kind in ("zstd", "bz2"):
        with pytest.raises(StreamError, match="bytes unpack to"):
            open_source(bomb(kind, STREAM[:100], b"A"))
    for kind in ("gzip", "xz"):
        with pytest.raises(StreamError, match="bytes of the same"):
            open_source(bomb(kind, STREAM[:100], b"A"))


def test_max_size() -> None:
    packed = gzip.compress(STREAM)
    with open_source(packed, max_size=len(STREAM)) as source:
        assert source.size == len(STREAM)
    with pytest.raises(StreamError, match="more than 1000 bytes"):
        open_source(packed, max_size=1000)
    # Named, it lifts what else guards against bombs.
    zeros = bomb("zstd", STREAM[:100], count=200 << 20)
    with open_source(zeros, max_size=1 << 30) as source:
        assert source.size == 100 + (200 << 20)


def test_endless_input_is_refused() -> None:
    with Path("/dev/zero").open("rb") as zeros, pytest.raises(StreamError, match="zero bytes"):
        open_source(zeros)
    with pytest.raises(StreamError, match="not a migration stream"):
        open_source("/dev/urandom")
