"""Many streams → tidy pandas frames."""

from __future__ import annotations

import contextlib
import functools
import gc
import mmap
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson  # noqa: F401 - for `description`, which reads many vmdescs here
import pandas as pd

from vmstate_tools.errors import StreamError, VmstateError
from vmstate_tools.frames import dtypes as arrays
from vmstate_tools.frames.dtypes import ValueArray
from vmstate_tools.frames.executors import spread
from vmstate_tools.stream.stream import Repeated, Section, Stream, open_stream
from vmstate_tools.vmstate.decode import Rows, affordable, rows_of
from vmstate_tools.vmstate.layout import BYTES, Layout

# Arrays longer than this are one row of bytes in a frame of many streams: a TCE table has 262,144 entries.
FOLD = 1024

# What a file of a directory must be called to be taken for a stream.
SUFFIXES = (".mig", ".mig.zst", ".mig.gz", ".mig.xz", ".mig.bz2", ".mig.lz4")

# SPR number of the processor version register (target/ppc/cpu.h: SPR_PVR).
SPR_PVR = 287

# Column of `Collection.cpu` -> the names its field has had in the `cpu` section (target/ppc/machine.c).
CPU_WORDS = {
    "pvr": (f"env.spr[{SPR_PVR}]",),
    "msr_mask": ("env.msr_mask", "mig_msr_mask"),
    "insns_flags": ("env.insns_flags", "mig_insns_flags"),
    "insns_flags2": ("env.insns_flags2", "mig_insns_flags2"),
    "nb_bats": ("env.nb_BATs", "mig_nb_BATs"),
}


@dataclass
class _Table:
    """The fields of one stream: a piece of `Rows` for each described section, shared by all streams that have it."""

    rows: list[Rows]
    sections: list[tuple[str, int, int]]  # idstr, instance_id, version_id of the described sections
    base: list[int]  # payload offset of each
    numbers: list[bytes]  # of each the payload as far as there are numbers; where that is long, the decoded words
    blobs: list[bytes | int]  # an int stands for so many zeros: a fresh guest's TCE table is 2 MiB of them
    extra: _Leaves | None  # of undescribed sections

    @functools.cached_property
    def described(self) -> int:
        """How many rows described sections have."""
        return sum(map(len, self.rows))

    def __len__(self) -> int:
        return self.described + (len(self.extra) if self.extra else 0)


@dataclass
class _Leaves:
    """The leaves of undescribed sections as columns; `before`: how many of the described rows stand before each."""

    section: list[str]
    vmsd: list[str]
    path: list[str]
    type: list[str]
    instance_id: npt.NDArray[np.uint32]
    version_id: npt.NDArray[np.uint32]
    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    value: ValueArray
    before: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.before)


# Payloads of more than this are decoded where they lie, and not with those of other streams.
_TOGETHER = 1 << 16


def _table(stream: Stream, sections: Sequence[Section], fold: int | None) -> _Table:
    """The fields of these sections; their numbers are decoded with those of other streams, by `_words`."""
    described = [s for s in sections if s.described]
    layouts = [stream.layout(s) for s in described]
    fold = affordable(layouts, fold)
    parts = [rows_of(layout, fold) for layout in layouts]
    numbers: list[bytes] = []
    blobs: list[bytes | int] = []
    for section, rows in zip(described, parts, strict=True):
        start = section.payload_offset
        payload = stream._view[start : start + rows.reach]
        if rows.reach > _TOGETHER:
            numbers.append(rows.decode(np.frombuffer(payload, np.uint8)[None]).tobytes())
        else:
            numbers.append(bytes(payload))
        if len(which := rows.buffers):
            for offset, size in zip(rows.offset[which].tolist(), rows.size[which].tolist(), strict=True):
                blobs.append(_bytes(stream._view, start + offset, size))
    base = [s.payload_offset for s in described]
    return _Table(
        parts,
        [(s.idstr, s.instance_id, s.version_id) for s in described],
        base,
        numbers,
        blobs,
        _undescribed(stream, [s for s in sections if not s.described], base, [len(rows) for rows in parts]),
    )


