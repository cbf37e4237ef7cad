"""Where each field of a section lies: a description compiled once into a `Layout`.

Wire types are the `VMStateInfo` names of `migration/vmstate-types.c` (before 3.1 `migration/vmstate.c`)
and of the targets' `machine.c`; integers are big-endian whatever the target.
"""

from __future__ import annotations

from array import array
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from vmstate_tools.errors import StreamError, printable
from vmstate_tools.format import framing
from vmstate_tools.vmstate.description import MAX_LEAVES, count_cached, element_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from vmstate_tools.vmstate.description import Description, FieldDescription, Vmsd

# How a leaf's bytes become a value.
UNSIGNED, SIGNED, BOOL, BYTES = 0, 1, 2, 3

# Wire type -> kind, for the sizes 1, 2, 4 and 8. What is not here is a buffer.
_KINDS = {
    "bool": BOOL,
    "powered_off": BOOL,
    "int8": SIGNED,
    "int16": SIGNED,
    "int32": SIGNED,
    "int64": SIGNED,
    "int32 equal": SIGNED,
    "int32 le": SIGNED,  # less or equal to the destination's, not little-endian
    "timer": SIGNED,  # expiry in ns; -1 where not armed
    "fd": SIGNED,
    "uint8": UNSIGNED,
    "uint16": UNSIGNED,
    "uint32": UNSIGNED,
    "uint64": UNSIGNED,
    "uint8 equal": UNSIGNED,
    "uint16 equal": UNSIGNED,
    "uint32 equal": UNSIGNED,
    "int64 equal": UNSIGNED,  # the name QEMU prints for VMSTATE_UINT64_EQUAL
    "uint64 equal": UNSIGNED,
    "float64": UNSIGNED,  # softfloat keeps the bit pattern; `fpr` since 4.0
    "CPU_Double_U": UNSIGNED,
    "fpr": UNSIGNED,
    "vsr": UNSIGNED,
    "cpu/altivec/vscr": UNSIGNED,
    "nullptr": UNSIGNED,  # '0' for a NULL in an array of pointers; 2.9 to 11.0
    "ptr-marker": UNSIGNED,  # its name since 11.1
    "cpsr": UNSIGNED,
    "fpscr": UNSIGNED,
}

# Wire types that hold several numbers: (path suffix, wire type) in order.
_PARTS = {
    "slbe": ((".esid", "uint64"), (".vsid", "uint64")),  # target/ppc/machine.c: get_slbe
    "pci irq state": tuple((f"[{i}]", "uint32") for i in range(4)),  # hw/pci/pci.c: get_pci_irq_state
}
_SIZES = {"uint32": 4, "uint64": 8}

# Rows of one stream's fields, of some 340 bytes each while a frame is made of them; 531,541 is the most seen.
MAX_ROWS = 1_000_000

# Characters of all paths of one section.
MAX_TEXT = 64 << 20


