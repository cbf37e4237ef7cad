"""What a destination expects of a stream: framing, RAM blocks, and one entry per registered section."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vmstate_tools.description import Vmsd


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

    def find(self, idstr: str, instance_id: int) -> Entry | None:
        return self.entries.get((idstr, instance_id))
