"""How a destination reads one section of a stream: its own description, fitted to what varies with state.

A description taken from a stream shows what that stream had: arrays of the length they had then, holes where
pointers were NULL, the subsections needed then. What differs for such reasons is taken from the stream to load;
what differs otherwise is a difference, and the destination's own form stands.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vmstate_tools.compat.library import Condition
from vmstate_tools.compat.program import NUMBERS, Compiler, Program
from vmstate_tools.compat.verdict import Obstacle
from vmstate_tools.vmstate.description import FieldDescription, Vmsd, with_parts

# Wire types that have their own length.
VARIABLE = frozenset({"virtio", "qtailq", "qlist", "gtree", "tmp", "vstruct"})

Known = Callable[[Vmsd], Mapping[str, Vmsd | None]]
Value = Callable[[str, str], Any]


@dataclass(eq=False, slots=True)
class Plan:
    program: Program
    differences: list[Obstacle] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)


@dataclass
class Fit:
    """Fits a destination's description to a stream's.

    `mine` and `theirs` give the value of a number by (vmsd, path), None where it is not known.
    """

    known: Known
    mine: Value
    theirs: Value
    condition: Callable[[Vmsd, FieldDescription], Condition | None] = lambda *_: None
    varies: Callable[[Vmsd, FieldDescription], bool] = lambda *_: False
    composed: bool = False  # is the destination's configuration not known exactly
    has: Callable[[Vmsd], bool] = lambda _: True  # does the destination's source have just these fields
    differences: list[Obstacle] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)

    def vmsd(self, own: Vmsd, other: Vmsd, prefix: str = "") -> Vmsd:
        if self.composed and own.name == other.name and not self.has(own) and self.has(other):
            own = replace(own, fields=other.fields)
        fields = self.fields(own, other, prefix)
        mine = {s.name: s for s in own.subsections}
        known = self.known(own)
        subsections = dict(mine)
        for sub in other.subsections:
            if sub.name in mine:
                subsections[sub.name] = self.vmsd(mine[sub.name], sub, prefix)
            elif (tree := known.get(sub.name)) is not None:  # its fields are taken to be the stream's
                subsections[sub.name] = replace(
                    sub, version_id=tree.version_id, minimum_version_id=tree.minimum_version_id
                )
        return with_parts(own, tuple(fields), tuple(subsections.values()))

    def fields(self, own: Vmsd, other: Vmsd, prefix: str) -> list[FieldDescription]:
        ours, theirs = _grouped(own.fields), _grouped(other.fields)
        out: list[FieldDescription] = []
        for tag, a, b, c, d in _steps([n for n, _ in ours], [n for n, _ in theirs]):
            if tag == "equal":
                for (_, mine), (_, their) in zip(ours[a:b], theirs[c:d], strict=True):
                    out += self.same(own, other, mine, their, prefix)
                continue
            out += self.changed(own, other, _flat(ours[a:b]), _flat(theirs[c:d]), prefix)
        return out

    def changed(
        self, own: Vmsd, other: Vmsd, mine: list[FieldDescription], theirs: list[FieldDescription], prefix: str
    ) -> list[FieldDescription]:
        """Fields of other names: those of one length at one place are renamed, or filler for what is gone."""
        mine = [f for f in mine if self.reads_at(own, other, f)]
        if _bytes(mine) == _bytes(theirs):
            return mine
        if len(mine) == len(theirs) and all(
            a.size == b.size and (a.count is None) == (b.count is None) for a, b in zip(mine, theirs, strict=True)
        ):
            return [self.one(own, other, a, b, prefix) for a, b in zip(mine, theirs, strict=True)]
        out: list[FieldDescription] = []
        matcher = difflib.SequenceMatcher(
            None, [_bytes([f]) for f in mine], [_bytes([f]) for f in theirs], autojunk=False
        )
        for tag, a, b, c, d in matcher.get_opcodes():
            if tag == "equal":
                out += mine[a:b]
                continue
            for f in mine[a:b]:
                if self.reads(own, other, f, prefix):
                    text = f"the destination reads {f.label}, which the stream does not have"
                    self.differ(own, "field missing in stream", text, f)
                    out.append(f)
            for f in theirs[c:d]:
                if self.takes(own, other, f, prefix):
                    out.append(f)
                else:
                    text = f"the destination does not read {f.label}, which the stream has"
                    self.differ(own, "field unknown", text, f)
        return out

    def reads_at(self, own: Vmsd, other: Vmsd, f: FieldDescription) -> bool:
        """Is a field read at the stream's version of its description?"""
        when = self.condition(own, f)
        return when is None or when.version <= other.version_id

    def reads(self, own: Vmsd, other: Vmsd, f: FieldDescription, prefix: str) -> bool:
        """Does the destination read a field of its own that this stream does not have?"""
        if self.empty(own, other, f, prefix, self.mine, self.theirs):
            return False
        if self.composed and self.varies(own, f):
            return False
        when = self.condition(own, f)
        if when is not None and when.gate is not None:
            return when.gate
        if when is not None and not when.test:
            return True
        if (when is not None and not when.by_machine) or (when is None and own.version_id > other.version_id):
            self.assumptions.append(f"{own.name}: the destination does not wait for {f.label}")
            return False
        return True

    def takes(self, own: Vmsd, other: Vmsd, f: FieldDescription, prefix: str) -> bool:
        """Does the destination read a field of the stream that its own stream does not have?"""
        if self.empty(other, own, f, prefix, self.theirs, self.mine):
            return True
        when = self.condition(own, f)
        if when is not None and when.gate is not None:
            return when.gate
        by_state = when is not None and bool(when.test) and not when.by_machine
        return by_state or (self.composed and self.varies(own, f))

    def same(
        self, own: Vmsd, other: Vmsd, mine: list[FieldDescription], theirs: list[FieldDescription], prefix: str
    ) -> list[FieldDescription]:
        """One field of one name in both, or the elements of one array."""
        if len(mine) == len(theirs) == 1:
            return [self.one(own, other, mine[0], theirs[0], prefix)]
        out = []
        for their in theirs:  # elements that were each described for themselves
            like = next((m for m in mine if m.index == their.index and m.type == their.type), None)
            like = like or next((m for m in mine if m.type == their.type), None)
            out.append(their if like is None else replace(self.one(own, other, like, their, prefix), index=their.index))
        if len(mine) != len(theirs) and all(m.type == theirs[0].type for m in mine):
            self.assumptions.append(f"{own.name}: {theirs[0].name} has as many elements as the stream says")
        return out

    def one(
        self, own: Vmsd, other: Vmsd, mine: FieldDescription, their: FieldDescription, prefix: str
    ) -> FieldDescription:
        if mine.type in VARIABLE and mine.type == their.type:
            return their
        if mine.struct is not None and their.struct is not None:
            path = f"{prefix}{mine.label}."
            struct = self.vmsd(mine.struct, their.struct, path)
            if struct is not mine.struct or struct.size != mine.size:
                mine = replace(mine, struct=struct, size=struct.size)
        if mine.count == their.count and mine.size == their.size:
            return mine
        if mine.struct is None and mine.size != their.size and mine.count is None and their.count is None:
            if mine.type == "buffer" and self.counted(own, other, mine, prefix, mine.size, their.size):
                return replace(mine, size=their.size)
            text = f"{mine.label} has {mine.size} bytes at the destination, {their.size} in the stream"
            self.differ(own, "field size", text, mine, their.size, mine.size)
            return mine
        counts = (1 if mine.count is None else mine.count, 1 if their.count is None else their.count)
        if counts[0] != counts[1]:
            if self.counted(own, other, mine, prefix, *counts):
                return replace(mine, count=their.count)
            text = f"{mine.label} has {counts[0]} elements at the destination, {counts[1]} in the stream"
            self.differ(own, "array length", text, mine, counts[1], counts[0])
        return mine

    def counted(self, own: Vmsd, other: Vmsd, f: FieldDescription, prefix: str, mine: int, theirs: int) -> bool:
        """Does a number tell the length on both sides?"""
        told = any(self.mine(own.name, path) == mine for path in _numbers(own, prefix)) and any(
            self.theirs(other.name, path) == theirs for path in _numbers(other, prefix)
        )
        return told or (self.composed and self.varies(own, f))

    def empty(self, side: Vmsd, other: Vmsd, f: FieldDescription, prefix: str, there: Value, here: Value) -> bool:
        """Is this array of one side absent on the other because its length is 0 there?"""
        length = f.size if f.count is None else f.count
        return any(there(side.name, path) == length for path in _numbers(side, prefix)) and any(
            here(other.name, path) == 0 for path in _numbers(other, prefix)
        )

    def differ(
        self, own: Vmsd, kind: str, text: str, f: FieldDescription, stream: Any = None, mine: Any = None
    ) -> None:
        self.differences.append(Obstacle("F", kind, f"{own.name}: {text}", None, None, f.label, stream, mine))


