"""The fields of a stream as text: a table, CSV or JSON, without the frame that would be made of them otherwise."""

from __future__ import annotations

import json
import struct

from vmstate_tools.cli_text import print_table, say
from vmstate_tools.leaves import BOOL, BYTES, MAX_ROWS, SIGNED, format_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, NamedTuple

    from vmstate_tools.leaves import Layout
    from vmstate_tools.stream import Section, Stream

    class Block(NamedTuple):
        section: Section
        vmsd: str
        type: str
        paths: Sequence[str]
        offset: int
        size: int
        values: Sequence[int | bool | bytes]


COLUMNS = ("file", "section", "instance_id", "version_id", "vmsd", "path", "type", "offset", "size", "value")
"""As `Stream.fields` has them, and the file."""


def blocks(stream: Stream, sections: Iterable[Section], fold: int | None) -> Iterator[Block]:
    """The fields of these sections in file order; neighbours of one type and size together: the elements of an array.

    A block is (section, vmsd, type, paths, offset, size, values): `offset` of the first in the file and `size` of each
    in bytes; `values` int, bool or bytes. `fold` as for `Stream.fields`. Raises StreamError.
    """
    sections = list(sections)
    layouts = {id(s): stream.layout(s) for s in sections if s.described}
    if sum(layout.values for layout in layouts.values()) > MAX_ROWS:
        from vmstate_tools.decode import affordable

        fold = affordable(list(layouts.values()), fold)
    for section in sections:
        if section.described:
            yield from _described(stream._view, section, layouts[id(section)], fold)
            continue
        for leaf in section.leaves:
            value = leaf.value.encode() if isinstance(leaf.value, str) else leaf.value
            yield section, "", leaf.type, (leaf.path,), leaf.offset, leaf.size, (value,)  # type: ignore[misc]
        if not section.leaves and section.payload_size:
            start, size = section.payload_offset, section.payload_size
            yield section, "", "opaque", ("data",), start, size, (bytes(stream._view[start : start + size]),)  # type: ignore[misc]


def _described(view: memoryview, section: Section, layout: Layout, fold: int | None) -> Iterator[Any]:
    start, numbers = section.payload_offset, layout.numbers
    for i, (path, type_, vmsd) in enumerate(zip(layout.paths, layout.types, layout.vmsds, strict=True)):
        offset, width, count, kind = numbers[4 * i : 4 * i + 4]
        offset += start
        if fold and count > fold:
            path, width, count, kind = f"{path}[0:{count}]", width * count, 0, BYTES
        n = count or 1
        values: Sequence[int | bool | bytes]
        if kind == BYTES:
            values = [bytes(view[at : at + width]) for at in range(offset, offset + n * width, width)]
        else:
            values = struct.unpack_from(f">{n}{_CODES[width, kind == SIGNED]}", view, offset)
            if kind == BOOL:
                values = [bool(v) if v < 2 else v for v in values]
        yield section, vmsd, type_, [f"{path}[{k}]" for k in range(n)] if count else (path,), offset, width, values


_CODES = {
    (1 << i, signed): code.lower() if signed else code for i, code in enumerate("BHIQ") for signed in (False, True)
}


def chosen(found: Iterable[Block], match: Callable[[str], bool] | None) -> Iterator[Block]:
    """Only the fields whose path matches, each by itself."""
    for block in found:
        if match is None:
            yield block
            continue
        section, vmsd, type_, paths, offset, size, values = block
        for k, (path, value) in enumerate(zip(paths, values, strict=True)):
            if match(path):
                yield section, vmsd, type_, (path,), offset + k * size, size, (value,)  # type: ignore[misc]


def print_fields(stream: Stream, found: Iterable[Block]) -> bool:
    """A table; False, and nothing printed, where there are no fields."""
    rows = [
        (section.label, path, type_, f"{offset + k * size}", f"{size}", format_value(value))
        for section, _, type_, paths, offset, size, values in found
        for k, (path, value) in enumerate(zip(paths, values, strict=True))
    ]
    if rows:
        say(stream.name)
        print_table(["section", "path", "type", ">offset", ">size", "value"], rows)
        say()
    return bool(rows)


def csv_lines(stream: Stream, found: Iterable[Block]) -> Iterator[str]:
    """Lines of CSV, some at a time."""
    file = _csv(stream.name)
    for section, vmsd, type_, paths, offset, size, values in found:
        head = f"{file},{_csv(section.idstr)},{section.instance_id},{section.version_id},{_csv(vmsd)},"
        tail = f",{_csv(type_)},"
        names = paths if _csv(paths[0]) == paths[0] else map(_csv, paths)
        texts: Sequence[object] = values
        if isinstance(values[0], bytes):
            texts = [v.hex() for v in values if isinstance(v, bytes)]
        at = range(offset, offset + len(values) * size, size)
        yield "".join([f"{head}{n}{tail}{o},{size},{v}\n" for n, o, v in zip(names, at, texts, strict=True)])


def _csv(text: str) -> str:
    if "," in text or '"' in text or "\n" in text or "\r" in text:
        return '"' + text.replace('"', '""') + '"'
    return text


def json_objects(stream: Stream, found: Iterable[Block]) -> Iterator[str]:
    """JSON objects, some at a time, separated by commas."""
    file = json.dumps(stream.name)
    for section, vmsd, type_, paths, offset, size, values in found:
        head = f'{{"file": {file}, "section": {json.dumps(section.idstr)}, "instance_id": {section.instance_id}, '
        head += f'"version_id": {section.version_id}, "vmsd": {json.dumps(vmsd)}, "path": '
        middle = f', "type": {json.dumps(type_)}, "offset": '
        at = range(offset, offset + len(values) * size, size)
        yield ",\n".join(
            [
                f'{head}{json.dumps(n)}{middle}{o}, "size": {size}, "value": {_json(v)}}}'
                for n, o, v in zip(paths, at, values, strict=True)
            ]
        )


def _json(value: int | bool | bytes) -> str:
    if isinstance(value, bytes):
        return f'"{value.hex()}"'
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
