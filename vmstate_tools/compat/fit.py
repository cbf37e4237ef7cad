"""How a destination's description of a section is fitted to the stream's, where only state makes them differ.

A description taken from a stream shows what that stream had: arrays of the length they had then, holes where
pointers were NULL, the subsections needed then. What differs for such reasons is taken from the stream to load;
what differs otherwise is a difference, and the destination's own form stands.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from vmstate_tools.compat.knowledge import Knowledge
from vmstate_tools.compat.reader import NUMBERS
from vmstate_tools.compat.source_descriptions import Condition
from vmstate_tools.compat.verdict import Obstacle
from vmstate_tools.vmstate.description import FieldDescription, Vmsd, with_parts

# Wire types that have their own length.
_OWN_LENGTH = frozenset({"virtio", "qtailq", "qlist", "gtree", "tmp", "vstruct"})

ValueOf = Callable[[str, str], Any]
"""Gives the value of a number by (name of the description, path), None where it is not known."""


@dataclass
class Fit:
    """A Fit fits a destination's description to a stream's: call `vmsd` once.

    Attributes
    ----------
    knowledge : what is known of the destination's descriptions.
    own_value, sent_value : the values that the destination and the stream have.
    differences : what the destination would read otherwise than the stream has it.
    assumptions : what had to be assumed.
    specific : a value or a machine type has a say, so that the result holds for this pair alone.
    """

    knowledge: Knowledge
    own_value: ValueOf
    sent_value: ValueOf
    differences: list[Obstacle] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    specific: bool = False

    def vmsd(self, own: Vmsd, other: Vmsd, prefix: str = "") -> Vmsd:
        """Returns `own` fitted to `other`; `prefix` is the path of the struct that they describe."""
        has = self.knowledge.has
        if self.knowledge.derived and own.name == other.name and not has(own) and has(other):
            own = replace(own, fields=other.fields)
        fields = self._fields(own, other, prefix)
        subsections = {s.name: s for s in own.subsections}
        known = self.knowledge.subsections(own)
        for sub in other.subsections:
            if sub.name in subsections:
                subsections[sub.name] = self.vmsd(subsections[sub.name], sub, prefix)
            elif (tree := known.get(sub.name)) is not None:  # its fields are taken to be the stream's
                versions = tree.version_id, tree.minimum_version_id
                subsections[sub.name] = replace(sub, version_id=versions[0], minimum_version_id=versions[1])
        return with_parts(own, tuple(fields), tuple(subsections.values()))

    def _fields(self, own: Vmsd, other: Vmsd, prefix: str) -> list[FieldDescription]:
        ours, theirs = _grouped(own.fields), _grouped(other.fields)
        out: list[FieldDescription] = []
        for tag, a, b, c, d in _edits([n for n, _ in ours], [n for n, _ in theirs]):
            if tag == "equal":
                for (_, mine), (_, their) in zip(ours[a:b], theirs[c:d], strict=True):
                    out += self._same(own, other, mine, their, prefix)
                continue
            out += self._changed(own, other, _flat(ours[a:b]), _flat(theirs[c:d]), prefix)
        return out

    # -- fields of other names -------------------------------------------------------------------------------------

    def _changed(
        self, own: Vmsd, other: Vmsd, mine: list[FieldDescription], theirs: list[FieldDescription], prefix: str
    ) -> list[FieldDescription]:
        """Fits fields whose names differ: with one length at one place they are renamed, or filler for what is gone."""
        mine = [f for f in mine if self._reads_at(own, other, f)]
        if _bytes(mine) == _bytes(theirs):
            return mine
        if len(mine) == len(theirs) and all(
            a.size == b.size and (a.count is None) == (b.count is None) for a, b in zip(mine, theirs, strict=True)
        ):
            return [self._one(own, other, a, b, prefix) for a, b in zip(mine, theirs, strict=True)]
        out: list[FieldDescription] = []
        sizes = [_bytes([f]) for f in mine], [_bytes([f]) for f in theirs]
        for tag, a, b, c, d in difflib.SequenceMatcher(None, *sizes, autojunk=False).get_opcodes():
            if tag == "equal":
                out += mine[a:b]
            else:
                out += self._only_here(own, other, mine[a:b], prefix)
                out += self._only_there(own, other, theirs[c:d], prefix)
        return out

    def _only_here(
        self, own: Vmsd, other: Vmsd, fields: list[FieldDescription], prefix: str
    ) -> Iterable[FieldDescription]:
        for f in fields:
            if self._reads(own, other, f, prefix):
                text = f"the destination reads {f.label}, which the stream does not have"
                self._differ(own, "field missing in stream", text, f)
                yield f

    def _only_there(
        self, own: Vmsd, other: Vmsd, fields: list[FieldDescription], prefix: str
    ) -> Iterable[FieldDescription]:
        for f in fields:
            if self._takes(own, other, f, prefix):
                yield f
            else:
                text = f"the destination does not read {f.label}, which the stream has"
                self._differ(own, "field unknown", text, f)

    def _condition(self, own: Vmsd, f: FieldDescription) -> Condition | None:
        self.specific |= self.knowledge.may_be_gated(own, f)
        return self.knowledge.gate(own, f) or self.knowledge.condition(own, f)

    def _reads_at(self, own: Vmsd, other: Vmsd, f: FieldDescription) -> bool:
        """Tells whether a field is read at the stream's version of its description."""
        when = self._condition(own, f)
        return when is None or when.version <= other.version_id

    def _reads(self, own: Vmsd, other: Vmsd, f: FieldDescription, prefix: str) -> bool:
        """Tells whether the destination reads a field of its own that this stream does not have."""
        if self._is_empty(own, other, f, prefix, self._own, self._sent):
            return False
        if self.knowledge.derived and self.knowledge.varies(own, f):
            return False
        when = self._condition(own, f)
        if when is not None and when.gate is not None:
            return when.gate
        if when is not None and not when.test:
            return True
        if (when is not None and not when.by_machine) or (when is None and own.version_id > other.version_id):
            self.assumptions.append(f"{own.name}: the destination does not wait for {f.label}")
            return False
        return True

    def _takes(self, own: Vmsd, other: Vmsd, f: FieldDescription, prefix: str) -> bool:
        """Tells whether the destination reads a field of the stream that its own stream does not have."""
        if self._is_empty(other, own, f, prefix, self._sent, self._own):
            return True
        when = self._condition(own, f)
        if when is not None and when.gate is not None:
            return when.gate
        by_state = when is not None and bool(when.test) and not when.by_machine
        return by_state or (self.knowledge.derived and self.knowledge.varies(own, f))

    # -- fields of one name ----------------------------------------------------------------------------------------

    def _same(
        self, own: Vmsd, other: Vmsd, mine: list[FieldDescription], theirs: list[FieldDescription], prefix: str
    ) -> list[FieldDescription]:
        """Fits a field that both have, or the elements of an array that were each described for themselves."""
        if len(mine) == len(theirs) == 1:
            return [self._one(own, other, mine[0], theirs[0], prefix)]
        out = []
        for their in theirs:
            like = next((m for m in mine if m.index == their.index and m.type == their.type), None)
            like = like or next((m for m in mine if m.type == their.type), None)
            out.append(
                their if like is None else replace(self._one(own, other, like, their, prefix), index=their.index)
            )
        if len(mine) != len(theirs) and all(m.type == theirs[0].type for m in mine):
            self.assumptions.append(f"{own.name}: {theirs[0].name} has as many elements as the stream says")
        return out

    def _one(
        self, own: Vmsd, other: Vmsd, mine: FieldDescription, their: FieldDescription, prefix: str
    ) -> FieldDescription:
        if mine.type in _OWN_LENGTH and mine.type == their.type:
            return their
        if mine.struct is not None and their.struct is not None:
            struct = self.vmsd(mine.struct, their.struct, f"{prefix}{mine.label}.")
            if struct is not mine.struct or struct.size != mine.size:
                mine = replace(mine, struct=struct, size=struct.size)
        if mine.count == their.count and mine.size == their.size:
            return mine
        if mine.struct is None and mine.size != their.size and mine.count is None and their.count is None:
            if mine.type == "buffer" and self._is_counted(own, other, mine, prefix, mine.size, their.size):
                return replace(mine, size=their.size)
            text = f"{mine.label} has {mine.size} bytes at the destination, {their.size} in the stream"
            self._differ(own, "field size", text, mine, their.size, mine.size)
            return mine
        counts = (1 if mine.count is None else mine.count, 1 if their.count is None else their.count)
        if counts[0] != counts[1]:
            if self._is_counted(own, other, mine, prefix, *counts):
                return replace(mine, count=their.count)
            text = f"{mine.label} has {counts[0]} elements at the destination, {counts[1]} in the stream"
            self._differ(own, "array length", text, mine, counts[1], counts[0])
        return mine

    # -- lengths that numbers tell ---------------------------------------------------------------------------------

    def _own(self, vmsd: str, path: str) -> Any:
        self.specific = True
        return self.own_value(vmsd, path)

    def _sent(self, vmsd: str, path: str) -> Any:
        self.specific = True
        return self.sent_value(vmsd, path)

    def _is_counted(self, own: Vmsd, other: Vmsd, f: FieldDescription, prefix: str, mine: int, theirs: int) -> bool:
        """Tells whether a number gives the length on both sides."""
        counted = any(self._own(own.name, path) == mine for path in _numbers(own, prefix)) and any(
            self._sent(other.name, path) == theirs for path in _numbers(other, prefix)
        )
        return counted or (self.knowledge.derived and self.knowledge.varies(own, f))

    def _is_empty(
        self, side: Vmsd, other: Vmsd, f: FieldDescription, prefix: str, value: ValueOf, other_value: ValueOf
    ) -> bool:
        """Returns True if the other side omits this array because its count is zero."""
        length = f.size if f.count is None else f.count
        return any(value(side.name, path) == length for path in _numbers(side, prefix)) and any(
            other_value(other.name, path) == 0 for path in _numbers(other, prefix)
        )

    def _differ(
        self, own: Vmsd, kind: str, text: str, f: FieldDescription, stream: Any = None, mine: Any = None
    ) -> None:
        self.differences.append(Obstacle("F", kind, f"{own.name}: {text}", None, None, f.label, stream, mine))


def _numbers(vmsd: Vmsd, prefix: str) -> list[str]:
    return [prefix + n.label for n in vmsd.fields if n.type in NUMBERS and n.count is None]


def _edits(mine: list[str], theirs: list[str]) -> Iterable[tuple[str, int, int, int, int]]:
    """Returns the edits that make one list of names into the other, as `difflib` gives them."""
    if mine == theirs:
        return [("equal", 0, len(mine), 0, len(theirs))]
    return difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes()


def _grouped(fields: tuple[FieldDescription, ...]) -> list[tuple[str, list[FieldDescription]]]:
    """Returns the fields by name, elements of an array together; several `unused` stay apart: QEMU numbers them."""
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
