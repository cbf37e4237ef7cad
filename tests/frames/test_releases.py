"""Releases in frames: a column that sorts as releases do."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from writer import toy

import vmstate_tools as vt
from vmstate_tools.data import data_path
from vmstate_tools.frames.releases import release_column


def test_order_is_that_of_the_numbers() -> None:
    column = release_column(["2.10", "2.6.0", "main", "2.7", None, "", "10.0.2", "2.6.0", "?"])
    assert column.ordered
    assert column.categories.tolist() == ["2.6.0", "2.7", "2.10", "10.0.2", "?", "main"]
    assert pd.Series(column).sort_values().dropna().tolist() == [
        *("2.6.0", "2.6.0", "2.7", "2.10", "10.0.2", "?", "main")
    ]
    assert pd.isna(column[4]) and pd.isna(column[5])
    assert len(release_column([])) == 0


@pytest.fixture(scope="module")
def collection() -> vt.Collection:
    return vt.load([data_path("streams", f"qemu-{release}", "pseries-2.6") for release in ("2.10.0", "2.6.0", "2.7.0")])


@pytest.mark.parametrize("frame", ["streams", "sections", "fields", "cpu"])
def test_every_frame_sorts_by_it(collection: vt.Collection, frame: str) -> None:
    releases = getattr(collection, frame)["release"]
    assert releases.drop_duplicates().sort_values().tolist() == ["2.6.0", "2.7.0", "2.10.0"]
    assert set(releases[releases >= "2.7.0"]) == {"2.7.0", "2.10.0"}


def test_a_pivot_has_releases_in_order_and_a_model_once(collection: vt.Collection) -> None:
    cpu = collection.cpu.assign(flags2=collection.cpu["insns_flags2"].astype("UInt64"))
    table = cpu.pivot_table(index="model", columns="release", values="flags2", aggfunc="first")
    assert list(table.columns) == ["2.6.0", "2.7.0", "2.10.0"]
    assert not [model for model in table.index if model != model.lower() and model.lower() in table.index]


def test_a_model_has_one_spelling(tmp_path: Path) -> None:
    # QEMU 2.11 began to spell the models of ppc in lower case; those of others it does not touch.
    rows = [("a", "2.6.0", "POWER7_v2.3"), ("b", "2.12.0", "power7_v2.3"), ("c", "9.0.0", "Cascadelake-Server")]
    for name, _, _ in rows:
        (tmp_path / f"{name}.mig").write_bytes(toy().finish())
    text = "".join(f"{name}.mig,{release},{cpu}\n" for name, release, cpu in rows)
    (tmp_path / "manifest.csv").write_text("file,release,cpu\n" + text)
    assert vt.load(tmp_path).streams["cpu"].tolist() == ["POWER7_v2.3", "POWER7_v2.3", "Cascadelake-Server"]
