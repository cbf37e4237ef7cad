from __future__ import annotations

from pathlib import Path

from shell import run
from writer import Writer, be, pstring


def test_memory_that_is_not_in_the_stream(tmp_path: Path) -> None:
    writer = Writer(machine="m-1.0")
    blocks = b"".join(pstring(name) + be(4096, 8) for name in ("here", "elsewhere"))
    number = writer.begin(1, "ram", 0, 4)
    writer.data += be(0x2000 | 0x04, 8) + blocks + be(0x10, 8)
    writer.footer(number)
    writer.data += b"\x03" + be(number, 4) + be(0x08, 8) + pstring("here") + b"\1" * 4096 + be(0x10, 8)
    writer.footer(number)
    path = tmp_path / "a.mig"
    path.write_bytes(writer.finish())
    assert "no page of elsewhere" in run("ram", str(path), "--block", "elsewhere", "-o", str(tmp_path / "b")).stderr
    assert "warning" not in run("ram", str(path), "--block", "here", "-o", str(tmp_path / "c")).stderr
