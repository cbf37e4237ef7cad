"""Time bombs in descriptions: what will break a migration one day, and why it bites."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from vmstate_tools.compat import source_descriptions
from vmstate_tools.errors import StreamError
from vmstate_tools.facts.families import WORDS
from vmstate_tools.stream.stream import Stream, open_stream
from vmstate_tools.vmstate.description import Vmsd
from vmstate_tools.vmstate.dump import Dump, dump_differences, read_dump

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["section", "instance_id", "vmsd", "field", "rule", "why"]

# Rule → why it bites.
RULES = {
    "internal state under EQUAL": (
        "what the implementation decides is compared: any release that computes it otherwise refuses the stream "
        "(insns_flags, QEMU 2.7)"
    ),
    "EQUAL": "the value goes with the configuration: a destination started otherwise refuses the stream",
    "limited by the destination": (
        "the destination refuses more elements than it has itself: a newer release that adds one cannot go back "
        "(cpreg_vmstate_array_len of Arm CPUs)"
    ),
    "size of a target word": (
        "a field has the length of target_ulong, which no version shows: programs of 32 and of 64 bits read another "
        "number of bytes, and so does a filler of sizeof(target_ulong) for a field that was 64 bits in both"
    ),
    "subsection always sent": (
        "nothing decides whether it is needed: a release that does not know it refuses every stream"
    ),
    "place in the name": (
        "the path of the device on its bus is part of the section's name: a destination with the device in another "
        "slot does not know the section"
    ),
    "address as number": (
        "the section is numbered by an address or a bus number: a release or a configuration that numbers otherwise "
        "has no such section (serial ports, QEMU 5.0)"
    ),
    "subsection named like a struct": (
        "a nested description whose name begins so eats the subsection before its owner sees it (bamboo, cpu/tlb6xx)"
    ),
    "two subsections of one name": "the reader takes the first description of that name, whichever was meant",
    "unversioned": "two releases have other fields under one version: a reader cannot tell them apart",
    "same bytes, another field": "no loader can tell: what one release sends the other takes for something else",
    "condition changed": "in one release code decides whether the field is there, in the other it always is",
    "version raised": "older releases refuse the section whatever is in it",
    "subsection unknown before": "an older release refuses the stream whenever this subsection is sent",
    "minimum raised": "streams of older releases are refused",
    "opaque": "written by hand-written code: no description tells what it holds or how long it is",
}

# Fields compared though the machine or the user does not set them: words that the CPU's implementation decides.
_INTERNAL = (*WORDS, "slb_nr", "nb_tlb")

# Sections are numbered in order of registration below this.
_ORDINAL = 0x3FF


def lint(what: Stream | Dump, against: Dump | None = None) -> pd.DataFrame:
    """Returns the time bombs in a stream's descriptions, or in a -dump-vmstate file's.

    Parameters
    ----------
    what : an opened stream, or a dump.
    against : for a dump, an older one: changes between both that no version shows are found too.

    Returns
    -------
    Columns section, instance_id (Int64, NA for a dump), vmsd, field, rule (a key of `RULES`), why.

    Raises
    ------
    TypeError : `what` is neither.
    """
    return _frame(findings(what, against))


def _frame(found: list[Finding]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame([(*finding, RULES[finding.rule]) for finding in found], columns=COLUMNS)
    return frame.astype({"instance_id": "Int64", "rule": "category"})


def findings(what: Stream | Dump, against: Dump | None = None) -> list[Finding]:
    """Returns the findings of `lint`, each once. Raises TypeError as `lint` does."""
    if isinstance(what, Stream):
        return list(dict.fromkeys(_stream(what)))
    if isinstance(what, Dump):
        return list(dict.fromkeys(_dump(what, against)))
    raise TypeError(f"a stream or a dump can be linted, not {type(what).__name__}")


class Finding(NamedTuple):
    """A Finding is a place in a description that `rule`, a key of `RULES`, is about; instance_id is None in a dump."""

    section: str
    instance_id: int | None
    vmsd: str
    field: str
    rule: str


def _stream(stream: Stream) -> Iterator[Finding]:
    for section in stream.distinct_sections:
        description = section.description
        if "/" in section.idstr and ":" in section.idstr.rpartition("/")[0]:
            yield Finding(section.idstr, section.instance_id, "", "", "place in the name")
        if section.instance_id > _ORDINAL:
            yield Finding(section.idstr, section.instance_id, "", "", "address as number")
        if description is None:
            if section.how == "opaque":
                yield Finding(section.idstr, section.instance_id, "", "", "opaque")
            continue
        if description.old_style:
            yield Finding(section.idstr, section.instance_id, "", "", "opaque")
            continue
        yield from _vmsd(section.idstr, section.instance_id, description.vmsd)


def _vmsd(section: str, instance: int | None, vmsd: Vmsd) -> Iterator[Finding]:
    for f in vmsd.fields:
        if f.type == "int32 le":
            yield Finding(section, instance, vmsd.name, f.label, "limited by the destination")
        elif f.equal:
            internal = f.name.split(".")[-1].removeprefix("mig_") in _INTERNAL
            yield Finding(section, instance, vmsd.name, f.label, "internal state under EQUAL" if internal else "EQUAL")
        if f.struct is not None:
            yield from _vmsd(section, instance, f.struct)
    for name in source_descriptions.target_words(vmsd):
        yield Finding(section, instance, vmsd.name, name, "size of a target word")
    structs = [f.struct.name for f in vmsd.fields if f.struct is not None]
    names = [s.name for s in vmsd.subsections]
    for sub in vmsd.subsections:
        if any(sub.name.startswith(name) for name in structs):
            yield Finding(section, instance, vmsd.name, sub.name, "subsection named like a struct")
        if names.count(sub.name) > 1:
            yield Finding(section, instance, vmsd.name, sub.name, "two subsections of one name")
        if source_descriptions.always_sent(sub):
            yield Finding(section, instance, vmsd.name, sub.name, "subsection always sent")
        yield from _vmsd(section, instance, sub)


def _dump(dump: Dump, against: Dump | None) -> Iterator[Finding]:
    for name, one in dump.classes.items():
        if one.vmsd is not None:
            yield from _vmsd(name, None, one.vmsd)
    if against is None:
        return
    changes = list(dump_differences(against, dump))
    raised = {(row.section, row.vmsd) for row in changes if row.kind == "version"}
    for row in changes:
        where = (row.section, None, row.vmsd, row.field)
        if row.kind in ("field only in a", "field only in b", "size", "count") and row.breaks:
            if (row.section, row.vmsd) not in raised:
                yield Finding(*where, "unversioned")
        elif row.kind == "renamed" and row.a.rpartition(".")[2] != row.b.rpartition(".")[2]:
            yield Finding(*where, "same bytes, another field")
        elif row.kind == "condition":
            yield Finding(*where, "condition changed")
        elif row.kind == "version" and row.b > row.a:
            yield Finding(*where, "version raised")
        elif row.kind == "minimum version":
            yield Finding(*where, "minimum raised")
        elif row.kind == "subsection only in b":
            yield Finding(*where, "subsection unknown before")


def lint_file(path: str | os.PathLike[str], against: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """Returns `lint` of a file: -dump-vmstate output if it reads as that, else a stream. Raises StreamError."""
    return _frame(findings_in(path, against))


def findings_in(path: str | os.PathLike[str], against: str | os.PathLike[str] | None = None) -> list[Finding]:
    """Returns the findings of `lint_file`. Raises StreamError."""
    try:
        dump = read_dump(path)
    except StreamError:
        with open_stream(path) as stream:
            return findings(stream)
    return findings(dump, None if against is None else read_dump(against))