class Layout:
    """A Layout has the leaves of one section, in payload order. All columns have one entry per leaf.

    A leaf is one value, or `count` equal-sized values of an array (`count` 0 for a single value).

    Attributes
    ----------
    paths, types, vmsds : lists of str.
    numbers : int64, four for each leaf: what the columns below hold, for where numpy is not worth its import.
    offset, width, count, kind : numpy columns. `offset` in bytes from the start of the payload, `width` bytes of one
        value.
    subsections : offset and expected bytes of each subsection header.
    size : bytes of the whole payload.
    rows : `decode.Rows` made of it so far, by `fold`.
    """

    def __init__(
        self,
        paths: list[str],
        types: list[str],
        vmsds: list[str],
        numbers: array[int],
        subsections: list[tuple[int, bytes]],
        size: int,
    ) -> None:
        self.paths, self.types, self.vmsds = paths, types, vmsds
        self.numbers = numbers
        self.subsections = subsections
        self.size = size
        self.rows: dict[int | None, Any] = {}

    def _column(self, number: int) -> npt.NDArray[np.int64]:
        return np.frombuffer(self.numbers, np.int64)[number::4].copy()

    @cached_property
    def offset(self) -> npt.NDArray[np.int64]:
        return self._column(0)

    @cached_property
    def width(self) -> npt.NDArray[np.int64]:
        return self._column(1)

    @cached_property
    def count(self) -> npt.NDArray[np.int64]:
        return self._column(2)

    @cached_property
    def kind(self) -> npt.NDArray[np.uint8]:
        return self._column(3).astype(np.uint8)

    def place(self, leaf: int, element: int = 0) -> tuple[int, int]:
        """Returns offset in the payload and width of one value, in bytes."""
        offset, width = self.numbers[4 * leaf : 4 * leaf + 2]
        return offset + element * width, width

    def kind_of(self, leaf: int) -> int:
        return self.numbers[4 * leaf + 3]

    @cached_property
    def values(self) -> int:
        """Returns how many values there are when all arrays are unfolded."""
        counts = self.numbers[2::4]
        return sum(counts) + counts.count(0)

    @property
    def length(self) -> npt.NDArray[np.int64]:
        """Returns the bytes of each leaf."""
        return self.width * np.maximum(self.count, 1)

    @cached_property
    def index(self) -> dict[str, list[int]]:
        """Returns path → leaf numbers: subsections may use a path of the section again."""
        found: dict[str, list[int]] = {}
        for i, path in enumerate(self.paths):
            found.setdefault(path, []).append(i)
        return found

    def find(self, path: str) -> list[tuple[int, int]]:
        """Returns (leaf, element) of each value that `path` names; element 0 where the leaf is no array."""
        found = [(i, 0) for i in self.index.get(path, ()) if not self.numbers[4 * i + 2]]
        if not found and (parts := element_of(path)):
            array_path, element = parts[0], int(parts[1])
            found = [(i, element) for i in self.index.get(array_path, ()) if element < self.numbers[4 * i + 2]]
        return found


def layout_of(description: Description, limit: int) -> Layout:
    """Returns the layout of a description, which is made once.

    `limit` is how many bytes the stream has left: a description that claims more is refused before
    anything is unrolled. Raises StreamError.
    """
    layout: Layout | None = description.cache.get("layout")
    if layout is None:
        if description.vmsd.unrolled > MAX_LEAVES:
            raise StreamError(f"{description.vmsd.unrolled} fields described", expected=f"{MAX_LEAVES} at most")
        count_cached(description.vmsd.unrolled)
        c = _Compiler(limit)
        size = c.vmsd(description.vmsd, 0, "")
        layout = Layout(c.paths, c.types, c.vmsds, c.numbers, c.subsections, size)
        description.cache["layout"] = layout
    return layout


