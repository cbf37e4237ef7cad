"""A VMStateDescription compiled into steps that read a payload as `vmstate_load_state` does (migration/vmstate.c)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vmstate_tools.compat.verdict import Obstacle
from vmstate_tools.format.framing import Record
from vmstate_tools.vmstate.description import FieldDescription, Vmsd

# Integer wire types: (bytes, signed).
NUMBERS = {
    **{f"{s}int{b}{e}": (b // 8, s == "") for s in ("", "u") for b in (8, 16, 32, 64) for e in ("", " equal")},
    "int64 equal": (8, False),  # the name QEMU prints for VMSTATE_UINT64_EQUAL
    "int32 le": (4, True),
    "bool": (1, False),
}


class LostError(Exception):
    """The loader gives up here, or reads bytes that are no longer what it takes them for."""


@dataclass(slots=True)
class Reader:
    """A Reader is where the loader stands in a section, and what it met there.

    Attributes
    ----------
    view, position, end : the stream's bytes, the next one to read, and where the stream ends.
    check : judges a compared number: (vmsd, path, field, value) → Obstacle or None.
    values : of the fields that were compiled as wanted, by (vmsd, path).
    subsections : the names of those that were read.
    """

    view: memoryview
    position: int
    end: int
    check: Callable[[str, str, FieldDescription, Any], Obstacle | None]
    values: dict[tuple[str, str], Any] = field(default_factory=dict)
    obstacles: list[Obstacle] = field(default_factory=list)
    subsections: list[str] = field(default_factory=list)

    def take(self, size: int) -> memoryview:
        """Returns the next bytes. Raises LostError where the stream ends before."""
        at, self.position = self.position, self.position + size
        if size < 0 or self.position > self.end:
            raise LostError
        return self.view[at : at + size]

    def number(self, size: int, signed: bool = False) -> int:
        """Returns the big-endian number in the next bytes. Raises LostError where the stream ends before."""
        return int.from_bytes(self.take(size), "big", signed=signed)


@dataclass(slots=True)
class _Skip:
    """Bytes that nothing is asked of."""

    size: int

    def run(self, r: Reader, numbers: dict[str, int], prefix: str) -> None:
        r.take(self.size)


@dataclass(slots=True)
class _Number:
    """A number that is compared, or that something later depends on."""

    vmsd: str
    field: FieldDescription
    size: int
    signed: bool
    check: bool

    def run(self, r: Reader, numbers: dict[str, int], prefix: str) -> None:
        start = r.position
        value = numbers[self.field.name] = r.number(self.size, self.signed)
        if self.size != self.field.size:  # a policy reads another length than the field has
            value = int.from_bytes(r.view[start : start + self.field.size], "big", signed=self.signed)
        path = prefix + self.field.label
        r.values[self.vmsd, path] = value
        if self.check:
            obstacle = r.check(self.vmsd, path, self.field, value)
            if obstacle is not None:
                r.obstacles.append(obstacle)


@dataclass(slots=True)
class _Bytes:
    """A buffer or array; `count_of` names the field that gives its length, where one does."""

    vmsd: str
    field: FieldDescription
    count_of: str | None
    wanted: bool

    def run(self, r: Reader, numbers: dict[str, int], prefix: str) -> None:
        f = self.field
        size, count = f.size, 1 if f.count is None else f.count
        if self.count_of is not None:
            if f.count is None:
                size = numbers[self.count_of]
            else:
                count = numbers[self.count_of]
        data = r.take(size * count)
        if self.wanted:
            r.values[self.vmsd, prefix + f.label] = bytes(data)


@dataclass(slots=True)
class _Struct:
    """A struct, or an array of them; `count_of` names the field that gives its length, where one does."""

    field: FieldDescription
    program: Program
    count_of: str | None

    def run(self, r: Reader, numbers: dict[str, int], prefix: str) -> None:
        f = self.field
        count = numbers[self.count_of] if self.count_of is not None else 1 if f.count is None else f.count
        if self.program.fixed is not None:
            r.take(self.program.fixed * count)
            return
        if not 0 <= count <= r.end - r.position:
            raise LostError
        path = prefix + f.label
        for i in range(count):
            self.program.run(r, f"{path}." if f.count is None else f"{path}[{i}].")


@dataclass(eq=False, slots=True)
class Program:
    """A Program is a compiled description. `fixed` is its length in bytes where nothing in it is looked at."""

    name: str
    version_id: int
    minimum_version_id: int
    steps: list[Any]
    subsections: dict[str, Program | None]  # None: known, but not what is in it
    fixed: int | None = None

    def load(self, r: Reader, version: int, prefix: str = "") -> None:
        """Reads a section or subsection at the stream's version. Raises LostError where that is not taken."""
        for wrong, kind, words, limit in (
            (version > self.version_id, "version too new", "at most", self.version_id),
            (version < self.minimum_version_id, "version too old", "at least", self.minimum_version_id),
        ):
            if wrong:
                message = f"{self.name} has version {version}, the destination takes {words} {limit}"
                r.obstacles.append(Obstacle("E", kind, message, None, None, self.name, version, limit))
                raise LostError
        self.run(r, prefix)

    def run(self, r: Reader, prefix: str) -> None:
        """Reads fields and subsections; `prefix` is the path of the struct. Raises LostError."""
        numbers: dict[str, int] = {}
        for step in self.steps:
            step.run(r, numbers, prefix)
        while r.position < r.end and r.view[r.position] == Record.SUBSECTION:
            if not self.subsection(r, prefix):
                break

    def subsection(self, r: Reader, prefix: str) -> bool:
        """Reads a subsection (`vmstate_subsection_load`); False: it is none of this description. Raises LostError."""
        at = r.position
        length = r.view[at + 1] if at + 1 < r.end else 0
        if length < len(self.name) + 1 or at + 2 + length > r.end:
            return False
        name = bytes(r.view[at + 2 : at + 2 + length]).decode("utf-8", "backslashreplace")
        if not name.startswith(self.name):
            return False  # it belongs to an enclosing one
        if name not in self.subsections:
            message = f"the destination does not know the subsection {name}"
            r.obstacles.append(Obstacle("G", "unknown subsection", message, None, None, name, name))
            raise LostError
        r.subsections.append(name)
        r.take(length + 2)
        version = r.number(4)
        program = self.subsections[name]
        if program is None:
            raise LostError
        program.load(r, version, prefix)
        return True


