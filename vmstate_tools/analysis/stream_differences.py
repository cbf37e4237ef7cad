"""Where two streams differ: configuration, sections, versions, subsections, fields and their values."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vmstate_tools.analysis.difference import Difference
from vmstate_tools.analysis.ram_differences import of_ram
from vmstate_tools.stream.records import Section
from vmstate_tools.stream.stream import Stream
from vmstate_tools.vmstate.description import Vmsd
from vmstate_tools.vmstate.layout import read_value

_Numbered = dict[tuple[str, int, int], list[Section]]


def of_streams(a: Stream, b: Stream, ram: bool) -> Iterator[Difference]:
    """Yields where two streams differ, without the flags; with `ram` the guest's memory is compared too."""
    yield from _configuration(a, b)
    yield from of_ram(a.ram, b.ram, ram)
    mine, theirs = _numbered(a.distinct_sections), _numbered(b.distinct_sections)
    if not _same_runs(a, b, mine, theirs):
        mine, theirs = _numbered(a.sections), _numbered(b.sections)
    both = [key for key in mine if key in theirs]
    for key in mine:
        if key not in theirs:
            yield Difference(key[0], key[1], "", "", "only in a", a=_payload(mine[key]))
    for key in theirs:
        if key not in mine:
            yield Difference(key[0], key[1], "", "", "only in b", b=_payload(theirs[key]))
    for key in both:
        one, two = mine[key][0], theirs[key][0]
        if one.version_id != two.version_id:
            yield Difference(*key[:2], "", "", "version", one.version_id, two.version_id)
        if (one.how == "opaque") != (two.how == "opaque"):
            side = "b" if one.how == "opaque" else "a"
            yield Difference(*key[:2], "", "", f"described in {side} only", _payload(mine[key]), _payload(theirs[key]))
        else:
            if one.description and two.description:
                yield from _subsections(one, one.description.vmsd, two.description.vmsd, "")
            if not _alike(a, mine[key], b, theirs[key]):
                yield from _fields(key[:2], _leaves(a, mine[key]), _leaves(b, theirs[key]))


def _alike(a: Stream, mine: list[Section], b: Stream, theirs: list[Section]) -> bool:
    """Returns True where the records of a section hold the same bytes and are laid out alike: then no field differs."""
    if len(mine) != len(theirs):
        return False
    for one, two in zip(mine, theirs, strict=True):
        if not one.described or not two.described:
            return False
        if bytes(a.view[one.payload_offset : one.payload_end]) != b.view[two.payload_offset : two.payload_end]:
            return False
        ours, other = a.layout(one), b.layout(two)
        if ours is not other and any(
            getattr(ours, name) != getattr(other, name) for name in ("paths", "types", "vmsds", "numbers")
        ):
            return False
    return True


def _same_runs(a: Stream, b: Stream, mine: _Numbered, theirs: _Numbered) -> bool:
    """Returns True where runs of equal sections stand at the same places, and the first of each speaks for its run."""
    opaque = ({key: sections[0].how == "opaque" for key, sections in side.items()} for side in (mine, theirs))
    return a.sections.lengths == b.sections.lengths and next(opaque) == next(opaque)


def _numbered(sections: Iterable[Section]) -> _Numbered:
    """Returns the records of each section but ram, by idstr, instance_id, and a number where one is sent again."""
    found: _Numbered = {}
    again: dict[tuple[str, int], int] = {}  # the numbers below this one are taken
    for section in sections:
        if section.how == "ram":
            continue
        who, number = (section.idstr, section.instance_id), 0
        if section.part in ("full", "start"):
            number = again.get(who, 0)
            while (*who, number) in found:
                number += 1
            again[who] = number
        found.setdefault((*who, number), []).append(section)
    return found


def _payload(sections: list[Section]) -> str:
    """Returns the size of the sections' payloads, as text."""
    return f"{sum(s.payload_size for s in sections)} bytes"


