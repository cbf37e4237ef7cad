"""Header and footer of a section; where its payload ends: at the footer, the next record, or a plausible place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError, TruncatedError
from vmstate_tools.format import framing
from vmstate_tools.format.framing import NEXT_RECORDS, Record
from vmstate_tools.stream.pieces import found
from vmstate_tools.stream.records import Section
from vmstate_tools.vmstate.description import find_vmdesc

if TYPE_CHECKING:
    from collections.abc import Collection

# START or FULL, section id, idstr, instance_id, version_id. No idstr of a device is shorter than two characters.
# Looked at from every byte: a payload's last bytes may look like the start of a header.
_HEADER = rb"(?s)[\x01\x04](?=(\x00\x00..)[\x02-\xff])"
# A footer, from every byte. Of any section id: compiling a pattern for each takes longer than reading the section.
_FOOTER = rb"(?s)\x7e(?=(....))"
_MAX_SECTION_ID = 1 << 16
_MAX_VERSION_ID = 1 << 10


class SectionEnds:
    """What a stream has shown so far of its sections: which ones were started, and how they end.

    Attributes
    ----------
    partial : what a file has that was cut short is wanted: its last section may end with it.
    started : the START or FULL record of each section id.
    footers : a section had a footer; then all have one (since 2.4, machine types newer than 2.3).
    known : a section was read whole, so that `footers` is known.
    """

    def __init__(self, *, partial: bool) -> None:
        self.partial = partial
        self.started: dict[int, Section] = {}
        self.footers = False
        self.known = False

    def read_header(self, view: memoryview, offset: int) -> Section:
        """Returns the section whose header stands at `offset`. Raises StreamError where its id was never started."""
        part = framing.PART_NAMES[view[offset]]
        if part in ("start", "full"):
            header = framing.parse(framing.SECTION_HEADER, view, offset, "a section header")
            v = header.value
            section = Section(framing.name(v.idstr), v.instance_id, v.version_id, v.section_id, part, header)
            self.started[v.section_id] = section
            return section
        header = framing.parse(framing.SECTION_CONTINUED, view, offset, "a section header")
        started = self.started.get(header.value.section_id)
        if started is None:
            raise StreamError(
                f"section id {header.value.section_id} was never started",
                offset=offset,
                expected=f"one of {sorted(self.started)[:20]}" if self.started else "a section start",
            )
        return Section(started.idstr, started.instance_id, started.version_id, started.section_id, part, header)

    def read_footer(self, section: Section, view: memoryview, offset: int, *, over: bool) -> int:
        """Reads the footer of a section, if it has one, and returns where it ends.

        `over` is True where nothing is to come behind the view.
        """
        at_end = offset >= len(view)
        if at_end and not over:
            raise TruncatedError("a footer may follow", offset=offset)
        if not at_end and view[offset] == Record.SECTION_FOOTER:
            section.footer = framing.parse(framing.SECTION_FOOTER, view, offset, "a section footer")
            found = section.footer.value.section_id
            if found != section.section_id:
                raise StreamError(
                    f"a footer of section id {found}",
                    offset=offset,
                    expected=f"the footer of section id {section.section_id}",
                )
            self.footers = True
            return section.footer.end
        if self.footers:
            raise (TruncatedError if at_end else StreamError)(
                f"{section.payload_size} bytes, then no footer",
                offset=offset,
                expected=f"the footer of section id {section.section_id}",
            )
        return offset

    def fits(self, view: memoryview, section_id: int, end: int) -> bool:
        """Tells whether this section's payload may end here: its footer, or the next record, is to be seen."""
        if end >= len(view):
            return end == len(view) and self.partial and not self.footers
        if self.footers:
            return view[end : end + 5] == _footer(section_id)
        kind = view[end]
        if kind in (Record.SECTION_START, Record.SECTION_FULL):
            cut = self.partial and (len(view) < end + 6 or len(view) < end + 14 + view[end + 5])
            return cut or is_header(view, end)
        if kind in (Record.SECTION_PART, Record.SECTION_END):
            return int.from_bytes(view[end + 1 : end + 5], "big") in self.started
        if kind == Record.EOF:
            return end + 1 == len(view) or view[end + 1] == Record.VMDESCRIPTION
        return kind in (Record.COMMAND, Record.SECTION_FOOTER)

    def of_opaque(self, view: memoryview, section_id: int, start: int) -> tuple[int, str]:
        """Returns the end of a payload that nothing describes, and what it is known by; see `end_of_opaque`."""
        return end_of_opaque(view, start, section_id, footers=self.footers or not self.known, seen=self.started)


def _footer(section_id: int) -> bytes:
    return bytes([Record.SECTION_FOOTER]) + section_id.to_bytes(4, "big")


def end_of_opaque(
    view: memoryview, start: int, section_id: int, *, footers: bool, seen: Collection[int]
) -> tuple[int, str]:
    """Returns the end of the payload that starts at `start`, and what it is known by.

    That is 'footer', 'next header' or 'end of file mark'.

    Parameters
    ----------
    footers : whether this stream's sections have footers, as far as known.
    seen : section ids that were started before.
    """
    mark = _footer(section_id)
    if footers:
        for end, match in found(_FOOTER, view, start):
            if match[1] == mark[1:] and (end + 5 == len(view) or view[end + 5] in NEXT_RECORDS):
                return end, "footer"
    for at, match in found(_HEADER, view, start):
        if int.from_bytes(match[1], "big") not in seen and is_header(view, at):
            # The first section of a stream shows whether sections have footers.
            footed = at - 5 >= start and view[at - 5 : at] == mark
            return (at - 5, "footer") if footed else (at, "next header")
    place = find_vmdesc(view)
    end = place[0] if place is not None else len(view)
    return max(start, end - 1 if view[end - 1] == Record.EOF else end), "end of file mark"


def is_header(view: memoryview, offset: int) -> bool:
    """Tells whether a section header stands here that a device could have written."""
    if offset + 6 > len(view):
        return False
    length = view[offset + 5]
    tail = offset + 6 + length
    if tail + 8 > len(view) or int.from_bytes(view[offset + 1 : offset + 5], "big") >= _MAX_SECTION_ID:
        return False
    idstr = bytes(view[offset + 6 : tail])
    version = int.from_bytes(view[tail + 4 : tail + 8], "big")
    return idstr.isascii() and idstr.decode().isprintable() and version < _MAX_VERSION_ID
