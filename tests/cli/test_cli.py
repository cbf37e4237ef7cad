from __future__ import annotations

import csv
import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click import Context
from click.testing import CliRunner, Result
from handmade import device, field, section, stream
from writer import Writer, be, pstring

import vmstate_tools as vt
from vmstate_tools.cli.fields import matcher
from vmstate_tools.cli.main import main
from vmstate_tools.data import data_path
from vmstate_tools.errors import printable
from vmstate_tools.source import zstd

STREAMS = data_path("streams")
P26 = str(STREAMS / "qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")
P27 = str(STREAMS / "qemu-2.7.0/pseries-2.6/POWER8_v2.0.mig.zst")
NO_VMDESC = str(STREAMS / "qemu-7.2/q35/qemu64+no-vmdesc.mig.zst")
Q35 = str(STREAMS / "qemu-7.2/q35/qemu64+cap-xbzrle.mig.zst")
COMMANDS = main.list_commands(Context(main))


def run(*args: str, code: int = 0, columns: int = 80) -> Result:
    result = CliRunner().invoke(main, list(args), env={"COLUMNS": str(columns)})
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def raw(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return zstd.reader(file).read()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str) -> None:
    text = run(command, "--help").stdout
    assert "Examples:\n    vmstate " + command in text
    assert max(map(len, text.splitlines())) <= 80


# -- info


def test_info_json() -> None:
    found = json.loads(run("info", "--json", P26).stdout)
    data = raw(P26)
    assert found["machine"] == "pseries-2.6"
    assert found["page_size"] == 4096
    assert found["coverage"]["described"] + found["coverage"]["opaque"] == len(data) == found["size"]
    assert found["coverage"]["opaque"] == 0
    # 8 bytes of header and 16 of configuration, then SECTION_START of ram.
    first = found["sections"][0]
    assert (first["idstr"], first["instance_id"], first["version_id"], first["offset"]) == ("ram", 0, 4, 24)
    assert data[24:25] == b"\1" and data[30:33] == b"ram"
    for one, two in zip(found["sections"], found["sections"][1:], strict=False):
        assert one["offset"] + one["size"] == two["offset"]
    (block,) = found["ram"]
    assert (block["block"], block["used_length"]) == ("ppc_spapr.ram", 256 << 20)
    assert block["zero"] + block["normal"] == (256 << 20) // 4096


def test_info_json_of_several_is_a_list() -> None:
    assert [d["file"] for d in json.loads(run("info", "--json", P26, P27).stdout)] == [P26, P27]


def test_info_with_the_description_of_another_stream() -> None:
    bare = json.loads(run("info", "--json", NO_VMDESC).stdout)
    helped = json.loads(run("info", "--json", NO_VMDESC, "--description", Q35).stdout)
    assert bare["vmdesc_size"] is None
    assert not any(s["how"] == "borrowed" for s in bare["sections"])
    borrowed = {s["idstr"] for s in helped["sections"] if s["how"] == "borrowed"}
    assert {"cpu", "apic", "hpet"} <= borrowed


def test_info_counts_what_nothing_describes(tmp_path: Path) -> None:
    path = tmp_path / "opaque.mig"
    sections = [section("known", bytes(3), number=1), section("unknown", bytes(7), number=2)]
    path.write_bytes(stream(sections, [device("known", [field("x", "buffer", 3)])]) + b"trailing")
    found = json.loads(run("info", "--json", str(path)).stdout)
    assert found["coverage"] == {"described": path.stat().st_size - 15, "opaque": 15, "outside": 8}
    assert [s["how"] for s in found["sections"]] == ["vmdesc", "opaque"]


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


# -- fields


def test_fields_json() -> None:
    data = raw(P26)
    rows = json.loads(run("fields", P26, "--section", "cpu", "--field", "env.spr[287]", "--format", "json").stdout)
    (row,) = rows
    assert row["value"] == 0x004D0200 == struct.unpack_from(">Q", data, row["offset"])[0]
    assert (row["file"], row["section"], row["instance_id"], row["type"], row["size"]) == (P26, "cpu", 0, "uint64", 8)


def test_bytes_are_hex() -> None:
    rows = json.loads(run("fields", P26, "--section", "globalstate", "--json").stdout)
    state = next(r for r in rows if r["size"] == 100)
    assert bytes.fromhex(state["value"]).rstrip(b"\0") == b"prelaunch"


