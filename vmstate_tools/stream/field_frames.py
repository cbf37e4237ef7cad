"""One frame of the fields of one stream or many: each column is made once, in its size and type, and then filled."""

from __future__ import annotations

import functools
import mmap
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vmstate_tools.stream.field_tables import FieldTable, decoded_numbers
from vmstate_tools.vmstate.layout import BYTES
from vmstate_tools.vmstate.value_column import ValueArray


def fields_frame(tables: Sequence[FieldTable], keys: dict[str, pd.Categorical] | None = None) -> pd.DataFrame:
    """Returns one frame of all fields, each stream's in file order; in front the columns `keys`, given by stream."""
    return _Columns(tables, keys or {}).frame()


_NAMES = ("section", "vmsd", "path", "type")
_NUMBERS = {
    "instance_id": np.uint32,
    "version_id": np.uint32,
    "offset": np.int64,
    "size": np.int64,
    "words": np.uint64,
    "kinds": np.uint8,
}

# Shapes of streams whose columns are kept while a frame is made.
_SHAPES = 128

_Arrays = dict[str, npt.NDArray[Any]]


# Streams whose rows a thread puts in their places at once.
_FILLED = 64


class _Columns:
    """The columns of a frame of fields, each made once, in its size and type, and then filled; names are codes."""

    def __init__(self, tables: Sequence[FieldTable], keys: dict[str, pd.Categorical]) -> None:
        self.keys = keys
        self.paths = _paths(tables[0]) if len(tables) == 1 else None  # of more than one they are categories
        self.names = {name: _Names() for name in _NAMES if name != "path" or self.paths is None}
        self.parts: dict[bytes, _Arrays] = {}
        self.shapes: dict[Any, _Arrays] = {}
        self.blobs: list[bytes] = []
        places = []
        total = 0
        for number, table in enumerate(tables):
            places.append((number, table, self.code(table), total, len(self.blobs)))
            total += len(table)
            self.blobs += [_zeros(blob) if isinstance(blob, int) else blob for blob in table.blobs]
            self.blobs += table.extra.value.blobs if table.extra else []
        types = _NUMBERS | {name: names.dtype for name, names in self.names.items()}
        self.columns = {name: _column(total, dtype) for name, dtype in types.items()}
        self.key_codes = {name: key.codes for name, key in keys.items()}
        self.key_columns = {name: _column(total, codes.dtype) for name, codes in self.key_codes.items()}
        batches = [places[i : i + _FILLED] for i in range(0, len(places), _FILLED)]
        if len(batches) <= 1:
            self.fill(places)
            return
        # numpy copies without the interpreter's lock. What takes longest is that memory is touched for the first time.
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(self.fill, batches))

    def code(self, table: FieldTable) -> _Arrays:
        """Numbers the table's names, in order, and returns the columns of its undescribed sections."""
        for rows in table.rows:
            if rows.key not in self.parts:
                self.parts[rows.key] = {
                    "type": self.names["type"].codes(rows.types[0])[rows.types[1]],
                    "vmsd": self.names["vmsd"].codes(rows.vmsds[0])[rows.vmsds[1]],
                    "offset": rows.offset,
                    "size": rows.size,
                    "kinds": rows.kind,
                }
                if "path" in self.names:
                    self.parts[rows.key]["path"] = self.names["path"].codes(rows.paths.to_pylist())
        self.names["section"].codes(section for section, _, _ in table.sections)
        if table.extra is None:
            return {}
        coded = {name: self.names[name].codes(getattr(table.extra, name)) for name in self.names}
        coded |= {name: getattr(table.extra, name) for name in ("instance_id", "version_id", "offset", "size")}
        return coded | {"words": table.extra.value.words, "kinds": table.extra.value.kinds}

    def shape(self, table: FieldTable) -> _Arrays:
        """Returns the columns that all streams of these sections share; `offset` counts from the payload."""
        key = (*(rows.key for rows in table.rows), *table.sections)
        shape = self.shapes.get(key)
        if shape is None:
            if len(self.shapes) >= _SHAPES:
                self.shapes.clear()
            pieces = [self.parts[rows.key] for rows in table.rows]
            shape = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
            shape["lengths"] = lengths = np.array([len(rows) for rows in table.rows])
            idstr, instance, version = zip(*table.sections, strict=True)
            shape["section"] = np.repeat(self.names["section"].codes(idstr), lengths)
            shape["instance_id"] = np.repeat(np.array(instance, np.uint32), lengths)
            shape["version_id"] = np.repeat(np.array(version, np.uint32), lengths)
            shape["buffers"] = np.flatnonzero(shape["kinds"] == BYTES)
            self.shapes[key] = shape
        return shape

    def fill(self, places: Sequence[tuple[int, FieldTable, _Arrays, int, int]]) -> None:
        """Puts the tables of streams into the columns, each where its rows and its blobs begin."""
        decoded = decoded_numbers([table for _, table, *_ in places])
        for (number, table, extra, at, blobs), words in zip(places, decoded, strict=True):
            for name, codes in self.key_codes.items():
                self.key_columns[name][at : at + len(table)] = codes[number]
            described: _Arrays = {}
            if table.rows:
                described = dict(self.shape(table))
                base = np.repeat(np.array(table.base, np.int64), described.pop("lengths"))
                described["offset"] = described["offset"] + base
                words[described["buffers"]] = np.arange(blobs, blobs + len(table.blobs), dtype=np.uint64)
                described["words"] = words
            if table.extra is not None:
                shift = (extra["kinds"] == BYTES) * np.uint64(blobs + len(table.blobs))
                extra = extra | {"words": extra["words"] + shift}
            for start, stop, leaves, first in _places(table):
                for name, column in self.columns.items():
                    values = extra[name] if leaves else described[name]
                    column[at + start : at + stop] = values[first : first + stop - start]

    def frame(self) -> pd.DataFrame:
        """Returns the frame, as `Stream.fields`; the paths of more than one stream are categories, too."""
        names: dict[str, Any] = {name: own.categorical(self.columns[name]) for name, own in self.names.items()}
        if self.paths is not None:
            names["path"] = self.paths
        values = ValueArray(self.columns["words"], self.columns["kinds"], self.blobs)
        order = ("section", "instance_id", "version_id", "vmsd", "path", "type", "offset", "size")
        columns = {n: names[n] if n in names else self.columns[n] for n in order}
        keys = {
            name: pd.Categorical.from_codes(self.key_columns[name], dtype=key.dtype, validate=False)
            for name, key in self.keys.items()
        }
        return pd.DataFrame(keys | columns | {"value": values}, copy=False)


