from __future__ import annotations

import multiprocessing
import struct
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from writer import Vmsd, Writer, toy, u8

import vmstate_tools as vt
from vmstate_tools.data import data_path
from vmstate_tools.source import zstd


def test_words_stay_exact_beside_streams_that_carry_none() -> None:
    power8 = data_path("streams", "qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")
    q35 = data_path("streams", "qemu-7.2/q35/qemu64+cap-xbzrle.mig.zst")
    data = zstd.decompress(power8.read_bytes())
    end = data.index(b"\x05\x07cpu/fpu")  # the four words stand right before the first subsection
    msr_mask, flags, flags2, bats = struct.unpack(">QQQI", data[end - 28 : end])
    cpu = vt.load([power8, q35], fields=False).cpu
    assert cpu.loc[0, ["msr_mask", "insns_flags", "insns_flags2", "nb_bats"]].tolist() == [
        msr_mask,
        flags,
        flags2,
        bats,
    ]
    assert cpu.loc[1, ["msr_mask", "insns_flags", "insns_flags2"]].isna().all()


# -- loading many ------------------------------------------------------------------------------------------------------

POWER8 = "qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst"
SOME = [
    POWER8,
    "qemu-2.6.0/pseries-2.5/POWER7_v2.3+ran.mig.zst",
    "qemu-1.6.0/prep/default.mig.zst",
    "qemu-11.1/microvm/qemu64.mig.zst",
    "qemu-5.2/mps2-an385/default.mig.zst",
]


@pytest.fixture(scope="module")
def some() -> vt.Collection:
    return vt.load([data_path("streams", name) for name in SOME])


def test_types(some: vt.Collection) -> None:
    for frame in (some.streams, some.sections, some.fields, some.cpu, some.errors):
        objects = [name for name, dtype in frame.dtypes.items() if dtype == "object"]
        assert not objects, objects
    assert some.fields.dtypes.astype(str)[["instance_id", "version_id", "offset", "size", "value"]].tolist() == [
        *("uint32", "uint32", "int64", "int64", "vmstate"),
    ]
    assert some.streams.dtypes.astype(str)[["memory_mib", "page_size", "stream_size", "size"]].tolist() == [
        *("Int64", "Int64", "Int64", "Int64"),
    ]
    assert some.cpu.dtypes.astype(str)[["pvr", "msr_mask", "insns_flags", "insns_flags2", "nb_bats"]].tolist() == [
        *("UInt64", "UInt64", "insns_flags", "insns_flags2", "UInt64"),
    ]


def test_frames_hold_what_the_streams_hold(some: vt.Collection) -> None:
    assert len(some) == len(some.streams) == len(SOME)
    assert len(some.errors) == 0
    for file in some.streams["file"]:
        with vt.open(file) as stream:
            own = stream.fields(fold=1024)
            found = some.fields[some.fields["file"] == file]
            assert found["path"].tolist() == own["path"].tolist()
            assert found["offset"].tolist() == own["offset"].tolist()
            assert (found["value"].array == own["value"].array).all()
            sections = some.sections[some.sections["file"] == file]
            assert sections["idstr"].tolist() == [s.idstr for s in stream.sections]
            assert sections["offset"].tolist() == [s.offset for s in stream.sections]


def test_words_above_63_bits_are_exact(some: vt.Collection) -> None:
    word = some.fields[(some.fields["path"] == "env.msr_mask") & (some.fields["release"] == "2.6.0")]["value"].iloc[0]
    assert word > 1 << 63
    ran = some.fields[(some.fields["file"].str.contains("ran")) & (some.fields["section"] == "cpu")]
    values = dict(zip(ran["path"], ran["value"], strict=True))
    # What `info registers` printed of the program's patterns.
    assert values["env.spr[8]"] == 0xABCD000012345678
    assert values["env.gpr[31]"] == 0x1F1F1F1F1F1F1F1F
    assert values["env.spr[9]"] == 0x9999888877776666


def test_the_manifest_is_joined(some: vt.Collection) -> None:
    row = some.streams.set_index("file").loc[str(data_path("streams", POWER8))]
    assert (row["release"], row["machine"], row["cpu"].lower(), row["arch"]) == (
        *("2.6.0", "pseries-2.6", "power8_v2.0", "ppc64"),
    )
    assert row["size"] == row["stream_size"]
    assert some.cpu.loc[0, "model"].lower() == "power8_v2.0"
    assert set(some.fields["release"]) == {"2.6.0", "1.6.0", "11.1", "5.2"}


