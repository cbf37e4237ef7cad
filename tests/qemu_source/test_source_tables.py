"""What is read of a source tree, and the tables made of it."""

from __future__ import annotations

import pytest
from small_qemu import TREE, commit

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source.against_dump import compare
from vmstate_tools.qemu_source.git import Repo
from vmstate_tools.qemu_source.program import Files
from vmstate_tools.qemu_source.release_facts import read
from vmstate_tools.qemu_source.revision import Revision
from vmstate_tools.qemu_source.source_tables import build_source, read_release, read_table

#: The same, with a field more, and its device's description of a new version.
LATER = {
    **TREE,
    "VERSION": "2.1.0\n",
    "hw/misc/acme.c": TREE["hw/misc/acme.c"].replace("BYTES(fifo, AcmeState),", "BYTES(fifo, AcmeState), U32(n, X),"),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qemu")
    commit(folder, TREE, "v2.0.0")
    commit(folder, LATER, "v2.1.0")
    return folder


@pytest.fixture(scope="module")
def facts(repository):
    with Repo(repository) as repo:
        return read(Revision(repo, "v2.0.0"), Files())


def test_a_description_is_what_its_macros_stand_for(facts):
    acme = facts.description_of("acme")
    assert (acme.name, acme.version, acme.minimum, dict(acme.hooks)) == ("acme", 3, 2, {"post_load": "acme_post_load"})
    assert [(f.name, f.info, f.size, f.num, f.version, f.test) for f in acme.fields] == [
        ("ctrl", "vmstate_info_uint32", 4, 0, 0, ""),
        ("fifo", "vmstate_info_buffer", 32, 0, 0, ""),
        ("old", "vmstate_info_uint32", 4, 0, 2, "is_old"),
        ("regs", "vmstate_info_uint32", 4, 32, 0, ""),
        ("lanes", "vmstate_info_lane", 24, 0, 0, ""),
        ("one", "", 24, 0, 0, ""),
    ]
    assert acme.fields[4].num_member == "n" and acme.fields[4].flags == "VARRAY_UINT32|POINTER"
    assert acme.fields[5].vmsd == "vmstate_lane" and acme.fields[0].state == "AcmeState"
    # stringify spells a macro in the field's name out
    assert [f.name for f in facts.description("vmstate_lane", acme.file).fields] == ["regs[(0x10 / 4)]"]
    assert acme.subsections == (("vmstate_old", ""),)
    assert facts.description("vmstate_old", acme.file).needed == "old_needed"
    assert facts.infos["vmstate_info_uint32"] == "uint32"


def test_a_file_of_a_target_is_read_for_each_width(facts):
    cpus = {targets: d for d, targets in facts.descriptions.items() if d.name == "cpu"}
    found = {targets: [(f.name, f.size) for f in d.fields] for targets, d in cpus.items()}
    assert found == {"ppc64": [("pc", 8), ("wide", 4)], "ppc": [("pc", 4)]}


def test_types_of_a_table_have_their_rows_values(facts):
    assert {name: dict(facts.device(name).ids) for name in ("acme", "acme-small", "acme-big")} == {
        "acme": {"device_id": 0x1234},
        "acme-small": {"device_id": 1},
        "acme-big": {"device_id": 2},
    }
    assert facts.description_of("acme-big").symbol == "vmstate_acme"  # its parent's


def test_calls_that_register_sections(facts):
    assert [(r.function, r.how, r.device, r.idstr, r.instance, r.version, r.vmsd) for r in facts.registrations] == [
        ("acme_init", "vmstate_register", "", "", "-1", "", "vmstate_lane"),
        ("acme_init", "register_savevm", "DEVICE(s)", "acme-old", "3", "7", ""),
    ]


def test_properties_and_their_defaults(facts):
    assert [(p.list, p.name, p.info, p.default, p.bit, p.field) for p in facts.properties] == [
        ("acme_properties", "lanes", "qdev_prop_uint32", "4", "", "n"),
        ("acme_properties", "x-old", "qdev_prop_bit", "1", "3", "ctrl"),
    ]


def test_machine_types_apply_their_lists_in_order(facts):
    found = {m.name: (m.lists, dict(m.members)) for m in facts.machines}
    assert found["board-2.0"] == ((), {"max_cpus": "8", "alias": '"board"'})
    assert found["board-1.0"] == (("hw_compat_1_0", "board_1_0_options.compat"), {"max_cpus": "4"})
    assert [(c.list, c.driver, c.property, c.value) for c in facts.compat] == [
        ("hw_compat_1_0", "acme", "x-old", "off"),
        ("hw_compat_1_0", "pci-device", "p", "1"),
        ("board_1_0_options.compat", "acme", "lanes", "2"),
    ]


def test_what_is_not_understood_is_a_row_that_says_so(repository, tmp_path):
    folder = tmp_path / "qemu"
    broken = TREE["hw/misc/acme.c"].replace("U32(ctrl, AcmeState),", "UNHEARD_OF(x),").replace("LAST,", "NOWHERE,")
    commit(folder, {**TREE, "hw/misc/acme.c": broken}, "v2.0.0")
    with Repo(folder) as repo:
        found = read(Revision(repo, "master"), Files()).problems
    assert {p.file for p in found} == {"hw/misc/acme.c"}
    assert {p.what for p in found} == {"vmstate_acme", "vmstate_acme "}  # the description, and a field without a name
    assert {p.line for p in found} == {14}
    assert any("constant NOWHERE not found" in p.problem for p in found)


def test_tables_hold_each_row_s_releases_and_are_read_back(repository, tmp_path):
    build_source([repository], tmp_path, workers=1)
    rows = [r for r in read_table(tmp_path / "descriptions.csv.zst") if r["name"] == "acme"]
    assert [(r["since"], r["until"]) for r in rows] == [("2.0.0", "2.0.0"), ("2.1.0", "")]
    fields = read_table(tmp_path / "fields.csv.zst")
    lengths = [[f["name"] for f in fields if f["description"] == r["description"]] for r in rows]
    assert len(lengths[1]) == len(lengths[0]) + 1 and "n" in lengths[1]
    with Repo(repository) as repo:
        for release in ("2.0.0", "2.1.0"):
            direct, back = read(Revision(repo, f"v{release}"), Files()), read_release(tmp_path, release)
            kept = [{(d.symbol, d.fields[:2], t) for d, t in f.descriptions.items()} for f in (direct, back)]
            assert kept[0] == kept[1]
            assert set(back.types) == set(direct.types) and set(back.machines) == set(direct.machines)
            assert set(back.registrations) == set(direct.registrations)
    with pytest.raises(CatalogError, match=r"no release 1\.0"):
        read_release(tmp_path, "1.0")


def test_a_dump_is_compared_field_by_field(facts):
    lane = {"name": "lane", "version_id": 1, "minimum_version_id": 1,
            "Fields": [{"field": "regs[(0x10 / 4)]", "version_id": 0, "field_exists": False, "size": 4}]}  # fmt: skip
    old = {"name": "acme/old", "version_id": 1, "minimum_version_id": 0,
           "Fields": [{"field": "old", "version_id": 0, "field_exists": False, "size": 4}]}  # fmt: skip
    fields = [
        {"field": n, "version_id": v, "field_exists": t, "size": s}
        for n, v, t, s in (
            ("ctrl", 0, False, 4),
            ("fifo", 0, False, 32),
            ("old", 2, True, 4),
            ("regs", 0, False, 4),
            ("lanes", 0, False, 24),
        )
    ]
    fields.append({"field": "one", "version_id": 0, "field_exists": False, "size": 24, "Description": lane})
    acme = {"name": "acme", "version_id": 3, "minimum_version_id": 2, "Fields": fields, "Subsections": [old]}
    dump = {"acme": {"Description": acme}}
    found = compare(facts, dump, "x86_64")
    assert (found.same, found.different, found.missing, found.in_memory) == (3, 0, [], [])
    fields[1]["size"] = 33
    found = compare(facts, {**dump, "unheard-of": {}}, "x86_64")
    assert found.reasons == [("acme", "fifo: size 32, not 33")] and found.missing == [("unheard-of", "type not found")]
