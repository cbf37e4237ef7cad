"""Typed frames of data/source, and the value that a property has on a machine type."""

from __future__ import annotations

import pytest
from source_tables import made_tables  # noqa: F401

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import catalog, source
from vmstate_tools.facts.properties import properties_in
from vmstate_tools.release import Release

pytestmark = pytest.mark.usefixtures("made_tables")


def test_frames_have_types():
    frame = catalog.descriptions()
    assert str(frame["version"].dtype) == "Int64" and frame["unmigratable"].dtype == bool
    assert frame["since"].iloc[0] == Release("1.0") and frame["until"].iloc[0] == Release("1.0.0")
    assert frame["until"].iloc[2] is None
    there = catalog.descriptions("1.1.7")
    assert set(there["name"][there["file"] == "hw/acme.c"]) == {"acme", "acme/extra", "quiet", "stuck"}
    assert catalog.types("1.0")["abstract"].sum() == 3
    assert len(catalog.machine_types("1.2")) == 4
    assert catalog.problems()["what"].tolist() == ["odd_properties"]
    assert len(catalog.registrations("1.2")) == 1


def test_the_fields_of_a_release_are_in_stream_order():
    assert catalog.fields("acme", "1.2")["name"].tolist() == ["ctrl", "late", "proper"]
    assert catalog.fields("acme")["since"].nunique() == 3
    with pytest.raises(CatalogError, match="no description is called 'acne'"):
        catalog.fields("acne")


def test_a_release_that_the_tables_lack_is_named():
    with pytest.raises(CatalogError, match=r"no QEMU 9\.0\.0: its releases are 1\.0\.0 to 1\.2\.0"):
        catalog.descriptions("9.0")


def test_properties_are_inherited():
    assert set(catalog.properties("acme", "1.1")["name"]) == {"fast", "late-word", "slot"}
    assert "late-word" not in properties_in("acme", 0)


@pytest.mark.parametrize(
    ("device", "name", "machine", "release", "value", "set_by"),
    [
        ("acme", "fast", "board-1.0", "1.0", "1", ""),
        ("acme", "fast", "board-1.0", "1.1", "0", ""),
        ("acme", "late-word", "board-1.0", "1.1", "off", "hw_compat_1_0 acme"),
        ("acme", "late-word", "board-1.1", "1.1", "1", ""),
        # The list that is applied last wins, and a parent's entry holds for the child.
        ("acme", "slot", "board-1.0", "1.2", "6", "board_compat_1_0 acme-base"),
        ("acme", "slot", "board-newest", "1.2", "7", ""),
        ("odd", "strange", "board-1.0", "1.2", "on", "hw_compat_1_0 odd"),
    ],
)
def test_the_value_on_a_machine_type(device, name, machine, release, value, set_by):
    found = catalog.value(device, name, machine, release)
    assert (found.value, found.set_by, found.unknown) == (value, set_by, "")


def test_what_was_not_understood_is_not_known():
    found = catalog.value("odd", "strange", "board-1.1", "1.2")
    assert found.value is None and found.unknown == "hw/acme.c: odd_properties: member is no constant"
    assert catalog.value("acme", "nowhere", "board-1.1", "1.2").value is None


def test_names_that_are_not_there_have_near_ones():
    with pytest.raises(CatalogError, match="near: acme"):
        catalog.value("acmee", "fast", "board-1.0", "1.0")
    with pytest.raises(CatalogError, match=r"no machine type 'bord-1\.0'; near: board-1\.0"):
        catalog.compat("bord-1.0", "1.1")


def test_lists_are_resolved():
    frame = catalog.compat("board-1.0", "1.1")
    assert {(r.driver, r.property): r.value for r in frame.itertuples()} == {
        ("acme", "late-word"): "off", ("acme-base", "slot"): "6"}  # fmt: skip


def test_a_column_finds_what_a_whole_table_has():
    wanted = source.by("fields", "description")
    some = {number: wanted.get(number) for number in map(str, range(12))}
    wanted.names()
    assert some == {number: wanted.get(number) for number in some}
    assert wanted.get("99") == [] and "99" not in wanted
