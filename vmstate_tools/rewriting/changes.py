"""Changes to the fields of a stream, and the bytes of the stream with the changes in their places."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vmstate_tools.errors import RewriteError
from vmstate_tools.stream.pieces import pieces
from vmstate_tools.stream.records import Section
from vmstate_tools.stream.stream import Stream
from vmstate_tools.vmstate.layout import BOOL, BYTES, SIGNED, Layout, format_value

Value = int | bool | bytes | str
_BOOLS = {"true": 1, "false": 0}


@dataclass(frozen=True)
class Change:
    """A Change is a field and its new value; `offset` and `size` in bytes, from the start of the file."""

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
        """Returns a change of the same field to another value. Raises RewriteError where it does not fit."""
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
        """Returns the new value as it stands in the stream."""
        if isinstance(self.after, bytes):
            return self.after
        return int(self.after).to_bytes(self.size, "big", signed=self.kind == SIGNED)

    def __str__(self) -> str:
        values = f"{format_value(self.before)} -> {format_value(self.after)}"
        text = f"{self.section}/{self.instance_id} {self.path}: {values}"
        return text + (f" ({self.why})" if self.why else "")


Edit = Callable[[Stream], Iterable[Change]]
"""Gives what is to be changed in a stream: called once, with the stream or, on a pipe, with its device sections."""


def patched(view: memoryview, changes: Sequence[Change]) -> Iterable[memoryview | bytes]:
    """Yields the bytes of `view` with the changes in their places. Of two changes to one place the later counts."""
    at = 0
    for offset, data in sorted({change.offset: change.data for change in changes}.items()):
        yield from pieces(view, at, offset)
        yield data
        at = offset + len(data)
    yield from pieces(view, at, len(view))


def changes_of(stream: Stream, wanted: Mapping[Any, Value]) -> list[Change]:
    """Returns the changes that set fields to values; none for a field that has its value. Raises RewriteError."""
    found: list[Change] = []
    for (name, path, *vmsd), value in wanted.items():
        fields = [f for section in sections_of(stream, name) for f in fields_at(stream, section, path, *vmsd)]
        if not fields:
            raise RewriteError(_missing(stream, name, path))
        found += [field.to(value) for field in fields]
    return [change for change in found if change.before != change.after]


def sections_of(stream: Stream, name: str) -> list[Section]:
    """Returns the sections that a name means: an idstr, or idstr/instance_id."""
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
    """Returns the field of this path, as a change to the value that it has; an empty list where there is none.

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