def test_streams_without_a_manifest(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.mig").write_bytes(toy().finish())
    (tmp_path / "notes.txt").write_text("no stream")
    collection = vt.load(tmp_path)
    assert [Path(f).name for f in collection.streams["file"]] == ["a.mig", "b.mig"]
    assert collection.streams["machine"].tolist() == ["toy-1.0"] * 2
    assert "release" not in collection.streams
    assert len(collection.cpu) == 0
    assert collection.fields["file"].nunique() == 2
    values = collection.fields[collection.fields["path"] == "ticks[0]"]["value"]
    assert values.tolist() == [1 << 63] * 2


def test_a_bad_file_is_a_row_of_errors_or_an_exception(tmp_path: Path) -> None:
    good, bad, cut, gone = (str(tmp_path / f"{n}.mig") for n in ("good", "bad", "cut", "gone"))
    Path(good).write_bytes(toy().finish())
    Path(bad).write_text("no stream at all")
    Path(cut).write_bytes(toy().finish()[:4400])
    collection = vt.load([bad, good, cut, gone])
    assert collection.streams["file"].tolist() == [good]
    errors = collection.errors.set_index("file")
    assert errors.index.tolist() == [bad, cut, gone]
    assert errors.loc[bad, "offset"] == 0
    assert "QEVM" in errors.loc[bad, "expected"]
    assert errors.loc[cut, "offset"] <= 4400
    assert errors["message"].str.len().gt(0).all()
    assert errors["offset"].isna().tolist() == [False, False, True]
    assert set(collection.fields["file"]) == {good}
    for file in (bad, cut, gone):
        with pytest.raises(vt.StreamError) as caught:
            vt.load([good, file], errors="raise")
        assert caught.value.file == file
    with pytest.raises(ValueError, match="collect"):
        vt.load([good], errors="ignore")


def test_nothing_to_load(tmp_path: Path) -> None:
    for collection in (vt.load([]), vt.load(tmp_path)):
        assert len(collection) == 0
        for frame in (collection.streams, collection.sections, collection.fields, collection.cpu, collection.errors):
            assert len(frame) == 0
            assert len(frame.columns)


def test_an_executor_gives_the_same_frames(some: vt.Collection, tmp_path: Path) -> None:
    (tmp_path / "bad.mig").write_text("no stream")
    files = [data_path("streams", name) for name in SOME]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = vt.load([*files, tmp_path / "bad.mig"], executor=pool)
    assert_frame_equal(there.streams, some.streams)
    assert_frame_equal(there.sections, some.sections)
    assert_frame_equal(there.cpu, some.cpu)
    assert_frame_equal(there.fields.drop(columns="value"), some.fields.drop(columns="value"))
    assert (there.fields["value"].array == some.fields["value"].array).all()
    assert there.errors["file"].tolist() == [str(tmp_path / "bad.mig")]


def test_a_file_given_twice_is_two_streams() -> None:
    once, twice = (vt.load([data_path("streams", POWER8)] * n, fields=False) for n in (1, 2))
    assert len(twice.streams) == 2
    assert_frame_equal(twice.cpu, pd.concat([once.cpu] * 2, ignore_index=True), check_dtype=True)


def test_fields_are_left_out_when_asked() -> None:
    collection = vt.load([data_path("streams", POWER8)], fields=False)
    assert collection.cpu["pvr"].tolist() == [0x004D0200]
    with pytest.raises(vt.VmstateError, match="fields=False"):
        _ = collection.fields


def test_a_bar_for_long_loads_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(25):
        (tmp_path / f"{i:02}.mig").write_bytes(toy().finish())
    files = sorted(tmp_path.iterdir())
    vt.load(files[:3])
    assert capsys.readouterr().err == ""
    vt.load(files)
    assert "25/25" in capsys.readouterr().err
    vt.load(files, progress=False)
    assert capsys.readouterr().err == ""
    vt.load(files[:3], progress=True)
    assert "3/3" in capsys.readouterr().err
    assert capsys.readouterr().out == ""


def test_flag_words_show_their_names(some: vt.Collection) -> None:
    text = some.cpu[["insns_flags", "insns_flags2"]].to_string()
    html = some.cpu._repr_html_()
    for name in ("64B", "ALTIVEC", "VSX"):
        assert name in text
    word = int(some.cpu.loc[0, "insns_flags"])
    assert f"0x{word:016x}" in text
    assert f"0x{word:016x} " in html


def test_a_table_of_zeros_is_kept_once() -> None:
    files = [data_path("streams", n) for n in (POWER8, "qemu-2.6.0/pseries-2.5/POWER7_v2.3+ran.mig.zst")]
    fields = vt.load(files).fields
    tables = fields[
        fields["path"].str.startswith("table[0:262144]") | fields["path"].str.startswith("mig_table[0:262144]")
    ]
    assert tables["value"].map(len).tolist() == [2 << 20] * 2
    assert tables["value"].iloc[0] is tables["value"].iloc[1]


def test_paths_of_arrays_are_numbered() -> None:
    writer = Writer(machine="toy-1.0")
    writer.full("toy", Vmsd("toy", [u8("a", 1), u8("b", *range(12)), u8("ü", 5, 6)], [Vmsd("toy/sub", [u8("a", 7)])]))
    with vt.open(writer.finish()) as stream:
        want = ["a", *(f"b[{i}]" for i in range(12)), "ü[0]", "ü[1]", "a"]
        assert stream.fields()["path"].tolist() == want
        assert stream.fields(fold=4)["path"].tolist() == ["a", "b[0:12]", "ü[0]", "ü[1]", "a"]
        assert [int(v) for v in stream.fields()["value"]] == [1, *range(12), 5, 6, 7]
