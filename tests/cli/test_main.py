from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click import Context
from handmade import device, field, section, stream
from shell import P26, P27, Q35, process, raw, run

from vmstate_tools.cli.main import main
from vmstate_tools.errors import printable

COMMANDS = main.list_commands(Context(main))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str) -> None:
    text = run(command, "--help").stdout
    assert "Examples:\n    vmstate " + command in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("command", [["history"], ["catalog"], ["catalog", "build"], ["cpu"], ["flag"]])
def test_help_shows_examples(command: list[str]) -> None:
    text = run(*command, "--help").stdout
    assert "Examples:\n    vmstate " + command[0] in text


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_tables_fit_the_terminal(columns: int) -> None:
    for args in (("info", "--ram", P26), ("fields", P26, "--section", "nvram*"), ("fields", Q35, "--field", "*irq*")):
        for line in run(*args, columns=columns).stdout.splitlines():
            assert len(line) <= max(columns, len(args[1 if args[0] == "fields" else 2])), line


def test_text_from_a_stream_cannot_control_the_terminal(tmp_path: Path) -> None:
    evil = "dev\x1b[31m\u202e\n[bold]"
    path = tmp_path / "evil.mig"
    made = stream([section(evil, b"\1\2\3\4")], [device(evil, [field(f"x{evil}", f"u{evil}", 4)])], machine=f"m{evil}")
    path.write_bytes(made)
    for args in (["info"], ["info", "--json"], ["fields"], ["fields", "--format", "json"]):
        text = run(*args, str(path), columns=200).stdout
        assert "\x1b" not in text and "\u202e" not in text
        assert "[bold]" in text  # shown, not taken for markup
    assert json.loads(run("info", "--json", str(path)).stdout)["sections"][0]["idstr"] == printable(evil)


@pytest.mark.parametrize("command", ["info", "fields", "cpu"])
@pytest.mark.parametrize("content", [b"", b"some text\n", b"QEVM", b"QEVM\0\0\0\2", b"QEVM\0\0\0\3\2\0\0\0\1"])
def test_bad_files(tmp_path: Path, command: str, content: bytes) -> None:
    path = tmp_path / "bad.mig"
    path.write_bytes(content)
    result = run(command, str(path), code=2)
    assert result.stderr.startswith(f"vmstate: {path}, offset ")
    assert result.stderr.count("\n") == 1


def test_a_bad_file_among_good_ones() -> None:
    result = run("info", "--json", P26, "nowhere.mig", code=2)
    assert result.stderr == "vmstate: nowhere.mig: No such file or directory\n"
    assert [d["file"] for d in json.loads(result.stdout)] == [P26]


def test_partial(tmp_path: Path) -> None:
    path = tmp_path / "cut.mig"
    path.write_bytes(raw(P26)[:700_000])
    assert run("info", str(path), code=2).stdout == ""
    result = run("info", "--json", "--partial", str(path))
    found = json.loads(result.stdout)
    assert found["error"] and result.stderr == f"vmstate: warning: {found['error']}\n"
    assert found["sections"][0]["idstr"] == "ram"


def test_a_closed_pipe_is_quiet() -> None:
    code = "import sys; from vmstate_tools.cli.main import main; "
    code += f"sys.argv = ['vmstate', 'fields', {P26!r}, '--format', 'csv']; main()"
    with process("-c", code) as child:
        assert child.stdout.readline().startswith(b"file,section")
        child.stdout.close()
        assert child.stderr.read() == b""


def test_an_interrupt_is_one_word() -> None:
    code = """
import sys
from vmstate_tools.cli import main
from vmstate_tools.stream import stream
stream.open_stream = lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
sys.argv = ["vmstate", "info", "a"]
main.main()
"""
    with process("-c", code) as child:
        assert child.communicate(timeout=60) == (b"", b"\nAborted!\n")
    assert child.returncode == 1


@pytest.mark.parametrize("args", [["info"], ["fields"], ["fields", "--format", "csv"]])
def test_a_full_disk_is_told(args: list[str]) -> None:
    code = f"import sys; from vmstate_tools.cli.main import main; sys.argv = {['vmstate', *args, P26]!r}; main()"
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (result.returncode, result.stderr) == (2, b"vmstate: No space left on device\n")


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["info", P26],
        ["info", "--json", P26],
        ["fields", P26],
        ["cpu", P26],
        ["flag", "PPC_CILDST"],
        ["diff", P26, P27],
        ["check", P26, "--to", "2.7.0"],
        ["history", "--cpu", "POWER8"],
        ["history", "e1000"],
        ["lint", P26],
    ],
)
def test_starts_without_what_it_does_not_need(args: list[str]) -> None:
    code = f"""
import sys
from vmstate_tools.cli.main import main
main({args!r}, standalone_mode=False)
print({{"pandas", "matplotlib", "pyarrow", "aiohttp"}} & set(sys.modules), file=sys.stderr)
"""
    with process("-c", code) as child:
        _, errors = child.communicate(timeout=60)
    assert errors == b"set()\n"


def test_standard_input() -> None:
    with process("-m", "vmstate_tools.cli", "info", "--json", "-", stdin=subprocess.PIPE) as child:
        out, errors = child.communicate(Path(P26).read_bytes(), timeout=60)
    assert errors == b""
    assert json.loads(out)["machine"] == "pseries-2.6"