def _words(tables: Sequence[_Table]) -> list[npt.NDArray[np.uint64]]:
    """The numbers of the described rows of each, as `Rows.decode`: of one layout all together."""
    words = [np.empty(table.described, np.uint64) for table in tables]
    alike: dict[bytes, tuple[Rows, list[bytes], list[npt.NDArray[np.uint64]]]] = {}
    for table, own in zip(tables, words, strict=True):
        at = 0
        for rows, payload in zip(table.rows, table.numbers, strict=True):
            place = own[at : at + len(rows)]
            at += len(rows)
            if rows.reach > _TOGETHER:
                place[:] = np.frombuffer(payload, np.uint64)
            else:
                _, payloads, places = alike.setdefault(rows.key, (rows, [], []))
                payloads.append(payload)
                places.append(place)
    for rows, payloads, places in alike.values():
        data = np.frombuffer(b"".join(payloads), np.uint8)
        for place, numbers in zip(places, rows.decode(data.reshape(len(places), rows.reach)), strict=True):
            place[:] = numbers
    return words


def _bytes(view: memoryview, at: int, size: int) -> bytes | int:
    """These bytes, as `_Table.blobs` has them."""
    if size >= 4096 and not np.frombuffer(view[at : at + size], np.uint8).max(initial=0):
        return size
    return bytes(view[at : at + size])


@functools.lru_cache(maxsize=64)
def _zeros(size: int) -> bytes:
    return bytes(size)


def _undescribed(
    stream: Stream, sections: Sequence[Section], base: Sequence[int], lengths: Sequence[int]
) -> _Leaves | None:
    """The leaves of these sections, between described ones of so many rows that start at `base`."""
    rows = sorted((leaf for s in sections for leaf in _leaves(stream, s)), key=lambda leaf: leaf[5])
    if not rows:
        return None
    section, instance, version, path, type_, offset, size, value = zip(*rows, strict=True)
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return _Leaves(
        list(section),
        [""] * len(rows),
        list(path),
        list(type_),
        np.array(instance, np.uint32),
        np.array(version, np.uint32),
        np.array(offset, np.int64),
        np.array(size, np.int64),
        ValueArray._from_sequence(value),
        starts[np.searchsorted(base, offset)],
    )


def _leaves(stream: Stream, section: Section) -> Iterator[tuple[str, int, int, str, str, int, int, Any]]:
    who = (section.idstr, section.instance_id, section.version_id)
    for leaf in section.leaves:
        value = leaf.value.encode() if isinstance(leaf.value, str) else leaf.value
        yield (*who, leaf.path, leaf.type, leaf.offset, leaf.size, value)
    if not section.leaves and section.payload_size:
        at, size = section.payload_offset, section.payload_size
        yield (*who, "data", "opaque", at, size, bytes(stream._view[at : at + size]))


def fields_of(stream: Stream, sections: Sequence[Section], fold: int | None) -> pd.DataFrame:
    """The fields of these sections of one stream: see `Stream.fields`."""
    return _fields_frame([_table(stream, sections, fold)])


def _fields_frame(tables: Sequence[_Table], keys: dict[str, pd.Categorical] | None = None) -> pd.DataFrame:
    """One frame of all fields, each stream's in file order; in front the columns `keys`, given by stream."""
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

    def __init__(self, tables: Sequence[_Table], keys: dict[str, pd.Categorical]) -> None:
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

    def code(self, table: _Table) -> _Arrays:
        """Number the table's names, in order; the columns of its leaves."""
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

    def shape(self, table: _Table) -> _Arrays:
        """The columns that are the same in every stream of these sections; `offset` relative to the payload."""
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

    def fill(self, places: Sequence[tuple[int, _Table, _Arrays, int, int]]) -> None:
        """Put streams' tables, with the columns of their leaves, where their rows and their blobs begin."""
        decoded = _words([table for _, table, *_ in places])
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
        """As `Stream.fields`; the paths of more than one stream are categories, too."""
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
    """An array to be filled. From 4 MiB on `np.empty` asks for huge pages, for which a virtual machine whose host has
    none waits four times as long as for small ones: more than everything else here takes.
    """
    size = rows * np.dtype(dtype).itemsize
    if size < 4 << 20 or not hasattr(mmap, "MAP_PRIVATE"):
        return np.empty(rows, dtype)
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype)


