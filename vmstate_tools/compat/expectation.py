"""What a destination expects of a stream: framing, RAM blocks, and one entry for each section it has registered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vmstate_tools.facts.tables import holds, rows
from vmstate_tools.release import Release
from vmstate_tools.vmstate.description import Vmsd

Values = dict[tuple[str, str], Any]
"""Values of fields by (name of the description, path)."""


@dataclass(eq=False, slots=True)
class Entry:
    """An Entry is a section that the destination has registered (migration/savevm.c: SaveStateEntry).

    Attributes
    ----------
    vmsd : what the destination reads; None where that is not known.
    values : the destination's own values: those that `_EQUAL` fields are compared with, and those that rules need.
    iterable : it is loaded by hand-written code (ram, spapr/htab …).
    old_style : it is read by a callback (`load_state`), which nothing describes.
    size : bytes of payload that the destination itself wrote.
    plans : plans to read it that were already made (see `compat.plans`).
    """

    idstr: str
    instance_id: int
    version_id: int
    vmsd: Vmsd | None = None
    values: Values = field(default_factory=dict)
    iterable: bool = False
    old_style: bool = False
    size: int | None = None
    plans: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> tuple[str, int]:
        """Returns what QEMU finds it by: idstr and instance_id."""
        return self.idstr, self.instance_id


@dataclass(eq=False, slots=True)
class Expectation:
    """An Expectation is all that a destination expects.

    Attributes
    ----------
    configuration : the machine type expected in the configuration section, '' for any; None: no such section.
    framing_known : `configuration` and `footers` are known; otherwise they are a guess.
    ram : RAM block → bytes.
    ram_complete : the destination has no other blocks.
    ram_gone : blocks that this kind of machine has in other releases only.
    ram_records : kinds of page records that a stream of its own has, as flag bits.
    foreign_registers : lists of Arm system registers that other releases were observed with, as they stand in a stream.
    exact : it was observed for this release and machine type, not derived from others.
    """

    entries: dict[tuple[str, int], Entry] = field(default_factory=dict)
    configuration: str | None = None
    page_bits: int | None = None
    capabilities: tuple[str, ...] = ()
    footers: bool = False
    framing_known: bool = True
    ram: dict[str, int] = field(default_factory=dict)
    ram_complete: bool = True
    ram_gone: frozenset[str] = frozenset()
    page_size: int | None = None
    ram_records: int = 0
    foreign_registers: frozenset[bytes] = frozenset()
    exact: bool = True

    def add(self, entries: Iterable[Entry]) -> None:
        """Adds entries, each in place of one with the same idstr and instance_id."""
        for entry in entries:
            self.entries[entry.key] = entry

    def find(self, idstr: str, instance_id: int, release: Release | None = None) -> Entry | None:
        """Returns the entry that takes a section, by its present names or older ones (migration/savevm.c: `find_se`).

        A device with a path (`0000:00:03.0/e1000`) still takes sections by its description's name alone (`e1000`),
        numbered in the order of registration (`se->compat`). A few take another number as well (`se->alias_id`,
        data/compat/aliases.csv).
        """
        found = self.entries.get((idstr, instance_id))
        if found is not None:
            return found
        for alias in rows("compat", "aliases"):
            known = alias["idstr"] == idstr and int(alias["alias_id"], 16) == instance_id
            if known and (release is None or holds(alias, release)):
                return self.entries.get((idstr, int(alias["instance_id"])))
        if "/" in idstr:
            return None
        by_name = [
            e for e in self.entries.values() if e.vmsd and e.vmsd.name == idstr and e.idstr.endswith(f"/{idstr}")
        ]
        return by_name[instance_id] if instance_id < len(by_name) else None
