"""Columns of field values hold what fields hold, exactly, and take part in what pandas does with a column."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vmstate_tools.vmstate.value_column import ValueArray

VALUES = [0, 1 << 63, 0xFFFF_FFFF_FFFF_FFFF, -1, -(1 << 63), True, False, b"", b"\x00\xff", None, 255, "text"]
NUMBERS = [5, -1, 1 << 63, 0, -(1 << 63), True]


def column(values: list[object] = VALUES) -> pd.Series:
    return pd.Series(ValueArray._from_sequence(values), name="value")


def same(found: object, expected: list[object]) -> None:
    values = list(found)  # type: ignore[call-overload]
    assert values == expected
    assert [type(v) for v in values] == [type(v) for v in expected]


def test_values_are_exact() -> None:
    same(column(), VALUES)
    assert str(column().dtype) == "vmstate"
    assert column().isna().tolist() == [v is None for v in VALUES]


def test_selection() -> None:
    s = column()
    same(s.iloc[[2, 0, -4]], [VALUES[2], VALUES[0], VALUES[-4]])
    same(s.iloc[1:9:3], VALUES[1:9:3])
    mask = np.arange(len(s)) % 2 == 0
    same(s[mask], VALUES[::2])
    same(s[pd.array(mask, dtype="boolean")], VALUES[::2])
    same(s.take([8, 1]), [VALUES[8], VALUES[1]])
    same(s.reindex([2, 99]), [VALUES[2], None])
    same(s.head(0), [])
    assert s.iloc[1] == s.array[1] == 1 << 63
    with pytest.raises(IndexError):
        s.array[len(VALUES)]


def test_concatenation_and_copies() -> None:
    s = column()
    both = pd.concat([s, s[::-1]], ignore_index=True)
    assert str(both.dtype) == "vmstate"
    same(both, VALUES + VALUES[::-1])
    copy = s.copy()
    copy.iloc[0] = b"changed"
    copy.iloc[1] = 7
    assert copy.iloc[0] == b"changed"
    assert copy.iloc[1] == 7
    same(s, VALUES)
    same(copy.iloc[2:], VALUES[2:])
    copy.iloc[[2, 3]] = [b"x", -2]
    same(copy.iloc[:4], [b"changed", 7, b"x", -2])
    copy[copy.isna()] = 0
    assert not copy.isna().any()


def test_pickle() -> None:
    same(pickle.loads(pickle.dumps(column())), VALUES)


def test_equality() -> None:
    s = column()
    assert (s == (1 << 63)).tolist() == [v == 1 << 63 and v is not None for v in VALUES]
    assert (s == -1).tolist() == [v == -1 for v in VALUES]  # and not 0xffffffffffffffff, which has the same bits
    assert (s == 0xFFFF_FFFF_FFFF_FFFF).tolist() == [v == 0xFFFF_FFFF_FFFF_FFFF for v in VALUES]
    assert (s == b"\x00\xff").tolist() == [v == b"\x00\xff" for v in VALUES]
    assert (s == "text").tolist() == [v == "text" for v in VALUES]
    assert (s == 1).sum() == 1
    assert (s != 0).sum() == len(VALUES) - 2
    assert (s == s).tolist() == [v is not None for v in VALUES]
    assert (s == column(VALUES[::-1])).tolist() == [
        a == b and a is not None for a, b in zip(VALUES, VALUES[::-1], strict=True)
    ]
    assert (s == "no value").sum() == 0


def test_sorting_is_by_value() -> None:
    same(column(NUMBERS).sort_values(), sorted(NUMBERS))
    same(column(NUMBERS).sort_values(ascending=False), sorted(NUMBERS, reverse=True))
    mixed = column([b"b", 3, None, "a", b"a", -3])
    same(mixed.sort_values(), [-3, 3, b"a", b"b", "a", None])


def test_grouping_and_counting() -> None:
    frame = pd.DataFrame({"key": ["a", "b", "a", "b"], "value": column([1 << 63, b"x", 1 << 63, 2])})
    same(frame.groupby("key")["value"].first(), [1 << 63, b"x"])
    same(frame.groupby("key")["value"].last(), [1 << 63, 2])
    assert frame.groupby("key")["value"].nunique().tolist() == [1, 2]
    assert frame.groupby("value", sort=False).size().tolist() == [2, 1, 1]
    same(frame["value"].unique(), [1 << 63, b"x", 2])
    assert frame["value"].value_counts().iloc[0] == 2
    assert frame.drop_duplicates("value").index.tolist() == [0, 1, 3]


def test_as_numbers() -> None:
    s = column([1, 1 << 63, 0xFFFF_FFFF_FFFF_FFFF])
    assert s.astype("uint64").tolist() == [1, 1 << 63, 0xFFFF_FFFF_FFFF_FFFF]
    assert s.to_numpy(dtype="uint64").dtype == np.uint64
    assert column([-1, 5]).astype("int64").tolist() == [-1, 5]
    assert column([True, False]).astype("bool").tolist() == [True, False]


def test_csv(tmp_path: Path) -> None:
    column([1 << 63, -1, b"\x00", None]).to_csv(tmp_path / "values.csv", index=False)
    assert (tmp_path / "values.csv").read_text().splitlines()[1:3] == ["9223372036854775808", "-1"]


def test_parquet(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": [str(i) for i in range(len(VALUES))], "value": column()})
    frame.to_parquet(tmp_path / "fields.parquet")
    back = pd.read_parquet(tmp_path / "fields.parquet")
    assert str(back["value"].dtype) == "vmstate"
    same(back["value"], VALUES)


def test_how_values_print() -> None:
    text = column([1 << 63, 7, -1, True, bytes(20), None]).to_string(index=False).splitlines()
    assert [line.strip() for line in text] == [
        "0x8000000000000000",
        "7",
        "-1",
        "True",
        "<20 bytes> 000000000000000000000000…",
        "None",
    ]


def test_size_counts_shared_bytes_once() -> None:
    table = bytes(1 << 20)
    array = ValueArray._concat_same_type([ValueArray._from_sequence([table])] * 3)
    assert array.nbytes >= 1 << 20
    shared = ValueArray(array.words, array.kinds, [table] * 3)
    assert shared.nbytes < 2 << 20
