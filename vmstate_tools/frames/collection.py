"""Many streams as pandas frames."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vmstate_tools.errors import StreamError, VmstateError, plain_text
from vmstate_tools.frames.dtypes import flag_words
from vmstate_tools.frames.extract import SECTION_COLUMNS, Extract
from vmstate_tools.frames.manifest import NUMBERS
from vmstate_tools.frames.names import MODEL_NAMES
from vmstate_tools.frames.releases import release_column
from vmstate_tools.stream.cpu_words import CPU_WORDS
from vmstate_tools.stream.field_frames import fields_frame

# Columns that tell streams apart; they come first, and stand in every frame.
_KEYS = ["file", "release", "machine", "cpu", "config"]
_STREAM_COLUMNS = ["machine", "page_size", "container", "stream_size", "sections", "opaque", "vmdesc_size"]


class Collection:
    """Many streams as frames, each made when it is first asked for.

    Where a manifest names the streams (see `load`), its columns stand in `streams`, and release, machine, cpu and
    config in the other frames too. `release` is an ordered categorical: 2.6 before 2.7 before 2.10. CPU models have one
    spelling, the catalog's. A byte of a file's name that is not UTF-8 is written as `\\udcff` (ff: the byte).

    Attributes
    ----------
    streams : a row per stream: file, machine, page_size (bytes), container, stream_size (bytes, not compressed),
        sections (how many), opaque (bytes of sections that nothing describes), vmdesc_size (bytes, 0 without one);
        numbers are Int64.
    sections : a row per section record: file, idstr, instance_id, version_id, section_id (uint32), part, offset, size,
        payload_size (int64, bytes), footer (bool), how (what it was read by).
    fields : a row per field, as `Stream.fields` has them; arrays of more than `fold` values are one row of bytes.
    cpu : a row per CPU: file, section_instance (UInt32), release, machine, model, pvr, msr_mask, insns_flags,
        insns_flags2, nb_bats (UInt64, NA where the stream does not carry it; target/ppc/machine.c: `vmstate_ppc_cpu`).
    errors : a row per file that could not be read: file, offset (Int64, bytes), section, message, expected.
    """

    def __init__(self, extracts: Sequence[Extract]) -> None:
        self._good = [e for e in extracts if e.error is None]
        self._bad = [e for e in extracts if e.error is not None]

    def __len__(self) -> int:
        return len(self._good)

    def __repr__(self) -> str:
        return f"<Collection of {len(self._good)} streams, {len(self._bad)} errors>"

    def _repr_html_(self) -> str:
        from vmstate_tools.frames.html import collection_html

        return collection_html(self.streams, self.errors)

    @property
    def has_fields(self) -> bool:
        """Returns False where it was loaded with `fields=False`."""
        return all(e.table is not None for e in self._good)

    def pieces(self, size: int) -> Iterator[Collection]:
        """Yields collections of `size` streams each, with their errors; at least one."""
        extracts = self._good + self._bad
        for start in range(0, max(len(extracts), 1), size):
            yield Collection(extracts[start : start + size])

    def to_parquet(self, where: str | os.PathLike[str], *, shard: int = 0, overwrite: bool = False) -> None:
        """Writes all frames as Parquet datasets below `where`, a directory or URL: `fields/shard=0/part-0.parquet` …

        The fields are decoded to frames some streams at a time. `shard` is the partition: many runs, each with its
        own, make one dataset. In `fields` the column `value` is a struct of `unsigned` (uint64), `signed` (int64),
        `bool`, `bytes` and `text`, one of which is not null; pandas reads it after
        `import vmstate_tools.frames.dtypes`. Categories are read as such, but have no order there.

        Raises
        ------
        FileExistsError : the shard is there already, and not `overwrite`.
        """
        from vmstate_tools.frames.parquet import write

        write(self, os.fspath(where), shard, overwrite)

    @functools.cached_property
    def streams(self) -> pd.DataFrame:
        own = pd.DataFrame([e.stream for e in self._good], columns=_STREAM_COLUMNS)
        frame = pd.concat([pd.Series([plain_text(e.file) for e in self._good], name="file", dtype="str"), own], axis=1)
        labels = self._labels
        for name in labels:
            if name not in frame:
                frame[name] = labels[name]
        if "machine" in labels:
            frame["machine"] = frame["machine"].astype("str").fillna(labels["machine"])
        integers = dict.fromkeys(("page_size", "stream_size", "sections", "opaque", "vmdesc_size"), "Int64")
        frame = frame.astype({"machine": "str", "container": "category", **integers})
        first = [name for name in _KEYS if name in frame]
        return frame[first + [name for name in frame if name not in first]]

    @property
    def _labels(self) -> pd.DataFrame:
        """Returns what manifests say of the streams, a row each."""
        names = dict.fromkeys(name for e in self._good for name in e.labels)
        columns: dict[str, Any] = {}
        for name in names:
            values = [e.labels.get(name) for e in self._good]
            if name == "release":
                columns[name] = release_column(values)
            elif name in NUMBERS:
                columns[name] = pd.array(values, "Int64")
            else:
                if name == "cpu":
                    values = [MODEL_NAMES.get(value.lower(), value) if value else value for value in values]
                columns[name] = pd.array(values, "str")
        return pd.DataFrame(columns, index=range(len(self._good)))

    @property
    def _keys(self) -> dict[str, pd.Categorical]:
        """Returns the columns of `_KEYS` that are known, as categories, by stream."""
        return {name: pd.Categorical(self.streams[name]) for name in _KEYS if name in self.streams}

    @functools.cached_property
    def sections(self) -> pd.DataFrame:
        rows = [row for e in self._good for row in e.sections]
        frame = pd.DataFrame(rows, columns=[*SECTION_COLUMNS, "count"]).astype(
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
        rows = [{"file": plain_text(e.file), **cpu} for e in self._good for cpu in e.cpus]
        # As objects first: where a word is missing pandas would make the column float64 and round it.
        frame = pd.DataFrame(rows, columns=["file", "section_instance", *CPU_WORDS], dtype=object)
        frame = frame.astype({"file": "str", "section_instance": "UInt32"} | dict.fromkeys(CPU_WORDS, "UInt64"))
        for word in ("insns_flags", "insns_flags2"):
            frame[word] = flag_words(word, frame[word])
        streams = self.streams.loc[np.repeat(np.arange(len(self._good)), [len(e.cpus) for e in self._good])]
        for place, name in enumerate(n for n in ("release", "machine", "cpu", "config") if n in streams):
            frame.insert(place + 1, "model" if name == "cpu" else name, streams[name].set_axis(frame.index))
        return frame

    @functools.cached_property
    def errors(self) -> pd.DataFrame:
        rows = []
        for extract in self._bad:
            error = extract.error
            if not isinstance(error, StreamError):
                error = StreamError(f"{type(error).__name__}: {error}")
            texts = (error.section, error.message, error.expected)
            section, message, expected = (None if text is None else plain_text(text) for text in texts)
            rows.append((plain_text(extract.file), error.offset, section, message, expected))
        frame = pd.DataFrame(rows, columns=["file", "offset", "section", "message", "expected"])
        return frame.astype({"offset": "Int64"} | dict.fromkeys(("file", "section", "message", "expected"), "str"))
