from __future__ import annotations

import json

from shell import run

KEYS = ["family", "release", "insns_flags", "insns_flags2", "msr_mask", "added", "removed", "commits"]


def history(*args: str) -> list[dict]:
    return json.loads(run("history", "--json", *args).stdout)


def test_class_values() -> None:
    rows = history("--cpu", "POWER8", "--from", "2.6", "--until", "2.8")
    assert [list(row) for row in rows] == [KEYS] * 3
    assert [row["release"] for row in rows] == ["2.6.0", "2.7.0", "2.8.0"]
    old, new, newest = rows
    # As QEMU 2.6's streams carry them; 2.7's flags are those the commits below added.
    assert (old["insns_flags"], old["insns_flags2"]) == (0x8000600FE1FF3A61, 0x3FFF6)
    assert new["added"] == ["MSR_SHV", "PPC_64H", "PPC_CILDST", "PPC2_PM_ISA206"]
    assert {c["commit"][:10] for c in new["commits"]} == {"4e0806110c", "932ccbdd48", "b781537560", "7778a575c7"}
    assert all(set(c) == {"commit", "date", "subject"} for c in new["commits"])
    assert (newest["added"], newest["removed"], newest["commits"]) == ([], [], [])


def test_values_of_streams() -> None:
    rows = {r["release"]: r for r in history("--cpu", "POWER7_v2.3", "--accel", "tcg", "--machine", "pseries-2.6")}
    assert next(iter(rows)) == "2.6.0" and "9.1.0" in rows and "9.2.0" not in rows
    assert rows["2.8.0"]["insns_flags"] == 0x8000600FE1FF3A61  # what the stream of 2.10 carries
    assert rows["2.8.0"]["removed"] == ["PPC_64H", "PPC_CILDST", "PPC2_PM_ISA206"]
    assert [c["commit"][:10] for c in rows["2.8.0"]["commits"]] == ["16a2497bd4"]
    assert [c["commit"][:10] for c in rows["7.1.0"]["commits"]] == ["03abfd90cf"]


def test_a_word_that_is_not_sent_is_null() -> None:
    rows = {r["release"]: r for r in history("--cpu", "970fx_v3.1", "--machine", "mac99", "--from", "2.7")}
    assert rows["2.7.0"]["insns_flags"] is not None
    assert rows["2.8.0"]["insns_flags"] is None
    assert {"146c11f16f"} <= {c["commit"][:10] for c in rows["2.8.0"]["commits"]}
    text = run("history", "--cpu", "970fx_v3.1", "--machine", "mac99", "--from", "2.8", "--until", "2.8").stdout
    assert text.splitlines()[2].split() == ["2.8.0", "2016-12-20", "-", "-", "-"]


def test_tcg_drops_what_it_lacks() -> None:
    own = history("--cpu", "POWER7", "--from", "2.0", "--until", "2.0")[0]
    tcg = history("--cpu", "POWER7", "--from", "2.0", "--until", "2.0", "--accel", "tcg")[0]
    assert own["insns_flags2"] & ~tcg["insns_flags2"] == 4  # PPC2_DFP, which TCG learned with 2.1


def test_without_cpu_every_family_once_per_release() -> None:
    rows = history("--from", "2.6", "--until", "2.7")
    names = [(row["family"], row["release"]) for row in rows]
    assert len(set(names)) == len(names) > 90
    assert {row["family"] for row in rows if row["added"]} == {"POWER7", "POWER8", "e500mc", "e5500"}


def test_table() -> None:
    lines = run("history", "--cpu", "POWER8", "--from", "2.6", "--until", "2.7").stdout.splitlines()
    assert lines[0] == "POWER8"
    assert lines[2].split() == ["2.6.0", "2016-05-11", "0x800000010280ff37", "0x8000600fe1ff3a61", "0x3fff6"]
    assert "    + MSR_SHV, PPC_64H, PPC_CILDST, PPC2_PM_ISA206" in lines
    assert "    7778a575c7 2016-06-23 ppc: Add P7/P8 Power Management instructions" in lines


def test_bad_input() -> None:
    assert "nope" in run("history", "--cpu", "nope", code=2).stderr
    assert "does not name a release" in run("history", "--from", "new", code=2).stderr
    assert "no release matches" in run("history", "--cpu", "POWER9", "--until", "1.0", code=1).stderr
    run("history", "--accel", "xen", code=2)


def test_a_device_release_by_release() -> None:
    rows = history("e1000", "--from", "2.12")
    step = next(r for r in rows if r["name"] == "e1000" and r["release"] == "2.12.0")
    # QEMU's 5935448478 and 4ae4bf5bb1, both of 2.12
    assert "+ subsection e1000/tx_tso_state if e1000_tso_state_needed" in step["what"]
    # QEMU 2.11 refuses the subsection where it is sent.
    assert (step["forward"], step["back"], step["same_version"], step["broken"]) == ("loads", "depends", True, False)
    assert "e1000_tso_state_needed" in step["gates"]
    text = run("history", "e1000", "--from", "2.12").stdout
    assert "e1000  2.11.0 → 2.12.0  (hw/net/e1000.c)" in text and "forward: loads  back: depends" in text


def test_devices_whose_streams_stopped_to_load() -> None:
    rows = history("--broken", "--from", "6.0")
    assert rows and all(r["broken"] and "refused" in (r["forward"], r["back"]) for r in rows)
    # QEMU's 78dd48df39 writes the MSI-X state that a stream had lacked, under the same version
    assert [r["release"] for r in history("vmxnet3", "--broken")] == ["4.2.0"]
    # QEMU's aac63e0e6e sends a clock always; since 6.0 that depends on migrate-clk, which is off up to 5.1
    (clock,) = history("pl011", "--broken")
    assert (clock["release"], clock["forward"], clock["back"]) == ("5.2.0", "loads", "refused")
    assert clock["afterwards"] == [
        "6.0.0: pl011/clock: needed always → pl011_clock_needed",
        "6.0.0: hw_compat_5_1 sets pl011.migrate-clk=off",
    ]
    assert {r["certainty"] for r in rows} <= {"certain", "suspicion"}


def test_names_of_every_kind() -> None:
    # e1000.migrate_tso_props is of QEMU's 46f2a9ec1f, hw_compat_2_11 has it off
    (step,) = history("e1000.migrate_tso_props", "--until", "2.12")
    assert (step["kind"], step["release"], step["forward"], step["back"]) == ("property", "2.12.0", "loads", "loads")
    assert any(r["kind"] == "machine type" and r["release"] == "7.0.0" for r in history("pc-q35-6.2"))
    wrong = run("history", "e1001", code=2)
    assert "near: e1000" in wrong.stderr
