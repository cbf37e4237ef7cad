"""What a `-dump-vmstate` file says of a QEMU, beside what its source says: differences are faults of the reader.

The file lists every device type with a description (`dump_vmstate_json_to_file` in migration/savevm.c).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmstate_tools.qemu_source.release_facts import ReleaseFacts
    from vmstate_tools.qemu_source.vmstate import Description


@dataclass
class Comparison:
    """Descriptions compared, those that differ with the reason, and device types that the source was not read for.

    Attributes
    ----------
    same, different : names of descriptions; each is compared once for each form the file has of it.
    reasons : (description, what differs).
    missing : device types, with what was not found.
    in_memory : (description, field, size, size in the file) of structs that are not as large as the file says: their
        members travel, the struct does not, and stable releases change it.
    """

    same: int = 0
    reasons: list[tuple[str, str]] = field(default_factory=list)
    different: int = 0
    missing: list[tuple[str, str]] = field(default_factory=list)
    in_memory: list[tuple[str, str, int | None, int]] = field(default_factory=list)


def compare(facts: ReleaseFacts, dump: dict[str, Any], target: str) -> Comparison:
    """Compares every description of a file with the source: names, versions, sizes, fields, subsections, in order."""
    walk = _Walk(facts, target)
    for device, entry in dump.items():
        if device == "vmschkmachine":
            continue
        if facts.device(device, target) is None:
            walk.found.missing.append((device, "type not found"))
            continue
        description = facts.description_of(device, target)
        if description is None:
            walk.found.missing.append((device, "description not found"))
            continue
        walk.description(description, entry["Description"])
    return walk.found


class _Walk:
    def __init__(self, facts: ReleaseFacts, target: str) -> None:
        self.facts = facts
        self.target = target
        self.found = Comparison()
        self.seen: set[str] = set()

    def description(self, mine: Description, theirs: dict[str, Any]) -> None:
        key = json.dumps(theirs, sort_keys=True)
        if key in self.seen:
            return
        self.seen.add(key)
        reasons = [*self._head(mine, theirs), *self._fields(mine, theirs), *self._subsections(mine, theirs)]
        self.found.reasons += [(theirs["name"], reason) for reason in reasons]
        self.found.same += not reasons
        self.found.different += bool(reasons)

    def _head(self, mine: Description, theirs: dict[str, Any]) -> Iterator[str]:
        if mine.name is not None and mine.name != theirs["name"]:
            yield f"name {mine.name}"
        if mine.version != theirs["version_id"] or mine.minimum != theirs["minimum_version_id"]:
            yield f"versions {mine.version}, {mine.minimum}"

    def _fields(self, mine: Description, theirs: dict[str, Any]) -> Iterator[str]:
        # A check of values (VMSTATE_VALIDATE) is not listed in the file.
        fields = [f for f in mine.fields if "MUST_EXIST" not in f.flags]
        listed = theirs.get("Fields", [])
        names, theirs_names = [f.name for f in fields], [f["field"] for f in listed]
        if names != theirs_names:
            yield f"fields {sorted(set(names) ^ set(theirs_names))[:5] or 'in another order'}"
            return
        for f, other in zip(fields, listed, strict=True):
            if f.version != other["version_id"] or bool(f.test) != other["field_exists"]:
                yield f"{f.name}: version {f.version}, test {f.test or 'none'}"
            if f.size != other["size"] and f.vmsd and f.size is not None:
                self.found.in_memory.append((mine.name or "", f.name, f.size, other["size"]))
            elif f.size != other["size"] and not f.vmsd:
                yield f"{f.name}: size {f.size}, not {other['size']}"
            nested = other.get("Description")
            inner = self.facts.description(f.vmsd, mine.file, self.target) if f.vmsd else None
            if (nested is None) != (inner is None):
                yield f"{f.name}: description {f.vmsd or 'none'}"
            elif nested is not None and inner is not None:
                self.description(inner, nested)

    def _subsections(self, mine: Description, theirs: dict[str, Any]) -> Iterator[str]:
        found = [self.facts.description(symbol, mine.file, self.target) for symbol, _ in mine.subsections]
        listed = theirs.get("Subsections", [])
        names = [d.name if d is not None else None for d in found]
        if names != [s["name"] for s in listed]:
            yield f"subsections {names}"
            return
        for d, other in zip(found, listed, strict=True):
            if d is not None:
                self.description(d, other)
