"""The fields of a stream as text: a table, CSV or JSON, without the frame that would be made of them otherwise."""

from __future__ import annotations

import struct
import sys
from bisect import bisect_left
from typing import TYPE_CHECKING

from vmstate_tools.cli.files import over
from vmstate_tools.show.text import FOLD, complain, print_columns, say
from vmstate_tools.vmstate.layout import BOOL, BYTES, MAX_ROWS, SIGNED, format_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from vmstate_tools.stream.records import Section
    from vmstate_tools.stream.stream import Stream
    from vmstate_tools.vmstate.layout import Layout


COLUMNS = ("file", "section", "instance_id", "version_id", "vmsd", "path", "type", "offset", "size", "value")
"""As `Stream.fields` has them, and the file."""


def show(
    files: Sequence[str],
    opening: Mapping[str, Any],
    *,
    form: str = "table",
    section: str | None = None,
    field: str | None = None,
    fold: int | None = None,
    target: Path | None = None,
) -> int:
    """`vmstate fields` in any format but parquet: to `target`, or to standard output. The exit code."""
    fold = fold if fold is not None else FOLD if form == "table" else 0
    texts: list[str] = []

    def work(stream: Stream) -> bool:
        found = chosen(blocks(stream, wanted(stream, section), fold or None), field)
        if form == "table":
            return print_fields(stream, found)
        text = [*(csv_lines if form == "csv" else json_objects)(stream, found)]
        texts.extend(text)
        return bool(text)

    done, code = over(files, opening, work)
    if done and not any(done):
        complain("no field matches")
        code = max(code, 1)
    if form == "table" or not done:
        return code
    to = target.open("w", encoding="utf-8", newline="") if target else sys.stdout
    try:
        if form == "csv":
            to.write(",".join(COLUMNS) + "\n")
            to.writelines(texts)
        else:
            to.write("[")
            to.writelines(",\n" + text if i else text for i, text in enumerate(texts))
            to.write("]\n")
        to.flush()
    finally:
        if target:
            to.close()
    return code


def matcher(pattern: str) -> Callable[[str], bool]:
    """A glob of `*` and `?`; brackets stand for themselves, as array elements are written with them."""
    import re

    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    compiled = re.compile("".join(parts), re.DOTALL)
    return lambda text: compiled.fullmatch(text) is not None


def wanted(stream: Stream, section: str | None) -> list[Section]:
    """The sections with fields, or those whose idstr or label is as `section`, which may hold * and ?."""
    match = matcher(section) if section is not None else lambda _: True
    return [s for s in stream.distinct_sections if s.how != "ram" and (match(s.idstr) or match(s.label))]


class Block:
    """Fields of one section that follow each other, as columns of one length.

    `offsets` in the file and `sizes` in bytes; `values` int, bool or bytes. Where all are the elements of one array,
    of one type and size, `array` is its path; else ''.
    """

    def __init__(
        self,
        section: Section,
        vmsds: Sequence[str],
        types: Sequence[str],
        paths: Iterable[str],
        offsets: Sequence[int],
        sizes: Sequence[int],
        values: Sequence[int | bool | bytes],
        array: str = "",
    ) -> None:
        self.section = section
        self.vmsds, self.types, self.paths = vmsds, types, paths
        self.offsets, self.sizes, self.values = offsets, sizes, values
        self.array = array


def blocks(stream: Stream, sections: Iterable[Section], fold: int | None) -> Iterator[Block]:
    """The fields of these sections in file order. `fold` as for `Stream.fields`. Raises StreamError."""
    sections = list(sections)
    layouts = {id(s): stream.layout(s) for s in sections if s.described}
    if sum(layout.values for layout in layouts.values()) > MAX_ROWS:
        from vmstate_tools.vmstate.decode import affordable

        fold = affordable(list(layouts.values()), fold)
    for section in sections:
        if section.described:
            yield from _described(stream.view, section, layouts[id(section)], fold)
        elif section.leaves:
            found = section.leaves
            values = [leaf.value.encode() if isinstance(leaf.value, str) else leaf.value for leaf in found]
            types, paths = [leaf.type for leaf in found], [leaf.path for leaf in found]
            offsets, sizes = [leaf.offset for leaf in found], [leaf.size for leaf in found]
            yield Block(section, [""] * len(found), types, paths, offsets, sizes, values)
        elif section.payload_size:
            start, size = section.payload_offset, section.payload_size
            data = bytes(stream.view[start : start + size])
            yield Block(section, [""], ["opaque"], ["data"], [start], [size], [data])


