"""Many streams → tidy pandas frames."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vmstate_tools import arrays
from vmstate_tools.arrays import ValueArray
from vmstate_tools.decode import BYTES, Rows, gather, rows_of
from vmstate_tools.errors import StreamError, VmstateError
from vmstate_tools.stream import Section, Stream, open_stream

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
    """The fields of one stream as columns; `rows` is shared by all streams of one shape."""

    rows: Rows
    sections: list[tuple[str, int, int]]  # idstr, instance_id, version_id of the described sections
    base: npt.NDArray[np.int64]  # payload offset of each
    words: npt.NDArray[np.uint64]
    blobs: list[bytes]
    extra: list[tuple[str, int, int, str, str, int, int, Any]]  # the undescribed sections' leaves, as rows

    def values(self) -> ValueArray:
        return ValueArray(self.words, self.rows.kind, self.blobs)


def _table(stream: Stream, sections: Sequence[Section], fold: int | None) -> _Table:
    described = [s for s in sections if s.description is not None]
    rows = _rows(stream, described, fold)
    base = np.array([s.payload_offset for s in described], np.int64)
    data = np.frombuffer(stream._view, np.uint8)
    offset = rows.offset + base[rows.section]
    words = gather(data, offset, rows.size, rows.kind)
    which = np.flatnonzero(rows.kind == BYTES)
    words[which] = np.arange(len(which))
    blobs = [
        bytes(stream._view[at : at + size])
        for at, size in zip(offset[which].tolist(), rows.size[which].tolist(), strict=True)
    ]
    return _Table(
        rows,
        [(s.idstr, s.instance_id, s.version_id) for s in described],
        base,
        words,
        blobs,
        [leaf for s in sections if s.description is None for leaf in _leaves(stream, s)],
    )


def _leaves(stream: Stream, section: Section) -> Iterator[tuple[str, int, int, str, str, int, int, Any]]:
    who = (section.idstr, section.instance_id, section.version_id)
    for leaf in section.leaves:
        value = leaf.value.encode() if isinstance(leaf.value, str) else leaf.value
        yield (*who, leaf.path, leaf.type, leaf.offset, leaf.size, value)
    if not section.leaves and section.payload_size:
        at, size = section.payload_offset, section.payload_size
        yield (*who, "data", "opaque", at, size, bytes(stream._view[at : at + size]))


def _rows(stream: Stream, described: Sequence[Section], fold: int | None) -> Rows:
    """The rows of these sections: made once for all streams with the same descriptions."""
    layouts = [stream.layout(s) for s in described]
    cache: dict[Any, Any] = stream.vmdesc.cache if stream.vmdesc is not None else {}
    key = ("rows", fold, tuple(id(layout) for layout in layouts))
    rows = cache.get(key)
    if rows is None:
        rows = rows_of(layouts, fold)
        if len(rows) < 100_000:
            cache[key] = rows
    return rows


def fields_of(stream: Stream, sections: Sequence[Section], fold: int | None) -> pd.DataFrame:
    """The fields of these sections of one stream: see `Stream.fields`."""
    return _fields_frame([_table(stream, sections, fold)])


def _fields_frame(tables: Sequence[_Table]) -> pd.DataFrame:
    """One frame of all fields, each stream's in file order. The index numbers the tables' rows anew."""
    paths, types, vmsds, idstrs = _Names(), _Names(), _Names(), _Names()
    coded: dict[int, tuple[Any, ...]] = {}
    columns: dict[str, list[Any]] = {
        n: [] for n in ("section", "instance_id", "version_id", "vmsd", "path", "type", "offset", "size")
    }
    values: list[ValueArray] = []
    for table in tables:
        rows = table.rows
        if id(rows) not in coded:
            coded[id(rows)] = (
                paths.codes(rows.paths),
                types.codes(rows.types[0])[rows.types[1]],
                vmsds.codes(rows.vmsds[0])[rows.vmsds[1]],
            )
        path, type_, vmsd = coded[id(rows)]
        who = np.array([(i, v) for _, i, v in table.sections], np.uint32).reshape(-1, 2)[rows.section]
        section = idstrs.codes([s for s, _, _ in table.sections])[rows.section]
        part: list[Any] = [
            section,
            who[:, 0],
            who[:, 1],
            vmsd,
            path,
            type_,
            rows.offset + table.base[rows.section],
            rows.size,
        ]
        value = table.values()
        if table.extra:
            idstr, instance, version, name, kind, offset, size, what = zip(*table.extra, strict=True)
            more = [
                idstrs.codes(idstr),
                np.array(instance, np.uint32),
                np.array(version, np.uint32),
                vmsds.codes([""] * len(idstr)),
                paths.codes(name),
                types.codes(kind),
                np.array(offset, np.int64),
                np.array(size, np.int64),
            ]
            part = [np.concatenate(list(pair)) for pair in zip(part, more, strict=True)]
            order = np.argsort(part[6], kind="stable")
            part = [each[order] for each in part]
            value = ValueArray._concat_same_type([value, ValueArray._from_sequence(what)])[order]
        for column, values_of in zip(columns.values(), part, strict=True):
            column.append(values_of)
        values.append(value)
    empty = np.empty(0, np.int64)
    whole: dict[str, Any] = {name: np.concatenate(parts) if parts else empty for name, parts in columns.items()}
    return pd.DataFrame(
        {
            "section": idstrs.categorical(whole["section"]),
            "instance_id": whole["instance_id"].astype(np.uint32, copy=False),
            "version_id": whole["version_id"].astype(np.uint32, copy=False),
            "vmsd": vmsds.categorical(whole["vmsd"]),
            "path": paths.categorical(whole["path"]) if len(tables) > 1 else paths.strings(whole["path"]),
            "type": types.categorical(whole["type"]),
            "offset": whole["offset"].astype(np.int64, copy=False),
            "size": whole["size"].astype(np.int64, copy=False),
            "value": ValueArray._concat_same_type(values) if values else ValueArray._from_sequence([]),
        }
    )


class _Names:
    """Strings as codes, in order of first appearance."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def codes(self, names: Iterable[str]) -> npt.NDArray[np.int32]:
        numbers = self.numbers
        return np.array([numbers.setdefault(n, len(numbers)) for n in names], np.int32)

    def categorical(self, codes: npt.NDArray[np.int32]) -> pd.Categorical:
        return pd.Categorical.from_codes(codes, categories=pd.Index(list(self.numbers), dtype="str"))

    def strings(self, codes: npt.NDArray[np.int32]) -> Any:
        return pd.array(list(self.numbers), dtype="str").take(codes)


