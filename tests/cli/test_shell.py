"""What a shell can do to a command: names that are no text, outputs that are closed or full."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from handmade import device, field, section, stream
from shell import P26, P27, raw, run, vmstate

from vmstate_tools import source
from vmstate_tools.stream import stream as opening

# Every command that takes streams, with what it needs besides.
COMMANDS: dict[str, Callable[[str, Path], list[str]]] = {
    "info": lambda f, _: ["info", f],
    "info --json": lambda f, _: ["info", "--json", f],
    "fields": lambda f, _: ["fields", f, "--section", "cpu"],
    "fields json": lambda f, _: ["fields", f, "--section", "cpu", "--json"],
    "fields csv": lambda f, _: ["fields", f, "--section", "cpu", "--format", "csv"],
    "fields parquet": lambda f, out: ["fields", f, "--section", "cpu", "--format", "parquet", "-o", str(out / "f")],
    "cpu": lambda f, _: ["cpu", f],
    "cpu --json": lambda f, _: ["cpu", "--json", f],
    "diff": lambda f, _: ["diff", f, P27],
    "diff --json": lambda f, _: ["diff", "--json", f, P27],
    "check": lambda f, _: ["check", f, "--to", "2.7.0"],
    "check --json": lambda f, _: ["check", f, "--to", "2.7.0", "--json"],
    "matrix": lambda f, _: ["matrix", f, "--to", "2.7.0"],
    "matrix --csv": lambda f, _: ["matrix", f, "--to", "2.7.0", "--csv"],
    "matrix --json": lambda f, _: ["matrix", f, "--to", "2.7.0", "--json"],
    "lint": lambda f, _: ["lint", f],
    "lint --json": lambda f, _: ["lint", "--json", f],
    "ram": lambda f, out: ["ram", f, "-o", str(out / "ram")],
    "rewrite": lambda f, out: ["rewrite", f, "-o", str(out / "new"), "--for", "2.7.0"],
    "report": lambda f, out: ["report", f, "-o", str(out / "report.txt"), "-o", str(out / "report.html")],
}
# What a command's exit code is where it has an answer to give: streams that differ, are refused, hold something.
FINDS = {"diff": 1, "check": 1, "lint": 1}
# Enough of them to start a process for each.
PRINTING = ["info", "info --json", "fields", "fields csv", "cpu --json", "diff", "check", "matrix --csv", "lint"]
WRITTEN = r"g\udcff\udcfe.mig"  # as text has the name below


@pytest.fixture
def odd(tmp_path: Path) -> str:
    """A stream whose file name is not UTF-8."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/g\xff\xfe.mig")
    Path(path).write_bytes(raw(P26))
    return path


def ran(words: list[str], **more: object) -> tuple[int, bytes, bytes]:
    with vmstate(*words, **more) as child:
        out, errors = child.communicate(timeout=120)
    return child.returncode, out or b"", errors or b""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_is_not_utf_8(command: str, odd: str, tmp_path: Path) -> None:
    result = run(*COMMANDS[command](odd, tmp_path), code=FINDS.get(command.split()[0], 0))
    text = result.stdout_bytes.decode("ascii" if "json" in command else "utf-8")
    if "--json" in command or command == "fields json":
        json.dumps(json.loads(text), ensure_ascii=False).encode()  # a reader that takes no half of a pair takes it
    if command in ("info --json", "cpu --json", "fields json", "matrix --json"):
        first = json.loads(text)
        first = first[0] if isinstance(first, list) else first
        assert first.get("file", first.get("stream")) == str(tmp_path / WRITTEN)
    elif "csv" in command:
        row = next(csv.DictReader(io.StringIO(text)))
        assert row.get("file", row.get("stream")) == str(tmp_path / WRITTEN)
    elif command == "fields parquet":
        assert set(pd.read_parquet(tmp_path / "f")["file"]) == {str(tmp_path / WRITTEN)}