def _configuration(a: Stream, b: Stream) -> Iterator[Difference]:
    """Yields where the configuration sections, and the page sizes, differ."""
    for name in dict.fromkeys([*a.configuration, *b.configuration]):
        one, two = (
            " ".join(v) if isinstance(v, list) else v for v in (a.configuration.get(name), b.configuration.get(name))
        )
        if one != two:
            kind = "only in b" if one is None else "only in a" if two is None else "value"
            yield Difference("configuration", None, "configuration", name, kind, one, two)
    if a.page_size != b.page_size:
        yield Difference("configuration", None, "", "page_size", "value", a.page_size, b.page_size)


def _subsections(section: Section, a: Vmsd, b: Vmsd, where: str) -> Iterator[Difference]:
    """Yields where subsections and versions of two vmsds differ; structs that both have are followed."""
    who = (section.idstr, section.instance_id)
    if a.version_id != b.version_id:
        yield Difference(*who, b.name, where.rstrip("."), "version", a.version_id, b.version_id)
    theirs = {s.name: s for s in b.subsections}
    for sub in a.subsections:
        if sub.name in theirs:
            yield from _subsections(section, sub, theirs.pop(sub.name), where)
        else:
            yield Difference(*who, sub.name, where.rstrip("."), "subsection only in a")
    for name in theirs:
        yield Difference(*who, name, where.rstrip("."), "subsection only in b")
    structs = {f.label: f.struct for f in b.fields if f.struct}
    for field in a.fields:
        other = structs.get(field.label)
        if field.struct and other and field.struct is not other:
            yield from _subsections(section, field.struct, other, f"{where}{field.label}.")


@dataclass(frozen=True, eq=False, slots=True)
class _Leaf:
    """A field of a section, an array in one piece; `values` gives the elements that are asked for."""

    vmsd: str
    path: str
    type: str
    width: int
    count: int | None  # None: no array
    raw: bytes | memoryview
    values: Callable[[Any], Sequence[Any]]  # of these element numbers

    @property
    def extent(self) -> str:
        """Returns the field's size, and how many elements it has, as text."""
        return f"{self.width} bytes" if self.count is None else f"{self.count} × {self.width} bytes"

    @property
    def first(self) -> Any:
        """Returns the field's value, of an array that of its first element."""
        return self.values(np.zeros(1, np.int64))[0]


def _leaves(stream: Stream, sections: list[Section]) -> Iterator[_Leaf]:
    """Yields the fields of a section's records."""
    view = stream.source.view
    for section in sections:
        if not section.described:
            for vmsd, path, type_, offset, size, value in _undescribed(stream, section):
                yield _Leaf(
                    vmsd, path, type_, size, None, view[offset : offset + size], functools.partial(_only, value)
                )
            continue
        layout = stream.layout(section)
        columns = (layout.offset + section.payload_offset, layout.width, layout.count, layout.kind)
        for vmsd, path, type_, at, width, count, kind in zip(
            layout.vmsds, layout.paths, layout.types, *(column.tolist() for column in columns), strict=True
        ):
            values = functools.partial(_elements, view, at, width, kind)
            yield _Leaf(vmsd, path, type_, width, count or None, view[at : at + width * max(count, 1)], values)


def _only(value: Any, numbers: npt.NDArray[np.int64]) -> Sequence[Any]:
    """Returns the values of a field that is no array."""
    return [value]


def _elements(view: memoryview, offset: int, width: int, kind: int, numbers: npt.NDArray[np.int64]) -> Sequence[Any]:
    """Returns the elements of an array that have these numbers."""
    return [read_value(kind, view, offset, number * width, width) for number in numbers.tolist()]


def _undescribed(stream: Stream, section: Section) -> Iterator[tuple[str, str, str, int, int, Any]]:
    """Yields vmsd, path, type, offset, size and value of what a section without a description holds."""
    for leaf in section.leaves:
        yield "", leaf.path, leaf.type, leaf.offset, leaf.size, leaf.value
    if not section.leaves and section.payload_size:
        at, size = section.payload_offset, section.payload_size
        yield "", "data", "opaque", at, size, bytes(stream.source.view[at : at + size])


