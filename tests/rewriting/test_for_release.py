"""Streams for a release that checks the CPU's words, held against what that release does, and writes itself."""

from __future__ import annotations

import csv
import io
from functools import cache
from pathlib import Path

import captures as real
import pytest

import vmstate_tools as vt
from vmstate_tools.data import data_path
from vmstate_tools.errors import CatalogError, RewriteError
from vmstate_tools.facts import catalog
from vmstate_tools.rewriting.changes import Change, patched
from vmstate_tools.rewriting.for_release import changes_for

with data_path("outcomes", "load_matrix.csv").open(newline="") as table:
    OUTCOMES = list(csv.DictReader(table))


def refused(captures: real.Captures) -> list[dict[str, str]]:
    """Loads of these captures with the same CPU at both ends, refused for one of the words."""
    return [
        row
        for row in OUTCOMES
        if row["fail_field"].startswith("cpu:env.")
        and row["cpu_src"].lower() == row["cpu_dst"].lower()
        and row["stream"] in captures.manifest
    ]


@cache
def words(path: Path) -> dict[str, int]:
    """The words as they stand in a stream of a release that compares them."""
    with vt.open(path) as stream:
        return {word: stream.value("cpu", f"env.{word}") for word in catalog.WORDS}


def accel(release: str) -> str | None:
    return "tcg" if release in ("1.6.0", "2.0.0") else None


def check(captures: real.Captures, rows: list[dict[str, str]]) -> tuple[int, int]:
    """Repair each stream for the release that refused it: how many could be held against that release's own, and how
    many it would refuse for something else too."""
    references = {
        (row["release"], row["machine"], row["cpu"].lower()): file
        for file, row in captures.manifest.items()
        if row["arch"] == "ppc64"
    }
    held = refused = 0
    for row in rows:
        reference = references.get((row["dst_version"], row["machine"], row["cpu_dst"].lower()))
        out = io.BytesIO()
        with vt.open(captures.path(row["stream"])) as stream:
            release = row["dst_version"]
            try:
                frame = vt.rewrite(stream, out, release=release, machine=row["machine"], accel=accel(release))
            except RewriteError as err:
                # Real QEMUs stop at the CPU: what lies behind it they did not tell.
                assert "whatever the words" in str(err) and "cpu/" not in str(err), err
                refused += 1
                continue
        assert len(frame), row["stream"]
        if reference is None:
            continue
        with vt.open(out.getvalue()) as stream:
            carried = {path.split(".")[-1].removeprefix("mig_"): path for path in stream.fields("cpu")["path"]}
            found = {word: stream.value("cpu", carried[word]) for word in catalog.WORDS}
            assert found == words(captures.path(reference)), f"{row['stream']} for {row['dst_version']}"
            assert not changes_for(stream, release, machine=row["machine"], accel=accel(release))
        held += 1
    return held, refused


def test_from_2_6_to_2_7(captures: real.Captures) -> None:
    """The break of 2016: every stream of 2.6.0 that 2.7.0 refused for its CPU has the words of 2.7.0 afterwards."""
    rows = [r for r in refused(captures) if (r["src_version"], r["dst_version"]) == ("2.6.0", "2.7.0")]
    held, others = check(captures, rows)
    assert held and not others