def test_a_missing_file_of_such_a_name_is_one_line() -> None:
    code, _, errors = ran(["info", os.fsdecode(b"no\xff.mig")])
    assert (code, errors) == (2, b"vmstate: no\\udcff.mig: No such file or directory\n")


@pytest.mark.parametrize("command", [*PRINTING, "fields parquet"])
def test_a_closed_output_is_told_in_one_line(command: str, tmp_path: Path) -> None:
    words = COMMANDS[command](P26, tmp_path)
    shell = 'exec "$@" >&-'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-m", "vmstate_tools.cli", *words], capture_output=True, check=False
    )
    if command == "fields parquet":
        assert (done.returncode, done.stderr) == (0, b"")  # it prints nothing
    else:
        assert (done.returncode, done.stderr) == (2, b"vmstate: standard output is closed\n")


def test_no_file_takes_the_place_of_a_closed_output(tmp_path: Path) -> None:
    copy = tmp_path / "copy.mig"
    copy.write_bytes(raw(P26))
    words = [sys.executable, "-m", "vmstate_tools.cli", "rewrite", str(copy), "-o", "-", "--for", "2.7.0"]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", *words], check=False)
    assert done.returncode == 2
    assert copy.read_bytes() == raw(P26)


@pytest.mark.parametrize("command", [*PRINTING, "ram"])
def test_a_full_disk_is_one_line(command: str, tmp_path: Path) -> None:
    words = COMMANDS[command](P26, tmp_path)
    with Path("/dev/full").open("wb") as full:
        code, _, errors = ran(words, stdout=full)
    if command == "ram":
        assert code == 0  # its output is a file
    else:
        assert (code, errors) == (2, b"vmstate: No space left on device\n")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "report"])
def test_a_name_with_nul_is_one_line(command: str, tmp_path: Path) -> None:
    result = run(*COMMANDS[command]("a\0b", tmp_path), code=2)
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("vmstate: ") and "\0" not in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupt_ends_a_command_in_one_word(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for module in (source, opening):
        monkeypatch.setattr(module, "open_source", interrupt)
    result = run(*COMMANDS[command](P26, tmp_path), code=1)
    assert (result.stdout, result.stderr) == ("", "\nAborted!\n")
    assert not list(tmp_path.iterdir())


# -- text that a spreadsheet would run ---------------------------------------------------------------------------------


@pytest.fixture
def formulas(tmp_path: Path) -> str:
    """A stream whose names begin as formulas do."""
    names = ["=cmd|' /C calc'!A0", "+1", "-1", "@sum"]
    path = tmp_path / "a.mig"
    sections = [section(name, bytes([200 + i]), number=i + 1) for i, name in enumerate(names)]
    path.write_bytes(stream(sections, [device(name, [field(f"={name}", "int8", 1)]) for name in names]))
    return str(path)


def test_text_is_as_it_is_unless_asked(formulas: str) -> None:
    rows = list(csv.DictReader(io.StringIO(run("fields", formulas, "--format", "csv").stdout)))
    assert [row["section"] for row in rows] == ["=cmd|' /C calc'!A0", "+1", "-1", "@sum"]


def test_for_spreadsheets_a_formula_is_text_and_a_number_is_a_number(formulas: str) -> None:
    rows = list(csv.DictReader(io.StringIO(run("fields", formulas, "--format", "csv", "--for-spreadsheet").stdout)))
    assert [row["section"] for row in rows] == ["'=cmd|' /C calc'!A0", "'+1", "'-1", "'@sum"]
    assert all(row["path"].startswith("'=") for row in rows)
    assert [row["value"] for row in rows] == ["-56", "-55", "-54", "-53"]
    assert [row["type"] for row in rows] == ["int8"] * 4


def test_for_spreadsheet_is_for_csv_alone() -> None:
    assert "--format csv" in run("fields", P26, "--for-spreadsheet", code=2).stderr
    assert "--csv" in run("matrix", P26, "--to", "2.7.0", "--for-spreadsheet", code=2).stderr
