"""What is read of each file of a collection: small enough to be sent from process to process, no pandas in it."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import stat
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from vmstate_tools.errors import StreamError
from vmstate_tools.stream.cpu_words import cpu_rows
from vmstate_tools.stream.field_tables import FieldTable
from vmstate_tools.stream.records import Section, is_section
from vmstate_tools.stream.stream import Stream, open_stream
from vmstate_tools.vmstate.decode import Rows

SECTION_COLUMNS = (
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


@dataclass
class Extract:
    """What one stream gives to the frames; of a file that could not be read, what was raised for it."""

    file: str
    stream: dict[str, Any] = field(default_factory=dict)
    sections: list[tuple[Any, ...]] = field(default_factory=list)  # `SECTION_COLUMNS`, and how many there are in a row
    cpus: list[dict[str, Any]] = field(default_factory=list)  # of `cpu_rows`
    table: FieldTable | None = None  # None: without fields
    error: Exception | None = None
    labels: dict[str, Any] = field(default_factory=dict)  # the stream's row of a manifest


def extract_batch(paths: Sequence[str], fold: int | None, fields: bool) -> list[Extract]:
    """Reads these files; each that cannot be read gives its error and leaves the others as they are."""
    with _no_garbage_collection():
        extracts = [extract(path, fold, fields) for path in paths]
        share_rows(extracts, {})
    return extracts


def extract(path: str, fold: int | None, fields: bool) -> Extract:
    """Returns everything the frames need from one stream, or the exception that was raised for it.

    The exception is a StreamError where the file is to blame, and whatever came (MemoryError, RecursionError, a mistake
    of this package) where that is not known. Ctrl-C and the end of the interpreter pass.
    """
    try:
        _expect_no_fifo(path)
        with open_stream(path) as stream:
            return _read(path, stream, fold, fields)
    except OSError as err:
        return Extract(path, error=StreamError(str(err), file=path))
    except Exception as err:
        return failed(path, err)


def _expect_no_fifo(path: str) -> None:
    """Raises StreamError for a FIFO: without a writer it is never opened, and the files behind it are never read."""
    if "://" not in path and path != "-":
        with contextlib.suppress(OSError, ValueError):  # opening it says more
            if stat.S_ISFIFO(os.stat(path).st_mode):  # noqa: PTH116 - Path raises for names that are too long
                raise StreamError("a FIFO among many files", expected="a file; open a FIFO by itself", file=path)


def failed(path: str, error: Exception) -> Extract:
    """Returns the extract of a file for which this was raised; it can be sent to another process."""
    if not isinstance(error, StreamError):
        with contextlib.suppress(Exception):
            error.add_note("".join(traceback.format_exception(error, limit=-20)))
    # Frames of the traceback would keep all that was read so far in memory.
    error.__traceback__ = error.__context__ = error.__cause__ = None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return Extract(path, error=error)


def _read(path: str, stream: Stream, fold: int | None, fields: bool) -> Extract:
    sections = list(_section_rows(stream))
    return Extract(
        path,
        {
            "machine": stream.machine,
            "page_size": stream.page_size,
            "container": stream.source.container,
            "stream_size": len(stream.view) - stream.source.start,
            "sections": sum(row[-1] for row in sections),
            "opaque": sum(s.payload_size for s in stream.distinct_sections if s.how == "opaque"),
            "vmdesc_size": stream.vmdesc.size if stream.vmdesc else 0,
        },
        sections,
        list(cpu_rows(stream)),
        stream.field_table(fold=fold) if fields else None,
    )


def _section_rows(stream: Stream) -> Iterator[tuple[Any, ...]]:
    """Yields the `SECTION_COLUMNS` of each section, and how many there are of it, one behind the other."""
    for record in stream.records:
        if is_section(record):
            s, count = (record, 1) if isinstance(record, Section) else (record.first, record.count)
            yield (
                s.idstr,
                s.instance_id,
                s.version_id,
                s.section_id,
                s.part,
                record.offset,
                s.size,
                s.payload_size,
                s.footer is not None,
                s.how,
                count,
            )


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Switches garbage collection off in the block: nearly all stays in use, and the search costs a tenth."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def share_rows(extracts: Iterable[Extract], known: dict[bytes, Rows]) -> None:
    """Puts one object in the place of equal rows: that in `known`, which new ones are added to."""
    for each in extracts:
        if each.table is not None:
            each.table.rows = [known.setdefault(rows.key, rows) for rows in each.table.rows]