def _described(view: memoryview, section: Section, layout: Layout, fold: int | None) -> Iterator[Block]:
    offsets, widths, counts, kinds = (list(layout.numbers[i::4]) for i in range(4))
    paths, types, vmsds = list(layout.paths), layout.types, layout.vmsds
    for i, count in enumerate(counts):
        if fold and count > fold:
            paths[i], widths[i], counts[i], kinds[i] = f"{paths[i]}[0:{count}]", widths[i] * count, 0, BYTES
    arrays = [i for i, count in enumerate(counts) if count]
    # All values at once: fields and the headers of subsections follow each other without a gap.
    codes = [_CODES[kind, width] for kind, width in zip(kinds, widths, strict=True)]
    for i in arrays:
        codes[i] = codes[i] * counts[i] if kinds[i] == BYTES else f"{counts[i]}{codes[i]}"
    for at, header in layout.subsections:
        if (i := bisect_left(offsets, at)) < len(codes):
            codes[i] = f"{len(header)}x{codes[i]}"
    start = section.payload_offset
    values = struct.Struct(">" + "".join(codes)).unpack_from(view, start)
    offsets = [start + offset for offset in offsets]
    at = first = 0
    for i in (*arrays, len(codes)):
        if first < i:  # fields between two arrays
            n, some = i - first, slice(first, i)
            found = _bools(values[at : at + n], kinds[some])
            yield Block(section, vmsds[some], types[some], paths[some], offsets[some], widths[some], found)
            at += n
        if i < len(codes):
            n, path, size = counts[i], paths[i], widths[i]
            names, places = (f"{path}[{k}]" for k in range(n)), range(offsets[i], offsets[i] + n * size, size)
            found = _bools(values[at : at + n], [kinds[i]] * n)
            yield Block(section, [vmsds[i]] * n, [types[i]] * n, names, places, [size] * n, found, path)
            at += n
        first = i + 1


def _bools(values: Sequence[Any], kinds: Sequence[int]) -> Sequence[Any]:
    if BOOL not in kinds:
        return values
    return [bool(v) if kind == BOOL and v < 2 else v for v, kind in zip(values, kinds, strict=True)]


class _Codes(dict[tuple[int, int], str]):
    """(kind, width) of a value → its code for `struct`."""

    def __missing__(self, key: tuple[int, int]) -> str:
        kind, width = key
        code = f"{width}s" if kind == BYTES else "BHIQ"[width.bit_length() - 1]
        self[key] = code = code.lower() if kind == SIGNED else code
        return code


_CODES = _Codes()


def chosen(found: Iterable[Block], field: str | None) -> Iterable[Block]:
    """Only the fields whose path is as `field`, which may hold * and ?."""
    if field is None:
        return found
    match = matcher(field)
    return (block for each in found if (block := _some(each, match)).values)


def _some(block: Block, match: Callable[[str], bool]) -> Block:
    paths = list(block.paths)
    which = [i for i, path in enumerate(paths) if match(path)]
    columns: tuple[Any, ...] = (block.vmsds, block.types, paths, block.offsets, block.sizes, block.values)
    vmsds, types, paths, offsets, sizes, values = ([column[i] for i in which] for column in columns)
    return Block(block.section, vmsds, types, paths, offsets, sizes, values)


_SMALL = [str(number) for number in range(256)]


def print_fields(stream: Stream, found: Iterable[Block]) -> bool:
    """A table; False, and nothing printed, where there are no fields."""
    columns: list[list[str]] = [[] for _ in range(6)]
    for block in found:
        parts = (
            [block.section.label] * len(block.values),
            block.paths,
            block.types,
            map(str, block.offsets),
            map(str, block.sizes),
            [_SMALL[v] if type(v) is int and 0 <= v < 256 else format_value(v) for v in block.values],
        )
        for column, part in zip(columns, parts, strict=True):
            column.extend(part)
    if columns[0]:
        say(stream.name)
        print_columns(["section", "path", "type", ">offset", ">size", "value"], columns)
        say()
    return bool(columns[0])


def csv_lines(stream: Stream, found: Iterable[Block]) -> Iterator[str]:
    """Lines of CSV, some at a time."""
    file = _csv(stream.name)
    for block in found:
        section = block.section
        head = f"{file},{_csv(section.idstr)},{section.instance_id},{section.version_id},"
        values: Sequence[object] = block.values
        if not block.array or isinstance(values[0], bytes):
            values = [v.hex() if isinstance(v, bytes) else v for v in block.values]
        if block.array:
            vmsd, path, type_ = _csv(block.vmsds[0]), _element(_csv(block.array + "[]")), _csv(block.types[0])
            yield from _filled(f"{head}{vmsd},{path},{type_},\0,{block.sizes[0]},\0\n", block, values)
            continue
        vmsds, types, paths = map(_csv_all, (block.vmsds, block.types, list(block.paths)))
        rows = zip(vmsds, paths, types, block.offsets, block.sizes, values, strict=True)
        yield "".join([f"{head}{vmsd},{path},{type_},{at},{size},{v}\n" for vmsd, path, type_, at, size, v in rows])


