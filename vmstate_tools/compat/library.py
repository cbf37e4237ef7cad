"""Descriptions beyond a stream's own: what a release knows, from QEMU's source; what fits a section, from layouts."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vmstate_tools import layouts
from vmstate_tools.compat import facts
from vmstate_tools.description import Description, FieldDescription, Vmsd, built_in
from vmstate_tools.stream import Section, Stream

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


def ever(name: str) -> bool:
    """Does QEMU's source have a description of this name in any release?"""
    return name in _vmsds()


def find(vmsd: Vmsd, release: Release | None) -> Known | None:
    """A description as a release has it; of several of one name the one with the most fields in common.

    None where the release is not known or its source has no such name.
    """
    candidates = _of_release(vmsd.name, release) if release is not None else ()
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    names = {f.name for f in vmsd.fields}
    return max(candidates, key=lambda k: len(k.names & names))


class Condition(NamedTuple):
    """When a field is read: from `version` of its description on, or when the predicate `test` says so."""

    version: int = 0
    test: str = ""

    @property
    def by_machine(self) -> bool:
        """Does the predicate ask for a property that machine types set?"""
        return bool(re.search(r"pre_|migrat|compat", self.test))


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
            return Condition(int(words["version"])) if words.get("version", "").isdigit() else None
        return Condition(numbers[-1]) if macro.endswith("_V") and numbers else None
    return None


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
    if known is None or release is None:
        return None
    found: dict[str, Vmsd] = {}
    for name in known.subsections:
        same = sorted(_of_release(name, release), key=lambda k: k.file != known.file)
        version, minimum = (same[0].version_id, same[0].minimum_version_id) if same else (1 << 31, 0)
        found[name] = Vmsd(name, version, minimum_version_id=minimum)
    return found


def describe(stream: Stream, section: Section, release: str | None = None) -> Description | None:
    """A built-in description that fits a section no vmdesc describes; `release` is its writer's, if known."""
    if section.part != "full":
        return None
    entry = layouts.resolve(
        section.idstr,
        section.version_id,
        stream._view,
        section.payload_offset,
        plausible_end=lambda end: end == section.payload_end,
        release=release,
        instance_id=section.instance_id,
    )
    return None if entry is None else built_in(entry)
