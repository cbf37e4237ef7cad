"""What a destination checks before and beside the fields of sections: configuration, commands, RAM, compared numbers.

In the order of migration/savevm.c: `qemu_loadvm_state`. `compat.post_load` has what is checked behind a section.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vmstate_tools.compat.expectation import Entry
from vmstate_tools.compat.from_stream import ram_blocks, record_kinds
from vmstate_tools.compat.loader import Loader
from vmstate_tools.compat.verdict import Obstacle
from vmstate_tools.facts import framing
from vmstate_tools.facts.tables import Row, rows
from vmstate_tools.format import framing as wire
from vmstate_tools.release import Release
from vmstate_tools.stream.records import Section
from vmstate_tools.stream.stream import Stream
from vmstate_tools.vmstate.description import FieldDescription

# Sections QEMU registers by itself, whatever the devices.
INTERNAL = frozenset({"globalstate", "ram", "timer", "block", "dirty-bitmap"})

# spapr/htab: to 2.5 the table's size must be the destination's own; since 2.12 -1 says that there is no table.
_HTAB_SIZE_FREE, _NO_HTAB = Release("2.6"), Release("2.12")

# Pages filled with a byte that is not 0: no release since it takes them (413d64fedc).
_ONLY_ZERO_PAGES = Release("8.2")


# -- A to C: configuration, commands, RAM ------------------------------------------------------------------------------


def configuration(stream: Stream, loader: Loader) -> Iterator[Obstacle]:
    """Yields what subsections of the configuration are refused for (migration/savevm.c: `configuration_post_load`)."""
    yield from _page_bits(stream.configuration.get("page_bits"), loader)
    sent, own = set(stream.configuration.get("capabilities", ())), set(loader.expectation.capabilities)
    if sent and (unknown := _unknown_subsection("capabilities", loader)) is not None:
        yield unknown
    elif stream.machine is not None:
        for name in sorted(sent ^ own):
            on = name in sent
            message = f"capability {name} is {'on' if on else 'off'} in the stream, not so at the destination"
            remedy = f"destination: migrate_set_capability {name} {'on' if on else 'off'}"
            yield Obstacle("B", "capability", message, "configuration", 0, name, on, not on, remedy=remedy)


def _page_bits(bits: int | None, loader: Loader) -> Iterator[Obstacle]:
    own = loader.expectation.page_bits
    if bits is None:
        return
    unknown = _unknown_subsection("page_bits", loader, bits)
    if unknown is not None:
        yield unknown
    elif own is not None and bits != own:
        message = f"target page bits {bits}, the destination has {own}"
        yield Obstacle("B", "page bits", message, "configuration", 0, "target_page_bits", bits, own)


def _unknown_subsection(what: str, loader: Loader, value: Any = None) -> Obstacle | None:
    """Returns the obstacle that a subsection is for a release before the first that knows it."""
    fact = framing.facts()[f"configuration {what}"]
    if loader.release is None or loader.release >= Release(fact.since):
        return None
    message = f"the destination does not know the subsection {fact.what} (since {fact.since})"
    return Obstacle("G", "unknown subsection", message, "configuration", 0, fact.what, value)


def command(record: wire.Parsed, loader: Loader) -> list[Obstacle]:
    """Returns the obstacle that a command is for a release that does not know it (`loadvm_process_command`)."""
    number = record.value.command
    fact = framing.command(number)
    if loader.release is None or loader.release >= Release(fact.since):
        return []
    message = f"the destination does not know command {number} (since {fact.since})"
    return [Obstacle("D", "unknown command", message, stream_value=number)]


def iterable(section: Section, entry: Entry, stream: Stream, loader: Loader) -> list[Obstacle]:
    """Returns the obstacles in a section with a loader of its own."""
    if section.idstr == "ram":
        return [*_ram_blocks(stream, loader), *_ram_records(stream, loader)]
    if section.idstr == "spapr/htab":
        return list(_htab(section, entry, loader))
    return []


def _ram_blocks(stream: Stream, loader: Loader) -> Iterator[Obstacle]:
    """Compares the block list with the destination's (migration/ram.c: `parse_ramblocks`)."""
    expectation = loader.expectation
    for name, size in ram_blocks(stream).items():
        own = expectation.ram.get(name)
        if own is None and (expectation.ram_complete or name in expectation.ram_gone):
            message = f"the destination has no RAM block {name}"
            remedy = "give the destination the same devices and memory"
            yield Obstacle("C", "unknown RAM block", message, field=name, stream_value=size, remedy=remedy)
        elif own is not None and size != own and not _resizable(name):
            message = f"RAM block {name} has {size} bytes, the destination's has {own}"
            yield Obstacle("C", "RAM block size", message, field=name, stream_value=size, destination_value=own)


