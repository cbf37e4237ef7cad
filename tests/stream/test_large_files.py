"""A file too large to be copied at once reads as the same bytes in memory do, also while others truncate it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from writer import toy

import vmstate_tools as vt
from vmstate_tools.source import content, zstd


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is a large one."""
    monkeypatch.setattr(content, "COPY_LIMIT", -1)


@pytest.mark.usefixtures("large")
def test_captures_as_large_files(captures, tmp_path: Path) -> None:
    path = tmp_path / "stream.mig"
    for row in captures.rows[::17]:
        data = zstd.decompress(captures.path(row["file"]).read_bytes())
        path.write_bytes(data)
        with vt.open(path) as file, vt.open(data) as memory:
            assert not isinstance(file.view, memoryview)
            assert file.build() == data
            assert file.machine == memory.machine
            assert repr(file.sections) == repr(memory.sections)
            assert file.coverage().equals(memory.coverage())
            assert file.fields(fold=64).equals(memory.fields(fold=64))
            assert file.ram.pages.equals(memory.ram.pages)
            for block in file.ram.block_list:
                size = min(block.used_length, 3 << 20)
                assert file.ram.read(block.name, 0, size) == memory.ram.read(block.name, 0, size)
            assert not len(vt.diff(file, memory))


_READ = """
import os, sys
import vmstate_tools as vt
from vmstate_tools.source import content
content.COPY_LIMIT = -1
stream = vt.open(sys.argv[1])
{before}
os.truncate(sys.argv[1], int(sys.argv[2]))
{after}
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "stream.sections"),
        ("", "stream.vmdesc"),
        ("stream.sections", "stream.ram.read('toy.ram', 0, 4096)"),
        ("stream.sections", "stream.ram.extract('toy.ram', sys.argv[1] + '.ram', progress=False)"),
        ("stream.sections", "stream.build()"),
        ("stream.sections", "stream.fields()"),
        ("stream.sections", "stream.value('toy', 'a', instance=1)"),
    ],
)
def test_a_file_truncated_while_it_is_read(before: str, after: str, tmp_path: Path) -> None:
    path = tmp_path / "stream.mig"
    stream = toy()
    stream.ram({"toy.more": os.urandom(1 << 20)})
    path.write_bytes(stream.finish())
    run = subprocess.run(
        [sys.executable, "-c", _READ.format(before=before, after=after), str(path), "20"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 1, run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(f"vmstate_tools.errors.StreamError: {path}, offset ")
    assert "the file was truncated to 20 bytes while it was read" in last


@pytest.mark.parametrize("compress", [lambda data: data, zstd.compress], ids=["plain", "zstd"])
def test_a_command_says_so_in_one_line(compress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is shorter than it was found to be, whatever comes first: its size is asked, then it is truncated."""
    path = tmp_path / "stream.mig"
    path.write_bytes(compress(toy().finish()))
    code = (
        "import os, sys\n"
        "from vmstate_tools.cli.main import main\n"
        "status = os.fstat\n"
        "def fstat(descriptor):\n"
        "    found = status(descriptor)\n"
        "    os.truncate(sys.argv[2], 20)\n"
        "    return found\n"
        "os.fstat = fstat\n"
        "main()\n"
    )
    run = subprocess.run([sys.executable, "-c", code, "info", str(path)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith(f"vmstate: {path}, offset 20 (0x14): the file was truncated to 20 bytes")
    assert run.stderr.count("\n") == 1