# -- many streams ---------------------------------------------------------------------------------------------------


@dataclass
class _Extract:
    """What one stream gives to the frames; picklable."""

    file: str
    stream: dict[str, Any] = field(default_factory=dict)
    sections: list[tuple[Any, ...]] = field(default_factory=list)
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


def _extract(path: str, fold: int | None, fields: bool) -> _Extract:
    """Everything the frames need from one stream; a bad one gives its error."""
    result = _Extract(path)
    try:
        with open_stream(path) as stream:
            sections = stream.sections
            result.sections = [
                (
                    s.idstr,
                    s.instance_id,
                    s.version_id,
                    s.section_id,
                    s.part,
                    s.offset,
                    s.size,
                    s.payload_size,
                    s.footer is not None,
                    s.how,
                )
                for s in sections
            ]
            result.stream = {
                "machine": stream.machine,
                "page_size": stream.page_size,
                "container": stream.source.container,
                "stream_size": len(stream._view) - stream.source.start,
                "sections": len(sections),
                "opaque": sum(s.payload_size for s in sections if s.how == "opaque"),
                "vmdesc_size": stream.vmdesc.size if stream.vmdesc else 0,
            }
            result.cpus = list(cpu_rows(stream))
            if fields:
                result.table = _table(stream, [s for s in sections if s.how != "ram"], fold)
    except (StreamError, OSError) as err:
        result.error = err if isinstance(err, StreamError) else StreamError(str(err), file=path)
    return result


def _extract_batch(paths: Sequence[str], fold: int | None, fields: bool) -> list[_Extract]:
    return [_extract(path, fold, fields) for path in paths]


