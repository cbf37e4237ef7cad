"""What a change of a description does to a migration: hand-made forms, and changes that QEMU's logs tell of."""

from __future__ import annotations

import pytest

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import device_history
from vmstate_tools.facts.device_history import Form, changes, described_by, forms


def field(name, type_="uint32", num="0", size="4", test="", version="0", flags="", vmsd="", **more):
    known = {"num_member": "", "size_member": "", "info": "", "state": "", "start": "0", "struct_version": "0"}
    return {"name": name, "type": type_, "num": num, "size": size, "test": test, "version": version, "flags": flags,
            "vmsd": vmsd, **known, **more}  # fmt: skip


def form(*fields, version=1, minimum=1):
    return Form("acme", "acme.c", "vmstate_acme", "", "2.0.0", "", version, minimum, "", fields, ())


A, B = field("a"), field("b")
CASES = {
    "a field of a new version": (form(A), form(A, field("b", version="2"), version=2), "loads", "refused", False),
    "a field of the same version": (form(A), form(A, B), "refused", "refused", True),
    "a field gone": (form(A, B), form(A), "refused", "refused", True),
    "unused in its place": (form(A, B), form(A, field("unused", "unused_buffer", size="4")), "loads", "loads", False),
    "another name": (form(A), form(field("z")), "loads", "loads", False),
    "two halves": (form(A), form(field("x", "uint16"), field("y", "int16")), "loads", "loads", False),
    "behind a test": (form(A, B), form(A, field("b", test="old")), "depends", "depends", False),
    "a wider type": (form(A), form(field("a", "uint64")), "refused", "refused", True),
    "a longer array": (
        form(field("a", num="4", flags="ARRAY")),
        form(field("a", num="8", flags="ARRAY")),
        "refused",
        "refused",
        True,
    ),
    "the minimum raised": (form(A), form(A, version=3, minimum=2), "refused", "refused", False),
    "a check without bytes": (form(A), form(A, field("ok", "", flags="ARRAY|MUST_EXIST")), "loads", "loads", False),
    "a type of its own": (form(field("a", "avr", "32", flags="ARRAY")), form(field("b", "fpr", "32", flags="ARRAY")),
                          "unknown", "unknown", False),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_whether_a_section_loads_after_a_change(case):
    old, new, forward, back, broken = CASES[case]
    found = device_history._change(old, new, "1.0.0")
    assert (found.forward, found.back, found.broken) == (forward, back, broken)


def test_the_words_of_the_ppc_cpu_went_behind_a_test_in_2_8():
    steps = {c.release: c for c in changes("cpu") if c.targets == "ppc64"}
    # QEMU's 146c11f16f: the four words travel with machine types up to 2.7 alone
    assert "+ mig_insns_flags: uint64 if cpu_pre_2_8_migration" in steps["2.8.0"].what
    assert (steps["2.8.0"].forward, steps["2.8.0"].back, steps["2.8.0"].broken) == ("depends", "depends", False)


def test_a_device_type_means_its_description_and_what_is_in_it():
    found = described_by("e1000-82545em")
    assert found[0] == "e1000" and {"e1000/mit_state", "e1000/full_mac_state", "e1000/tx_tso_state"} <= set(found)
    with pytest.raises(CatalogError, match="no description or device type is called 'unheard-of'"):
        described_by("unheard-of")


def test_every_form_has_its_place():
    for name, found in forms().items():
        assert all(f.name == name for f in found)