def _places(table: _Table) -> list[tuple[int, int, bool, int]]:
    """Stretches of the table's rows: from, to, whether they are leaves of undescribed sections, and from which on."""
    places = []
    done = leaves = 0
    counts = Counter(table.extra.before.tolist()) if table.extra else {}
    for before, count in [*counts.items(), (table.described, 0)]:
        places.append((done + leaves, before + leaves, False, done))
        places.append((before + leaves, before + leaves + count, True, leaves))
        done, leaves = before, leaves + count
    return [place for place in places if place[0] < place[1]]


def _paths(table: _Table) -> Any:
    """The path of each row, as a pandas array of text."""
    import pyarrow as pa

    text = pa.large_string()
    described = pa.concat_arrays([rows.paths for rows in table.rows]) if table.rows else pa.array([], text)
    extra = pa.array(table.extra.path if table.extra else [], text)
    parts = [(extra if leaves else described)[at : at + b - a] for a, b, leaves, at in _places(table)]
    dtype: Any = pd.array([], dtype="str").dtype
    return dtype.__from_arrow__(pa.concat_arrays(parts) if parts else extra)


class _Names:
    """Strings as codes, in order of first appearance."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def codes(self, names: Iterable[str]) -> npt.NDArray[np.int32]:
        numbers = self.numbers
        return np.array([numbers.setdefault(n, len(numbers)) for n in names], np.int32)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the codes in a `Categorical` of so many names."""
        return pd.Categorical.from_codes([], categories=pd.RangeIndex(len(self.numbers))).codes.dtype

    def categorical(self, codes: npt.NDArray[Any]) -> pd.Categorical:
        return pd.Categorical.from_codes(codes, categories=pd.Index(list(self.numbers), dtype="str"), validate=False)


# -- many streams ---------------------------------------------------------------------------------------------------


@dataclass
class _Extract:
    """What one stream gives to the frames; picklable."""

    file: str
    stream: dict[str, Any] = field(default_factory=dict)
    sections: list[tuple[Any, ...]] = field(default_factory=list)  # those that repeat one as one row
    cpus: list[dict[str, Any]] = field(default_factory=list)
    table: _Table | None = None
    error: StreamError | None = None


_SECTION_COLUMNS = (
    "idstr",
    "instance_id",
    "version_id",
    "section_id",
    "part",
    "offset",
    "size",
    "payload_size",
    "footer",
    "how",
)


def _section_rows(stream: Stream) -> Iterator[tuple[Any, ...]]:
    """The `_SECTION_COLUMNS` of each section, and how many there are of it, one behind the other."""
    for record in stream._read:
        if isinstance(record, (Section, Repeated)):
            s, count = (record.first, record.count) if isinstance(record, Repeated) else (record, 1)
            footer = s.footer is not None
            yield (
                s.idstr,
                s.instance_id,
                s.version_id,
                s.section_id,
                s.part,
                record.offset,
                s.size,
                s.payload_size,
                footer,
                s.how,
                count,
            )


def _extract(path: str, fold: int | None, fields: bool) -> _Extract:
    """Everything the frames need from one stream; a bad one gives its error."""
    result = _Extract(path)
    try:
        with open_stream(path) as stream:
            result.sections = list(_section_rows(stream))
            result.stream = {
                "machine": stream.machine,
                "page_size": stream.page_size,
                "container": stream.source.container,
                "stream_size": len(stream._view) - stream.source.start,
                "sections": sum(row[-1] for row in result.sections),
                "opaque": sum(s.payload_size for s in stream._distinct if s.how == "opaque"),
                "vmdesc_size": stream.vmdesc.size if stream.vmdesc else 0,
            }
            result.cpus = list(cpu_rows(stream))
            if fields:
                result.table = _table(stream, [s for s in stream._distinct if s.how != "ram"], fold)
    except (StreamError, OSError) as err:
        result.error = err if isinstance(err, StreamError) else StreamError(str(err), file=path)
    return result


