from __future__ import annotations

import json
import struct
from pathlib import Path

from shell import P26, P27, Q35, STREAMS, raw, run

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


def test_cpu_against_an_older_release() -> None:
    (row,) = json.loads(run("cpu", "--json", "--against", "2.6", P27).stdout)
    assert row["against"] == {
        "release": "2.6.0",
        "accel": "tcg",
        "new": ["PPC_64H", "PPC_CILDST", "PPC2_PM_ISA206"],
        "gone": [],
        "unknown": ["PPC_CILDST", "PPC2_PM_ISA206"],
    }
    text = run("cpu", "--against", "2.6", P27).stdout
    assert "  new:  PPC_64H, PPC_CILDST (unknown there), PPC2_PM_ISA206 (unknown there)" in text.splitlines()


def test_cpu_against_a_newer_and_its_own_release() -> None:
    (row,) = json.loads(run("cpu", "--json", "--against", "2.7.0", P26).stdout)
    assert (row["against"]["new"], row["against"]["gone"]) == ([], ["PPC_64H", "PPC_CILDST", "PPC2_PM_ISA206"])
    (row,) = json.loads(run("cpu", "--json", "--against", "2.6.2", P26).stdout)
    assert (row["against"]["new"], row["against"]["gone"]) == ([], [])


def test_cpu_against_a_release_without_the_model() -> None:
    result = run("cpu", "--against", "1.6", P26, code=2)
    assert "POWER8_v2.0" in result.stderr
    assert "insns_flags" in result.stdout
    run("cpu", "--against", "soon", P26, code=2)
    (row,) = json.loads(run("cpu", "--json", "--against", "2.6", Q35).stdout)
    assert (row["insns_flags"], row["against"]) == (None, None)
