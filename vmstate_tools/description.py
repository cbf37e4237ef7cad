"""What a section consists of: one tree, whether from the stream's own vmdesc, from -dump-vmstate, or built in.

The vmdesc is JSON that QEMU appends to a stream since 2.3 (commit 8118f0950f, `migration/vmstate.c:
vmsd_desc_field_start`, `migration/savevm.c: vmstate_save`). It describes what was sent, nothing else.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from vmstate_tools.errors import StreamError
from vmstate_tools.wire import Record

# No vmdesc seen is larger than this: 0.2 MB for a bare q35, growing with the number of devices and CPUs.
MAX_VMDESC = 256 << 20


@dataclass(frozen=True, slots=True)
class FieldDescription:
    """One field of a VMStateDescription.

    `size` is in bytes and of one element. `count` is the number of elements of an array described once
    (`array_len`), None for a single element. `index` is the element's place where each has its own entry.
    `equal`, `version_id` and `condition` are known only from a built-in layout or -dump-vmstate.
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
        """Must the destination hold the same value (`VMSTATE_*_EQUAL`)?"""
        return self.type.endswith(" equal")

    @property
    def label(self) -> str:
        return self.name if self.index is None else f"{self.name}[{self.index}]"


@dataclass(frozen=True, slots=True)
class Vmsd:
    """A VMStateDescription: its own fields, then its subsections."""

    name: str
    version_id: int
    fields: tuple[FieldDescription, ...] = ()
    subsections: tuple[Vmsd, ...] = ()
    minimum_version_id: int | None = None


@dataclass(frozen=True, eq=False)
class Description:
    """One device's entry: the section it describes and what that consists of.

    Compared by identity: a description is read once, and what is derived from it hangs on it.
    """

    idstr: str
    instance_id: int
    vmsd: Vmsd
    origin: str  # 'vmdesc', 'dump', 'built-in' or 'borrowed'
    old_style: bool = False  # registered by hand: its vmsd is one buffer
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)  # what decode derives from it


@dataclass(frozen=True, eq=False)
class StreamDescription:
    """A whole vmdesc: `devices` in the order in which they were sent; `page_size` in bytes."""

    page_size: int | None
    devices: tuple[Description, ...]
    size: int  # bytes of JSON
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    def by_section(self) -> dict[tuple[str, int], list[Description]]:
        """The devices of each (idstr, instance_id), in order: sections may repeat."""
        found: dict[tuple[str, int], list[Description]] = {}
        for device in self.devices:
            found.setdefault((device.idstr, device.instance_id), []).append(device)
        return found


def find_vmdesc(view: memoryview) -> tuple[int, int] | None:
    """Offset and size in bytes of the VMDESCRIPTION record at the stream's end, None where there is none.

    Its length field must fit the bytes that follow it.
    """
    end = len(view)
    if end > 6 and view[end - 1] == ord("}"):  # it ends the file: where QEMU puts it
        low = max(0, end - MAX_VMDESC)
        tail = bytes(view[max(low, end - (1 << 20)) :])
        while True:
            at = len(tail)
            while (at := tail.rfind(Record.VMDESCRIPTION, 0, at)) >= 0:
                start = end - len(tail) + at
                if int.from_bytes(tail[at + 1 : at + 5], "big") == end - start - 5:
                    return start, end - start
            if end - len(tail) == low:
                break
            tail = bytes(view[low:])
    # Something follows it (padding, another stream), or it is not there.
    low = max(0, end - (64 << 20))
    last = None
    for match in re.finditer(rb"\x06(?s:(....))\{ ?\"(?:page_size|configuration)\"", view[low:]):
        size = int.from_bytes(match[1], "big")
        if size <= end - low - match.start() - 5:
            last = (low + match.start(), size + 5)
    return last


@functools.lru_cache(maxsize=256)
def read_vmdesc(text: bytes) -> StreamDescription:
    """Read a vmdesc; the same text is read once. Raises StreamError (offset within the text) if it is not one."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as err:
        raise StreamError(f"the vmdesc is not JSON: {err}", offset=err.pos, expected="a JSON document") from None
    try:
        page_size = document.get("page_size")
        devices = tuple(_device(entry) for entry in document["devices"])
        if page_size is not None and (not isinstance(page_size, int) or page_size <= 0 or page_size & (page_size - 1)):
            raise ValueError(f"page_size {page_size!r}")
    except RecursionError:
        raise StreamError("the vmdesc nests too deeply", expected="structs a device could have") from None
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise StreamError(
            f"the vmdesc has an entry of another shape: {type(err).__name__}: {err}",
            expected="devices with name, instance_id and fields",
        ) from None
    return StreamDescription(page_size, devices, len(text))


def size_of(vmsd: Vmsd) -> int:
    """Bytes that a section of this description occupies, subsection headers included."""
    size = sum(f.size * (1 if f.count is None else f.count) for f in vmsd.fields)
    return size + sum(6 + len(s.name.encode()) + size_of(s) for s in vmsd.subsections)


def built_in(entry: dict[str, Any]) -> Description:
    """What `layouts.resolve` found, as a tree: one tree for equal entries, so that it is compiled once."""
    return _built_in(orjson.dumps(entry))


@functools.lru_cache(maxsize=4096)
def _built_in(text: bytes) -> Description:
    return _device(orjson.loads(text), "built-in")


def _device(entry: dict[str, Any], origin: str = "vmdesc") -> Description:
    # QEMU up to 5.2 prints instance_id signed.
    instance_id = _int(entry["instance_id"], -(1 << 31), (1 << 32) - 1) & 0xFFFFFFFF
    old_style = "vmsd_name" not in entry
    return Description(_text(entry["name"]), instance_id, _vmsd(entry, _text(entry["name"])), origin, old_style)


def _vmsd(entry: dict[str, Any], default_name: str = "") -> Vmsd:
    return Vmsd(
        name=_text(entry.get("vmsd_name", default_name)),
        version_id=_int(entry.get("version", 0), -(1 << 31), (1 << 32) - 1) & 0xFFFFFFFF,
        fields=tuple(_fields(entry.get("fields", ()))),
        subsections=tuple(_vmsd(sub) for sub in entry.get("subsections", ())),
    )


def _fields(entries: list[dict[str, Any]]) -> Iterator[FieldDescription]:
    # An array of pointers with NULL holes comes as several entries of one name and no index (since 10.0,
    # commit 35049eb0d2): they are elements of one array, in order.
    names = [entry["name"] for entry in entries]
    split = {n for n, follows in itertools.pairwise(names) if n == follows}
    next_index: dict[str, int] = {}
    for entry in entries:
        name, type_, size = _text(entry["name"]), _text(entry["type"]), _int(entry["size"], 0, 1 << 48)
        count = _int(entry["array_len"], 0, 1 << 48) if "array_len" in entry else None
        index = _int(entry["index"], 0, 1 << 48) if "index" in entry else None
        struct = None
        if "struct" in entry:
            struct = _vmsd(entry["struct"])
        elif "vmsd_name" in entry and "fields" in entry:  # WITH_TMP and VSTRUCT nest in the field itself
            struct = _vmsd(entry)
        if name in split and index is None:
            first = next_index.get(name, 0)
            next_index[name] = first + (count or 1)
            for i in range(count or 1) if (count or 1) <= 1 << 16 else ():
                yield FieldDescription(name, type_, size, None, first + i, struct)
        else:
            yield FieldDescription(name, type_, size, count, index, struct)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} where a string belongs")
    return value


def _int(value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{value!r} where a number belongs")
    return value