def _extract_batch(paths: Sequence[str], fold: int | None, fields: bool) -> list[_Extract]:
    with _no_collection():
        extracts = [_extract(path, fold, fields) for path in paths]
        _share_rows(extracts, {})
    return extracts


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Nearly all that is made is kept: looking for garbage in it, again and again, takes a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _share_rows(extracts: Iterable[_Extract], known: dict[bytes, Rows]) -> None:
    """Where rows are equal let them be the same object, of `known` or put there."""
    for extract in extracts:
        if extract.table is not None:
            extract.table.rows = [known.setdefault(rows.key, rows) for rows in extract.table.rows]


def cpu_rows(stream: Stream) -> Iterator[dict[str, Any]]:
    """A dict for each CPU: section_instance, and the words of `CPU_WORDS` (int, None where not sent)."""
    for section in stream._distinct:
        if section.idstr != "cpu" or section.part != "full":
            continue
        row: dict[str, Any] = {"section_instance": section.instance_id, **dict.fromkeys(CPU_WORDS)}
        if section.described:
            layout = stream.layout(section)
            for column, offset, width in _cpu_places(layout):
                at = section.payload_offset + offset
                row[column] = int.from_bytes(stream._view[at : at + width], "big")
        yield row


@functools.lru_cache(maxsize=64)
def _cpu_places(layout: Layout) -> list[tuple[str, int, int]]:
    """Which of `CPU_WORDS` there are, their offset and width in bytes; none where there is no PVR."""
    found = [
        (column, *layout.place(leaf, element))
        for column, names in CPU_WORDS.items()
        for leaf, element in [place for name in names for place in layout.find(name)[:1]]
    ]
    return found if found and found[0][0] == "pvr" else []


