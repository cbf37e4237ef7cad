"""A stream with fields changed. Sizes never change, and what is not changed stays as it is, byte for byte."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vmstate_tools.arrays import format_value
from vmstate_tools.decode import BOOL, BYTES, SIGNED, Layout
from vmstate_tools.errors import RewriteError
from vmstate_tools.stream import Section, Stream, open_stream

if TYPE_CHECKING:
    import pandas as pd

Value = int | bool | bytes | str
_BOOLS = {"true": 1, "false": 0}


@dataclass(frozen=True)
class Change:
    """A field and its new value. `offset` and `size` in bytes, from the start of the file; `why`: for the reader."""

    section: str
    instance_id: int
    path: str
    type: str
    kind: int
    offset: int
    size: int
    before: int | bool | bytes
    after: int | bool | bytes
    why: str = ""

    def to(self, value: Value, why: str = "") -> Change:
        """The same field with that value instead. Raises RewriteError where it does not fit."""
        return replace(self, after=self._fitting(value), why=why)

    def _fitting(self, value: Value) -> int | bool | bytes:
        name = f"{self.section}/{self.instance_id} {self.path}"
        if self.kind == BYTES:
            data: Value | None = value
            if isinstance(value, str):
                with contextlib.suppress(ValueError):
                    data = bytes.fromhex(value.removeprefix("0x"))
            if not isinstance(data, bytes) or len(data) != self.size:
                raise RewriteError(f"{name} takes {self.size} bytes, not {value!r}")
            return data
        number: Value | None = value
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                number = _BOOLS[value.lower()] if value.lower() in _BOOLS else int(value, 0)
        bits = 8 * self.size
        if self.kind == BOOL:
            low, high = 0, 1
        elif self.kind == SIGNED:
            low, high = -(1 << bits - 1), (1 << bits - 1) - 1
        else:
            low, high = 0, (1 << bits) - 1
        if not isinstance(number, (int, np.integer)) or not low <= number <= high:
            raise RewriteError(f"{name} is {self.type!r} and takes numbers from {low} to {high}, not {value!r}")
        return bool(number) if self.kind == BOOL else int(number)

    @property
    def data(self) -> bytes:
        """The new value as it stands in the stream."""
        if isinstance(self.after, bytes):
            return self.after
        return int(self.after).to_bytes(self.size, "big", signed=self.kind == SIGNED)

    def __str__(self) -> str:
        values = f"{format_value(self.before)} -> {format_value(self.after)}"
        text = f"{self.section}/{self.instance_id} {self.path}: {values}"
        return text + (f" ({self.why})" if self.why else "")


COLUMNS = ("section", "instance_id", "path", "type", "offset", "before", "after", "why")

Edit = Callable[[Stream], Iterable[Change]]
"""What is to be changed in a stream: called once, with the stream or, on a pipe, with its device sections."""


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
    """Write a stream with fields changed.

    Parameters
    ----------
    stream : an open stream, or where it is.
    out : a file (compressed where it is called `.zst`), or a binary file open for writing.
    changes : (section, path) → value, or (section, path, vmsd) where several subsections have that path. The section
        is an idstr, meaning all its instances that have the field, or idstr/instance_id. Values are int or bool for
        numbers, bytes or hex digits for buffers; text like "0x10" stands for its number.
    release : set what this QEMU release would check of the CPUs (`vmstate_tools.repair`).
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
    FileExistsError : `out` is there, and not `overwrite`.
    StreamError : the stream cannot be read.
    """
    if isinstance(stream, Stream):
        return _written(stream, out, edit_of(changes, release, machine, cpu, accel), overwrite)
    with open_stream(stream) as opened:
        return _written(opened, out, edit_of(changes, release, machine, cpu, accel), overwrite)


def edit_of(
    changes: Mapping[Any, Value] | None,
    release: str | None = None,
    machine: str | None = None,
    cpu: str | None = None,
    accel: str | None = None,
) -> Edit:
    """What `rewrite` was asked for, as a function of a stream."""

    def edit(stream: Stream) -> list[Change]:
        found: list[Change] = []
        if release is not None:
            from vmstate_tools.repair import changes_for

            found += changes_for(stream, release, machine=machine, cpu=cpu, accel=accel)
        return found + changes_of(stream, changes or {})

    return edit


def _written(stream: Stream, out: str | os.PathLike[str] | BinaryIO, edit: Edit, overwrite: bool) -> pd.DataFrame:
    done = list(edit(stream))
    view = stream.source.view
    if not isinstance(out, (str, os.PathLike)):
        for piece in patched(view, done):
            out.write(piece)
        return frame_of(done)
    path = Path(out)
    if path.exists() and not overwrite:
        raise FileExistsError(17, "exists already", str(path))
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            if path.suffix == ".zst":
                import zstandard

                with zstandard.ZstdCompressor(write_checksum=True).stream_writer(file, closefd=False) as packed:
                    for piece in patched(view, done):
                        packed.write(piece)
            else:
                for piece in patched(view, done):
                    file.write(piece)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return frame_of(done)


def patched(view: memoryview, changes: Sequence[Change]) -> Iterable[memoryview | bytes]:
    """The bytes of `view` with the changes in their places, piece by piece. Of two for one place the later counts."""
    at = 0
    for offset, data in sorted({change.offset: change.data for change in changes}.items()):
        yield view[at:offset]
        yield data
        at = offset + len(data)
    yield view[at:]


def frame_of(changes: Sequence[Change]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([[getattr(c, name) for name in COLUMNS] for c in changes], columns=list(COLUMNS))


# -- fields ---------------------------------------------------------------------------------------------------------


def changes_of(stream: Stream, wanted: Mapping[Any, Value]) -> list[Change]:
    """The changes that set fields to values; none for a field that has its value. Raises RewriteError."""
    found: list[Change] = []
    for (name, path, *vmsd), value in wanted.items():
        fields = [f for section in sections_of(stream, name) for f in fields_at(stream, section, path, *vmsd)]
        if not fields:
            raise RewriteError(_missing(stream, name, path))
        found += [field.to(value) for field in fields]
    return [change for change in found if change.before != change.after]


def sections_of(stream: Stream, name: str) -> list[Section]:
    """The sections a name means: an idstr, or idstr/instance_id."""
    described = [s for s in stream.sections if s.described]
    idstr, _, instance = name.rpartition("/")
    return [s for s in described if s.idstr == name] or [
        s for s in described if instance.isdigit() and (s.idstr, s.instance_id) == (idstr, int(instance))
    ]


def _missing(stream: Stream, name: str, path: str) -> str:
    import difflib

    sections = sections_of(stream, name)
    if not sections:
        idstr, _, instance = name.rpartition("/")
        there = [s for s in stream.sections if s.idstr == name or (s.idstr == idstr and instance == str(s.instance_id))]
        if there:
            return f"section {name!r} of {stream.name} has no fields that a description names: it is {there[0].how}"
        have = sorted({s.idstr for s in stream.sections if s.described})
        near = difflib.get_close_matches(name, have, n=3) or have
        return f"no section {name!r} in {stream.name}; it has {', '.join(near)}"
    near = difflib.get_close_matches(path, stream.layout(sections[0]).index, n=3)
    return f"section {name!r} has no field {path!r}" + (f"; it has {', '.join(near)}" if near else "")


def fields_at(stream: Stream, section: Section, path: str, vmsd: str | None = None) -> list[Change]:
    """The one field of that path, as a change to what it is; none where there is none.

    Raises RewriteError where several vmsds have it.
    """
    layout = stream.layout(section)
    found = [(i, n) for i, n in layout.find(path) if vmsd in (None, layout.vmsds[i])]
    if len(found) > 1:
        vmsds = sorted({layout.vmsds[i] for i, _ in found})
        raise RewriteError(f"field {path!r} of section {section.label} is in several vmsds: {', '.join(vmsds)}")
    return [_field(stream, section, layout, path, i, n) for i, n in found]


def _field(stream: Stream, section: Section, layout: Layout, path: str, i: int, n: int) -> Change:
    size, kind = int(layout.width[i]), int(layout.kind[i])
    offset = section.payload_offset + int(layout.offset[i]) + n * size
    data = bytes(stream.source.view[offset : offset + size])
    value: int | bool | bytes = data
    if kind != BYTES:
        number = int.from_bytes(data, "big", signed=kind == SIGNED)
        value = bool(number) if kind == BOOL else number
    return Change(section.idstr, section.instance_id, path, layout.types[i], kind, offset, size, value, value)
