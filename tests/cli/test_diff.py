from __future__ import annotations

import json

from shell import P26, P27, run


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