class Collection:
    """Many streams as frames. `streams`, `sections`, `fields` and `cpu` carry the manifest's columns where the
    files have one beside them (`manifest.csv`).

    - streams: a row per stream: file, machine, page_size (bytes), container, stream_size (bytes), sections (count) …
    - sections: a row per section record: file, idstr, instance_id, version_id, part, offset, size (bytes) …
    - fields: a row per field (`Stream.fields`); arrays of more than `fold` values are one row
    - cpu: a row per CPU: file, section_instance, release, machine, model, pvr, msr_mask, insns_flags,
      insns_flags2, nb_bats: `UInt64`, NA where the stream does not carry it
    - errors: a row per stream that could not be read: file, offset, section, message, expected
    """

    def __init__(self, extracts: Sequence[_Extract], manifest: pd.DataFrame) -> None:
        self._good = [e for e in extracts if e.error is None]
        self._bad = [e for e in extracts if e.error is not None]
        self._manifest = manifest

    def __len__(self) -> int:
        return len(self._good)

    def __repr__(self) -> str:
        return f"<Collection of {len(self._good)} streams, {len(self._bad)} errors>"

    def _repr_html_(self) -> str:
        from vmstate_tools.stream.html import collection_html

        return collection_html(self)

    @property
    def has_fields(self) -> bool:
        """False where it was loaded with `fields=False`."""
        return all(e.table is not None for e in self._good)

    def pieces(self, size: int) -> Iterator[Collection]:
        """Collections of `size` streams each, with their errors; at least one."""
        extracts = self._good + self._bad
        for start in range(0, max(len(extracts), 1), size):
            yield Collection(extracts[start : start + size], self._manifest)

    def to_parquet(self, where: str | os.PathLike[str], *, shard: int = 0, overwrite: bool = False) -> None:
        """Write all frames as Parquet datasets below `where`, a directory or URL: `fields/shard=0/part-0.parquet` …

        The fields are decoded to frames some streams at a time. `shard` is the partition: many runs, each with its
        own, make one dataset. In `fields` the column `value` is a struct of `unsigned` (uint64), `signed` (int64),
        `bool`, `bytes` and `text`, one of which is not null; pandas reads it after
        `import vmstate_tools.frames.dtypes`.
        Raises FileExistsError where the shard is there already, unless `overwrite`.
        """
        from vmstate_tools.frames.parquet import write

        write(self, os.fspath(where), shard, overwrite)

    @functools.cached_property
    def _who(self) -> pd.DataFrame:
        """The manifest's row of each stream, in order."""
        return self._manifest.reindex([e.file for e in self._good]).reset_index(drop=True)

    @functools.cached_property
    def streams(self) -> pd.DataFrame:
        own = pd.DataFrame([e.stream for e in self._good], columns=_STREAM_COLUMNS)
        frame = pd.concat([pd.Series([e.file for e in self._good], name="file", dtype="str"), own], axis=1)
        for name in self._who.columns.difference(["file"], sort=False):
            if name not in frame:
                frame[name] = self._who[name]
        if "machine" in self._who:
            frame["machine"] = frame["machine"].astype("str").fillna(self._who["machine"])
        integers = dict.fromkeys(("page_size", "stream_size", "sections", "opaque", "vmdesc_size"), "Int64")
        return _leading(frame.astype({"machine": "str", "container": "category", **integers}), _KEYS)

    @property
    def _keys(self) -> dict[str, pd.Categorical]:
        """file and the manifest's main columns as categories, by stream."""
        return {name: pd.Categorical(self.streams[name]) for name in _KEYS if name in self.streams}

    @functools.cached_property
    def sections(self) -> pd.DataFrame:
        rows = [row for e in self._good for row in e.sections]
        frame = pd.DataFrame(rows, columns=[*_SECTION_COLUMNS, "count"]).astype(
            {
                "idstr": "category",
                "instance_id": "uint32",
                "version_id": "uint32",
                "section_id": "uint32",
                "part": "category",
                "offset": "int64",
                "size": "int64",
                "payload_size": "int64",
                "footer": "bool",
                "how": "category",
            }
        )
        count = frame.pop("count").to_numpy(np.int64)
        frame = frame.loc[np.repeat(np.arange(len(frame)), count)].reset_index(drop=True)
        within = np.arange(len(frame)) - np.repeat(np.cumsum(count) - count, count)
        frame["offset"] += within * frame["size"]
        stream = np.repeat(np.arange(len(self._good)), [e.stream["sections"] for e in self._good])
        keys = pd.DataFrame({name: key.take(stream) for name, key in self._keys.items()})
        return pd.concat([keys, frame], axis=1)

    @functools.cached_property
    def fields(self) -> pd.DataFrame:
        tables = [e.table for e in self._good if e.table is not None]
        if not self.has_fields:
            raise VmstateError("these streams were loaded with fields=False")
        return _fields_frame(tables, self._keys)

    @functools.cached_property
    def cpu(self) -> pd.DataFrame:
        rows = [{"file": e.file, **cpu} for e in self._good for cpu in e.cpus]
        # As objects first: where a word is missing pandas would make the column float64 and round it.
        frame = pd.DataFrame(rows, columns=["file", "section_instance", *CPU_WORDS], dtype=object)
        frame = frame.astype({"file": "str", "section_instance": "UInt32"} | dict.fromkeys(CPU_WORDS, "UInt64"))
        for word in ("insns_flags", "insns_flags2"):
            frame[word] = arrays.flag_words(word, frame[word])
        streams = self.streams.loc[np.repeat(np.arange(len(self._good)), [len(e.cpus) for e in self._good])]
        for place, name in enumerate(n for n in ("release", "machine", "cpu", "config") if n in streams):
            column = "model" if name == "cpu" else name
            frame.insert(place + 1, column, streams[name].set_axis(frame.index).astype("str"))
        return frame

    @functools.cached_property
    def errors(self) -> pd.DataFrame:
        rows = [
            (e.file, e.error.offset, e.error.section, e.error.message, e.error.expected) for e in self._bad if e.error
        ]
        frame = pd.DataFrame(rows, columns=["file", "offset", "section", "message", "expected"])
        return frame.astype({"offset": "Int64"} | dict.fromkeys(("file", "section", "message", "expected"), "str"))


_KEYS = ["file", "release", "machine", "cpu", "config"]
_STREAM_COLUMNS = ["machine", "page_size", "container", "stream_size", "sections", "opaque", "vmdesc_size"]


