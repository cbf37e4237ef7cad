"""Where two streams, or two descriptions, differ."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vmstate_tools.stream.records import Section
from vmstate_tools.stream.stream import Stream
from vmstate_tools.vmstate.description import Description, FieldDescription, StreamDescription, Vmsd
from vmstate_tools.vmstate.dump import Dump, diff_dumps
from vmstate_tools.vmstate.layout import read_value

if TYPE_CHECKING:
    import pandas as pd

    from vmstate_tools.stream.ram import Ram

_STEP = 4 << 20  # bytes of guest memory compared at once


class Difference(NamedTuple):
    """A difference between two streams or descriptions: a row of `diff`.

    `flags` holds `-NAME` for each flag that only `a` has, `+NAME` for each that only `b` has, where the values are
    flag words. `pages` is the number of guest pages that differ, in rows of kind `pages`.
    """

    section: str
    instance_id: int | None
    vmsd: str
    path: str
    kind: str
    a: Any = None
    b: Any = None
    flags: tuple[str, ...] = ()
    pages: int | None = None


_Sides = Stream | StreamDescription | Description | Dump


def diff(a: _Sides, b: _Sides, *, ram: bool = False) -> pd.DataFrame:
    """Returns every difference between two streams, or between two descriptions, a row each.

    Parameters
    ----------
    a, b : two opened streams; or two descriptions of one kind. Of two -dump-vmstate files
        (`vmstate_tools.vmstate.dump.read_dump`) the frame is that of `diff_dumps`.
    ram : of streams, compare the guest's memory too.

    Returns
    -------
    Columns section, instance_id (Int64; NA for the configuration), vmsd, path, kind, a and b (what either side has, a
    `ValueDtype`: int, bool, bytes or text; None where it has nothing), flags (of msr_mask, insns_flags, insns_flags2:
    `-NAME` for a flag that only `a` has, `+NAME` for one that only `b` has, separated by commas); with `ram=True`
    pages (Int64).

    Kinds are `value`; `type`, `size`, `name` and `version` of a field, section or vmsd; `only in a`, `only in b`;
    `subsection only in a`, `subsection only in b` (its fields are not listed one by one); `described in a only`,
    `described in b only` (the other side's section is opaque, nothing in it is compared). `name`: a field at the same
    place with the same size under another name, as the wire carries none; path is `old → new`, a and b are its values
    (of an array its extents; the elements that differ follow). `pages`: so many pages of a RAM block differ.

    Sections are matched by idstr and instance_id. Of RAM the block list is compared.

    Raises
    ------
    TypeError : a and b are not two of one kind.
    StreamError : a section cannot be decoded.
    """
    if isinstance(a, Dump) and isinstance(b, Dump):
        return diff_dumps(a, b)
    import pandas as pd

    from vmstate_tools.vmstate.value_column import ValueArray

    frame = pd.DataFrame(list(differences(a, b, ram=ram)), columns=Difference._fields, dtype=object)
    frame["flags"] = [", ".join(flags) for flags in frame["flags"]]
    if not ram:
        frame = frame.drop(columns="pages")
    text = dict.fromkeys(("section", "vmsd", "path", "kind", "flags"), "str")
    values = {name: pd.Series(ValueArray._from_sequence(frame[name]), index=frame.index) for name in ("a", "b")}
    integers = {"instance_id": "Int64"} | ({"pages": "Int64"} if ram else {})
    return frame.assign(**values).astype(text | integers)


def differences(a: _Sides, b: _Sides, *, ram: bool = False) -> Iterator[Difference]:
    """Yields the rows of `diff` of two streams or two descriptions, without pandas. Raises as `diff` does."""
    if isinstance(a, Stream) and isinstance(b, Stream):
        rows = _streams(a, b, ram)
    elif isinstance(a, StreamDescription) and isinstance(b, StreamDescription):
        rows = _stream_descriptions(a, b)
    elif isinstance(a, Description) and isinstance(b, Description):
        rows = _vmsds(a, a.vmsd, b.vmsd)
    else:
        raise TypeError(f"diff takes two streams or two descriptions, not {type(a).__name__} and {type(b).__name__}")
    return (row._replace(flags=_flags(row.path, row.a, row.b)) for row in rows)


def _flags(path: str, a: Any, b: Any) -> tuple[str, ...]:
    """Returns `Difference.flags` of a field with these values; nothing where it is no flag word."""
    from vmstate_tools.facts import flags

    word = path.rsplit(".", 1)[-1].split(" → ")[-1].removeprefix("mig_")
    if word not in flags.WORDS or not isinstance(a, int) or not isinstance(b, int):
        return ()
    gone, come = flags.decode(word, a & ~b), flags.decode(word, b & ~a)
    return (*(f"-{name}" for name in gone), *(f"+{name}" for name in come))


# -- streams --------------------------------------------------------------------------------------------------------


def _streams(a: Stream, b: Stream, ram: bool) -> Iterator[Difference]:
    yield from _configuration(a, b)
    yield from _blocks(a.ram, b.ram, ram)
    theirs = _numbered(b)
    mine = _numbered(a)
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
    """True where the records of a section hold the same bytes and are laid out alike: then no field differs."""
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


def _numbered(stream: Stream) -> dict[tuple[str, int, int], list[Section]]:
    """The records of each section but ram, by idstr, instance_id and, where it is sent again, the how-manieth."""
    found: dict[tuple[str, int, int], list[Section]] = {}
    for section in stream.sections:
        if section.how == "ram":
            continue
        number = 0
        if section.part in ("full", "start"):
            while (section.idstr, section.instance_id, number) in found:
                number += 1
        found.setdefault((section.idstr, section.instance_id, number), []).append(section)
    return found


def _payload(sections: list[Section]) -> str:
    return f"{sum(s.payload_size for s in sections)} bytes"


def _configuration(a: Stream, b: Stream) -> Iterator[Difference]:
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
    """Subsections and versions of two vmsds; structs are followed where both have them under one name."""
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
    """One field of a section, arrays in one piece; `values` are its elements, as far as asked for."""

    vmsd: str
    path: str
    type: str
    width: int
    count: int | None  # None: no array
    raw: bytes | memoryview
    values: Callable[[Any], Sequence[Any]]  # of these element numbers

    @property
    def extent(self) -> str:
        return f"{self.width} bytes" if self.count is None else f"{self.count} × {self.width} bytes"

    @property
    def first(self) -> Any:
        return self.values(np.zeros(1, np.int64))[0]


def _leaves(stream: Stream, sections: list[Section]) -> Iterator[_Leaf]:
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
    return [value]


def _elements(view: memoryview, offset: int, width: int, kind: int, numbers: npt.NDArray[np.int64]) -> Sequence[Any]:
    return [read_value(kind, view, offset, number * width, width) for number in numbers.tolist()]


def _undescribed(stream: Stream, section: Section) -> Iterator[tuple[str, str, str, int, int, Any]]:
    for leaf in section.leaves:
        yield "", leaf.path, leaf.type, leaf.offset, leaf.size, leaf.value
    if not section.leaves and section.payload_size:
        at, size = section.payload_offset, section.payload_size
        yield "", "data", "opaque", at, size, bytes(stream.source.view[at : at + size])


def _fields(who: tuple[str, int], left: Iterable[_Leaf], right: Iterable[_Leaf]) -> Iterator[Difference]:
    """Two sections' fields, matched by vmsd and path."""
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
    """The elements that differ, of those that both sides have."""
    section, instance, vmsd, path = here
    many = np.arange(min(a.count or 1, b.count or 1))
    if a.width == b.width and a.count and b.count:
        rows = [np.frombuffer(leaf.raw, np.uint8)[: len(many) * a.width].reshape(-1, a.width) for leaf in (a, b)]
        many = np.flatnonzero((rows[0] != rows[1]).any(axis=1))
    for i, one, two in zip(many.tolist(), a.values(many), b.values(many), strict=True):
        if one != two:
            yield Difference(section, instance, vmsd, path if b.count is None else f"{path}[{i}]", "value", one, two)


def _matched(left: list[_Leaf], right: list[_Leaf]) -> Iterator[tuple[_Leaf | None, _Leaf | None]]:
    """Pairs in the order of `left`: same vmsd and path; else same place behind the same pair, and same size.

    Fields of a subsection that only one side has are left out: the subsection's own row tells of them.
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
    """Leaves by vmsd, path and, where that occurs again, the how-manieth."""
    found: dict[tuple[str, str, int], _Leaf] = {}
    seen: dict[tuple[str, str], int] = {}
    for leaf in leaves:
        nth = seen.get((leaf.vmsd, leaf.path), 0)
        seen[leaf.vmsd, leaf.path] = nth + 1
        found[leaf.vmsd, leaf.path, nth] = leaf
    return found


# -- RAM ------------------------------------------------------------------------------------------------------------


def _blocks(a: Ram, b: Ram, contents: bool) -> Iterator[Difference]:
    """Yields where the lists of RAMBlocks differ, and with `contents` how many pages of each do."""
    theirs = {block.raw_name: block for block in b.block_list}
    for block in a.block_list:
        other = theirs.pop(block.raw_name, None)
        if other is None:
            yield Difference("ram", 0, "", block.name, "only in a", a=block.used_length)
        elif block.used_length != other.used_length:
            yield Difference("ram", 0, "", block.name, "size", block.used_length, other.used_length)
        elif contents and (pages := _differing_pages(a, b, block.raw_name)):
            yield Difference("ram", 0, "", block.name, "pages", pages=pages)
    for block in theirs.values():
        yield Difference("ram", 0, "", block.name, "only in b", b=block.used_length)


def _differing_pages(a: Ram, b: Ram, block: bytes) -> int:
    """Counts the pages of a RAMBlock that differ, of those that either stream sent; what it claims costs nothing."""
    from tqdm.auto import tqdm

    page = a.page_size or b.page_size or 4096
    places = list(_merged(sorted({*_sent(a, block), *_sent(b, block)})))
    count = 0
    total = sum(end - start for start, end in places)
    with tqdm(total=total, unit="B", unit_scale=True, desc="comparing RAM", leave=False, delay=2) as bar:
        for start, end in places:
            for at in range(start, end, _STEP):
                size = min(_STEP, end - at)
                one, two = (np.frombuffer(ram.read(block, at, size), np.uint8) for ram in (a, b))
                unlike = np.flatnonzero(one != two)
                count += len(np.unique(unlike // page))
                bar.update(size)
    return count


def _sent(ram: Ram, block: bytes) -> Iterator[tuple[int, int]]:
    """Yields where a stream sent something for a RAMBlock that is not zero: start and end, in bytes."""
    return ((at, at + len(data)) for at, data in ram.contents(block))


def _merged(places: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yields sorted stretches, those that meet or overlap as one."""
    first = last = None
    for start, end in places:
        if last is not None and start <= last:
            last = max(last, end)
            continue
        if first is not None and last is not None:
            yield first, last
        first, last = start, end
    if first is not None and last is not None:
        yield first, last


# -- descriptions ---------------------------------------------------------------------------------------------------


def _stream_descriptions(a: StreamDescription, b: StreamDescription) -> Iterator[Difference]:
    if a.page_size != b.page_size:
        yield Difference("", None, "", "page_size", "value", a.page_size, b.page_size)
    theirs = b.by_section()
    for key, devices in a.by_section().items():
        for one, two in itertools.zip_longest(devices, theirs.pop(key, [])):
            if two is None:
                yield Difference(*key, one.vmsd.name, "", "only in a", a=f"version {one.vmsd.version_id}")
            elif one is None:
                yield Difference(*key, two.vmsd.name, "", "only in b", b=f"version {two.vmsd.version_id}")
            else:
                yield from _vmsds(one, one.vmsd, two.vmsd)
    for key, devices in theirs.items():
        for two in devices:
            yield Difference(*key, two.vmsd.name, "", "only in b", b=f"version {two.vmsd.version_id}")


def _vmsds(device: Description, a: Vmsd, b: Vmsd, where: str = "") -> Iterator[Difference]:
    who = (device.idstr, device.instance_id, b.name)
    here = where.rstrip(".")
    if a.name != b.name:
        yield Difference(*who, here, "name", a.name, b.name)
    if a.version_id != b.version_id:
        yield Difference(*who, here, "version", a.version_id, b.version_id)
    theirs = _by_label(b)
    for key, one in _by_label(a).items():
        two = theirs.pop(key, None)
        path = where + one.label
        if two is None:
            yield Difference(*who, path, "only in a", a=_say(one))
            continue
        if one.type != two.type:
            yield Difference(*who, path, "type", one.type, two.type)
        if (one.size, one.count) != (two.size, two.count):
            yield Difference(*who, path, "size", _extent(one), _extent(two))
        if one.struct and two.struct and one.struct is not two.struct:
            yield from _vmsds(device, one.struct, two.struct, f"{path}.")
    for two in theirs.values():
        yield Difference(*who, where + two.label, "only in b", b=_say(two))
    others = {s.name: s for s in b.subsections}
    for sub in a.subsections:
        if sub.name in others:
            yield from _vmsds(device, sub, others.pop(sub.name), where)
        else:
            yield Difference(*who[:2], sub.name, here, "subsection only in a", a=f"version {sub.version_id}")
    for sub in others.values():
        yield Difference(*who[:2], sub.name, here, "subsection only in b", b=f"version {sub.version_id}")


def _by_label(vmsd: Vmsd) -> dict[tuple[str, int], FieldDescription]:
    found: dict[tuple[str, int], FieldDescription] = {}
    for field in vmsd.fields:
        nth = 0
        while (field.label, nth) in found:
            nth += 1
        found[field.label, nth] = field
    return found


def _extent(field: FieldDescription) -> str:
    return f"{field.size} bytes" if field.count is None else f"{field.count} × {field.size} bytes"


def _say(field: FieldDescription) -> str:
    return f"{field.type}, {_extent(field)}"
