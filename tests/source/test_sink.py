from __future__ import annotations

import hashlib
import os
import tracemalloc
from pathlib import Path

import pytest
from containers import MAPPED

from vmstate_tools.source import open_source, sink, zstd


def test_large_content_is_a_sparse_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = MAPPED + bytes(sink.MEMORY_LIMIT) + b"page" + bytes(sink.MEMORY_LIMIT) + b"end"
    packed = zstd.compress(data)
    path = tmp_path / "mapped.zst"
    path.write_bytes(packed)
    blocks = []
    finish = sink.Sink.finish
    monkeypatch.setattr(sink.Sink, "finish", lambda s: (finish(s), blocks.append(os.fstat(s.file.fileno()).st_blocks)))
    tracemalloc.start()
    with open_source(path) as source:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert source.size == len(data)
        assert hashlib.sha256(source.view).digest() == hashlib.sha256(data).digest()
        assert 0 < blocks[0] * 512 < 32 << 20
        source.forget(0, source.size)
        assert source.view[-3:] == b"end"
    assert peak < 3 * sink.MEMORY_LIMIT
