"""A collection written as Parquet and read by others: nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from writer import toy

import vmstate_tools as vt
from vmstate_tools.data import data_path

SOME = ["qemu-2.6.0/pseries-2.5/POWER7_v2.3+ran.mig.zst", "qemu-7.2/q35/qemu64+cap-xbzrle.mig.zst"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[vt.Collection, Path]:
    folder = tmp_path_factory.mktemp("dataset")
    bad, small = folder / "bad.mig", folder / "toy.mig"
    bad.write_text("no stream")
    small.write_bytes(toy().finish())
    collection = vt.load([*(data_path("streams", name) for name in SOME), bad, small])
    collection.to_parquet(folder / "out")
    return collection, folder / "out"


@pytest.mark.parametrize("table", ["streams", "sections", "fields", "cpu", "errors"])
def test_pandas_reads_the_same(written: tuple[vt.Collection, Path], table: str) -> None:
    collection, out = written
    back, frame = pd.read_parquet(out / table), getattr(collection, table)
    assert back.pop("shard").astype(int).eq(0).all()
    assert list(back) == list(frame)
    assert len(back) == len(frame)
    for name in frame:
        assert (back[name].isna() == frame[name].isna()).all(), name
        theirs, ours = back[name].dropna(), frame[name].dropna()
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            assert isinstance(back[name].dtype, pd.CategoricalDtype), name
        assert theirs.astype(object).tolist() == ours.astype(object).tolist(), name


def test_duckdb_reads_64_bits(written: tuple[vt.Collection, Path]) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    _, out = written
    query = """select distinct path, value.unsigned from read_parquet($files, hive_partitioning = true)
               where shard = 0 and section = 'cpu' and path in ('env.msr_mask', 'env.spr[8]') order by path"""
    found = dict(duckdb.execute(query, {"files": f"{out}/fields/*/*.parquet"}).fetchall())
    # The program put a pattern into the link register; MSR's highest bit is SF.
    assert found["env.spr[8]"] == 0xABCD000012345678
    assert found["env.msr_mask"] >> 63 == 1
    (missing,) = duckdb.execute(
        "select count(*) from read_parquet($files) where insns_flags is null", {"files": f"{out}/cpu/*/*.parquet"}
    ).fetchone()
    assert missing == 1  # x86 has no such word


def test_shards_make_one_dataset(tmp_path: Path) -> None:
    (tmp_path / "a.mig").write_bytes(toy().finish())
    collection = vt.load([tmp_path / "a.mig"])
    for shard in (0, 7):
        collection.to_parquet(tmp_path / "out", shard=shard)
    with pytest.raises(FileExistsError, match="shard=7"):
        collection.to_parquet(tmp_path / "out", shard=7)
    collection.to_parquet(tmp_path / "out", shard=7, overwrite=True)
    back = pd.read_parquet(tmp_path / "out" / "fields")
    assert sorted(set(back["shard"].astype(int))) == [0, 7]
    assert len(back) == 2 * len(collection.fields)


def test_pieces_hold_every_stream_once(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.mig").write_bytes(toy().finish())
    (tmp_path / "bad.mig").write_text("no stream")
    collection = vt.load(tmp_path)
    pieces = list(collection.pieces(2))
    assert [len(piece.streams) + len(piece.errors) for piece in pieces] == [2, 2, 2]
    assert np.concatenate([piece.streams["file"] for piece in pieces]).tolist() == collection.streams["file"].tolist()
    assert [len(piece.errors) for piece in pieces] == [0, 0, 1]


def test_without_fields(tmp_path: Path) -> None:
    (tmp_path / "a.mig").write_bytes(toy().finish())
    vt.load([tmp_path / "a.mig"], fields=False).to_parquet(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["cpu", "errors", "sections", "streams"]


def test_names_of_files_that_are_no_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/g\xff\r\n.mig"
    Path(os.fsdecode(path)).write_bytes(toy().finish())
    bad = os.fsencode(tmp_path) + b"/bad\xfe.mig"
    Path(os.fsdecode(bad)).write_text("no stream")
    collection = vt.load([path, os.fsdecode(bad)])
    written = f"{tmp_path}/g\\udcff\\r\n.mig"
    for frame in (collection.streams, collection.sections, collection.fields):
        assert set(frame["file"]) == {written}
    assert collection.errors["file"].tolist() == [f"{tmp_path}/bad\\udcfe.mig"]
    assert "bad\\udcfe" in collection._repr_html_()
    collection.to_parquet(tmp_path / "out")
    assert pd.read_parquet(tmp_path / "out" / "streams")["file"].tolist() == [written]
