from __future__ import annotations

import json

import pytest
from captures import capture

import vmstate_tools as vt
from vmstate_tools.analysis import fingerprint_facts as facts
from vmstate_tools.errors import VmstateError
from vmstate_tools.facts.tables import rows
from vmstate_tools.release import covered

COVERED = covered()


def short(release: str) -> str:
    return ".".join(release.split(".")[:2])


def sample(captures, every: int):
    every = {"here": 1 + every // 10, "collection": every}[captures.name]
    return [(captures.path(row["file"]), short(row["release"])) for row in captures.rows[::every]]


def candidates(path) -> list[str]:
    with vt.open(path) as stream:
        return vt.fingerprint(stream).releases


def test_sets_of_releases():
    assert COVERED.names(COVERED.span("2.6", "2.8")) == ["2.6", "2.7", "2.8"]
    assert COVERED.names(COVERED.span("2.9", "2.8")) == []
    several = COVERED.span("2.6", "2.8") | COVERED.span("3.0", "3.0") | COVERED.span("11.0")
    assert COVERED.runs(several) == "2.6-2.8 3.0 11.0-"
    assert COVERED.runs(COVERED.span("11.1")) == "11.1-"
    assert COVERED.runs(0) == ""
    assert COVERED.span() == COVERED.all
    for text in ("1.6-", "1.6-1.7 2.12", "11.1-", ""):
        assert COVERED.runs(COVERED.parse(text)) == text
    with pytest.raises(VmstateError, match=r"1\.5"):
        COVERED.parse("1.5-2.0")


@pytest.mark.parametrize("name", ["framing", "machines", "descriptions", "words"])
def test_facts_are_in_order(name):
    table = rows("fingerprint", name)
    assert table
    assert all(None not in row.values() for row in table)
    for row in table:
        if "releases" in row:
            assert COVERED.runs(COVERED.parse(row["releases"])) == row["releases"]
        else:
            assert COVERED.span(row["since"], row["until"]) not in (0, COVERED.all)


def test_true_release_is_among_the_candidates(captures):
    """Every 11th of the larger collection; all of it takes a minute."""
    wrong = [(str(path), found) for path, release in sample(captures, 11) if release not in (found := candidates(path))]
    assert wrong == []


def test_snapshots_of_releases_that_no_other_capture_has(captures):
    seen = {}
    for meta in sorted(captures.savevm.glob("*.json")):
        release = short(json.loads(meta.read_text())["version"])
        found = candidates(meta.with_name(meta.name.removesuffix(".json") + ".zst"))
        assert release in found
        seen[release] = found
    assert {"2.11", "4.1"} <= seen.keys()


def test_channels(captures):
    paths = sorted(captures.channels.glob("*/*/*/ch0.bin.zst"))
    assert paths
    for path in paths:
        assert path.parts[-4].removeprefix("qemu-") in candidates(path)


def test_the_break_of_2016_names_its_writer():
    """2.7 alone calls a field `dma_liobn[0]`: 2.6 has no such element, 2.8 has the whole array."""
    path = capture("qemu-2.7.0/pseries-2.6/POWER8e_v2.1.mig.zst")
    with vt.open(path) as stream:
        found = vt.fingerprint(stream)
    assert found.releases == ["2.7"]
    assert found.unique
    assert "dma_liobn[0]" in found.explain()
    row = found.evidence.set_index("what").loc["machine type pseries-2.6"]
    assert (row["since"], row["until"], row["releases"]) == ("2.6", "9.1", "2.6-9.1")


def test_unknown_devices_and_machines_say_nothing():
    path = capture("qemu-2.7.0/pseries-2.6/POWER8e_v2.1.mig.zst")
    with vt.open(path) as stream:
        data = bytes(stream.view)
    own = data.replace(b"pseries-2.6", b"acme-vm-001", 1)
    with vt.open(own) as stream:
        found = vt.fingerprint(stream)
    assert stream.name
    assert "2.7" in found.releases
    assert not found.evidence["what"].str.startswith("machine type").any()


def test_contradicting_evidence_leaves_no_release():
    """A stream of 2.7 that claims a machine type of 7.2."""
    path = capture("qemu-2.7.0/pseries-2.6/POWER8e_v2.1.mig.zst")
    with vt.open(path) as stream:
        data = bytes(stream.view)
    with vt.open(data.replace(b"pseries-2.6", b"pseries-7.2", 1)) as stream:
        found = vt.fingerprint(stream)
    assert found.releases == []
    assert "no QEMU release" in found.explain()


def test_flags_of_the_cpu_tell_where_nothing_is_described():
    """POWER7 gained an instruction flag in 2.7 (commit 4e0806110c); pseries-2.1 streams have no vmdesc."""
    path = capture("qemu-2.6.0/pseries-2.1/POWER7_v2.3.mig.zst")
    with vt.open(path) as stream:
        assert stream.vmdesc is None
        found = vt.fingerprint(stream)
    assert "2.6" in found.releases
    assert "2.7" not in found.releases
    assert any(e.what.startswith("insns_flags ") for e in found.found)


def test_facts_agree_with_the_commits_behind_them():
    """Releases in which a commit that is known by its hash took effect."""

    def definitions(vmsd):
        return facts.source_of(vmsd).definitions

    iommu = definitions("spapr_iommu")["vmstate_spapr_tce_table"]
    assert COVERED.runs(iommu.fields["mig_table"]) == "2.7-"
    slb = definitions("cpu/slb")["ppc:vmstate_slb"]
    assert COVERED.runs(slb.versions["1"]) == "1.6-9.1"  # c1a13064e3 made it 2
    assert (
        COVERED.runs(definitions("globalstate")["vmstate_globalstate"].fields["vm_was_suspended"]) == "9.0-"
    )  # d3c86c99f3
    assert COVERED.runs(facts.with_machine("pseries-2.6")) == "2.6-9.1"  # 445d3facff removed it


def test_deciding_evidence_decides(captures):
    for path, _ in sample(captures, 97):
        with vt.open(path) as stream:
            found = vt.fingerprint(stream)
        left = COVERED.all
        for evidence in found.deciding:
            left &= evidence.bits
        assert COVERED.names(left) == found.releases


def test_all_releases_are_listed_once():
    assert len(set(COVERED.series)) == len(COVERED.series) == 40
