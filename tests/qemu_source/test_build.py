"""The catalog's builder on a small repository made here, in the shapes QEMU's source has had; and on real clones
where the environment names them (VMSTATE_QEMU_GIT)."""

from __future__ import annotations

import csv
import os
import subprocess
import tarfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from vmstate_tools.data import data_path
from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source import build as catalog
from vmstate_tools.qemu_source import ppc, vmsd
from vmstate_tools.qemu_source.git import Repo

CPU_H = """
#define MSR_SF 63
#define MSR_EP 6
#define MSR_VR 25
enum {
    PPC_NONE = 0,
    PPC_INSNS_BASE = 0x1ULL,
    PPC_ALTIVEC = 0x1000000ULL,
    PPC2_VSX = 0x2ULL,
#define PPC_TCG_INSNS (PPC_INSNS_BASE | PPC_ALTIVEC)
#define PPC_TCG_INSNS2 (0)
};
"""
INIT_C = """
#define POWERPC_FAMILY(_name) \\
    static const TypeInfo glue(_name, _info) = { .name = stringify(_name) }; \\
    static void glue(glue(ppc_, _name), _cpu_family_class_init)

static void gen_low_BATs(CPUPPCState *env) { env->nb_BATs += 4; }
static void gen_high_BATs(CPUPPCState *env) { env->nb_BATs += 4; }
static void init_common(CPUPPCState *env, int version)
{
    if (env->flags & 4) { return; }
    switch (version) {
    case 1:
        gen_low_BATs(env);
        /* fall through */
    case 2:
        gen_high_BATs(env);
        break;
    default:
        abort();
    }
}
static void init_proc_old(CPUPPCState *env) { init_common(env, 1); }
static void init_proc_new(CPUPPCState *env) { init_common(env, 2); }

POWERPC_FAMILY(old)(ObjectClass *oc, void *data)
{
    PowerPCCPUClass *pcc = POWERPC_CPU_CLASS(oc);
    pcc->init_proc = init_proc_old;
    pcc->insns_flags = PPC_INSNS_BASE;
    pcc->msr_mask = 0x40;
}
#if defined(TARGET_PPC64)
POWERPC_FAMILY(new)(ObjectClass *oc, void *data)
{
    PowerPCCPUClass *pcc = POWERPC_CPU_CLASS(oc);
    pcc->init_proc = init_proc_new;
    pcc->insns_flags = PPC_INSNS_BASE | PPC_ALTIVEC;
    pcc->insns_flags2 = PPC2_VSX;
    pcc->msr_mask = (1ull << MSR_SF) | (1ull << MSR_EP) | (1ull << MSR_VR);
}
#endif
static int ppc_fixup_cpu(PowerPCCPU *cpu)
{
    env->insns_flags &= PPC_TCG_INSNS;
    env->insns_flags2 &= PPC_TCG_INSNS2;
    return 0;
}
void cpu_ppc_set_papr(PowerPCCPU *cpu) { env->msr_mask &= ~(1ull << MSR_EP); }
"""
MODELS_C = """
#define POWERPC_DEF(_name, _pvr, _type) \\
    static void glue(_pvr, _class_init)(ObjectClass *oc, void *data) { pcc->pvr = _pvr; pcc->svr = 0; } \\
    static const TypeInfo glue(_pvr, _info) = { \\
        .name = _name "-" TYPE_POWERPC_CPU, \\
        .parent = stringify(_type) "-family-" TYPE_POWERPC_CPU, \\
        .class_init = glue(_pvr, _class_init), \\
    };
    POWERPC_DEF("Old_v1", PVR_OLD, old)
    POWERPC_DEF("New_v2.0", PVR_NEW, new)
PowerPCCPUAlias ppc_cpu_aliases[] = {
    { "New", "New_v2.0" },
    { NULL, NULL }
};
"""
MODELS_H = "enum { PVR_OLD = 0x00010001, PVR_NEW = 0x004d0200 };\n"
MACHINE_C = """
static void cpu_pre_save(void *opaque) { env->spr[SPR_LR] = env->lr; }
static bool vsx_needed(void *opaque) { return cpu->env.insns_flags2 & PPC2_VSX; }
static const VMStateDescription vmstate_vsx = {
    .name = "cpu/vsx",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = vsx_needed,
    .fields = (VMStateField[]) {
        VMSTATE_UINT64_ARRAY(env.vsr, PowerPCCPU, 32),
        VMSTATE_END_OF_LIST()
    },
};
const VMStateDescription vmstate_ppc_cpu = {
    .name = "cpu",
    .version_id = 5,
    .minimum_version_id = 5,
    .pre_save = cpu_pre_save,
    .fields = (VMStateField[]) {
        VMSTATE_UNUSED(sizeof(target_ulong)), /* was the PVR */
        VMSTATE_UINT64_EQUAL(env.insns_flags, PowerPCCPU),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription*[]) {
        &vmstate_vsx,
        NULL
    }
};
"""
SPAPR_C = """
static void spapr_machine_class_init(ObjectClass *oc, void *data)
{
    mc->default_cpu_type = POWERPC_CPU_TYPE_NAME("New");
}
static void spapr_machine_2_7_class_options(MachineClass *mc) { }
static void spapr_machine_2_6_class_options(MachineClass *mc)
{
    spapr_machine_2_7_class_options(mc);
    mc->default_cpu_type = POWERPC_CPU_TYPE_NAME("Old_v1");
}
"""
FILES = {
    "target-ppc/cpu.h": CPU_H,
    "target-ppc/translate_init.c": INIT_C,
    "target-ppc/cpu-models.c": MODELS_C,
    "target-ppc/cpu-models.h": MODELS_H,
    "target-ppc/machine.c": MACHINE_C,
    "hw/ppc/spapr.c": SPAPR_C,
}


