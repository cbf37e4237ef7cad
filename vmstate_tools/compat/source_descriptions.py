"""What QEMU's source says of VMStateDescriptions, release by release: `data/compat/vmsds.csv`.

A vmdesc shows what one stream had. The source tells the rest: which subsections a release knows, when a field is
read, which lengths vary.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from vmstate_tools.facts.machines import version_of
from vmstate_tools.facts.tables import Row, rows
from vmstate_tools.release import Release
from vmstate_tools.stream.records import Section
from vmstate_tools.stream.stream import Stream
from vmstate_tools.vmstate import builtin as layouts
from vmstate_tools.vmstate.description import Description, FieldDescription, Vmsd, built_in


@dataclass(frozen=True, eq=False)
class Known:
    """A Known is a VMStateDescription as some releases' source has it; each field is 'MACRO name argument …'."""

    file: str
    version_id: int
    minimum_version_id: int
    unmigratable: bool
    old: bool  # has a reader for versions below the minimum (`load_state_old`)
    subsections: tuple[str, ...]
    fields: tuple[str, ...]

    @functools.cached_property
    def shape(self) -> tuple[tuple[str, ...], ...]:
        """Returns the fields without what only matters to C: macro, name, numbers, predicate."""
        return tuple(
            (w[0], *w[1:2], *(a for a in w[2:] if a.isdigit()), w[-1] if "_TEST" in w[0] else "")
            for w in (f.split(" ") for f in self.fields)
        )

    @functools.cached_property
    def gates(self) -> tuple[Release, ...]:
        """Returns the releases before whose machine types a field differs: 2.8 for `pre_2_8_migration`."""
        found = re.findall(r"pre_(\d+)_(\d+)_migration", " ".join(self.fields))
        return tuple(Release(f"{major}.{minor}") for major, minor in found)

    @functools.cached_property
    def always(self) -> set[str]:
        """Returns the names of the fields that are there whatever the version, machine type or state."""
        return {
            w[1].partition("[")[0]
            for f in self.fields
            if len(w := f.split(" ")) > 1 and not re.search(r"UNUSED|TEST|VARRAY|VBUFFER|_V$|FIELD", w[0])
        }

    @functools.cached_property
    def there(self) -> set[str]:
        """Returns the names of all fields that there may be, arrays without an element's number, and `unused`."""
        return {n.partition("[")[0] for n in self.names} | {"unused"}

    @functools.cached_property
    def names(self) -> set[str]:
        """Returns the names of all fields, as they stand in the source."""
        return {words[1] for f in self.fields if len(words := f.split(" ", 2)) > 1}


class _Span(NamedTuple):
    """A description, and from which release to which the source has it so; `until` is None where it still does."""

    since: Release
    until: Release | None
    known: Known

    def has(self, release: Release) -> bool:
        """Tells whether a release is among them; stable releases go with the first of their series."""
        minor = release.numbers[:2]
        return self.since.numbers[:2] <= minor and (self.until is None or minor <= self.until.numbers[:2])


