"""Rows that hold from one release to another."""

from __future__ import annotations

import csv

import pytest

from vmstate_tools.data import data_path
from vmstate_tools.errors import CatalogError
from vmstate_tools.facts.tables import holding, holds, rows
from vmstate_tools.release import Release


@pytest.mark.parametrize(
    ("since", "until", "release", "there"),
    [
        ("2.7.0", "", "2.7.0", True),
        ("2.7.1", "", "2.7.0", False),
        ("", "9.2", "9.2.4", True),  # the stable releases of the series go with it
        ("", "9.2", "10.0.0", False),
        ("", "10.0.5", "10.0.5", True),
        ("", "10.0.5", "10.0.6", False),
        ("", "", "99.0", True),
    ],
)
def test_a_row_holds(since, until, release, there):
    row = {"since": since, "until": until}
    assert holds(row, Release(release)) == there
    assert holding([row], Release(release)) == [row] * there


@pytest.mark.parametrize("table", ["catalog/fields", "compat/vmsds", "fingerprint/framing"])
def test_a_table_is_read_as_the_csv_module_reads_it(table):
    folder, name = table.split("/")
    with data_path(folder, f"{name}.csv").open(newline="", encoding="utf-8") as file:
        assert list(rows(folder, name)) == list(csv.DictReader(file))


def test_a_table_that_is_missing():
    with pytest.raises(CatalogError, match=r"has no nothing\.csv"):
        rows("catalog", "nothing")
