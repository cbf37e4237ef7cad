from __future__ import annotations

from vmstate_tools.qemu_source.descriptions import ReleaseSource, _description_rows, read

SOURCE = """
#define TYPE_ACME "acme"
#define VMSTATE_ACME_ARRAY(_f, _s, _n)   \\
    VMSTATE_SUB_ARRAY(_f, _s, 0, _n, 0, vmstate_info_acme, uint64_t)
#define VMSTATE_ACME_HIDDEN() VMSTATE_UINT8(hidden, Acme)
static const VMStateInfo vmstate_info_acme = { .name = "acme64" };
static const VMStateDescription vmstate_acme = {
    .name = TYPE_ACME,
    .version_id = 3, /* a comment, } with a brace */
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(regs.ctrl, Acme),
        VMSTATE_UINT8_TEST(old, Acme, is_old),
#ifdef TARGET_PPC64
        VMSTATE_UINT64(wide, Acme),
#endif
        VMSTATE_ACME_ARRAY(lanes, Acme, 4),
        VMSTATE_UNUSED(4),
        VMSTATE_END_OF_LIST()
    }
};
static const VMStateDescription vmstate_other = {
    .name = "other",
    .version_id = VERSION,
    .fields = (VMStateField[]) { VMSTATE_ACME_HIDDEN(), VMSTATE_INT32_EQUAL(n[MAX], Acme), VMSTATE_END_OF_LIST() }
};
DEFINE_VIRT_MACHINE(9, 2)
DEFINE_SPAPR_MACHINE(2_6, "2.6", false)
DEFINE_MACHINE("acmeboard", acme_init)
"""


def test_reads_descriptions_as_far_as_they_are_plain():
    blob = read(SOURCE)
    acme, other = blob.definitions
    assert (acme.symbol, acme.name, acme.literal, acme.version, acme.complete) == (
        "vmstate_acme",
        "TYPE_ACME",
        False,
        3,
        True,
    )
    assert [tuple(f) for f in acme.fields] == [
        ("regs.ctrl", "uint32", True),
        ("old", "uint8", False),  # _TEST
        ("wide", "uint64", False),  # under #ifdef
        ("lanes", "acme64", False),
        ("unused", "", False),
    ]
    assert blob.texts == {"TYPE_ACME": "acme"}
    assert (other.version, other.complete, other.fields) == (None, False, ())  # nothing of it can be told
    assert blob.machines >= {"virt-9.2", "pseries-2.6", "acmeboard"}
    assert blob.infos == {"acme64"}


def test_what_a_stable_release_changed_belongs_to_its_series():
    before = read(SOURCE)
    after = read(SOURCE.replace("VMSTATE_UINT32(regs.ctrl, Acme)", "VMSTATE_UINT32(ctrl, Acme)"))
    found = [ReleaseSource("2.7", [("acme", b.definitions[0])], {"acme"}, set(), set(), ()) for b in (before, after)]
    rows = {row[2:4] for row in _description_rows(found)}
    assert ("version", "3") in rows
    assert ("always", "ctrl") not in rows
    assert ("always", "regs.ctrl") not in rows
