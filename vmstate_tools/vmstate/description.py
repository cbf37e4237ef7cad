"""Descriptions say what a section consists of: one tree, from the stream's vmdesc, from -dump-vmstate, or built in.

The vmdesc is JSON that QEMU appends to a stream since 2.3 (commit 8118f0950f, `migration/vmstate.c:
vmsd_desc_field_start`, `migration/savevm.c: vmstate_save`). It describes what was sent, nothing else.
"""

from __future__ import annotations

import itertools
import json
import re
import reprlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NoReturn

from vmstate_tools.errors import StreamError, printable
from vmstate_tools.format.framing import MAX_VMDESC, Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# Objects, lists and elements that a vmdesc may have, whatever the size of its file, and how many bytes of the file are
# needed for each more: 11,226 is the most seen, of four CPUs.
_TOKENS, _BYTES_PER_TOKEN = 1 << 18, 8

# Structs and subsections inside each other; 5 is the most seen.
_MAX_DEPTH = 64

# Fields of one section, arrays of scalars counted once. 20,481 is the most seen, 31,054 in one stream.
MAX_LEAVES = 500_000

# Elements of an array of pointers that is described in several runs.
_MAX_SPLIT = 1 << 16

# A vmdesc is cached for the next stream that has the same, if it is no longer than this.
_MAX_CACHED = 1 << 20
# All that is cached may have so many objects, leaves and rows, of 300 bytes at most.
_MAX_CACHED_ITEMS = 1 << 20


@dataclass(frozen=True, slots=True)
class FieldDescription:
    """A FieldDescription is one field of a VMStateDescription.

    Attributes
    ----------
    size : bytes of one element on the wire.
    count : number of elements of an array that is described once (`array_len`); None for a single element.
    index : the element's place in its array, where each element has an entry of its own.
    struct : the description of each element, where they are structs.
    version_id, conditional : since which version of the section the field is sent, and whether a test decides it;
        known only from -dump-vmstate.
    """

    name: str
    type: str
    size: int
    count: int | None = None
    index: int | None = None
    struct: Vmsd | None = None
    version_id: int | None = None
    conditional: bool = False

    @property
    def equal(self) -> bool:
        """Tells whether the destination must hold the same value (`VMSTATE_*_EQUAL`)."""
        return self.type.endswith(" equal")

    @property
    def label(self) -> str:
        """Returns the name, with the element's place behind it where it has one."""
        return self.name if self.index is None else f"{self.name}[{self.index}]"


@dataclass(frozen=True, slots=True)
class Vmsd:
    """A Vmsd is a VMStateDescription: its own fields, then its subsections.

    Attributes
    ----------
    name : safe to show; `wire_name` has the bytes that stand in a stream.
    size : bytes that a section of this description occupies, headers of subsections included.
    unrolled : most fields that it can have when each struct in an array counts for itself.
    """

    name: str
    version_id: int
    fields: tuple[FieldDescription, ...] = ()
    subsections: tuple[Vmsd, ...] = ()
    minimum_version_id: int | None = None
    wire_name: bytes = b""
    size: int = field(init=False, repr=False, compare=False)
    unrolled: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        size = sum([f.size * (1 if f.count is None else f.count) for f in self.fields])
        derived = {
            "wire_name": self.wire_name or self.name.encode(),
            "size": size + sum([6 + len(s.wire_name) + s.size for s in self.subsections]),
            "unrolled": sum(map(_unrolled, self.fields)) + sum([1 + s.unrolled for s in self.subsections]),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)


def element_of(path: str) -> tuple[str, str] | None:
    """Returns `gpr` and `3` for `gpr[3]`; None where the path is not of an element."""
    if not path.endswith("]"):
        return None
    array, bracket, number = path[:-1].rpartition("[")
    return (array, number) if bracket and number.isdecimal() else None


def with_parts(vmsd: Vmsd, fields: tuple[FieldDescription, ...], subsections: tuple[Vmsd, ...]) -> Vmsd:
    """Returns a description with these fields and subsections: `vmsd` itself where it has them."""
    new, old = (fields, subsections), (vmsd.fields, vmsd.subsections)
    same = all(
        len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True)) for a, b in zip(new, old, strict=True)
    )
    return vmsd if same else replace(vmsd, fields=fields, subsections=subsections)


def _unrolled(field: FieldDescription) -> int:
    elements = (1 if field.count is None else field.count) if field.size else 0
    if field.struct is not None:
        return 1 + elements * (1 + field.struct.unrolled)
    return 1 + (4 * elements if field.type in ("slbe", "pci irq state") else 0)


