"""Many streams → tidy pandas frames."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vmstate_tools.errors import StreamError, VmstateError
from vmstate_tools.frames import dtypes as arrays
from vmstate_tools.frames.executors import spread
from vmstate_tools.stream.cpu_words import CPU_WORDS, cpu_rows
from vmstate_tools.stream.field_frames import fields_frame
from vmstate_tools.stream.field_tables import FieldTable
from vmstate_tools.stream.records import Repeated, Section
from vmstate_tools.stream.stream import Stream, open_stream
from vmstate_tools.vmstate.decode import Rows

# Arrays longer than this are one row of bytes in a frame of many streams: a TCE table has 262,144 entries.
FOLD = 1024

# What a file of a directory must be called to be taken for a stream.
SUFFIXES = (".mig", ".mig.zst", ".mig.gz", ".mig.xz", ".mig.bz2", ".mig.lz4")


@dataclass
class _Extract:
    """What one stream gives to the frames; picklable."""

    file: str
    stream: dict[str, Any] = field(default_factory=dict)
    sections: list[tuple[Any, ...]] = field(default_factory=list)  # those that repeat one as one row
    cpus: list[dict[str, Any]] = field(default_factory=list)
    table: FieldTable | None = None
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
    for record in stream.records:
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
                "stream_size": len(stream.view) - stream.source.start,
                "sections": sum(row[-1] for row in result.sections),
                "opaque": sum(s.payload_size for s in stream.distinct_sections if s.how == "opaque"),
                "vmdesc_size": stream.vmdesc.size if stream.vmdesc else 0,
            }
            result.cpus = list(cpu_rows(stream))
            if fields:
                result.table = stream.field_table(fold=fold)
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
        from vmstate_tools.frames.html import collection_html

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
        return fields_frame(tables, self._keys)

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
