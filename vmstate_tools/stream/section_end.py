"""Where a section ends that nothing describes: at its footer, before the next plausible header, or at the end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vmstate_tools.format.framing import NEXT_RECORDS, Record

if TYPE_CHECKING:
    import re
    from collections.abc import Collection

# START or FULL, section id, idstr, instance_id, version_id. No idstr of a device is shorter than two characters.
# Looked at from every byte: a payload's last bytes may look like the start of a header.
_HEADER = rb"(?s)[\x01\x04](?=(\x00\x00..)[\x02-\xff])"
_MAX_SECTION_ID = 1 << 16
_MAX_VERSION_ID = 1 << 10


def end_of_opaque(
    view: memoryview, start: int, section_id: int, *, footers: bool, seen: Collection[int]
) -> tuple[int, str]:
    """End of the payload that starts at `start`, and what tells: 'footer', 'next header' or 'end of file mark'.

    `footers`: do this stream's sections have footers, as far as known. `seen`: section ids that were started before.
    """
    mark = bytes([Record.SECTION_FOOTER]) + section_id.to_bytes(4, "big")
    if footers:
        for match in re.finditer(re.escape(mark), view[start:]):
            end = start + match.start()
            if end + 5 == len(view) or view[end + 5] in NEXT_RECORDS:
                return end, "footer"
    for match in re.finditer(_HEADER, view[start:]):
        at = start + match.start()
        if int.from_bytes(match[1], "big") not in seen and is_header(view, at):
            # The first section there is tells whether sections have footers.
            footed = at - 5 >= start and view[at - 5 : at] == mark
            return (at - 5, "footer") if footed else (at, "next header")
    from vmstate_tools.vmstate.description import find_vmdesc

    place = find_vmdesc(view)
    end = place[0] if place is not None else len(view)
    return max(start, end - 1 if view[end - 1] == Record.EOF else end), "end of file mark"


def is_header(view: memoryview, offset: int) -> bool:
    """Does a section header stand here that a device could have written?"""
    if offset + 6 > len(view):
        return False
    length = view[offset + 5]
    tail = offset + 6 + length
    if tail + 8 > len(view) or int.from_bytes(view[offset + 1 : offset + 5], "big") >= _MAX_SECTION_ID:
        return False
    idstr = bytes(view[offset + 6 : tail])
    version = int.from_bytes(view[tail + 4 : tail + 8], "big")
    return idstr.isascii() and idstr.decode().isprintable() and version < _MAX_VERSION_ID