def test_csv_and_json_tell_the_same() -> None:
    args = ("fields", P26, "--section", "cpu", "--format")
    table = list(csv.DictReader(io.StringIO(run(*args, "csv").stdout)))
    document = json.loads(run(*args, "json").stdout)
    assert [{k: str(v) for k, v in row.items()} for row in document] == table
    assert len(document) > 1000


@pytest.mark.parametrize(("file", "fold"), [(P26, 0), (Q35, 3), (NO_VMDESC, 0)])
def test_the_text_is_that_of_the_frame(file: str, fold: int) -> None:
    rows = list(csv.reader(io.StringIO(run("fields", file, "--format", "csv", "--fold", str(fold)).stdout)))[1:]
    with vt.open(file) as stream:
        frame = stream.fields(fold=fold or None)
        values = [v.hex() if isinstance(v, bytes) else str(v) for v in frame["value"].array]
    expected = [frame[name].astype(str).tolist() for name in frame.columns.drop("value")]
    assert [tuple(row[1:]) for row in rows] == list(zip(*expected, values, strict=True))
    assert len(rows) == len(values) > 1000


def test_parquet_keeps_the_values(tmp_path: Path) -> None:
    out = tmp_path / "f.parquet"
    run("fields", P26, P27, "--section", "cpu", "--field", "env.insns_flags*", "--format", "parquet", "-o", str(out))
    frame = pd.read_parquet(out)
    words = {
        (file, path): value
        for file, path, value in zip(frame["file"], frame["path"], frame["value"].array, strict=True)
    }
    for file in (P26, P27):
        data = raw(file)
        # The four words stand right before the first subsection: msr_mask, insns_flags, insns_flags2, nb_BATs.
        end = data.index(b"\x05\x07cpu/fpu")
        expected = struct.unpack(">QQQI", data[end - 28 : end])
        assert (words[file, "env.insns_flags"], words[file, "env.insns_flags2"]) == expected[1:3]


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "f.json"
    out.write_text("mine")
    args = ("fields", P26, "--section", "timer", "--format", "json", "-o", str(out))
    assert run(*args, code=2).stderr.count("\n") == 1
    assert out.read_text() == "mine"
    run(*args, "--force")
    assert json.loads(out.read_text())


def test_nothing_matches() -> None:
    result = run("fields", P26, "--section", "no-such-device", code=1)
    assert (result.stdout, result.stderr) == ("", "vmstate: no field matches\n")
    assert json.loads(run("fields", P26, "--field", "nowhere", "--json", code=1).stdout) == []


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("env.gpr[3]", "env.gpr[3]", True),
        ("env.gpr[3]", "env.gpr3", False),
        ("env.gpr[*]", "env.gpr[31]", True),
        ("env.gpr[?]", "env.gpr[31]", False),
        ("env.gpr", "env.gpr[0]", False),
        ("*", "a\nb", True),
    ],
)
def test_globs(pattern: str, text: str, fits: bool) -> None:
    assert matcher(pattern)(text) is fits


# -- cpu

CPU_KEYS = ["file", "section_instance", "release", "machine", "model", "pvr", "msr_mask", "insns_flags"]
CPU_KEYS += ["insns_flags2", "nb_bats", "flags"]


def test_cpu_json() -> None:
    (row,) = json.loads(run("cpu", "--json", P27).stdout)
    assert list(row) == CPU_KEYS
    data = raw(P27)
    end = data.index(b"\x05\x07cpu/fpu")
    words = struct.unpack(">QQQI", data[end - 28 : end])
    assert (row["msr_mask"], row["insns_flags"], row["insns_flags2"], row["nb_bats"]) == words
    assert (row["release"], row["machine"], row["model"]) == ("2.7.0", "pseries-2.6", "POWER8_v2.0")
    assert {"PPC_64H", "PPC_CILDST", "PPC2_PM_ISA206", "PPC2_TM"} <= set(row["flags"])


def test_model_by_pvr(tmp_path: Path) -> None:
    path = tmp_path / "moved.mig.zst"
    path.write_bytes(Path(P27).read_bytes())
    (row,) = json.loads(run("cpu", "--json", str(path)).stdout)
    assert (row["release"], row["model"].lower()) == (None, "power8_v2.0")


