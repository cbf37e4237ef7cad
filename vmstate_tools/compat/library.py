"""Descriptions beyond a stream's own: what a release knows, from QEMU's source; what fits a section, from layouts."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from vmstate_tools.compat import facts
from vmstate_tools.stream.records import Section
from vmstate_tools.stream.stream import Stream
from vmstate_tools.vmstate import builtin as layouts
from vmstate_tools.vmstate.description import Description, FieldDescription, Vmsd, built_in

Release = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Known:
    """One VMStateDescription in one release: `fields` as 'MACRO name argument …'."""

    file: str
    version_id: int
    minimum_version_id: int
    unmigratable: bool
    old: bool  # has a reader for versions below the minimum (`load_state_old`)
    subsections: tuple[str, ...]
    fields: tuple[str, ...]

    @functools.cached_property
    def shape(self) -> tuple[tuple[str, ...], ...]:
        """The fields without what C alone cares for: macro, name, numbers, predicate."""
        return tuple(
            (w[0], *w[1:2], *(a for a in w[2:] if a.isdigit()), w[-1] if "_TEST" in w[0] else "")
            for w in (f.split(" ") for f in self.fields)
        )

    @functools.cached_property
    def gates(self) -> tuple[Release, ...]:
        """Releases up to whose machine types a field differs: `pre_2_8_migration` is (2, 8, 0)."""
        found = re.findall(r"pre_(\d+)_(\d+)_migration", " ".join(self.fields))
        return tuple((int(major), int(minor), 0) for major, minor in found)

    @functools.cached_property
    def always(self) -> set[str]:
        """Names of the fields that are there whatever the version, machine type or state."""
        return {
            w[1].partition("[")[0]
            for f in self.fields
            if len(w := f.split(" ")) > 1 and not re.search(r"UNUSED|TEST|VARRAY|VBUFFER|_V$|FIELD", w[0])
        }

    @functools.cached_property
    def there(self) -> set[str]:
        """Names of all fields there may be."""
        return {n.partition("[")[0] for n in self.names} | {"unused"}

    @functools.cached_property
    def names(self) -> set[str]:
        return {words[1] for f in self.fields if len(words := f.split(" ", 2)) > 1}


@functools.cache
def _vmsds() -> Mapping[str, list[tuple[Release, Release, Known]]]:
    """Name -> (first release, last release, what it was). Source: data/compat/vmsds.csv."""
    found: dict[str, list[tuple[Release, Release, Known]]] = {}
    for row in facts.rows("vmsds"):
        since, until = facts.version(row["since"]), facts.version(row["until"])
        known = Known(
            row["file"],
            int(row["version_id"]),
            int(row["minimum_version_id"]),
            row["unmigratable"] == "1",
            "load_state_old" in row["hooks"],
            tuple(row["subsections"].split()) if "vfio devices" not in row["subsections"] else (),
            tuple(row["fields"].split(";")),
        )
        found.setdefault(row["name"], []).append((since or (0, 0, 0), until or (999, 0, 0), known))
    return found


@functools.lru_cache(maxsize=1 << 16)
def _of_release(name: str, release: Release) -> tuple[Known, ...]:
    minor = release[:2]
    return tuple(k for since, until, k in _vmsds().get(name, ()) if since[:2] <= minor <= until[:2])


def release_of(vmsds: Mapping[str, Vmsd]) -> str | None:
    """The newest release whose source has most of these descriptions, by versions and field names."""
    releases = sorted({since for spans in _vmsds().values() for since, _, _ in spans})

    def score(release: Release) -> int:
        found = 0
        for vmsd in vmsds.values():
            known = find(vmsd, release)
            if known is not None:
                versions = (known.version_id, known.minimum_version_id) == (vmsd.version_id, vmsd.minimum_version_id)
                names = {f.name.partition("[")[0] for f in vmsd.fields} - {"unused"}
                fields = names <= {n.partition("[")[0] for n in known.names}
                found += versions and fields and set(known.subsections) == {s.name for s in vmsd.subsections}
        return found

    best = max(releases, key=lambda r: (score(r), r), default=None)
    return None if best is None else ".".join(map(str, best))


@functools.lru_cache(maxsize=1 << 14)
def known_subsections(known: Known, name: str, release: Release) -> tuple[str, ...]:
    """Those of a description in a release; a stable release may have one that its first did not."""
    more = [r["subsection"] for r in facts.rows("backports") if r["vmsd"] == name and "ppc" in known.file]
    since = {r["subsection"]: facts.version(r["since"]) or release for r in facts.rows("backports")}
    return (*known.subsections, *(s for s in more if s not in known.subsections and release >= since[s]))


def ever(name: str) -> bool:
    """Does QEMU's source have a description of this name in any release?"""
    return name in _vmsds()


