from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
from shell import P26, P27, run


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
