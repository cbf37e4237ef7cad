from __future__ import annotations

import re
import shutil
import subprocess

import captures as real
import pytest

import vmstate_tools as vt
from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import catalog, flags
from vmstate_tools.stream.cpu_words import cpu_rows

COLUMNS = {"msr_mask": "msr_mask", "insns_flags": "insns_flags", "insns_flags2": "insns_flags2", "nb_BATs": "nb_bats"}


@pytest.mark.parametrize("batch", real.batches())
def test_streams_carry_what_the_catalog_predicts(batch: real.Batch) -> None:
    """Every CPU of every ppc64 capture, those that carry no words among them.

    11.1 is past the catalog's end: its newest release stands in.
    """
    wrong = {}
    for file in batch.files:
        row = batch.captures.manifest[file]
        if row["arch"] != "ppc64":
            continue
        predicted = catalog.stream_words(row["release"], row["machine"], row["cpu"] or None, nearest=True)
        with vt.open(batch.captures.path(file)) as stream:
            cpus = list(cpu_rows(stream))
        assert cpus, file
        for cpu in cpus:
            carried = {word: cpu[column] for word, column in COLUMNS.items() if cpu[column] is not None}
            if carried != predicted:
                wrong[file, cpu["section_instance"]] = (predicted, carried)
    assert not wrong


@pytest.mark.parametrize("arch", ["ppc64", "ppc"])
def test_models_are_those_the_installed_qemu_lists(arch: str) -> None:
    qemu = shutil.which(f"qemu-system-{arch}")
    if qemu is None:
        pytest.skip(f"no qemu-system-{arch} installed")
    version = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"version (\d+\.\d+\.\d+)", version)[1]
    try:
        release = catalog.resolve(release)
    except CatalogError as error:
        pytest.skip(str(error))
    listed = subprocess.run([qemu, "-cpu", "help"], capture_output=True, text=True, check=True).stdout
    models = {m[1].lower(): int(m[2], 16) for m in re.finditer(r"PowerPC (\S+) +PVR ([0-9a-f]{8})", listed)}
    aliases = {m[1].lower(): m[2].lower() for m in re.finditer(r"PowerPC (\S+) +\(alias for (\S+)\)", listed)}
    assert len(models) > 200
    assert {model.name.lower(): model.pvr for model in catalog.models(release, arch=arch)} == models
    known = {alias: model.lower() for alias, model in catalog.aliases(release).items()}
    assert {alias: model for alias, model in known.items() if model in models or model in known} == aliases


@pytest.mark.parametrize(
    ("machine", "cpu", "words"),
    [
        # As qemu-system-ppc 2.7.0 sent them.
        ("mac99", "7400_v2.9", (0x205FF77, 0x32FF1DD2201, 0, 4)),
        ("mac99", "601", (0xFD70, 0x30FA0012011, 0, 4)),
        ("bamboo", "e500mc", (0x1402FB36, 0xC81006EC0D90B01, 9, 0)),
        ("ref405ep", None, (0x6E630, 0x1307102FD0002201, 0, 0)),
        ("mac99", None, (0x205FF77, 0x32FF1DD2201, 0, 4)),
    ],
)
def test_streams_of_the_32_bit_program(machine: str, cpu: str | None, words: tuple[int, ...]) -> None:
    predicted = catalog.stream_words("2.7.0", machine, cpu, arch="ppc")
    assert tuple(predicted[word] for word in catalog.WORDS) == words


def test_the_32_bit_program_has_no_64_bit_cpus() -> None:
    for name in ("POWER8", "970", "e5500"):
        with pytest.raises(CatalogError, match="no ppc CPU"):
            catalog.words(name, "2.7", arch="ppc")
    with pytest.raises(CatalogError, match="no default CPU"):
        catalog.default_cpu("pseries-2.7", "2.7", arch="ppc")
    with pytest.raises(CatalogError, match="unknown arch"):
        catalog.words("604", "2.7", arch="arm")


@pytest.mark.parametrize(
    ("release", "commit", "item"),
    [
        # The commits of 2016 that the thread on 2.6 to 2.7 named, and the fix.
        ("2.7.0", "4e0806110c", "POWER8"),
        ("2.7.0", "dfdd3e4362", "POWER7"),
        ("2.7.0", "b781537560", "POWER8"),
        ("2.7.0", "7778a575c7", "POWER8"),
        ("2.8.0", "16a2497bd4", "cpu:mig_insns_flags"),
        ("2.8.0", "146c11f16f", "cpu:mig_insns_flags"),
        ("3.0.0", "bce009645b", "or"),
        ("9.2.0", "445d3facff", "cpu:mig_insns_flags"),
    ],
)
def test_known_commits_are_found(release: str, commit: str, item: str) -> None:
    rows = catalog.changes(item)
    assert ((rows["release"] == release) & rows["commit"].str.startswith(commit)).any()


def test_every_change_has_its_commit() -> None:
    """But those of releases that were read from a source tree, which has none."""
    rows = catalog.changes()
    assert len(rows) > 1000
    trees = {row["release"] for row in catalog.table("releases") if not row["commit"]}
    without = rows["release"].isin(trees)
    assert (rows[without]["commit"] == "").all()
    assert rows[~without]["commit"].str.fullmatch(r"[0-9a-f]{40}").all(), rows[rows["commit"] == ""]


def test_class_words_change_only_where_a_commit_is_listed() -> None:
    families = {row["family"] for row in catalog.table("families")}
    for family in sorted(families):
        frame = catalog.history(family)
        rows = frame[frame["family"] == family]
        for _, row in rows.iterrows():
            assert bool(row["commits"]) or not (row["added"] or row["removed"]), (family, row["release"])


