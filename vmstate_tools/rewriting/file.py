"""Writes a stream with fields changed. Sizes never change, and all other bytes stay as they are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vmstate_tools.rewriting.changes import Change, Edit, Value, changes_of, patched
from vmstate_tools.rewriting.for_release import changes_for
from vmstate_tools.source import zstd
from vmstate_tools.source.new_file import new_file
from vmstate_tools.stream.stream import Stream, open_stream

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("section", "instance_id", "path", "type", "offset", "before", "after", "why")


def rewrite(
    stream: Stream | str | os.PathLike[str] | BinaryIO,
    out: str | os.PathLike[str] | BinaryIO,
    changes: Mapping[Any, Value] | None = None,
    *,
    release: str | None = None,
    machine: str | None = None,
    cpu: str | None = None,
    accel: str | None = None,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Writes a stream with fields changed.

    Parameters
    ----------
    stream : an open stream, or where it is.
    out : a file (compressed where it is called `.zst`), or a binary file open for writing.
    changes : (section, path) → value, or (section, path, vmsd) where several subsections have that path. The section
        is an idstr, meaning all its instances that have the field, or idstr/instance_id. Values are int or bool for
        numbers, bytes or hex digits for buffers; text like "0x10" stands for its number.
    release : set what this QEMU release would check of the CPUs (`vmstate_tools.rewriting.for_release`).
    machine, cpu, accel : for `release`, what the stream does not say: machine type (before 2.4), CPU model, "tcg" or
        "kvm".
    overwrite : replace `out` if it exists.

    Returns
    -------
    What was changed, a row each: section, instance_id, path, type, offset, before, after, why. A field that has its
    value already is not in it.

    Raises
    ------
    RewriteError : no such field, a value out of its range, or what `release` needs would be a lie.
    FileExistsError : `out` is there, and not `overwrite`; or it is the stream itself, a link, a device or a FIFO.
    StreamError : the stream cannot be read.
    """
    edit = edit_of(changes, release, machine, cpu, accel)
    if isinstance(stream, Stream):
        return _written(stream, out, edit, overwrite, stream.files)
    with open_stream(stream) as opened:
        return _written(opened, out, edit, overwrite, [stream, *opened.files])


def edit_of(
    changes: Mapping[Any, Value] | None,
    release: str | None = None,
    machine: str | None = None,
    cpu: str | None = None,
    accel: str | None = None,
) -> Edit:
    """Returns what `rewrite` is asked for, as a function of a stream."""

    def edit(stream: Stream) -> list[Change]:
        found: list[Change] = []
        if release is not None:
            found += changes_for(stream, release, machine=machine, cpu=cpu, accel=accel)
        return found + changes_of(stream, changes or {})

    return edit


def _written(
    stream: Stream, out: str | os.PathLike[str] | BinaryIO, edit: Edit, overwrite: bool, inputs: Sequence[Any]
) -> pd.DataFrame:
    done = list(edit(stream))
    view = stream.source.view
    if not isinstance(out, (str, os.PathLike)):
        for piece in patched(view, done):
            out.write(piece)
        return frame_of(done)
    with new_file(out, overwrite=overwrite, inputs=inputs, guest_memory=True) as file:
        if Path(out).suffix == ".zst":
            with zstd.writer(file) as packed:
                for piece in patched(view, done):
                    packed.write(piece)
        else:
            for piece in patched(view, done):
                file.write(piece)
    return frame_of(done)


def frame_of(changes: Sequence[Change]) -> pd.DataFrame:
    """Returns the changes as a frame, a row each, with the columns of `COLUMNS`."""
    import pandas as pd

    return pd.DataFrame([[getattr(c, name) for name in COLUMNS] for c in changes], columns=list(COLUMNS))
