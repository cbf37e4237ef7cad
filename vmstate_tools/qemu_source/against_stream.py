"""What a stream's own description says, beside what the source of its release says.

Differences are faults of the reader.

A stream lists the fields it has; the source lists those it may have. The first must be a selection of the second, in
order, and leave out only what the source lets a stream leave out.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmstate_tools.qemu_source.release_facts import ReleaseFacts
    from vmstate_tools.qemu_source.vmstate import Description, Field
    from vmstate_tools.vmstate.description import FieldDescription, Vmsd

#: Types whose elements take as many bytes in a stream as in memory.
_AS_IN_MEMORY = frozenset(
    f"{kind}{suffix}" for kind in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
    for suffix in ("", " equal")
) | {"buffer", "unused_buffer", "float64"}  # fmt: skip
_VARYING = ("VARRAY", "VBUFFER", "MULTIPLY")


def lays_out(facts: ReleaseFacts, vmsd: Vmsd, target: str = "") -> str:
    """Returns '' where a description of that name in the source lays out what the stream describes, else why not."""
    found = [d for d in facts.descriptions if d.name == vmsd.name]
    found = found or [d for d in facts.descriptions if d.name is None]  # the name is made when QEMU runs
    if not found:
        return "no description of that name"
    nearest = [facts.description(d.symbol, d.file, target) for d in found]
    reasons = [_differs(facts, d, vmsd, vmsd.version_id, target) for d in found]
    if "" in reasons:
        return ""
    # Which of them the program has is not known here; one that no other target has of its own says most.
    return next((why for d, n, why in zip(found, nearest, reasons, strict=True) if d is n), reasons[0])


def _differs(facts: ReleaseFacts, mine: Description, vmsd: Vmsd, version: int, target: str) -> str:
    entries = vmsd.fields
    fields = [f for f in mine.fields if "MUST_EXIST" not in f.flags]

    # QEMU numbers the fields of a description that have one name (`vmfield_name_is_unique` in migration/vmstate.c).
    names = [{f.name, f"{f.name}[{[g.name for g in fields[:i]].count(f.name)}]"} for i, f in enumerate(fields)]

    @cache
    def rest(at: int, entry: int) -> str:
        """Why the entries from `entry` on are no selection of the fields from `at` on; '' where they are."""
        if at == len(fields):
            return "" if entry == len(entries) else f"{entries[entry].name} is not in the source there"
        reason = ""
        if entry < len(entries) and entries[entry].name in names[at]:
            end = entry
            while end < len(entries) and entries[end].name == entries[entry].name:
                end += 1
            for last in dict.fromkeys((end, entry + 1)):
                reason = _wrong(facts, mine, fields[at], entries[entry:last], target)
                reason = f"{fields[at].name}: {reason}" if reason else rest(at + 1, last)
                if not reason:
                    return ""
        if _optional(fields[at], version):
            return (without := rest(at + 1, entry)) and (reason or without)
        return reason or f"{fields[at].name}: not in the stream"

    why = rest(0, 0)
    if why:
        return why
    listed = [facts.description(symbol, mine.file, target) for symbol, _ in mine.subsections]
    for subsection in vmsd.subsections:
        # Two may have one name: vmstate_tlbemb of target/ppc/machine.c is called cpu/tlb6xx until 9.1.
        named = [d for d in listed if d is not None and d.name == subsection.name]
        reasons = [_differs(facts, d, subsection, subsection.version_id, target) for d in named]
        if "" not in reasons:
            return (
                f"{subsection.name}: {reasons[0]}" if reasons else f"subsection {subsection.name} is not in the source"
            )
        listed = listed[listed.index(named[reasons.index("")]) + 1 :]
    return ""


def _optional(field: Field, version: int) -> bool:
    empty = "ARRAY" in field.flags.split("|") and not field.num
    return bool(field.test) or (field.version or 0) > version or empty or any(v in field.flags for v in _VARYING)


def _wrong(facts: ReleaseFacts, mine: Description, field: Field, run: Sequence[FieldDescription], target: str) -> str:
    """Why a field is not what a run of entries describes: an array, or each of its elements, or a single one."""
    kind = facts.infos.get(field.info, "") if field.info else "struct"
    # Of an array of pointers, those that are NULL have no content: the type nullptr, or a struct without fields.
    content = [e for e in run if e.type != "nullptr" and (e.struct is None or e.struct.fields)]
    entry = content[0] if content and "ARRAY_OF_POINTER" in field.flags else run[0]
    if not content and "ARRAY_OF_POINTER" in field.flags:
        return ""
    if kind and entry.type and kind != entry.type:
        return f"{kind} in the source, {entry.type} in the stream"
    varies = any(v in field.flags for v in _VARYING)
    if kind in _AS_IN_MEMORY and not varies and field.size not in (None, entry.size) and entry.size:
        return f"{field.size} bytes in the source, {entry.size} in the stream"
    elements = sum(1 if f.count is None else f.count for f in run)
    if not varies and field.num not in (None, elements) and "ARRAY" in field.flags.split("|"):
        return f"{field.num} elements in the source, {elements} in the stream"
    if entry.struct is not None and field.vmsd:
        inner = facts.description(field.vmsd, mine.file, target)
        if inner is None:
            return f"description {field.vmsd} not found"
        return _differs(facts, inner, entry.struct, entry.struct.version_id, target)
    return ""
