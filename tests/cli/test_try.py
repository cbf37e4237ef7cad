"""`vmstate try`: its answers and exit codes, and what it passes on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from qemus import qemu

import vmstate_tools as vt
from vmstate_tools.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stream of a paused PC, without its manifest."""
    out = tmp_path_factory.mktemp("taken")
    row = vt.capture(qemu("qemu-system-x86_64"), "pc-i440fx-6.2", out=out, memory_mib=32, progress=False).iloc[0]
    (out / row["file"]).rename(out / "a.mig.zst")
    (out / "manifest.csv").rename(out / "other.csv")
    return out


def tried(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["try", str(folder / "a.mig.zst"), "--qemu", "qemu-system-x86_64", *arguments])


def test_it_loads_and_the_command_line_is_shown(folder: Path) -> None:
    result = tried(folder, "--blank-firmware")
    assert result.exit_code == 0, result.output
    assert "loads" in result.output and "command line: " in result.output
    assert "-machine pc-i440fx-6.2,accel=tcg" in result.output and "-m 32" in result.output
    answer = json.loads(tried(folder, "--blank-firmware", "--json").stdout)
    assert answer["started"] is True and answer["vmstate_loaded"] is True
    assert "-bios zero128k.bin" in answer["command"] and answer["command"].split()[0].endswith("qemu-system-x86_64")


def test_a_stream_on_standard_input(folder: Path) -> None:
    arguments = ["try", "-", "--qemu", "qemu-system-x86_64", "--blank-firmware"]
    result = CliRunner().invoke(main, arguments, input=(folder / "a.mig.zst").read_bytes())
    assert result.exit_code == 0 and "loads" in result.output, result.output


def test_it_is_refused(folder: Path) -> None:
    result = tried(folder, "--memory", "64", "--blank-firmware")
    assert result.exit_code == 1 and "refused" in result.output and "Size mismatch: pc.ram" in result.output


def test_a_qemu_that_does_not_start(folder: Path) -> None:
    for arguments in (["--machine", "toaster"], ["--", "-no-such-option"]):
        result = tried(folder, *arguments)
        assert result.exit_code == 3 and "does not start" in result.output and "refused" not in result.output
    answer = json.loads(tried(folder, "--json", "--machine", "toaster").stdout)
    assert answer["started"] is False and answer["vmstate_loaded"] is None and answer["status"] == "not started rc=1"


def test_only_a_trusted_manifest_is_passed_on(folder: Path, tmp_path: Path) -> None:
    out, manifest = tmp_path / "written", tmp_path / "m.csv"
    line = f"-S -machine pc-i440fx-6.2 -m 32 -nodefaults -display none -serial file:{out}"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([["file", "arguments"], ["a.mig.zst", line], [str(folder / "a.mig.zst"), line]])
    result = tried(folder, "--manifest", str(manifest))
    assert result.exit_code == 2 and f"-serial file:{out}" in result.output and "--trust-manifest" in result.output
    assert not out.exists()
    result = tried(folder, "--manifest", str(manifest), "--trust-manifest")
    assert result.exit_code == 1 and "starting: " in result.stderr and f"-serial file:{out}" in result.stderr
    assert out.exists()


def test_no_outcome_in_what_is_no_table(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for content in (b"a,b\n1,2\n", b"\xff\xfe", b"x"):
        other.write_bytes(content)
        assert tried(folder, "-o", str(other)).exit_code == 2
        assert other.read_bytes() == content
    assert tried(folder, "-o", "/dev/null").exit_code == 2