def _leading(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    first = [n for n in names if n in frame]
    return frame[first + [n for n in frame if n not in first]]


# Streams decoded together, and read by a worker at once.
_BATCH = 32


def load(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    executor: Executor | None = None,
    errors: str = "collect",
    *,
    fields: bool = True,
    fold: int | None = FOLD,
    progress: bool | None = None,
) -> Collection:
    """Load many streams into frames.

    Parameters
    ----------
    paths : files, URLs, or a directory (a URL that ends in `/`) whose `*.mig*` files are taken.
    executor : any `concurrent.futures.Executor`, of a Dask cluster too (`distributed.Client.get_executor`); its
        workers open the files themselves. Where a worker dies its streams are read again. None reads here.
    errors : 'collect' puts a bad stream into `Collection.errors`, 'raise' raises its StreamError.
    fields : False leaves out the fields, for when sections and CPU words are enough.
    fold : arrays of more values than this are one row of bytes; None unfolds everything.
    progress : show a bar; None shows one when there are many streams.
    """
    if errors not in ("collect", "raise"):
        raise ValueError(f"errors={errors!r}: 'collect' or 'raise'")
    from tqdm.auto import tqdm

    files = find_streams(paths)
    work = functools.partial(_extract_batch, fold=fold, fields=fields)
    results: Iterator[list[_Extract]]
    if executor is None:
        results = (work(files[i : i + _BATCH]) for i in range(0, len(files), _BATCH))
    else:
        results = spread(executor, work, files, _BATCH, lambda file, error: [_Extract(file, error=error)])
    extracts: list[_Extract] = []
    known: dict[bytes, Rows] = {}
    hidden = len(files) < 20 if progress is None else not progress
    with tqdm(total=len(files), unit="stream", disable=hidden, desc="loading") as bar:
        for batch in results:
            for extract in batch:
                if extract.error is not None and errors == "raise":
                    raise extract.error
            _share_rows(batch, known)  # each worker sent its own
            extracts += batch
            bar.update(len(batch))
    return Collection(extracts, manifest_rows(files))


def find_streams(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """The stream files that `paths` names: a directory, or a URL ending in `/`, stands for its `*.mig*` files, in
    name order.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    files: list[str] = []
    for path in given:
        name = os.fspath(path)
        if "://" in name and name.endswith("/"):
            import fsspec

            fs, folder = fsspec.core.url_to_fs(name)
            files += sorted(fs.unstrip_protocol(f) for f in fs.find(folder) if f.endswith(SUFFIXES))
        elif "://" not in name and Path(name).is_dir():
            files += sorted(str(p) for p in Path(name).rglob("*") if p.name.endswith(SUFFIXES))
        else:
            files.append(name)
    return files


def manifest_rows(files: Sequence[str]) -> pd.DataFrame:
    """The manifest rows of these files, indexed by file as given; from `manifest.csv` in a folder above."""
    tables: dict[Path, pd.DataFrame] = {}
    above: dict[str, list[tuple[Path, str]]] = {}  # folder as given -> those with a manifest, the way down again
    wanted: dict[Path, dict[str, str]] = {}  # folder -> file as given -> its name there
    for file in files:
        if "://" in file or file == "-":
            continue
        given, base = os.path.split(file)
        if given not in above:
            folder = Path(given).absolute()
            above[given] = []
            for place in (folder, *folder.parents)[:4]:
                if place not in tables and (table := place / "manifest.csv").is_file():
                    tables[place] = read_manifest(table).set_index("file")
                if place in tables:
                    above[given].append((place, (folder.relative_to(place) / "-").as_posix()[:-1]))
        for place, down in above[given]:
            if down + base in tables[place].index:
                wanted.setdefault(place, {})[file] = down + base
                break
    parts = []
    for place, own in wanted.items():
        parts.append(tables[place].loc[list(own.values())].set_axis(list(own)))
    return pd.concat(parts) if parts else pd.DataFrame()


def read_manifest(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A `manifest.csv`: releases stay text, empty cells stay empty text, numbers are `Int64`."""
    frame = pd.read_csv(path, dtype="str", keep_default_na=False)
    for name in frame.columns.intersection(["memory_mib", "size"]):
        frame[name] = pd.to_numeric(frame[name].replace("", None)).astype("Int64")
    return frame