def _numbers(vmsd: Vmsd, prefix: str) -> list[str]:
    return [prefix + n.label for n in vmsd.fields if n.type in NUMBERS and n.count is None]


def _steps(mine: list[str], theirs: list[str]) -> Iterable[tuple[str, int, int, int, int]]:
    """How one list of names becomes the other, as `difflib` says it."""
    if mine == theirs:
        return [("equal", 0, len(mine), 0, len(theirs))]
    return difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes()


def _grouped(fields: tuple[FieldDescription, ...]) -> list[tuple[str, list[FieldDescription]]]:
    """Fields by name, those of one array together. Several `unused` stay apart: QEMU numbers them."""
    out: list[tuple[str, list[FieldDescription]]] = []
    for f in fields:
        if out and f.index is not None and out[-1][0] == f.name and out[-1][1][-1].index is not None:
            out[-1][1].append(f)
        else:
            out.append((f.name, [f]))
    return out


def _flat(groups: list[tuple[str, list[FieldDescription]]]) -> list[FieldDescription]:
    return [f for _, group in groups for f in group]


def _bytes(fields: list[FieldDescription]) -> int:
    return sum(f.size * (1 if f.count is None else f.count) for f in fields)


def count_by_value(values: Mapping[tuple[str, str], Any]) -> Callable[[Vmsd, FieldDescription], str | None]:
    """Guess which number tells an array's length: the nearest one before it that had that value."""

    def count_of(vmsd: Vmsd, f: FieldDescription) -> str | None:
        length = f.count if f.count is not None else f.size if f.type == "buffer" else 0
        found = None
        for n in vmsd.fields:
            if n is f or length < 2:
                break
            if n.type in NUMBERS and n.count is None and values.get((vmsd.name, n.label)) == length:
                found = n.name
        return found

    return count_of


def make(
    own: Vmsd,
    other: Vmsd | None,
    *,
    known: Known,
    values: Mapping[tuple[str, str], Any],
    mine: Value,
    theirs: Value,
    condition: Callable[[Vmsd, FieldDescription], Condition | None],
    varies: Callable[[Vmsd, FieldDescription], bool],
    composed: bool,
    has: Callable[[Vmsd], bool],
    as_read: Callable[[Vmsd], Vmsd],
    compiler: Compiler,
) -> Plan:
    """Compile `own` for a stream whose section is described by `other`, None where nothing describes it."""
    compiler = replace(compiler, known=known)
    if other is None:
        return Plan(replace(compiler, count_of=count_by_value(values))(as_read(own)))
    if other is own:
        return Plan(compiler(as_read(own)))
    fit = Fit(known, mine, theirs, condition, varies, composed, has)
    return Plan(compiler(as_read(fit.vmsd(own, other))), fit.differences, fit.assumptions)
