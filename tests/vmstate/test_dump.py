"""-dump-vmstate files: read, compared."""

from __future__ import annotations

import json

import pytest

from vmstate_tools.compat import source_descriptions
from vmstate_tools.compat.lint import lint
from vmstate_tools.errors import StreamError
from vmstate_tools.vmstate.dump import diff_dumps, read_dump


def dump(tmp_path, name, **classes):
    path = tmp_path / name
    path.write_text(json.dumps({"vmschkmachine": {"Name": "m"}, **classes}))
    return path


def device(version=1, minimum=1, fields=(), subsections=()):
    vmsd = {"name": "d", "version_id": version, "minimum_version_id": minimum, "Fields": list(fields)}
    if subsections:
        vmsd["Subsections"] = [{"name": n, "version_id": 1, "minimum_version_id": 1} for n in subsections]
    return {"Name": "dev", "version_id": version, "minimum_version_id": minimum, "Description": vmsd}


def field(name, size=4, **more):
    return {"field": name, "version_id": 0, "field_exists": False, "size": size, **more}


def kinds(a, b):
    frame = diff_dumps(a, b)
    return [(r.kind, r.field, r.breaks) for r in frame.itertuples()]


def test_fields_and_subsections(tmp_path):
    a = dump(tmp_path, "a", dev=device(fields=[field("x"), field("y", 8)], subsections=["d/s"]))
    b = dump(tmp_path, "b", dev=device(fields=[field("x"), field("z", 2)]))
    assert kinds(a, b) == [
        ("field only in a", "y", True),
        ("field only in b", "z", True),
        ("subsection only in a", "d/s", True),
    ]


def test_unused_of_the_same_length_breaks_nothing(tmp_path):
    a = dump(tmp_path, "a", dev=device(fields=[field("x"), field("y", 8)]))
    b = dump(tmp_path, "b", dev=device(fields=[field("unused", 12)]))
    assert kinds(a, b) == [("unused", "x", False)]


def test_fields_moved_into_a_struct_are_no_difference(tmp_path):
    inner = {"name": "i", "version_id": 1, "minimum_version_id": 1, "Fields": [field("x"), field("y")]}
    a = dump(tmp_path, "a", dev=device(fields=[field("x"), field("y")]))
    b = dump(tmp_path, "b", dev=device(fields=[field("s", 8, Description=inner)]))
    assert kinds(a, b) == []


def test_versions_break_one_way(tmp_path):
    a = dump(tmp_path, "a", dev=device(version=1))
    b = dump(tmp_path, "b", dev=device(version=3, minimum=2))
    assert ("minimum version", "", True) in kinds(a, b)
    assert ("version", "", True) in kinds(b, a)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b'{"a": 1}',
        b'{"a": {"Name": "x"}}',
        b'{"vmschkmachine": {"Name": {}}}',
        b'{"a": {"Name": "x", "version_id": 1e999}}',
        b"\x28\xb5\x2f\xfdxx",
    ],
)
def test_what_is_no_dump_is_a_stream_error(tmp_path, text):
    path = tmp_path / "x"
    path.write_bytes(text)
    with pytest.raises(StreamError, match="dump"):
        read_dump(path)


def test_a_name_that_no_file_has(tmp_path):
    with pytest.raises(StreamError, match="null byte"):
        read_dump(tmp_path / "a\0b")


@pytest.mark.parametrize("name", ["2.1.0-pseries", "2.7.0-pseries-2.6", "5.2-x86_64-q35", "7.2-pseries-2.7"])
def test_a_dump_tells_its_release(captures, name):
    read = read_dump(captures.dumps / f"{name}.json.zst")
    wanted = name.split("-")[0]
    assert source_descriptions.release_of(read.vmsds).split(".")[:2] == wanted.split(".")[:2]


def test_unversioned_changes_are_linted(tmp_path):
    a = read_dump(dump(tmp_path, "a", dev=device(fields=[field("x")])))
    b = read_dump(dump(tmp_path, "b", dev=device(fields=[field("x"), field("y")])))
    frame = lint(b, a)
    assert frame[["field", "rule"]].to_numpy().tolist() == [["y", "unversioned"]]
    assert frame["why"].str.len().min() > 20


def test_diff_takes_two_dumps(tmp_path):
    import vmstate_tools as vt

    a = dump(tmp_path, "a", dev=device(fields=[field("x")]))
    b = dump(tmp_path, "b", dev=device(fields=[field("x", 8)]))
    frame = vt.diff(read_dump(a), read_dump(b))
    assert frame[["field", "kind", "breaks"]].to_numpy().tolist() == [["x", "size", True]]


def test_a_field_of_three_names(tmp_path):
    """dma_liobn of the pseries PCI host bridge: `dma_liobn[0]` in 2.7, `mig_liobn` since 2.8 (hw/ppc/spapr_pci.c)."""
    names = ("dma_liobn", "dma_liobn[0]", "mig_liobn")
    dumps = [dump(tmp_path, n, dev=_named("spapr_pci", [field(n), field("y")])) for n in names]
    assert [kinds(a, b) for a in dumps for b in dumps] == [[]] * 9


def _named(vmsd, fields):
    made = device(fields=fields)
    made["Description"]["name"] = vmsd
    return made


def test_another_name_for_the_same_bytes_breaks_nothing(tmp_path):
    a = dump(tmp_path, "a", dev=device(fields=[field("tx.mss", 2), field("tx.ip", 1), field("x")]))
    b = dump(tmp_path, "b", dev=device(fields=[field("tx.props.mss", 2), field("tx.props.ip", 1), field("x")]))
    assert kinds(a, b) == [("renamed", "tx.mss", False), ("renamed", "tx.ip", False)]


@pytest.mark.parametrize("releases", [("2.6.0", "2.7.0"), ("2.6.0", "2.8.0")])
def test_one_machine_type_in_two_releases(captures, releases):
    """What 2.6 writes of these fits 2.7 and 2.8."""
    frame = diff_dumps(*(captures.dumps / f"{r}-pseries-2.6.json.zst" for r in releases))
    assert not frame[frame["section"].isin(["e1000", "rtl8139", "spapr-pci-host-bridge"])]["breaks"].any()