def _csv(text: str) -> str:
    if "," in text or '"' in text or "\n" in text or "\r" in text:
        return '"' + text.replace('"', '""') + '"'
    return text


def _csv_all(texts: Sequence[str]) -> Sequence[str]:
    together = "".join(texts)
    return texts if _csv(together) is together else [_csv(text) for text in texts]


def _element(path: str) -> str:
    """A quoted path that ends with `[]` as `_filled` takes it."""
    return "[\0]".join(path.rsplit("[]", 1))


# Lines made in one go.
_STEP = 4096


def _filled(line: str, block: Block, values: Sequence[object], between: str = "") -> Iterator[str]:
    """A line for each element of an array: for each `\0` in `line` its number, its offset, its value."""
    line += between
    form = line.replace("%", "%%").replace("\0", "%s")
    for first in range(0, len(values), _STEP):
        some = values[first : first + _STEP]
        numbers, offsets = range(first, first + len(some)), block.offsets[first : first + len(some)]
        alike = block.sizes[0] <= 8 and some.count(some[0]) == len(some)
        text = _counted(line, numbers, offsets, some[0]) if alike else None
        if text is None:
            flat: list[object] = [None] * (3 * len(some))
            flat[0::3], flat[1::3], flat[2::3] = numbers, offsets, some
            text = form * len(some) % tuple(flat)
        yield text.removesuffix(between)


def _counted(line: str, numbers: range, offsets: Sequence[int], value: object) -> str | None:
    """The lines of elements with one value, digit by digit: a third of the time. None where a number gets longer."""
    assert isinstance(offsets, range)
    row, places = b"", []
    *before, rest = [part.encode("utf-8", "surrogatepass") for part in line.split("\0", 2)]
    for part, counted in zip(before, (numbers, offsets), strict=True):
        width = len(str(counted[0]))
        if len(str(counted[-1])) != width:
            return None
        row += part
        places += [(len(row) + i, counted, 10 ** (width - 1 - i)) for i in range(width)]
        row += bytes(width)
    row += rest.replace(b"\0", str(value).encode())
    text = bytearray(row * len(numbers))
    for at, counted, power in places:
        text[at :: len(row)] = _digits(counted, power)
    return text.decode("utf-8", "surrogatepass")


def _digits(numbers: range, power: int) -> bytes:
    """Of each number the digit that counts for `power`."""
    start, stop = numbers[0], numbers[-1] + 1
    if 10 * power > stop - start:  # it changes ten times at most
        turns = range(start // power, (stop - 1) // power + 1)
        run = b"".join([b"%d" % (t % 10) * (min(stop, (t + 1) * power) - max(start, t * power)) for t in turns])
    else:
        cycle = b"".join([b"%d" % digit * power for digit in range(10)])
        skip = start % len(cycle)
        run = (cycle * ((skip + stop - start) // len(cycle) + 1))[skip : skip + stop - start]
    return run[:: numbers.step]


def json_objects(stream: Stream, found: Iterable[Block]) -> Iterator[str]:
    """JSON objects, some at a time, separated by commas."""
    from json.encoder import encode_basestring_ascii as quoted

    file = quoted(stream.name)
    for block in found:
        section = block.section
        head = f'{{"file": {file}, "section": {quoted(section.idstr)}, "instance_id": {section.instance_id}, '
        head += f'"version_id": {section.version_id}, "vmsd": '
        values: Sequence[object] = block.values
        if set(map(type, values)) != {int}:
            values = [_json(v) for v in block.values]
        if block.array:
            vmsd, path, type_ = quoted(block.vmsds[0]), _element(quoted(block.array + "[]")), quoted(block.types[0])
            line = f'{head}{vmsd}, "path": {path}, "type": {type_}, "offset": \0, "size": {block.sizes[0]}, '
            yield from _filled(line + '"value": \0}', block, values, ",\n")
            continue
        vmsds, paths, types = (map(quoted, column) for column in (block.vmsds, block.paths, block.types))
        rows = zip(vmsds, paths, types, block.offsets, block.sizes, values, strict=True)
        yield ",\n".join(
            [
                f'{head}{vmsd}, "path": {path}, "type": {type_}, "offset": {at}, "size": {size}, "value": {v}}}'
                for vmsd, path, type_, at, size, v in rows
            ]
        )


def _json(value: int | bool | bytes) -> str:
    if isinstance(value, bytes):
        return f'"{value.hex()}"'
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
