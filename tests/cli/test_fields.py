from __future__ import annotations

import csv
import io
import json
import struct
from pathlib import Path

import pandas as pd
import pytest
from shell import NO_VMDESC, P26, P27, Q35, raw, run

import vmstate_tools as vt
from vmstate_tools.cli.fields import matcher


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