class Source:
    """A repository to which files are committed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "master")

    def git(self, *args: str) -> str:
        who = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
        return subprocess.run(
            ["git", *who, *args], cwd=self.path, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, subject: str, files: dict[str, str], tag: str = "") -> str:
        for name, text in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", subject)
        if tag:
            self.git("tag", tag)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    found = Source(tmp_path / "qemu")
    found.commit("Release 2.6.0", {**FILES, "VERSION": "2.6.0\n"}, "v2.6.0")
    return found


def rows(out: Path, name: str) -> list[dict[str, str]]:
    with (out / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_release(source: Source) -> None:
    with Repo(source.path) as repo:
        facts = ppc.read(ppc.Tree(repo, "v2.6.0"))
    assert facts.families == {
        "old": (0x40, 1, 0, 8),
        "new": ((1 << 63) | (1 << 25) | (1 << 6), 0x1000001, 2, 4),
    }
    assert facts.models == {"Old_v1": ("old", 0x10001, 0), "New_v2.0": ("new", 0x4D0200, 0)}
    assert facts.aliases == {"New": "New_v2.0"}
    assert facts.flags == {
        ("insns_flags", "PPC_INSNS_BASE"): 1,
        ("insns_flags", "PPC_ALTIVEC"): 1 << 24,
        ("insns_flags2", "PPC2_VSX"): 2,
        ("msr_mask", "MSR_SF"): 1 << 63,
        ("msr_mask", "MSR_EP"): 1 << 6,
        ("msr_mask", "MSR_VR"): 1 << 25,
    }
    assert set(facts.adjustments) == {
        ("tcg", "insns_flags", "and", 0x1000001),
        ("tcg", "insns_flags2", "and", 0),
        ("pseries", "msr_mask", "and", 0xFFFF_FFFF_FFFF_FFBF),
    }


def test_without_ppc64_its_families_are_not_there(source: Source) -> None:
    config = {name: text for name, text in ppc.PPC64.items() if name != "TARGET_PPC64"}
    with Repo(source.path) as repo:
        assert set(ppc.families(ppc.Tree(repo, "v2.6.0", config))) == {"old"}


def test_the_section(source: Source) -> None:
    with Repo(source.path) as repo:
        fields, masks = vmsd.read(ppc.Tree(repo, "v2.6.0"))
    assert masks == []
    assert [(f.vmsd, f.position, f.name, f.treatment, f.elements) for f in fields] == [
        ("cpu", 0, "cpu", "plain", None),
        ("cpu", 1, "", "unused", 8),
        ("cpu", 2, "env.insns_flags", "equal", 1),
        ("cpu/vsx", 0, "cpu/vsx", "test", None),
        ("cpu/vsx", 1, "env.vsr", "plain", 32),
    ]
    assert (fields[0].version, fields[0].minimum, fields[3].reads) == (5, 5, "insns_flags2")


def test_build(source: Source, tmp_path: Path) -> None:
    given = INIT_C.replace("PPC2_VSX;", "PPC2_VSX | PPC2_DFP;")
    header = CPU_H.replace("PPC2_VSX = 0x2ULL,", "PPC2_VSX = 0x2ULL,\n PPC2_DFP = 0x4ULL,")
    defined = source.commit("Add the flag", {"target-ppc/cpu.h": header})
    set_ = source.commit("Give it to new", {"target-ppc/translate_init.c": given})
    source.commit("Touch nothing of ours", {"target-ppc/translate_init.c": given + "\n/* PPC_ALTIVEC */\n"})
    plain = source.commit("Check no more", {"target-ppc/machine.c": MACHINE_C.replace("UINT64_EQUAL", "UINT64")})
    source.commit("Release 2.7.0", {"VERSION": "2.7.0\n"}, "v2.7.0")
    source.commit("Release 2.7.1", {"VERSION": "2.7.1\n"}, "v2.7.1")
    source.commit("Candidate", {"VERSION": "2.7.90\n"}, "v2.8.0-rc0")
    source.commit("Release 2.8.0, without a tag", {"VERSION": "2.8.0\n"})
    source.commit("Open the next", {"VERSION": "2.8.50\n"})

    out = tmp_path / "catalog"
    catalog.build([source.path], out)
    assert [(r["release"], r["kind"], r["families_as"]) for r in rows(out, "releases")] == [
        ("2.6.0", "release", "2.6.0"),
        ("2.7.0", "release", "2.7.0"),
        ("2.7.1", "stable", "2.7.0"),
        ("2.8.0", "release", "2.8.0"),
        ("2.8.50", "development", "2.8.50"),
    ]
    dfp = next(r for r in rows(out, "flags") if r["name"] == "PPC2_DFP")
    assert (dfp["value"], dfp["since"], dfp["until"]) == ("0x4", "2.7.0", "")
    words = {(r["release"], r["family"]): r["insns_flags2"] for r in rows(out, "families")}
    assert (words["2.6.0", "new"], words["2.7.0", "new"]) == ("0x2", "0x6")
    found = {(r["kind"], r["item"], r["word"]): r for r in rows(out, "changes")}
    assert {key: r["commit"] for key, r in found.items()} == {
        ("flag", "PPC2_DFP", "insns_flags2"): defined,
        ("family", "new", "insns_flags2"): set_,
        ("field", "cpu:env.insns_flags", ""): plain,
    }
    family = found["family", "new", "insns_flags2"]
    assert (family["release"], family["before"], family["after"]) == ("2.7.0", "0x2", "0x6")
    assert family["subject"] == "Give it to new"
    machines = {(r["machine"], r["since"]): r["cpu"] for r in rows(out, "machines")}
    assert machines["pseries-2.6", "2.6.0"] == "Old_v1"
    assert machines["pseries-2.7", "2.6.0"] == machines["pseries", "2.6.0"] == "New"
    # The same again: nothing depends on order or time.
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    catalog.build([source.path], out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_a_source_tree_is_a_release_whose_changes_have_no_commit(source: Source, tmp_path: Path) -> None:
    source.commit("Open the next", {"VERSION": "2.6.50\n"})
    tree = tmp_path / "qemu-2.7.3"
    given = INIT_C.replace("pcc->insns_flags = PPC_INSNS_BASE;", "pcc->insns_flags = PPC_INSNS_BASE | PPC_ALTIVEC;")
    for name, text in {
        **FILES,
        "target-ppc/translate_init.c": given,
        "VERSION": "2.7.3\n",
        "Makefile": "all:\n",
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    os.utime(tree / "VERSION", (1_480_000_000, 1_480_000_000))  # 2016-11-24
    tarball = tmp_path / "qemu_2.7.3.orig.tar.xz"
    with tarfile.open(tarball, "w:xz") as archive:
        archive.add(tree, "qemu-2.7.3")
    catalog.build([source.path], tmp_path / "a", [tree])
    catalog.build([source.path], tmp_path / "b", [tarball])
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()
    }
    # The first of its series at hand stands for the series; the development state before it keeps its commits.
    assert [(r["release"], r["kind"], r["date"], bool(r["commit"])) for r in rows(tmp_path / "a", "releases")][1:] == [
        ("2.6.50", "development", rows(tmp_path / "a", "releases")[1]["date"], True),
        ("2.7.3", "release", "2016-11-24", False),
    ]
    (change,) = rows(tmp_path / "a", "changes")
    assert (change["release"], change["commit"], change["subject"]) == ("2.7.3", "", "")
    assert (change["item"], change["word"], change["before"], change["after"]) == (
        "old",
        "insns_flags",
        "0x1",
        "0x1000001",
    )

    (tree / "VERSION").write_text("2.7.50\n")
    with pytest.raises(CatalogError, match="not the source of a release"):
        catalog.build([source.path], tmp_path / "c", [tree])
    tarball.write_bytes(tarball.read_bytes()[:900])
    with pytest.raises(CatalogError, match="orig"):
        catalog.build([source.path], tmp_path / "c", [tarball])


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("target-ppc/translate_init.c", "= 0x40;", "= mystery(1);", r"translate_init.c:LINE: .*mystery"),
        (
            "target-ppc/translate_init.c",
            "init_common(env, 1)",
            "init_common(env, env->x)",
            r"translate_init.c:11: nothing known of version",
        ),
        (
            "target-ppc/translate_init.c",
            "if (env->flags & 4) { return; }",
            "if (env->flags & 4) { gen_low_BATs(env); }",
            r"translate_init.c:LINE: nb_BATs under an undecided condition",
        ),
        (
            "target-ppc/translate_init.c",
            "void cpu_ppc_set_papr",
            "void surprise",
            r"translate_init.c:LINE: surprise alters env->msr_mask: unknown role",
        ),
        ("target-ppc/cpu-models.h", "PVR_NEW = 0x004d0200", "PVR_OTHER", r"cpu-models.c.*nothing known of PVR_NEW"),
        (
            "target-ppc/machine.c",
            "UINT64_EQUAL",
            "UINT64_ODDLY",
            r"machine.c:LINE: VMSTATE_UINT64_ODDLY not understood",
        ),
        ("target-ppc/machine.c", ".pre_save", ".dev_unplug", r"machine.c:\d+: vmstate_ppc_cpu: \['dev_unplug'\]"),
    ],
)
def test_what_is_not_understood_names_file_and_line(source: Source, file: str, old: str, new: str, says: str) -> None:
    assert old in FILES[file]
    changed = FILES[file].replace(old, new)
    line = changed[: changed.index(new)].count("\n") + 1
    source.commit("Change", {file: changed}, "v2.7.0")
    with pytest.raises(CatalogError, match=says.replace("LINE", str(line))):
        catalog.build([source.path], source.path.parent / "out")
    assert not (source.path.parent / "out").exists()


def test_no_clone_no_release(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="git rev-parse"):
        catalog.build([tmp_path], tmp_path / "out")
    empty = Source(tmp_path / "empty")
    empty.commit("Nothing", {"README": "\n"})
    with pytest.raises(CatalogError, match="no release of QEMU found"):
        catalog.build([empty.path], tmp_path / "out")


@pytest.mark.parametrize("release", ["0.10.0", "1.4.0", "1.5.0", "2.6.0", "2.7.1", "5.2.0", "7.2.0", "10.2.0"])
def test_catalog_is_what_the_source_says(release: str) -> None:
    """The shipped tables, against real clones of QEMU."""
    clones = [Path(p) for p in os.environ.get("VMSTATE_QEMU_GIT", "").split(os.pathsep) if p]
    if not clones:
        pytest.skip("VMSTATE_QEMU_GIT names no clones of QEMU")
    with ExitStack() as stack:
        repos = [stack.enter_context(Repo(path)) for path in clones]
        found = {r.name: r for r in catalog.releases(repos)}
        if release not in found:
            pytest.skip(f"no clone holds {release}")
        tree = ppc.Tree(found[release].repo, found[release].revision)
        families, fields = ppc.families(tree), vmsd.read(tree)[0]
    with data_path("catalog", "releases.csv").open(newline="") as file:
        entry = next(r for r in csv.DictReader(file) if r["release"] == release)
    assert entry["commit"] == found[release].commit.hash
    shipped = rows(data_path("catalog"), "families")
    assert {
        r["family"]: (int(r["msr_mask"], 16), int(r["insns_flags"], 16), int(r["insns_flags2"], 16), int(r["nb_BATs"]))
        for r in shipped
        if r["release"] == entry["families_as"]
    } == families
    told = [r for r in rows(data_path("catalog"), "fields") if r["release"] == entry["fields_as"]]
    assert [(r["vmsd"], r["name"], r["macro"], r["treatment"]) for r in told] == [
        (f.vmsd, f.name, f.macro, f.treatment) for f in fields
    ]
