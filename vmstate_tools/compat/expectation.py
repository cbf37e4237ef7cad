"""What a destination expects of a stream: framing, RAM blocks, and one entry per registered section."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vmstate_tools.compat import facts
from vmstate_tools.vmstate.description import Vmsd


@dataclass(eq=False, slots=True)
class Entry:
    """One section the destination has registered (migration/savevm.c: SaveStateEntry).

    `vmsd` is what it reads, None where that is not known. `values` are those of the destination itself, by
    (vmsd, path): what `_EQUAL` fields are compared with and what post_load rules need.
    `iterable` marks those loaded by hand-written code (ram, spapr/htab …), `old_style` those read by a callback.
    """

    idstr: str
    instance_id: int
    version_id: int
    vmsd: Vmsd | None = None
    values: dict[tuple[str, str], Any] = field(default_factory=dict)
    iterable: bool = False
    old_style: bool = False
    size: int | None = None  # bytes of payload the destination itself wrote
    programs: dict[Any, Any] = field(default_factory=dict, repr=False)  # compiled by `load`, per source description

    @property
    def key(self) -> tuple[str, int]:
        return self.idstr, self.instance_id


@dataclass(eq=False, slots=True)
class Expectation:
    """All of it. `configuration`: the machine name expected there, '' for any, None where none is expected."""

    entries: dict[tuple[str, int], Entry] = field(default_factory=dict)
    configuration: str | None = None
    page_bits: int | None = None
    capabilities: tuple[str, ...] = ()
    footers: bool = False
    framing_known: bool = True  # are configuration section and footers known to be as said
    ram: dict[str, int] = field(default_factory=dict)  # block -> bytes
    ram_complete: bool = True  # has the destination no other blocks
    ram_gone: frozenset[str] = frozenset()  # blocks that this kind of machine had in other releases only
    page_size: int | None = None
    ram_records: int = 0  # kinds of page records its own stream has, as flag bits
    foreign_registers: frozenset[bytes] = frozenset()  # lists of Arm system registers seen in other releases
    exact: bool = True  # seen of this release and machine type, not composed from others

    def add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.entries[entry.key] = entry

    def find(self, idstr: str, instance_id: int, release: tuple[int, int, int] | None = None) -> Entry | None:
        """The entry that takes a section, by the names it has now or had before (migration/savevm.c: `find_se`).

        A device with a path (`0000:00:03.0/e1000`) still takes sections by its description's name alone (`e1000`),
        numbered in the order of registration (`se->compat`). A few take another number as well (`se->alias_id`,
        data/compat/aliases.csv).
        """
        found = self.entries.get((idstr, instance_id))
        if found is not None:
            return found
        for alias in facts.rows("aliases"):
            if alias["idstr"] == idstr and int(alias["alias_id"], 16) == instance_id and facts.holds(alias, release):
                return self.entries.get((idstr, int(alias["instance_id"])))
        if "/" in idstr:
            return None
        by_name = [
            e for e in self.entries.values() if e.vmsd and e.vmsd.name == idstr and e.idstr.endswith(f"/{idstr}")
        ]
        return by_name[instance_id] if instance_id < len(by_name) else None