@functools.cache
def _always_sent() -> frozenset[str]:
    needed: dict[str, bool] = {}
    for row in facts.rows("vmsds"):
        since = facts.version(row["since"])
        if since is not None and since >= (2, 4, 0):  # before, what needs it stood beside it
            needed[row["name"]] = needed.get(row["name"], False) or bool(row["needed"])
    return frozenset(name for name, asked in needed.items() if not asked)


def always_sent(subsection: Vmsd) -> bool:
    """Has QEMU's source no predicate (`.needed`) for this subsection, in any release since 2.4?"""
    return subsection.name in _always_sent()


def target_words(vmsd: Vmsd) -> list[str]:
    """Fields of a description that are as long as a target_ulong, in the release whose description is most like it."""
    here = {f.name for f in vmsd.fields}
    like = max((k for _, _, k in _vmsds().get(vmsd.name, ())), key=lambda k: len(k.names & here), default=None)
    words = [f.split(" ")[1] for f in like.fields if f.startswith("UINTTL")] if like is not None else []
    return [name for name in words if name in here]


def find(vmsd: Vmsd, release: Release | None) -> Known | None:
    """A description as a release has it; of several of one name the one with the most fields in common.

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

    `gate` is what the predicate says for the destination's machine type, None where data/compat/gates.csv has nothing.
    """

    version: int = 0
    test: str = ""
    gate: bool | None = None

    @property
    def by_machine(self) -> bool:
        """Does the predicate ask for a property that machine types set?"""
        return bool(re.search(r"pre_|migrat|compat", self.test))


@functools.cache
def _gates() -> Mapping[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for row in facts.rows("gates"):
        found.setdefault(row["vmsd"], []).append(row)
    return found


def gated(vmsd: str, field: str, release: Release | None, machine: str | None) -> Condition | None:
    """The condition of a field that a compat property of the machine type decides; None where none is known to."""
    of_machine = facts.version(machine)
    for row in _gates().get(vmsd, ()):
        if of_machine is None or release is None or not fnmatch.fnmatchcase(field, row["field"]):
            continue
        since, until, first = (facts.version(row[c]) for c in ("since_machine", "until_machine", "since"))
        if (machine or "").startswith(row["machine"]) and first is not None and release >= first:
            here = (since is None or of_machine >= since) and (until is None or of_machine <= until)
            return Condition(test=row["source"], gate=here)
    return None


def condition(vmsd: Vmsd, field: FieldDescription, release: Release | None) -> Condition | None:
    """The condition of a field in a release; None where it has none, or is not known."""
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
    """Has a release this description with exactly these fields, as far as names and versions tell?"""
    known = find(vmsd, release)
    if known is None or known.version_id != vmsd.version_id:
        return False
    names = {f.name.partition("[")[0] for f in vmsd.fields}
    return known.always <= names <= known.there


def varies(vmsd: Vmsd, field: FieldDescription, release: Release | None) -> bool:
    """Does the source give this array or buffer no fixed length?"""
    known = find(vmsd, release)
    texts = [t.split(" ") for t in known.fields] if known else []
    varying = {w[1] for w in texts if "VARRAY" in w[0] or "VBUFFER" in w[0]}
    if field.name in varying:
        return True
    # One that is absent for being empty, under another name in the stream.
    return field.count is not None and len(varying - {f.name for f in vmsd.fields}) == 1


def subsections(vmsd: Vmsd, release: Release | None) -> dict[str, Vmsd] | None:
    """The subsections a release knows of a description, with versions and no fields; None: not to be told."""
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
    """A ppc CPU as a release reads what it writes: of two subsections of one name the first is taken.

    To 9.1 the TLB of the embedded CPUs is sent as `cpu/tlb6xx`, the name of another that stands before it
    (target/ppc/machine.c: vmstate_tlbemb; 203beb6f04 gave it its own): such a stream is misread everywhere.
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
    """A built-in description that fits a section no vmdesc describes; `release` is its writer's, if known."""
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
