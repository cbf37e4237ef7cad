"""`vmstate attach`: a stream of a VM that runs."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from click.testing import CliRunner

import vmstate_tools as vt
from vmstate_tools.cli.main import main


def test_a_stream_of_a_vm(vm: Path, tmp_path: Path) -> None:
    out = tmp_path / "taken.mig"
    result = CliRunner().invoke(main, ["attach", str(vm), "-o", str(out)])
    assert result.exit_code == 0 and "pseries-2.7, QEMU " in result.output, result.output
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with vt.open(out) as stream:
        assert stream.value("cpu", "env.gpr[5]") == 0x0505050505050505
    before = out.read_bytes()
    again = ["attach", str(vm), "-o", str(out), "--live", "--json"]
    result = CliRunner().invoke(main, again)
    assert result.exit_code == 2 and "--force overwrites it" in result.output
    assert out.read_bytes() == before
    row = json.loads(CliRunner().invoke(main, [*again, "--force"]).stdout)
    assert row["file"] == "taken.mig" and row["size"] == out.stat().st_size and row["machine"] == "pseries-2.7"


def test_nobody_answers(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["attach", str(tmp_path / "nowhere"), "-o", str(tmp_path / "out")])
    assert result.exit_code == 2 and "nowhere" in result.output and not (tmp_path / "out").exists()