class Description:
    """A Description is a device's entry: the section that it describes, and what the section consists of.

    `origin` is 'vmdesc', 'dump', 'built-in' or 'borrowed'. Compared by identity. `cache` has what is derived from
    `vmsd`; descriptions that have the same share it.
    """

    def __init__(
        self, idstr: str, instance_id: int, vmsd: Vmsd, origin: str, cache: dict[str, Any] | None = None
    ) -> None:
        self.idstr = idstr
        self.instance_id = instance_id
        self.vmsd = vmsd
        self.origin = origin
        self.cache = {} if cache is None else cache

    @property
    def old_style(self) -> bool:
        """Tells whether its section was registered by hand, so that the vmdesc has its size only."""
        return [(f.name, f.type) for f in self.vmsd.fields] == [("data", "buffer")]

    @property
    def opaque(self) -> bool:
        """Tells whether a size is all it has: so it is of old-style sections, and of `virtio` since 2.7."""
        types = [f.type for f in self.vmsd.fields]
        return self.old_style or types == ["virtio"] or types == ["virtio", "virtio-gpu"]


class StreamDescription:
    """A StreamDescription is a whole vmdesc: `devices` in sent order; `page_size` in bytes, `size` bytes of JSON."""

    def __init__(self, page_size: int | None, devices: tuple[Description, ...], size: int) -> None:
        self.page_size = page_size
        self.devices = devices
        self.size = size
        self.cache: dict[Any, Any] = {}

    def by_section(self) -> dict[tuple[str, int], list[Description]]:
        """Returns the devices of each (idstr, instance_id), in order: sections may repeat."""
        found: dict[tuple[str, int], list[Description]] = {}
        for device in self.devices:
            found.setdefault((device.idstr, device.instance_id), []).append(device)
        return found