class _Compiler:
    """Unrolls a tree into leaves; every struct array is bounded by the bytes it would have to occupy."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.visited = self.text = 0  # fields, those without bytes among them; characters of their paths
        self.paths: list[str] = []
        self.types: list[str] = []
        self.vmsds: list[str] = []
        self.numbers = array("q")
        self.subsections: list[tuple[int, bytes]] = []

    def vmsd(self, vmsd: Vmsd, offset: int, prefix: str) -> int:
        """Appends the leaves of `vmsd`, which stands at `offset`, and returns the offset behind it."""
        for field in vmsd.fields:
            offset = self.field(field, vmsd, offset, prefix)
        for sub in vmsd.subsections:
            header = framing.SUBSECTION_HEADER.build({"name": sub.wire_name, "version_id": sub.version_id})
            if offset + len(header) > self.limit:
                raise StreamError(f"subsection {sub.name!r} does not fit", expected=f"at most {self.limit} bytes")
            self.subsections.append((offset, header))
            offset = self.vmsd(sub, offset + len(header), prefix)
        return offset

    def field(self, field: FieldDescription, vmsd: Vmsd, offset: int, prefix: str) -> int:
        elements = 1 if field.count is None else field.count
        end = offset + field.size * elements
        path = prefix + field.label
        if end > self.limit:
            raise StreamError(
                f"field {path[:100]} claims {elements} times {field.size} bytes",
                expected=f"a section of at most {self.limit} bytes",
            )
        self.visit(1, len(path))
        if end == offset:
            return end
        if field.struct is not None:
            # WITH_TMP, VSTRUCT and QTAILQ may describe less than they wrote: then they are a buffer.
            if field.type == "struct" or field.struct.size == field.size:
                name = path if field.count is None else f"{path}[0]"
                before = self.state()
                if self.vmsd(field.struct, offset, name + ".") != offset + field.size:
                    raise StreamError(
                        f"struct {name} is said to have {field.size} bytes, its fields have others",
                        expected="a description that adds up",
                    )
                if elements > 1:
                    self.repeat(before, path, elements, field.size)
                return end
            kind = BYTES
        else:
            parts = _PARTS.get(field.type)
            if parts and sum(_SIZES[t] for _, t in parts) == field.size:
                for i in range(elements):
                    name = path if field.count is None else f"{path}[{i}]"
                    for suffix, type_ in parts:
                        self.leaf(name + suffix, field.type, vmsd, offset, _SIZES[type_], 0, UNSIGNED)
                        offset += _SIZES[type_]
                return end
            kind = _KINDS.get(field.type, BYTES) if field.size in (1, 2, 4, 8) else BYTES
        self.leaf(path, field.type, vmsd, offset, field.size, field.count or 0, kind)
        return end

    def visit(self, fields: int, text: int) -> None:
        self.visited += fields
        self.text += text
        if self.visited > MAX_LEAVES or self.text > MAX_TEXT:
            raise StreamError(f"more than {MAX_LEAVES} fields, or paths too long", expected="fields of a real device")

    def state(self) -> tuple[int, int, int, int]:
        return len(self.paths), len(self.subsections), self.visited, self.text

    def repeat(self, before: tuple[int, int, int, int], path: str, elements: int, size: int) -> None:
        """Appends the further elements of an array of structs: like the first (made since `before`), further on."""
        first, first_sub, visited, text = before
        visited, text = self.visited - visited, self.text - text
        types, vmsds, subsections = self.types[first:], self.vmsds[first:], self.subsections[first_sub:]
        tails = [p[len(path) + 3 :] for p in self.paths[first:]]  # behind `[0]`
        numbers = self.numbers[4 * first :]
        offsets, more = numbers[0::4], range(1, elements)
        self.visit(visited * len(more), text * len(more))
        self.visit(0, visited * sum([len(str(i)) - 1 for i in more]))
        self.paths += [head + tail for head in [f"{path}[{i}]" for i in more] for tail in tails]
        self.types += types * len(more)
        self.vmsds += vmsds * len(more)
        numbers *= len(more)
        numbers[0::4] = array("q", [offset + i * size for i in more for offset in offsets])
        self.numbers += numbers
        self.subsections += [(at + i * size, header) for i in more for at, header in subsections]

    def leaf(self, path: str, type_: str, vmsd: Vmsd, offset: int, width: int, count: int, kind: int) -> None:
        self.paths.append(path)
        self.types.append(type_)
        self.vmsds.append(vmsd.name)
        self.numbers.extend((offset, width, count, kind))


def check_subsections(layout: Layout, view: memoryview, base: int) -> None:
    """Raises StreamError if a subsection header does not stand where the description puts it."""
    for offset, header in layout.subsections:
        at = base + offset
        if view[at : at + len(header)] != header:
            wanted, _ = framing.SUBSECTION_HEADER.read(memoryview(header), 0, "a subsection")
            raise StreamError(
                f"found bytes {bytes(view[at : at + 8]).hex(' ')}",
                offset=at,
                expected=f"subsection {framing.name(wanted.name)!r} version {wanted.version_id}",
            )


def read_value(kind: int, view: memoryview, base: int, offset: int, width: int) -> int | bool | bytes:
    """Returns the value at `offset` behind `base`, as its kind says; a bool that is neither 0 nor 1 stays a number."""
    raw = bytes(view[base + offset : base + offset + width])
    if kind == BYTES:
        return raw
    number = int.from_bytes(raw, "big", signed=kind == SIGNED)
    return bool(number) if kind == BOOL and number < 2 else number


def format_value(value: object) -> str:
    """Returns a value as a table shows it: large unsigned numbers and bytes in hex, long bytes cut."""
    if isinstance(value, bytes):
        return f"<{len(value)} bytes> {value[:12].hex()}{'…' if len(value) > 12 else ''}"
    if isinstance(value, int) and not isinstance(value, bool) and value > 0xFF:
        return f"0x{value:x}"
    return "" if value is None else printable(str(value))