def cpu_rows(stream: Stream) -> Iterator[dict[str, Any]]:
    """A dict for each CPU: section_instance, and the words of `CPU_WORDS` (int, None where not sent)."""
    for section in stream.sections:
        if section.idstr != "cpu" or section.part != "full":
            continue
        row: dict[str, Any] = {"section_instance": section.instance_id, **dict.fromkeys(CPU_WORDS)}
        if section.description is not None and (layout := stream.layout(section)).find(CPU_WORDS["pvr"][0]):
            for column, names in CPU_WORDS.items():
                for name in names:
                    if layout.find(name):
                        row[column] = stream.value("cpu", name, instance=section.instance_id)
        yield row


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
        from vmstate_tools.html import collection_html

        return collection_html(self)

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

    def _keys(self, counts: Sequence[int]) -> dict[str, Any]:
        """file and the manifest's main columns as categories, each stream's repeated `counts` times."""
        streams = self.streams
        columns = {}
        for name in _KEYS:
            if name in streams:
                values = pd.Categorical(streams[name])
                codes = np.repeat(values.codes, counts)
                columns[name] = pd.Categorical.from_codes(codes, dtype=values.dtype)
        return columns

    @functools.cached_property
    def sections(self) -> pd.DataFrame:
        rows = [row for e in self._good for row in e.sections]
        frame = pd.DataFrame(rows, columns=list(_SECTION_COLUMNS)).astype(
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
        keys = pd.DataFrame(self._keys([len(e.sections) for e in self._good]))
        return pd.concat([keys, frame], axis=1)

    @functools.cached_property
    def fields(self) -> pd.DataFrame:
        tables = [e.table for e in self._good if e.table is not None]
        if len(tables) != len(self._good):
            raise VmstateError("these streams were loaded with fields=False")
        frame = _fields_frame(tables)
        keys = pd.DataFrame(self._keys([len(t.rows) + len(t.extra) for t in tables]))
        return pd.concat([keys, frame], axis=1)

    @functools.cached_property
    def cpu(self) -> pd.DataFrame:
        rows = [{"file": e.file, **cpu} for e in self._good for cpu in e.cpus]
        # As objects first: where a word is missing pandas would make the column float64 and round it.
        frame = pd.DataFrame(rows, columns=["file", "section_instance", *CPU_WORDS], dtype=object)
        frame = frame.astype({"file": "str", "section_instance": "UInt32"} | dict.fromkeys(CPU_WORDS, "UInt64"))
        for word in ("insns_flags", "insns_flags2"):
            frame[word] = arrays.flag_words(word, frame[word])
        streams = self.streams.set_index("file")
        for place, name in enumerate(n for n in ("release", "machine", "cpu", "config") if n in streams):
            column = "model" if name == "cpu" else name
            frame.insert(place + 1, column, frame["file"].map(streams[name]).astype("str"))
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
    paths : files, URLs, or a directory whose `*.mig*` files are taken.
    executor : any `concurrent.futures.Executor`; None reads here, one after another.
    errors : 'collect' puts a bad stream into `Collection.errors`, 'raise' raises its StreamError.
    fields : False leaves out the fields, for when sections and CPU words are enough.
    fold : arrays of more values than this are one row of bytes; None unfolds everything.
    progress : show a bar; None shows one when there are many streams.
    """
    if errors not in ("collect", "raise"):
        raise ValueError(f"errors={errors!r}: 'collect' or 'raise'")
    from tqdm.auto import tqdm

    files = find_streams(paths)
    size = 16 if executor is not None else 1
    batches = [files[i : i + size] for i in range(0, len(files), size)]
    run = map if executor is None else executor.map
    results = run(functools.partial(_extract_batch, fold=fold, fields=fields), batches)
    extracts: list[_Extract] = []
    hidden = len(files) < 20 if progress is None else not progress
    with tqdm(total=len(files), unit="stream", disable=hidden, desc="loading") as bar:
        for batch in results:
            for extract in batch:
                if extract.error is not None and errors == "raise":
                    raise extract.error
                extracts.append(extract)
            bar.update(len(batch))
    return Collection(extracts, manifest_rows(files))


def find_streams(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """The stream files that `paths` names: a directory stands for its `*.mig*` files, in name order."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    files: list[str] = []
    for path in given:
        name = os.fspath(path)
        if "://" not in name and Path(name).is_dir():
            files += sorted(str(p) for p in Path(name).rglob("*") if p.name.endswith(SUFFIXES))
        else:
            files.append(name)
    return files


def manifest_rows(files: Sequence[str]) -> pd.DataFrame:
    """The manifest rows of these files, indexed by file as given; from `manifest.csv` in a folder above."""
    found: dict[Path, pd.DataFrame | None] = {}
    rows: dict[str, Any] = {}
    for file in files:
        if "://" in file or file == "-":
            continue
        path = Path(file)
        for folder in list(path.absolute().parents)[:4]:
            if folder not in found:
                table = folder / "manifest.csv"
                found[folder] = read_manifest(table).set_index("file") if table.is_file() else None
            manifest = found[folder]
            name = path.absolute().relative_to(folder).as_posix()
            if manifest is not None and name in manifest.index:
                rows[file] = manifest.loc[name]
                break
    return pd.DataFrame.from_dict(rows, orient="index") if rows else pd.DataFrame()


def read_manifest(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A `manifest.csv`: releases stay text, empty cells stay empty text, numbers are `Int64`."""
    frame = pd.read_csv(path, dtype="str", keep_default_na=False)
    for name in frame.columns.intersection(["memory_mib", "size"]):
        frame[name] = pd.to_numeric(frame[name].replace("", None)).astype("Int64")
    return frame