def read_json(text: bytes) -> Any:
    """Returns the JSON document that `text` holds, UTF-8 without NaN and infinities. Raises ValueError."""
    try:
        return json.loads(text.decode(), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


# How a VMDESCRIPTION record begins, in at most so many bytes; and the bytes that are searched for it at once.
_VMDESC = rb"\x06(?s:(....))\{ ?\"(?:page_size|configuration)\""
_VMDESC_START = 32
_SEARCHED = 1 << 20


def find_vmdesc(view: memoryview) -> tuple[int, int] | None:
    """Returns offset and size in bytes of the VMDESCRIPTION record at the stream's end, None where there is none.

    Its length field must fit the bytes that follow it.
    """
    end = len(view)
    if end > 6 and view[end - 1] == ord("}"):  # it ends the file: where QEMU puts it
        low, size = max(0, end - MAX_VMDESC - 5), 1 << 16  # most have less than 64 KiB
        start, found = end, -1
        while found < 0 and start > low:
            start = max(low, end - size)
            found = bytes(view[start:end]).rfind(Record.VMDESCRIPTION)  # JSON has no such byte; its length may have
            size <<= 4
        for at in range(min(start + found, end - 6), max(low, start + found - 4) - 1, -1):
            if bytes(view[at : at + 6]) == b"\x06" + (end - at - 5).to_bytes(4, "big") + b"{":
                return at, end - at
    # Something follows it (padding, another stream), or it is not there.
    low = max(0, end - (64 << 20))
    last = None
    for start in range(low, end, _SEARCHED):
        for match in re.finditer(_VMDESC, view[start : start + _SEARCHED + _VMDESC_START]):
            size = int.from_bytes(match[1], "big")
            if match.start() < _SEARCHED and size <= end - start - match.start() - 5:
                last = (start + match.start(), size + 5)
    return last


def read_vmdesc(text: bytes, packed_size: int | None = None) -> StreamDescription:
    """Reads a vmdesc; the same text is read once. Raises StreamError (offset within the text) if it is not one.

    `packed_size` is how many bytes the file has, as it is compressed: a small one may not have a large vmdesc.
    """
    found = _vmdescs.get(text)
    if found is None:
        found = _read_vmdesc(text, len(text) if packed_size is None else packed_size)
        if len(text) <= _MAX_CACHED:
            count_cached(1 + len(text) // 300)
            _vmdescs[text] = found
    return found


_vmdescs: dict[bytes, StreamDescription] = {}
_cached = 0


def count_cached(items: int) -> None:
    """Counts objects, leaves or rows that are cached with a description; where they are too many, all are dropped."""
    global _cached
    _cached += items
    if _cached > _MAX_CACHED_ITEMS:
        _cached = items
        _vmdescs.clear()
        _trees.clear()


def _read_vmdesc(text: bytes, packed_size: int) -> StreamDescription:
    tokens = sum(map(text.count, (b"{", b"[", b",")))
    most = _TOKENS + packed_size // _BYTES_PER_TOKEN
    if tokens > most:
        raise StreamError(
            f"a vmdesc of {tokens} objects and elements", expected=f"{most} at most in a file of this size"
        )
    try:
        document = read_json(text)
    except ValueError as err:
        offset = err.pos if isinstance(err, json.JSONDecodeError) else 0
        raise StreamError(f"the vmdesc is not JSON: {err}", offset=offset, expected="a JSON document") from None
    try:
        page_size = document.get("page_size")
        devices, split = [], 0
        for entry in document["devices"]:
            device, more = _device(entry, "vmdesc")
            devices.append(device)
            split += more
            if split > _MAX_SPLIT:
                raise ValueError(f"arrays in runs of more than {_MAX_SPLIT} elements")
        if page_size is not None and _int(page_size, 1 << 8, 1 << 30) & (page_size - 1):
            raise ValueError(f"page_size {page_size!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise StreamError(
            f"the vmdesc has an entry of another shape: {type(err).__name__}: {err}",
            expected="devices with name, instance_id and fields",
        ) from None
    return StreamDescription(page_size, tuple(devices), len(text))


def built_in(entry: dict[str, Any]) -> Description:
    """Returns what `builtin.resolve` found, as a tree: one tree for equal entries, so that it is laid out once."""
    return _device(entry, "built-in")[0]


# What devices consist of, the elements of it that came in runs, and the cache: of all streams and instances alike.
_trees: dict[str, tuple[Vmsd, int, dict[str, Any]]] = {}


def _device(entry: dict[str, Any], origin: str) -> tuple[Description, int]:
    """Returns one device's description, and how many elements came in runs."""
    # QEMU up to 5.2 prints instance_id signed.
    instance_id = _int(entry["instance_id"], -(1 << 31), (1 << 32) - 1) & 0xFFFFFFFF
    name = _text(entry["name"])
    own = {"vmsd_name": name} | entry
    del own["name"], own["instance_id"]
    try:
        text = json.dumps(own, check_circular=False)
    except RecursionError:
        raise ValueError(f"structs nested more than {_MAX_DEPTH} deep") from None
    found = _trees.get(text)
    if found is None:
        count_cached(len(text) // 8)
        reader = _Reader()
        found = reader.vmsd(own, 0), _MAX_SPLIT - reader.split, {}
        if len(text) <= _MAX_CACHED:
            _trees[text] = found
    vmsd, split, cache = found
    return Description(printable(name), instance_id, vmsd, origin, cache), split


class _Reader:
    """Reads a vmdesc. `split` is how many elements arrays that come in several runs may still have."""

    def __init__(self) -> None:
        self.split = _MAX_SPLIT

    def vmsd(self, entry: dict[str, Any], depth: int) -> Vmsd:
        if depth >= _MAX_DEPTH:
            raise ValueError(f"structs nested more than {_MAX_DEPTH} deep")
        name = _text(entry.get("vmsd_name", ""))
        if len(name.encode()) > 255:  # a byte counts it
            raise ValueError(f"{reprlib.repr(name)} as the name of a vmsd")
        return Vmsd(
            name=printable(name),
            version_id=_int(entry.get("version", 0), -(1 << 31), (1 << 32) - 1) & 0xFFFFFFFF,
            fields=tuple(self.fields(entry.get("fields", ()), depth)),
            subsections=tuple([self.vmsd(sub, depth + 1) for sub in entry.get("subsections", ())]),
            wire_name=name.encode(),
        )

    def fields(self, entries: list[dict[str, Any]], depth: int) -> Iterator[FieldDescription]:
        # An array of pointers with NULL holes comes as several entries of one name and no index (since 10.0,
        # commit 35049eb0d2): they are elements of one array, in order.
        names = [printable(_text(entry["name"])) for entry in entries]
        split = {n for n, follows in itertools.pairwise(names) if n == follows}
        next_index: dict[str, int] = {}
        for name, entry in zip(names, entries, strict=True):
            type_, size = printable(_text(entry["type"])), _int(entry["size"], 0, 1 << 48)
            count = _int(entry["array_len"], 0, 1 << 48) if "array_len" in entry else None
            index = _int(entry["index"], 0, 1 << 48) if "index" in entry else None
            struct = None
            if "struct" in entry:
                struct = self.vmsd(entry["struct"], depth + 1)
            elif "vmsd_name" in entry and "fields" in entry:  # WITH_TMP and VSTRUCT nest in the field itself
                struct = self.vmsd(entry, depth + 1)
            if name in split and index is None:
                first = next_index.get(name, 0)
                next_index[name] = first + (count or 1)
                self.split -= count or 1
                if self.split < 0:
                    raise ValueError(f"arrays in runs of more than {_MAX_SPLIT} elements")
                for i in range(count or 1):
                    yield FieldDescription(name, type_, size, None, first + i, struct)
            else:
                yield FieldDescription(name, type_, size, count, index, struct)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{reprlib.repr(value)} where a string belongs")
    return value


def _int(value: object, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{reprlib.repr(value)} where a number belongs")
    return value
