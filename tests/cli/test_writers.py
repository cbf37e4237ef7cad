"""Each command that writes, ended in the midst: what stands in the folder then; what none replaces; who may read."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from writer import Writer, toy

import vmstate_tools as vt
from vmstate_tools.cli.main import main

WRITERS = {
    "rewrite": ["rewrite", "a.mig", "-o", "OUT", "--set", "toy/1/a=7"],
    "rewrite to zstd": ["rewrite", "a.mig", "-o", "OUT.zst", "--set", "toy/1/a=7"],
    "ram": ["ram", "ram.mig", "--block", "pc.ram", "-o", "OUT"],
    "fields csv": ["fields", "a.mig", "--format", "csv", "-o", "OUT"],
    "fields json": ["fields", "a.mig", "--format", "json", "-o", "OUT"],
    "fields parquet": ["fields", "a.mig", "--format", "parquet", "-o", "OUT"],
    "report": ["report", "a.mig", "-o", "OUT"],
    "report html": ["report", "a.mig", "-o", "OUT", "--format", "html"],
}

# Stops where all is written, but nothing has its name yet.
PROGRAM = """
import os, sys, time

def stop(descriptor):
    os.write(1, b"now\\n")
    time.sleep(60)

os.fsync = stop
"""
COMMAND = PROGRAM + "from vmstate_tools.cli.main import main\nmain(sys.argv[1:])\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a.mig").write_bytes(toy().finish())
    writer = Writer(machine="toy-1.0")
    writer.ram({"pc.ram": bytes(range(256)) * 256})
    (tmp_path / "ram.mig").write_bytes(writer.finish())
    for name in ("OUT.part", "OUT.zst.part", ".OUT.part"):
        (tmp_path / name).write_text("mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def ended(program: str, arguments: Sequence[str], number: int) -> int:
    """Runs a program until it says that it is in the midst, and sends it a signal; returns how it ended."""
    env = {**os.environ, "PYTHONPATH": str(Path(vt.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"now\n", process.stderr.read().decode()
        process.send_signal(number)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    return process.returncode


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("writer", [name for name in WRITERS if name not in ("report html", "fields json")])
def test_a_command_that_is_ended_in_the_midst(folder: Path, writer: str, number: int) -> None:
    before = content(folder)
    assert ended(COMMAND, WRITERS[writer], number) != 0
    after = content(folder)
    if number == signal.SIGKILL:
        after = {name: data for name, data in after.items() if not name.startswith(".vmstate-")}
    assert after == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_dataset_that_is_ended_in_the_midst(folder: Path, number: int, overwrite: bool) -> None:
    if overwrite:
        vt.load("a.mig", progress=False).to_parquet("set")
    before = content(folder)
    program = PROGRAM + (
        "import vmstate_tools as vt\n"
        f"vt.load(['a.mig', 'ram.mig'], progress=False).to_parquet('set', overwrite={overwrite})\n"
    )
    assert ended(program, [], number) != 0
    after = {name: data for name, data in content(folder).items() if "/.vmstate-" not in name}
    assert after == before
    if number != signal.SIGKILL:
        assert not list(folder.rglob(".vmstate-*"))
        assert (folder / "set").exists() == overwrite


def test_a_dataset_replaces_another_as_a_whole(folder: Path) -> None:
    vt.load(["a.mig", "ram.mig"], progress=False).to_parquet("set")
    with pytest.raises(FileExistsError):
        vt.load("a.mig", progress=False).to_parquet("set")
    vt.load("a.mig", fields=False, progress=False).to_parquet("set", overwrite=True)
    assert not Path("set/fields/shard=0").exists(), "the new one has no fields"
    assert len(list(Path("set/streams/shard=0").iterdir())) == 1
    assert not list(folder.rglob(".vmstate-*"))


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("writer", WRITERS)
def test_what_no_command_replaces(folder: Path, writer: str, force: bool) -> None:
    arguments = WRITERS[writer] + ["--force"] * force
    source, out = arguments[1], arguments[arguments.index("-o") + 1]
    os.link(source, "hard")
    Path("soft").symlink_to(source)
    Path("victim").write_text("mine")
    Path("link").symlink_to("victim")
    os.mkfifo("fifo")
    places = [source, "hard", "soft", f"../{folder.name}/{source}", "link", "fifo", "/dev/null"]
    if "ram" not in writer:  # which takes a directory for where to put its file
        places.append(".")
    before = content(folder)
    for place in places:
        result = CliRunner().invoke(main, [place if word == out else word for word in arguments])
        assert result.exit_code == 2, (place, result.output)
        assert content(folder) == before, place
    assert Path("link").is_symlink() and stat.S_ISFIFO(os.stat("fifo").st_mode)  # noqa: PTH116


def test_what_is_there_is_replaced_when_told_and_the_users_parts_stay(folder: Path) -> None:
    Path("OUT").write_text("mine")
    for force in (False, True):
        result = CliRunner().invoke(main, WRITERS["rewrite"] + ["--force"] * force)
        assert result.exit_code == (0 if force else 2), result.output
        assert (Path("OUT").read_bytes() == b"mine") != force
    assert Path("OUT.part").read_text() == "mine" and Path(".OUT.part").read_text() == "mine"


@pytest.mark.parametrize("given", [0o600, 0o640, 0o644])
@pytest.mark.parametrize("writer", [name for name in WRITERS if not name.startswith("report")])
def test_who_may_read_what_a_guest_holds(folder: Path, writer: str, given: int) -> None:
    before = os.umask(0o022)
    try:
        for name in ("a.mig", "ram.mig"):
            Path(name).chmod(given)
        result = CliRunner().invoke(main, WRITERS[writer])
        assert result.exit_code == 0, result.output
    finally:
        os.umask(before)
    (out,) = (path for path in folder.iterdir() if path.name in ("OUT", "OUT.zst"))
    assert stat.S_IMODE(out.stat().st_mode) == given


def test_a_refusal_leaves_nothing(folder: Path) -> None:
    before = content(folder)
    for arguments in (
        ["rewrite", "a.mig", "-o", "OUT", "--set", "toy/1/a=99999999999999"],
        ["fields", "OUT.part", "--format", "csv", "-o", "OUT"],
        ["fields", "OUT.part", "--format", "parquet", "-o", "OUT"],
        ["ram", "ram.mig", "--block", "none", "-o", "OUT"],
        ["report", "a.mig", "-o", "nowhere/OUT"],
    ):
        assert CliRunner().invoke(main, arguments).exit_code == 2, arguments
        assert content(folder) == before
