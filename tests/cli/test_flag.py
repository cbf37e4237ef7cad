from __future__ import annotations

import json

from shell import P27, run


def test_what_a_flag_is() -> None:
    lines = run("flag", "PPC_CILDST").stdout.splitlines()
    assert "caching-inhibited" in lines[0] and lines[0].split()[0] == "PPC_CILDST"
    assert lines[-1].strip() == "insns_flags, bit 14, since 2.7.0, until today"
    (row,) = json.loads(run("flag", "--json", "PPC_CILDST").stdout)
    assert (row["value"], row["facility"]) == (1 << 14, "Power ISA 2.05 caching-inhibited access")
    assert "nope" in run("flag", "nope", code=2).stderr
    (cpu,) = json.loads(run("cpu", "--explain", "--json", P27).stdout)
    assert [flag["name"] for flag in cpu["explained"]] == cpu["flags"]
    assert all(flag["meaning"] for flag in cpu["explained"])
    assert "  PPC_CILDST " in run("cpu", "--explain", P27).stdout