def test_between_other_releases(captures: real.Captures) -> None:
    rows = [r for r in refused(captures) if (r["src_version"], r["dst_version"]) != ("2.6.0", "2.7.0")]
    held, _ = check(captures, rows[:: max(1, len(rows) // 40)])
    assert held


def _stream(release: str, machine: str, cpu: str):
    for file, row in real.HERE.manifest.items():
        if (row["release"], row["machine"], row["cpu"].lower()) == (release, machine, cpu.lower()):
            return vt.open(real.capture(file))
    raise LookupError(f"no stream of {release} {machine} {cpu}")


def test_each_change_is_told() -> None:
    with _stream("2.6.0", "pseries-2.6", "POWER8_v2.0") as stream:
        flags, flags2 = changes_for(stream, "2.7.0")
    assert (flags.path, flags2.path) == ("env.insns_flags", "env.insns_flags2")
    assert flags.why == "as POWER8_v2.0 has it in QEMU 2.7.0; adds PPC_64H, PPC_CILDST"
    assert flags2.why.endswith("adds PPC2_PM_ISA206")


def test_a_release_that_does_not_look() -> None:
    with _stream("2.6.0", "pseries-2.6", "POWER8_v2.0") as stream:
        for release in ("2.7.1", "2.8.0", "7.2.22"):
            assert changes_for(stream, release) == []


def test_what_would_be_a_lie() -> None:
    with _stream("2.6.0", "pseries-2.6", "POWER8_v2.0") as stream:
        with pytest.raises(RewriteError, match=r"QEMU 2.5.0 has no machine type 'pseries-2.6'"):
            changes_for(stream, "2.5.0")
        with pytest.raises(CatalogError, match="not in the catalog"):
            changes_for(stream, "99.0")
        with pytest.raises(RewriteError, match="unknown accelerator 'xen'"):
            changes_for(stream, "2.7.0", accel="xen")
        out = io.BytesIO()
        with pytest.raises(RewriteError, match=r"the guest's CPU is of family POWER8, not 970"):
            vt.rewrite(stream, out, release="2.7.0", cpu="970_v2.2")
        assert out.getvalue() == b""


def _with(stream: vt.Stream, **values: int) -> vt.Stream:
    out = io.BytesIO()
    vt.rewrite(stream, out, {("cpu", f"env.{name}"): value for name, value in values.items()})
    return vt.open(out.getvalue())


def _with_bytes(stream: vt.Stream, change: Change) -> vt.Stream:
    return vt.open(b"".join(patched(stream.source.view, [change])))


def test_a_release_without_the_guests_vector_unit() -> None:
    """1.6 emulates no VSX. A guest that has it switched on, and one that merely has the registers."""
    with _stream("2.0.0", "pseries", "POWER7_v2.3") as stream:
        with pytest.raises(RewriteError, match=r"other words under TCG than under KVM: name the accelerator"):
            changes_for(stream, "1.6.0", machine="pseries")
        msr = stream.value("cpu", "env.msr")
        for value, message in ((msr | 1 << 23, "MSR has MSR_VSX"), (msr & ~(1 << 23), "cpu/vsx, .* lacks PPC2_VSX")):
            with _with(stream, msr=value) as guest, pytest.raises(RewriteError, match=message):
                changes_for(guest, "1.6.0", machine="pseries", accel="tcg")


def test_windows_that_the_source_left_out() -> None:
    """Real 2.6.0s refused these streams of 2.8.0 for the 0 in `dma_liobn`. 2.6.0's own streams have the number."""
    rows = [
        row
        for row in OUTCOMES
        if row["fail_field"].startswith("spapr_pci:dma_liobn")
        and (row["machine"], row["dst_version"], row["cpu_dst"]) == ("pseries-2.6", "2.6.0", "970fx_v3.1")
        and row["stream"] in real.HERE.manifest
    ]
    assert rows
    with _stream("2.6.0", "pseries-2.6", "970fx_v3.1") as own:
        names = ("mem_win_addr", "mem_win_size", "io_win_addr", "io_win_size")
        expected = {f"mig_{name}": own.value("spapr_pci", name) for name in names}
        expected["mig_liobn"] = own.value("spapr_pci", "dma_liobn")
    with vt.open(real.capture(rows[0]["stream"])) as stream:
        assert {change.path: change.after for change in changes_for(stream, "2.6.0")} == expected
        out = io.BytesIO()
        vt.rewrite(stream, out, {("spapr_pci", "mig_liobn"): 0x80000001})
    with vt.open(out.getvalue()) as stream, pytest.raises(RewriteError, match="spapr_pci/0: dma_liobn"):
        changes_for(stream, "2.6.0")


def test_what_else_the_release_refuses() -> None:
    refused = pytest.raises(RewriteError, match=r"whatever the words: .*spapr_option_vector_ov5_cas")
    with _stream("2.10.0", "pseries-2.6", "POWER7_v2.3") as stream, refused:
        changes_for(stream, "2.6.0")


def test_real_guests_that_a_rewrite_moved(captures: real.Captures) -> None:
    """`rewritten.csv`: QEMUs 2.6.0 and 2.7.0 took these streams after exactly these changes."""
    with data_path("outcomes", "rewritten.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["loaded_after"] == "True" and row["registers_differ"] == "0" for row in rows)
    held = 0
    for row in rows:
        for file, known in captures.manifest.items():
            key = (known["release"], known["machine"], known["cpu"].lower(), known["config"])
            if key != (row["src_version"], row["machine"], row["cpu"].lower(), "") or row["how"] != "file":
                continue
            with vt.open(captures.path(file)) as stream:
                changes = changes_for(stream, row["dst_version"], machine=row["machine"])
            told = "; ".join(
                f"{c.section}/{c.instance_id} {c.path} {int(c.before):#x} -> {int(c.after):#x}" for c in changes
            )
            assert told == row["changes"], file
            held += 1
    assert held > 5


def test_the_pvr_that_releases_up_to_2_0_compare() -> None:
    """2.1 sends zeros where 2.0 compares the PVR with its own."""
    with _stream("2.1.0", "g3beige", "7400_v2.9") as stream:
        changes = changes_for(stream, "2.0.0", machine="g3beige")
        assert stream.layout(stream.section("cpu")).offset[0] == 0
        (pvr,) = (change for change in changes if "PVR" in change.why)
        assert pvr.offset == stream.section("cpu").payload_offset
        assert int.from_bytes(pvr.data, "big") == stream.value("cpu", "env.spr[287]") != 0
        with _with_bytes(stream, pvr) as new:
            assert changes_for(new, "2.0.0", machine="g3beige") == []
    for machine in ("g3beige", "pseries"):  # what 2.0 itself puts there
        cpu = "" if machine == "g3beige" else "POWER7_v2.3"
        with _stream("2.0.0", machine, cpu) as stream:
            own = stream.section("cpu").payload_offset
            own_pvr = int.from_bytes(bytes(stream.source.view[own : own + 8]), "big")
            assert own_pvr == stream.value("cpu", "env.spr[287]") != 0


def test_streams_of_other_targets() -> None:
    path = real.capture("qemu-11.1/q35/qemu64.mig.zst")
    with vt.open(path) as stream, pytest.raises(RewriteError, match="no ppc CPU section"):
        changes_for(stream, "7.2.0", machine="q35")
