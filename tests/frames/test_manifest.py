"""Manifests: whose is believed, and what comes of one that is none."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import pytest
from shell import P26, run
from writer import toy

import vmstate_tools as vt
from vmstate_tools.data import data_path
from vmstate_tools.frames.manifest import ManifestWarning, manifest_rows, read_manifest

HEAD = "file,release,machine,cpu,config,memory_mib,size\n"
ROW = "a.mig,2.7.0,toy-1.0,POWER7_v2.3,,256,1000\n"

# What stands in `manifest.csv` → what the warning must say.
NONE = {
    "no column `file`": ("name,release\na.mig,2.7\n", "`file`"),
    "empty": ("", "`file`"),
    "not UTF-8": (b"file,release\na.mig,\xff\xfe\n", "utf-8"),
    "a column named twice": ("file,file\na.mig,b.mig\n", "each once"),
    "too many columns": (",".join(["file", *map(str, range(200))]) + "\n", "columns"),
    "a cell without an end": (f'{HEAD}"a.mig', "unexpected end"),
    "a cell of 200,000 characters": (f"{HEAD}{'x' * 200_000},,,,,,\n", "field larger"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one stream, `a.mig`, in a folder of its own."""
    place = tmp_path / "above" / "here"
    place.mkdir(parents=True)
    (place / "a.mig").write_bytes(toy().finish())
    return place


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def labels(*paths: str | os.PathLike[str], manifest: Path | None = None) -> list[object]:
    """The release that each stream is labelled with; no warning is allowed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = vt.load(paths, fields=False, manifest=manifest).streams
    return frame["release"].tolist() if "release" in frame else [None] * len(frame)


def test_a_manifest_beside_the_stream_is_used(folder: Path) -> None:
    write(folder / "manifest.csv", HEAD + ROW)
    assert labels(folder / "a.mig") == labels(folder) == ["2.7.0"]
    row = vt.load(folder, fields=False).streams.iloc[0]
    assert (row["cpu"], row["memory_mib"], row["size"]) == ("POWER7_v2.3", 256, 1000)


def test_a_manifest_above_the_stream_is_not_looked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, name in ((folder.parent, "here/a.mig"), (folder.parent.parent, "above/here/a.mig")):
        write(place / "manifest.csv", HEAD + ROW.replace("a.mig", name))
    monkeypatch.chdir(folder.parent)
    assert labels(folder / "a.mig") == labels("here/a.mig") == labels(folder) == [None]
    monkeypatch.chdir(folder)
    assert labels("a.mig") == [None]


def test_a_directory_that_is_given_has_its_manifest_named_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder.parent / "manifest.csv", HEAD + ROW.replace("a.mig", "here/a.mig"))
    assert labels(folder.parent) == labels(f"{folder.parent}/") == ["2.7.0"]
    monkeypatch.chdir(folder)
    assert labels("..") == ["2.7.0"]


def test_the_nearest_manifest_goes_first(folder: Path) -> None:
    write(folder.parent / "manifest.csv", HEAD + ROW.replace("a.mig", "here/a.mig"))
    write(folder / "manifest.csv", HEAD + ROW.replace("2.7.0", "2.8.0"))
    assert labels(folder.parent) == ["2.8.0"]


def test_a_manifest_that_is_named_is_the_only_one(folder: Path, tmp_path: Path) -> None:
    write(folder / "manifest.csv", HEAD + ROW)
    above = write(folder.parent / "manifest.csv", HEAD + ROW.replace("a.mig", "here/a.mig").replace("2.7.0", "2.8.0"))
    elsewhere = write(
        tmp_path / "list.csv", HEAD + ROW.replace("a.mig", str(folder / "a.mig")).replace("2.7.0", "2.9.0")
    )
    assert labels(folder / "a.mig", manifest=above) == ["2.8.0"]
    assert labels(folder / "a.mig", manifest=elsewhere) == ["2.9.0"]
    assert labels(folder / "a.mig", manifest=write(tmp_path / "none.csv", HEAD)) == [None]
    with pytest.raises(vt.VmstateError, match="is no manifest"):
        vt.load(folder, manifest=write(tmp_path / "bad.csv", "name\n"))
    with pytest.raises(vt.VmstateError, match="No such file"):
        vt.load(folder, manifest=tmp_path / "missing.csv")


def test_the_packages_own_streams_have_theirs_wherever_they_are_named_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = data_path("streams")
    assert labels(P26) == ["2.6.0"] and set(labels(Path(P26).parent)) == {"2.6.0"}
    (tmp_path / "data").symlink_to(own.parent)
    monkeypatch.chdir(tmp_path)
    assert labels(Path("data") / Path(P26).relative_to(own.parent)) == ["2.6.0"]
    shutil.copy(P26, tmp_path / "copy.mig.zst")
    assert labels(tmp_path / "copy.mig.zst") == [None]


@pytest.mark.parametrize("kind", NONE)
def test_what_is_no_manifest_is_a_warning(folder: Path, kind: str) -> None:
    text, said = NONE[kind]
    path = write(folder / "manifest.csv", text)
    with pytest.warns(ManifestWarning, match=said) as caught:
        collection = vt.load(folder, fields=False)
    assert len(collection) == 1 and "release" not in collection.streams and not len(collection.errors)
    assert len(caught) == 1 and str(path) in str(caught[0].message)


@pytest.mark.parametrize("kind", NONE)
def test_commands_warn_in_one_line(folder: Path, kind: str) -> None:
    text, said = NONE[kind]
    write(folder / "manifest.csv", text)
    for command in (["cpu"], ["report"]):
        result = run(*command, str(folder / "a.mig"))
        assert result.stderr.startswith("vmstate: warning: ") and said in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_huge_file_is_no_manifest(folder: Path) -> None:
    with (folder / "manifest.csv").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.warns(ManifestWarning, match="larger"):
        assert manifest_rows(folder / "a.mig") == {}


def test_a_folder_or_a_pipe_of_that_name_is_passed_over(folder: Path) -> None:
    (folder / "manifest.csv").mkdir()
    assert labels(folder / "a.mig") == [None]
    (folder / "manifest.csv").rmdir()
    os.mkfifo(folder / "manifest.csv")
    assert labels(folder / "a.mig") == [None]


@pytest.mark.parametrize("word", ["many", "-1", "1e3", "0x10", "9" * 19, "9" * 5000, "١٢"])
def test_a_word_where_a_number_belongs_is_missing(folder: Path, word: str) -> None:
    write(folder / "manifest.csv", HEAD + ROW.replace("256", word))
    with pytest.warns(ManifestWarning, match="row 2, memory_mib: .* is no number"):
        row = vt.load(folder, fields=False).streams.iloc[0]
    assert row.isna()["memory_mib"] and row["size"] == 1000 and row["release"] == "2.7.0"


def test_rows_that_contradict_each_other_are_not_used(folder: Path) -> None:
    write(folder / "manifest.csv", HEAD + ROW + ROW.replace("2.7.0", "2.8.0") + ROW.replace("a.mig", "b.mig"))
    with pytest.warns(ManifestWarning, match="row 3 names 'a.mig' again"):
        assert list(read_manifest(folder / "manifest.csv")) == ["b.mig"]
    write(folder / "manifest.csv", HEAD + ROW + ROW)
    assert labels(folder) == ["2.7.0"]  # said twice is no contradiction


def test_rows_of_another_length_are_left_out(folder: Path) -> None:
    write(folder / "manifest.csv", HEAD + "b.mig,2.7.0\n\nc.mig,1,2,3,4,5,6,7,8\n" + ROW)
    with pytest.warns(ManifestWarning, match="row 2 has 2 cells, its head 7; .*1 more like it"):
        assert list(read_manifest(folder / "manifest.csv")) == ["a.mig"]


def test_names_that_are_none_and_columns_of_the_frames_do_no_harm(folder: Path) -> None:
    write(folder / "manifest.csv", "file,release,sections,stream_size,cpu\na.mig,banana,x,y,\n")
    streams = vt.load(folder, fields=False).streams
    assert streams["release"].tolist() == ["banana"]
    assert streams["sections"].dtype == "Int64" and streams["stream_size"][0] == (folder / "a.mig").stat().st_size
    assert run("report", str(folder)).stderr == ""


def test_a_byte_order_mark_is_no_part_of_the_first_name(folder: Path) -> None:
    write(folder / "manifest.csv", b"\xef\xbb\xbf" + (HEAD + ROW).encode())
    assert labels(folder) == ["2.7.0"]