def _column(rows: int, dtype: Any) -> npt.NDArray[Any]:
    """Returns an array to be filled.

    From 4 MiB on `np.empty` asks for huge pages, for which a virtual machine whose host has none waits four times as
    long as for small ones: more than everything else here takes.
    """
    size = rows * np.dtype(dtype).itemsize
    if size < 4 << 20 or not hasattr(mmap, "MAP_PRIVATE"):
        return np.empty(rows, dtype)
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype)


def _places(table: FieldTable) -> list[tuple[int, int, bool, int]]:
    """Returns stretches of the table's rows: from, to, whether they are of undescribed sections, and from which on."""
    places = []
    done = leaves = 0
    counts = Counter(table.extra.before.tolist()) if table.extra else {}
    for before, count in [*counts.items(), (table.described, 0)]:
        places.append((done + leaves, before + leaves, False, done))
        places.append((before + leaves, before + leaves + count, True, leaves))
        done, leaves = before, leaves + count
    return [place for place in places if place[0] < place[1]]


def _paths(table: FieldTable) -> Any:
    """Returns the path of each row, as a pandas array of text."""
    import pyarrow as pa

    text = pa.large_string()
    described = pa.concat_arrays([rows.paths for rows in table.rows]) if table.rows else pa.array([], text)
    extra = pa.array(table.extra.path if table.extra else [], text)
    parts = [(extra if leaves else described)[at : at + b - a] for a, b, leaves, at in _places(table)]
    dtype: Any = pd.array([], dtype="str").dtype
    return dtype.__from_arrow__(pa.concat_arrays(parts) if parts else extra)


class _Names:
    """Numbers strings in the order in which they first appear."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def codes(self, names: Iterable[str]) -> npt.NDArray[np.int32]:
        numbers = self.numbers
        return np.array([numbers.setdefault(n, len(numbers)) for n in names], np.int32)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Returns the dtype of the codes in a `Categorical` of so many names."""
        return pd.Categorical.from_codes([], categories=pd.RangeIndex(len(self.numbers))).codes.dtype

    def categorical(self, codes: npt.NDArray[Any]) -> pd.Categorical:
        return pd.Categorical.from_codes(codes, categories=pd.Index(list(self.numbers), dtype="str"), validate=False)


@functools.lru_cache(maxsize=64)
def _zeros(size: int) -> bytes:
    return bytes(size)