def _fields(who: tuple[str, int], left: Iterable[_Leaf], right: Iterable[_Leaf]) -> Iterator[Difference]:
    """Yields where the fields of two sections differ; they are matched by vmsd and path."""
    for a, b in _matched(list(left), list(right)):
        if b is None:
            assert a is not None
            yield Difference(*who, a.vmsd, a.path, "only in a", a=a.extent if a.count else a.first)
            continue
        if a is None:
            yield Difference(*who, b.vmsd, b.path, "only in b", b=b.extent if b.count else b.first)
            continue
        here = (*who, b.vmsd, b.path)
        if a.path != b.path:
            both = (a.extent, b.extent) if a.count else (a.first, b.first)
            yield Difference(*who, b.vmsd, f"{a.path} → {b.path}", "name", *both)
        if a.type != b.type:
            yield Difference(*here, "type", a.type, b.type)
        if a.extent != b.extent:
            yield Difference(*here, "size", a.extent, b.extent)
        if (a.raw != b.raw or a.width != b.width) and (a.path == b.path or a.count):
            yield from _values(here, a, b)


def _values(here: tuple[str, int, str, str], a: _Leaf, b: _Leaf) -> Iterator[Difference]:
    """Yields the elements that both sides have and that differ."""
    section, instance, vmsd, path = here
    many = np.arange(min(a.count or 1, b.count or 1))
    if a.width == b.width and a.count and b.count:
        rows = [np.frombuffer(leaf.raw, np.uint8)[: len(many) * a.width].reshape(-1, a.width) for leaf in (a, b)]
        many = np.flatnonzero((rows[0] != rows[1]).any(axis=1))
    for i, one, two in zip(many.tolist(), a.values(many), b.values(many), strict=True):
        if one != two:
            yield Difference(section, instance, vmsd, path if b.count is None else f"{path}[{i}]", "value", one, two)


def _matched(left: list[_Leaf], right: list[_Leaf]) -> Iterator[tuple[_Leaf | None, _Leaf | None]]:
    """Yields pairs of fields in the order of `left`, None for what one side lacks.

    A pair has the same vmsd and path; or it stands at the same place behind such a pair, and has the same size. Fields
    of a subsection that only one side has are left out: the subsection has a row of its own.
    """
    common = {leaf.vmsd for leaf in left} & {leaf.vmsd for leaf in right}
    sides: list[dict[Any, _Leaf]] = [_by_key(leaf for leaf in side if leaf.vmsd in common) for side in (left, right)]
    # What only one side has, by the matched field that it comes after.
    lone: list[dict[Any, list[_Leaf]]] = [{}, {}]
    for side, other, runs in zip(sides, reversed(sides), lone, strict=True):
        anchor: Any = None
        for key, leaf in side.items():
            if key in other:
                anchor = key
            else:
                runs.setdefault((anchor, leaf.vmsd), []).append(leaf)
    vmsds = sorted(common)
    for key in (None, *sides[0]):
        if key is not None:
            if key not in sides[1]:
                continue
            yield sides[0][key], sides[1][key]
        for vmsd in vmsds if lone[0] or lone[1] else ():
            a, b = (runs.pop((key, vmsd), []) for runs in lone)
            if [x.extent for x in a] == [x.extent for x in b]:
                yield from zip(a, b, strict=True)
            else:
                yield from ((leaf, None) for leaf in a)
                yield from ((None, leaf) for leaf in b)


def _by_key(leaves: Iterable[_Leaf]) -> dict[tuple[str, str, int], _Leaf]:
    """Returns fields by vmsd, path, and a number where a path occurs again."""
    found: dict[tuple[str, str, int], _Leaf] = {}
    seen: dict[tuple[str, str], int] = {}
    for leaf in leaves:
        nth = seen.get((leaf.vmsd, leaf.path), 0)
        seen[leaf.vmsd, leaf.path] = nth + 1
        found[leaf.vmsd, leaf.path, nth] = leaf
    return found