@functools.cache
def _rows_by_name() -> Mapping[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows("compat", "vmsds"):
        found.setdefault(row["name"], []).append(row)
    return found


@functools.lru_cache(maxsize=1 << 14)  # names come from streams
def _spans(name: str) -> tuple[_Span, ...]:
    """Returns what there is of a name."""
    found = []
    for row in _rows_by_name().get(name, ()):
        known = Known(
            row["file"],
            int(row["version_id"]),
            int(row["minimum_version_id"]),
            row["unmigratable"] == "1",
            "load_state_old" in row["hooks"],
            tuple(row["subsections"].split()) if "vfio devices" not in row["subsections"] else (),
            tuple(row["fields"].split(";")),
        )
        found.append(_Span(Release(row["since"]), Release(row["until"]) if row["until"] else None, known))
    return tuple(found)


@functools.lru_cache(maxsize=1 << 16)
def _of_release(name: str, release: Release) -> tuple[Known, ...]:
    return tuple(span.known for span in _spans(name) if span.has(release))


def release_of(vmsds: Mapping[str, Vmsd]) -> str | None:
    """Returns the newest release whose source has most of these descriptions, by versions, fields and subsections."""
    releases = sorted({Release(row["since"]) for row in rows("compat", "vmsds")})
    score = functools.partial(_agreeing, vmsds)
    best = max(releases, key=lambda release: (score(release), release), default=None)
    return None if best is None else str(best)


def _agreeing(vmsds: Mapping[str, Vmsd], release: Release) -> int:
    """Returns how many of these descriptions the source of a release has just so."""
    found = 0
    for vmsd in vmsds.values():
        known = find(vmsd, release)
        if known is not None:
            versions = (known.version_id, known.minimum_version_id) == (vmsd.version_id, vmsd.minimum_version_id)
            names = {f.name.partition("[")[0] for f in vmsd.fields} - {"unused"}
            fields = names <= {n.partition("[")[0] for n in known.names}
            found += versions and fields and set(known.subsections) == {s.name for s in vmsd.subsections}
    return found


@functools.lru_cache(maxsize=1 << 14)
def known_subsections(known: Known, name: str, release: Release) -> tuple[str, ...]:
    """Returns the subsections that a description has in a release; a stable release may add one."""
    more = [
        row["subsection"]
        for row in rows("compat", "backports")
        if row["vmsd"] == name and "ppc" in known.file and release >= Release(row["since"])
    ]
    return (*known.subsections, *(s for s in more if s not in known.subsections))


def ever(name: str) -> bool:
    """Tells whether QEMU's source has a description of this name in any release."""
    return name in _rows_by_name()


@functools.cache
def _always_sent() -> frozenset[str]:
    first = Release("2.4")  # before, the predicate stood beside the subsection, not in it
    needed: dict[str, bool] = {}
    for row in rows("compat", "vmsds"):
        if Release(row["since"]) >= first:
            needed[row["name"]] = needed.get(row["name"], False) or bool(row["needed"])
    return frozenset(name for name, asked in needed.items() if not asked)


def always_sent(subsection: Vmsd) -> bool:
    """Tells whether QEMU's source has no predicate (`.needed`) for this subsection, in any release since 2.4."""
    return subsection.name in _always_sent()


def target_words(vmsd: Vmsd) -> list[str]:
    """Returns the fields that are as long as a target_ulong, in the release whose description is most like this one."""
    here = {f.name for f in vmsd.fields}
    like = max((s.known for s in _spans(vmsd.name)), key=lambda k: len(k.names & here), default=None)
    words = [f.split(" ")[1] for f in like.fields if f.startswith("UINTTL")] if like is not None else []
    return [name for name in words if name in here]


def find(vmsd: Vmsd, release: Release | None) -> Known | None:
    """Returns a description as a release has it; where several have the name, the one with the most fields in common.

    None where the release is not known or its source has no such name.
    """
    candidates = _of_release(vmsd.name, release) if release is not None else ()
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    return _nearest(candidates, frozenset([f.name for f in vmsd.fields]))


@functools.lru_cache(maxsize=1 << 16)
def _nearest(candidates: tuple[Known, ...], names: frozenset[str]) -> Known:
    return max(candidates, key=lambda k: len(k.names & names))


class Condition(NamedTuple):
    """When a field is read: from `version` of its description on, or when the predicate `test` says so.

    `gate` is what the predicate says for the destination's machine type, None where it is not known.
    """

    version: int = 0
    test: str = ""
    gate: bool | None = None

    @property
    def by_machine(self) -> bool:
        """Tells whether the predicate asks for a property that machine types set."""
        return bool(re.search(r"pre_|migrat|compat", self.test))


@functools.cache
def _gates() -> Mapping[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows("compat", "gates"):
        found.setdefault(row["vmsd"], []).append(row)
    return found


def gated(vmsd: str, field: str, release: Release | None, machine: str | None) -> Condition | None:
    """Returns the condition of a field that a compat property of the machine type decides, by data/compat/gates.csv.

    None where no such property is known.
    """
    of_machine = version_of(machine or "")
    for row in _gates().get(vmsd, ()):
        if of_machine is None or release is None or not fnmatch.fnmatchcase(field, row["field"]):
            continue
        if (machine or "").startswith(row["machine"]) and release.within(row["since"], None):
            return Condition(test=row["source"], gate=of_machine.within(row["since_machine"], row["until_machine"]))
    return None


def may_be_gated(vmsd: str, field: str) -> bool:
    """Tells whether a compat property decides over a field with some machine type."""
    return any(fnmatch.fnmatchcase(field, row["field"]) for row in _gates().get(vmsd, ()))


def condition(vmsd: Vmsd, field: FieldDescription, release: Release | None) -> Condition | None:
    """Returns the condition of a field in a release; None where it has none, or the source does not say."""
    known = find(vmsd, release)
    for text in known.fields if known else ():
        macro, *arguments = text.split(" ")
        unused = macro.startswith("UNUSED")
        if unused != (field.type == "unused_buffer") or (not unused and arguments[:1] != [field.name]):
            continue
        numbers = [int(a) for a in arguments if a.isdigit()]
        if macro == "UNUSED_BUFFER":
            return Condition(test=arguments[0]) if numbers[-1:] == [field.size] else None
        if "_TEST" in macro:
            return Condition(test=arguments[0] if unused else arguments[-1])
        if macro == "FIELD":
            words = dict(a.split("=", 1) for a in arguments if "=" in a)
            if "test" in words:
                return Condition(test=words["test"])
            version = words.get("version", "0")
            return Condition(int(version)) if version.isdigit() else None
        if unused:
            return Condition(numbers[-1]) if macro.endswith("_V") and numbers else None
        return Condition(numbers[-1] if macro.endswith("_V") and numbers else 0)
    return None


def has(vmsd: Vmsd, release: Release | None) -> bool:
    """Tells whether a release has this description with exactly these fields, as far as names and versions show."""
    known = find(vmsd, release)
    if known is None or known.version_id != vmsd.version_id:
        return False
    names = {f.name.partition("[")[0] for f in vmsd.fields}
    return known.always <= names <= known.there


def varies(vmsd: Vmsd, field: FieldDescription, release: Release | None) -> bool:
    """Tells whether the source gives this array or buffer no fixed length."""
    known = find(vmsd, release)
    texts = [t.split(" ") for t in known.fields] if known else []
    varying = {w[1] for w in texts if "VARRAY" in w[0] or "VBUFFER" in w[0]}
    if field.name in varying:
        return True
    # One that is absent for being empty, under another name in the stream.
    return field.count is not None and len(varying - {f.name for f in vmsd.fields}) == 1


def subsections(vmsd: Vmsd, release: Release | None) -> dict[str, Vmsd] | None:
    """Returns the subsections that a release knows of a description, with versions and no fields; None: not known."""
    known = find(vmsd, release)
    return None if known is None or release is None else _subsections(known, vmsd.name, release)


@functools.lru_cache(maxsize=1 << 14)
def _subsections(known: Known, parent: str, release: Release) -> dict[str, Vmsd]:
    found: dict[str, Vmsd] = {}
    for name in known_subsections(known, parent, release):
        same = sorted(_of_release(name, release), key=lambda k: k.file != known.file)
        version, minimum = (same[0].version_id, same[0].minimum_version_id) if same else (1 << 31, 0)
        found[name] = Vmsd(name, version, minimum_version_id=minimum)
    return found


def as_read(vmsd: Vmsd) -> Vmsd:
    """Returns a ppc CPU's description as a release reads what it writes: the first of two subsections with one name.

    Until 9.1 the TLB of embedded CPUs is sent as `cpu/tlb6xx`, a name that another subsection before it has too
    (target/ppc/machine.c: vmstate_tlbemb; 203beb6f04 gave it a name of its own): any release misreads such a stream.
    """
    if vmsd.name != "cpu":
        return vmsd
    subsections = tuple(_tlb6xx(s) if s.name == "cpu/tlb6xx" else s for s in vmsd.subsections)
    return replace(vmsd, subsections=subsections)


def _tlb6xx(vmsd: Vmsd) -> Vmsd:
    entries = next((f for f in vmsd.fields if f.name == "env.tlb.tlbe" and f.struct is not None), None)
    if entries is None or entries.struct is None:
        return vmsd
    size = next((f.size for f in entries.struct.fields if f.name == "EPN"), 8)  # a target_ulong
    entry = Vmsd("cpu/tlb6xx_entry", 1, tuple(FieldDescription(n, "uint64", size) for n in ("pte0", "pte1", "EPN")))
    tlb = FieldDescription("env.tlb.tlb6", "struct", entry.size, entries.count, None, entry)
    number = next(f for f in vmsd.fields if f.name == "env.nb_tlb")
    return replace(vmsd, fields=(number, tlb, FieldDescription("env.tgpr", "uint64", size, 4)), subsections=())


def describe(stream: Stream, section: Section, release: str | None = None) -> Description | None:
    """Returns a built-in description that fits a section without one; `release` is its writer's, if known."""
    if section.part != "full":
        return None
    entry = layouts.resolve(
        section.idstr,
        section.version_id,
        stream.view,
        section.payload_offset,
        plausible_end=lambda end: end == section.payload_end,
        release=release,
        instance_id=section.instance_id,
    )
    return None if entry is None else built_in(entry)