def test_history_of_power8() -> None:
    frame = catalog.history("POWER8", accel="tcg", machine="pseries").set_index("release")
    assert frame.index[0] == "1.6.0"
    assert frame.loc["2.7.0", "added"] == ["PPC_64H", "PPC_CILDST", "PPC2_PM_ISA206"]
    assert {c["commit"][:10] for c in frame.loc["2.7.0", "commits"]} >= {"4e0806110c", "7778a575c7"}
    assert frame.loc["2.6.0", "insns_flags"] == 0x8000600FE1FF3A61
    assert frame["insns_flags"].dtype == "uint64"
    for release, row in frame.iterrows():
        assert catalog.words("POWER8", release, machine="pseries-2.6") == tuple(row[list(catalog.WORDS)])


def test_history_can_show_stable_releases() -> None:
    names = set(catalog.history("POWER8", stable=True)["release"])
    assert {"2.7.0", "2.7.1", "2.11.2", "2.12.1"} <= names


def test_every_release_is_there() -> None:
    names = {row["release"] for row in catalog.table("releases")}
    expected = [f"0.{n}.0" for n in range(10, 16)] + [f"1.{n}.0" for n in range(8)]
    expected += [f"2.{n}.0" for n in range(13)] + [f"{a}.{b}.0" for a in (3,) for b in (0, 1)]
    expected += [f"{a}.{b}.0" for a in range(4, 10) for b in range(3)] + ["10.0.0", "10.1.0", "10.2.0"]
    # 3 and 4 to 9 closed after x.1 or x.2; what never was a release must not be missed.
    assert set(expected) <= names
    assert {"2.7.1", "2.11.2", "2.12.1"} <= names


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("2.7", "2.7.0"),
        ("v2.7.1", "2.7.1"),
        ("7.2.22", "7.2.22"),
        ("7.2.9", "7.2.0"),
        ("1.0", "1.0.0"),
        ("5.2", "5.2.0"),
    ],
)
def test_resolve(asked: str, answer: str) -> None:
    assert catalog.resolve(asked) == answer


def test_a_gap_is_a_gap() -> None:
    with pytest.raises(CatalogError, match=r"11\.1 is not in the catalog"):
        catalog.words("POWER9", "11.1")
    newest = catalog.resolve("11.1", nearest=True)
    assert catalog.words("POWER9", "11.1", nearest=True) == catalog.words("POWER9", newest)


def test_models_aliases_and_families() -> None:
    assert catalog.model("power8", "2.6").name == "POWER8_v2.0"
    assert catalog.model("POWER8,compat=power7", "2.6") == catalog.model("POWER8_v2.0", "2.6")
    assert catalog.model("ppc", "2.6").name == "604"  # an alias of an alias
    assert catalog.model("POWER8E_v2.1", "2.6").pvr == 0x004B0201
    assert [m.name for m in catalog.model_of_pvr(0x004B0201, "2.6")] == ["POWER8E_v2.1"]
    assert catalog.family("970fx", "2.6") == "970"
    for call in (
        lambda: catalog.model("host", "2.6"),
        lambda: catalog.family("POWER10", "2.6"),
        lambda: catalog.words("POWER8", "2.6", accel="hvf"),
        lambda: catalog.default_cpu("pc", "2.6"),
        lambda: catalog.history("68040"),
        lambda: catalog.gate("pre_2_8_migration", "pseries-2.7", "2.6"),
    ):
        with pytest.raises(CatalogError):
            call()


def test_accelerators() -> None:
    own = catalog.words("POWER9", "2.12", accel=None)
    tcg = catalog.words("POWER9", "2.12", accel="tcg")
    assert flags.diff(own, tcg)["insns_flags2"].added == []
    assert catalog.words("POWER9", "2.12", accel="kvm") == own
    # VMX, VSX and DFP are what kvmppc_host_cpu_class_init asks the host about.
    asked = [n for word, bits in catalog.host_flags("2.7").items() for n in flags.decode(word, bits, "2.7")]
    assert sorted(asked) == ["PPC2_DFP", "PPC2_VSX", "PPC_ALTIVEC"]


@pytest.mark.parametrize(
    ("release", "machine", "treatment", "present"),
    [
        ("2.6", "pseries-2.6", "equal", True),
        ("2.7", "pseries-2.6", "equal", True),
        ("2.7.1", "pseries-2.6", "plain", True),
        ("2.8", "pseries-2.7", "test", True),
        ("2.8", "pseries-2.8", "test", False),
        ("9.1", "pseries-2.1", "test", True),
        ("9.1", "mac99", "test", False),
        ("9.2", "pseries-3.0", None, None),
    ],
)
def test_treatment_of_insns_flags(release: str, machine: str, treatment: str | None, present: bool | None) -> None:
    frame = catalog.section_fields(release, machine)
    row = frame[frame["name"].isin(["env.insns_flags", "mig_insns_flags"]) & (frame["vmsd"] == "cpu")]
    assert [(r.treatment, r.present) for r in row.itertuples()] == ([(treatment, present)] if treatment else [])


def test_subsections_that_hang_on_machine_types() -> None:
    def present(release: str, machine: str, vmsd: str) -> object:
        frame = catalog.section_fields(release, machine)
        return frame[(frame["vmsd"] == vmsd) & (frame["position"] == 0)]["present"].item()

    assert present("2.10", "pseries-2.9", "cpu/compat") is False
    assert present("2.10", "pseries-2.10", "cpu/compat") is None  # if the CPU is in a compat mode
    assert catalog.section_fields("1.5").empty