def test_cpu_of_another_architecture_has_nulls() -> None:
    rows = json.loads(run("cpu", "--json", str(STREAMS / "qemu-7.2/pc-q35-7.2/qemu64+smp4.mig.zst")).stdout)
    assert [row["section_instance"] for row in rows] == [0, 1, 2, 3]
    assert {row["insns_flags"] for row in rows} == {None}
    assert "not sent" in run("cpu", Q35).stdout


def test_cpu_table() -> None:
    text = run("cpu", P26).stdout
    assert "0x8000600fe1ff3a61" in text and "PPC2_ISA207S" in text and "PPC_CILDST" not in text
    assert max(map(len, text.splitlines()[1:])) <= 80


# -- diff


def test_diff_exit_codes_and_json() -> None:
    assert json.loads(run("diff", "--json", P26, P26).stdout) == []
    rows = json.loads(run("diff", "--json", P26, P27, code=1).stdout)
    assert list(rows[0]) == ["section", "instance_id", "vmsd", "path", "kind", "a", "b", "flags"]
    flags = {row["path"]: row["flags"] for row in rows if row["flags"]}
    assert flags == {"env.insns_flags": ["+PPC_64H", "+PPC_CILDST"], "env.insns_flags2": ["+PPC2_PM_ISA206"]}
    text = run("diff", P26, P27, code=1).stdout
    assert "0x8000600fe1ff3a61  0x8000600fe1ff7ae1" in text
    assert max(map(len, text.splitlines()[2:])) <= 80
    run("diff", P26, "nowhere.mig", code=2)


# -- bad input


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


# -- as a process


def process(*args: str, **more) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **more
    )


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


@pytest.mark.parametrize("args", [["--help"], ["info", P26], ["info", "--json", P26]])
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
    with process("-m", "vmstate_tools", "info", "--json", "-", stdin=subprocess.PIPE) as child:
        out, errors = child.communicate(Path(P26).read_bytes(), timeout=60)
    assert errors == b""
    assert json.loads(out)["machine"] == "pseries-2.6"


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


def test_info_names_the_releases_that_can_have_written_it() -> None:
    for path, release in ((P26, "2.6"), (P27, "2.7"), (Q35, "7.2")):
        written = json.loads(run("info", "--json", path).stdout)["written_by"]
        assert release in written["releases"]
    lines = run("info", P26).stdout.splitlines()
    assert "  written by   QEMU 2.6" in lines


def test_a_report_on_nothing_that_can_be_read(tmp_path: Path) -> None:
    assert "could not be read" in run("report", str(tmp_path / "none.mig"), code=2).stderr


# -- check, matrix


def test_matrix_takes_several_releases_anywhere() -> None:
    rows = json.loads(run("matrix", P26, "--to", "2.6.0", "2.7.0", P27, "--json").stdout)
    assert [(Path(r["stream"]).parts[-3], r["release"], r["loads"]) for r in rows] == [
        ("qemu-2.6.0", "2.6.0", True),
        ("qemu-2.6.0", "2.7.0", False),
        ("qemu-2.7.0", "2.6.0", False),
        ("qemu-2.7.0", "2.7.0", True),
    ]
    cpu = {r["file"]: r["insns_flags"] for r in json.loads(run("cpu", "--json", P26, P27).stdout)}
    assert (rows[1]["stream_value"], rows[1]["destination_value"]) == (cpu[P26], cpu[P27])
    table = pd.read_csv(io.StringIO(run("matrix", P26, "--to", "2.6.0", "2.7.0", "--csv").stdout), dtype=str)
    assert table["stream_value"][1] == str(cpu[P26])


def test_matrix_of_what_cannot_be_read(tmp_path: Path) -> None:
    result = run("matrix", P26, str(tmp_path / "none"), "--to", "2.6.0", code=2)
    assert result.stdout == f"{P26} -> 2.6.0: loads\n"
    assert "No such file" in result.stderr and result.stderr.count("\n") == 1
    run("matrix", str(tmp_path), "--to", "2.6.0", code=2)


@pytest.mark.parametrize("wrong", [["--to", "2.99"], ["--to", "banana"], ["--to", "2.7.0", "--policy", "nope"]])
@pytest.mark.parametrize("command", ["check", "matrix"])
def test_no_such_destination(command: str, wrong: list[str]) -> None:
    result = run(command, P26, *wrong, code=2)
    assert result.stdout == "" and wrong[-1] in result.stderr and result.stderr.count("\n") == 1
