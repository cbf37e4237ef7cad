from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from containers import STREAM

from vmstate_tools.source import open_source


def test_a_plain_file(plain: Path) -> None:
    with open_source(plain) as source:
        assert (source.name, source.container, source.size) == (str(plain), "raw", len(STREAM))
        assert (source.start, source.base, source.meta, source.damage) == (0, 0, {}, None)
        assert source.view == STREAM
        assert source.view.readonly
        source.forget(5000, 100_000)
        assert source.view == STREAM


@pytest.mark.parametrize(
    "give", [str, Path, Path.read_bytes, lambda p: io.BytesIO(p.read_bytes()), lambda p: f"file://{p}"]
)
def test_every_way_to_name_it(plain: Path, give) -> None:
    with open_source(give(plain)) as source:
        assert source.view == STREAM


def test_standard_input_and_pipe(plain: Path) -> None:
    code = "from vmstate_tools.source import open_source as o; s = o('-'); print(s.name, s.container, s.size)"
    packed = gzip.compress(STREAM)
    out = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, check=True).stdout
    assert out.decode().split() == ["-", "gzip", str(len(STREAM))]
    read, write = os.pipe()

    def feed() -> None:
        with os.fdopen(write, "wb") as pipe:
            pipe.write(packed)

    threading.Thread(target=feed).start()
    with os.fdopen(read, "rb") as pipe, open_source(pipe) as source:
        assert source.view == STREAM


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / "none")


def test_close_leaves_arrays_alive(plain: Path) -> None:
    with open_source(plain) as source:
        array = np.frombuffer(source.view, np.uint8)
    assert array.tobytes() == STREAM


def test_import_is_light() -> None:
    code = "import sys, vmstate_tools.source; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    assert not {"fsspec", "dissect", "lz4", "tqdm", "lzallright", "pandas"} & set(loaded)