def compared(vmsd: str, field: FieldDescription) -> bool:
    """Tells whether a field is a number that QEMU compares with the destination's."""
    return field.equal or field.type == "int32 le"


@dataclass(frozen=True, slots=True)
class Compiler:
    """A Compiler compiles descriptions into programs.

    Attributes
    ----------
    known : gives the subsections that the destination knows beyond those in the tree.
    wanted : (vmsd, field name) → whether the field's value is collected.
    checked : (vmsd, field) → whether the field is a number that is compared.
    count_of : gives the name of the field that holds an array's length, None where the length is fixed.
    size_of : gives the bytes that are read for a compared number.
    """

    known: Callable[[Vmsd], Mapping[str, Vmsd | None]] = lambda _: {}
    wanted: Callable[[str, str], bool] = lambda *_: False
    checked: Callable[[str, FieldDescription], bool] = compared
    count_of: Callable[[Vmsd, FieldDescription], str | None] = lambda *_: None
    size_of: Callable[[str, FieldDescription], int] = lambda _, f: f.size

    def __call__(self, vmsd: Vmsd) -> Program:
        """Returns the program that reads what a description describes."""
        steps: list[Any] = []
        counts = {c for f in vmsd.fields if (c := self.count_of(vmsd, f)) is not None}
        for f in vmsd.fields:
            step = self._step(vmsd, f, counts)
            if isinstance(step, _Skip) and steps and isinstance(steps[-1], _Skip):
                steps[-1] = _Skip(steps[-1].size + step.size)
            else:
                steps.append(step)
        own = {s.name: s for s in vmsd.subsections}
        subs = {**dict.fromkeys(self.known(vmsd)), **own}
        fixed = None
        if not subs and all(isinstance(s, _Skip) for s in steps):
            fixed = sum(s.size for s in steps)
        subsections = {name: None if sub is None else self(sub) for name, sub in subs.items()}
        return Program(vmsd.name, vmsd.version_id, vmsd.minimum_version_id or 0, steps, subsections, fixed)

    def _step(self, vmsd: Vmsd, f: FieldDescription, counts: set[str]) -> Any:
        elements = 1 if f.count is None else f.count
        if f.struct is not None and f.type not in ("qtailq", "qlist", "gtree"):
            program = self(f.struct)
            count_of = self.count_of(vmsd, f)
            if program.fixed is not None and count_of is None:
                return _Skip(program.fixed * elements)
            return _Struct(f, program, count_of)
        number = NUMBERS.get(f.type)
        if number is not None and f.count is None and number[0] == f.size:
            check = self.checked(vmsd.name, f)
            if check or f.name in counts or self.wanted(vmsd.name, f.name):
                return _Number(vmsd.name, f, self.size_of(vmsd.name, f) if check else number[0], number[1], check)
        else:
            count_of, wanted = self.count_of(vmsd, f), self.wanted(vmsd.name, f.name)
            if count_of is not None or wanted:
                return _Bytes(vmsd.name, f, count_of, wanted)
        return _Skip(f.size * elements)
