"""Names of files, and files that change while they are read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from vmstate_tools.errors import StreamError
from vmstate_tools.source import open_source

STREAM = b"QEVM\x00\x00\x00\x03\x00"


@pytest.mark.parametrize(
    "name",
    [
        b"memory::x.mig",
        b"file::x.mig",
        b"simplecache::memory::x.mig",
        b"http:",
        b"file:x",
        b"a::b",
        b"latin-1 \xe9.mig",
        b"\xff\xfe",
        b"new\nline",
        b" ",
        b"*?[x]",
        b"-x",
        b"=cmd|'calc'!A0",
    ],
)
def test_any_name_of_a_file_that_exists(name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open(name, "wb") as file:  # noqa: PTH123
        file.write(STREAM)
    text = os.fsdecode(name)
    for where in (text, Path(text), str(tmp_path / text)):
        with open_source(where) as source:
            assert source.view == STREAM
            assert os.fsencode(source.name).endswith(name)


def test_a_file_of_the_name_minus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-").write_bytes(STREAM)
    with open_source("./-") as source:
        assert source.view == STREAM


def test_a_folder_of_the_name_of_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("memory:").mkdir()
    Path("memory:", "x.mig").write_bytes(STREAM)
    with open_source("memory://x.mig") as source:
        assert source.view == STREAM


def test_a_chain_of_protocols_where_there_is_no_such_file() -> None:
    fsspec.filesystem("memory").pipe("/y.mig", STREAM)
    with open_source("memory://y.mig") as source:
        assert source.view == STREAM
    with open_source("simplecache::memory://y.mig") as source:
        assert source.view == STREAM


def test_a_name_with_colons_that_is_neither_file_nor_protocol() -> None:
    with pytest.raises(FileNotFoundError):
        open_source("guest::disk.mig")


@pytest.mark.parametrize("name", ["a\0b", "\0", "file:///a\0b", "memory::a\0b"])
def test_a_name_with_a_nul_byte(name: str) -> None:
    with pytest.raises(StreamError, match="NUL byte in a file's name") as caught:
        open_source(name)
    assert "\0" not in str(caught.value)
    assert "\n" not in str(caught.value)


_TRUNCATED = """
import os, sys
import vmstate_tools.source.content as content
from vmstate_tools.source import open_source
path, limit, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
content.COPY_LIMIT = limit
with open_source(path) as source:
    assert source.view[:4] == b"QEVM"
    os.truncate(path, size)
    print(sum(len(source.view[at : at + 4096]) for at in range(0, len(source.view), 4096)))
"""


def read_while_truncated(path: Path, limit: int, size: int) -> subprocess.CompletedProcess[str]:
    """Opens a file, truncates it to `size` bytes and reads all of it, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", _TRUNCATED, str(path), str(limit), str(size)], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("size", [0, 1, 4096, 300_000])
def test_a_large_file_that_is_truncated_is_an_error_that_says_so(size: int, tmp_path: Path) -> None:
    path = tmp_path / "a.mig"
    path.write_bytes(STREAM + os.urandom(1 << 20))
    run = read_while_truncated(path, 0, size)
    assert run.returncode == 1
    *_, last = run.stderr.splitlines()
    assert last.startswith(f"vmstate_tools.errors.StreamError: {path}, offset ")
    assert f"truncated to {size} bytes while it was read" in last


def test_a_small_file_is_what_it_was_when_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.mig"
    path.write_bytes(STREAM + os.urandom(1 << 20))
    run = read_while_truncated(path, 1 << 30, 0)
    assert (run.returncode, run.stdout) == (0, f"{len(STREAM) + (1 << 20)}\n")