def _resizable(block: str) -> bool:
    """Tells whether a RAM block takes any length: files of fw_cfg do (hw/core/loader.c: `rom_set_mr`, since 2.3)."""
    return "/rom@" in block or block.startswith("etc/")


def _ram_records(stream: Stream, loader: Loader) -> Iterator[Obstacle]:
    """Yields the kinds of page records that the destination does not take (migration/ram.c: `ram_load`)."""
    if loader.release is None:
        return
    kinds = record_kinds(stream) & ~loader.expectation.ram_records
    for row in rows("compat", "ram_records"):
        if kinds & int(row["flag"], 16) and (found := _ram_record(row, loader.release, loader)) is not None:
            yield found
    if loader.release >= _ONLY_ZERO_PAGES and stream.ram.fill_bytes:
        message = "the stream has pages filled with one byte that is not 0, which no release since 8.2 takes"
        yield Obstacle("C", "unknown RAM record", message, field="zero page")


def _ram_record(row: Row, release: Release, loader: Loader) -> Obstacle | None:
    """Returns the obstacle that a kind of record is: the release does not know it, or takes it only when asked to."""
    name, needs, until = row["record"], row["needs"], row["until"]
    flag = int(row["flag"], 16)
    gone = until and release.numbers[:2] > Release(until).numbers[:2]
    if gone or not release.within(row["since"], None):
        until_text = f" to {until}" if until else " on"
        message = f"the stream has {name} records, which QEMU knows from {row['since']}{until_text}"
        return Obstacle("C", "unknown RAM record", message, field=name, stream_value=flag)
    if row["needs_since"] and release >= Release(row["needs_since"]) and loader.options.get(needs) != "on":
        message = f"the stream has {name} records, which the destination takes only with capability {needs}"
        remedy = f"destination: migrate_set_capability {needs} on"
        return Obstacle("C", "unknown RAM record", message, field=name, stream_value=flag, remedy=remedy)
    return None


def _htab(section: Section, entry: Entry, loader: Loader) -> Iterator[Obstacle]:
    """Compares the hash table's size (hw/ppc/spapr.c: `htab_load`; -1 since 029ff892e1 and before)."""
    own, release = entry.values.get(("", "htab_shift")), loader.release
    for leaf in section.leaves:
        if leaf.path != "htab_shift" or release is None:
            continue
        if own is not None and leaf.value != own and release < _HTAB_SIZE_FREE:
            message = f"the hash table has shift {leaf.value!r}, the destination's {own}"
            yield Obstacle("F", "not equal", message, None, None, "htab_shift", leaf.value, own)
        elif leaf.value in (-1, 0xFFFFFFFF) and release < _NO_HTAB:
            message = "the guest has no hash table, which the destination cannot read (since 2.12)"
            yield Obstacle("F", "not readable", message, None, None, "htab_shift", leaf.value, own)


# -- F: compared fields ------------------------------------------------------------------------------------------------


def compare(path: str, field: FieldDescription, value: Any, own: Any) -> Obstacle | None:
    """Returns the obstacle that a compared number is; None where it is none, or the destination's value is not known.

    `VMSTATE_*_EQUAL` must be the destination's own value, `VMSTATE_INT32_POSITIVE_LE` not more than that.
    """
    if own is None:
        return None
    if field.type == "int32 le":
        if 0 <= value <= own:
            return None
        message = f"{path} is {value}, the destination takes 0 to {own}"
        return Obstacle("F", "too large", message, None, None, path, value, own)
    if value == own:
        return None
    message = f"{path} must equal the destination's"
    return Obstacle("F", "not equal", message, None, None, path, value, own)
