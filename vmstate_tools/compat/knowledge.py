"""What is known of the descriptions of a destination's release: from QEMU's source and from a -dump-vmstate file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vmstate_tools.compat import source_descriptions
from vmstate_tools.compat.source_descriptions import Condition
from vmstate_tools.release import Release
from vmstate_tools.vmstate.description import FieldDescription, Vmsd
from vmstate_tools.vmstate.dump import Dump


@dataclass(frozen=True)
class Knowledge:
    """Knowledge is what is known of descriptions.

    Attributes
    ----------
    release, machine : the destination's; None where they are not known.
    dump : its -dump-vmstate file, where there is one; it knows versions and subsections better than the source.
    derived : no stream of the destination itself is known, so that lengths it has may differ from those expected.
    """

    release: Release | None
    machine: str | None
    dump: Dump | None = None
    derived: bool = False

    def dumped(self, name: str) -> Vmsd | None:
        """Returns a description as the dump has it, None where it has none."""
        return self.dump.vmsds.get(name) if self.dump is not None else None

    def subsections(self, vmsd: Vmsd) -> Mapping[str, Vmsd | None]:
        """Returns the subsections that the release knows of a description, whether or not a stream showed them."""
        dumped = self.dumped(vmsd.name)
        if dumped is not None:
            return {s.name: s for s in dumped.subsections}
        return source_descriptions.subsections(vmsd, self.release) or {}

    def gate(self, vmsd: Vmsd, field: FieldDescription) -> Condition | None:
        """Returns the condition of a field that the machine type decides, None where none is known to."""
        return source_descriptions.gated(vmsd.name, field.name, self.release, self.machine)

    def may_be_gated(self, vmsd: Vmsd, field: FieldDescription) -> bool:
        """Tells whether any machine type decides over a field."""
        return source_descriptions.may_be_gated(vmsd.name, field.name)

    def condition(self, vmsd: Vmsd, field: FieldDescription) -> Condition | None:
        """Returns the condition of a field that the source states, None where it states none."""
        return source_descriptions.condition(vmsd, field, self.release)

    def varies(self, vmsd: Vmsd, field: FieldDescription) -> bool:
        """Tells whether the source gives this array or buffer no fixed length."""
        return source_descriptions.varies(vmsd, field, self.release)

    def has(self, vmsd: Vmsd) -> bool:
        """Tells whether the source has a description with just these fields."""
        return source_descriptions.has(vmsd, self.release)

    def with_minimum(self, vmsd: Vmsd) -> Vmsd:
        """Returns a description with the least version that the release reads, as far as that is known."""
        dumped, known = self.dumped(vmsd.name), source_descriptions.find(vmsd, self.release)
        if dumped is not None and dumped.version_id == vmsd.version_id:
            return replace(vmsd, minimum_version_id=dumped.minimum_version_id)
        if known is not None and not known.old and 0 < known.minimum_version_id <= vmsd.version_id:
            return replace(vmsd, minimum_version_id=known.minimum_version_id)
        return vmsd
