"""Finds the format of a section that QEMU writes by hand, and reads and builds its payload by it.

A vmdesc names such a section with its size alone, or not at all when only live handlers write it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import construct as c

from vmstate_tools.errors import StreamError
from vmstate_tools.format.sections import virtio
from vmstate_tools.format.sections.block import BLOCK
from vmstate_tools.format.sections.dirty_bitmap import DIRTY_BITMAP
from vmstate_tools.format.sections.htab import HTAB, HTAB_START
from vmstate_tools.format.sections.leaves import Leaf, Payload, build
from vmstate_tools.format.sections.s390 import SKEYS, STATTRIB, TODCLOCK
from vmstate_tools.format.sections.slirp import SLIRP
from vmstate_tools.format.sections.vfio import VFIO

if TYPE_CHECKING:
    from typing import Any

    from vmstate_tools.format.shared_limit import SharedLimit

__all__ = ["FORMATS", "Leaf", "build", "known", "parse"]

FORMATS: dict[str, c.Construct] = {
    "spapr/htab": HTAB,
    "s390-skeys": SKEYS,
    "s390-storage_attributes": STATTRIB,
    "todclock": TODCLOCK,
    "block": BLOCK,
    "dirty-bitmap": DIRTY_BITMAP,
    "slirp": SLIRP,
}
"""The format of each section record by the section's idstr, but for those behind a device's path."""

_STARTS = {"spapr/htab": HTAB_START}
"""Where the first record is of another format than those that follow it."""


def format_of(idstr: str, part: str = "full") -> c.Construct | None:
    """Returns the format of a section record, None where none is known. A bus path may stand before vfio and virtio."""
    if idstr.rpartition("/")[2] == "vfio":
        return VFIO
    if "virtio" in idstr:
        return virtio.format_of(idstr)
    return (part == "start" and _STARTS.get(idstr)) or FORMATS.get(idstr)


def known(idstr: str) -> bool:
    """Tells whether `parse` has the format of the section `idstr` (with or without a bus path in front)."""
    return format_of(idstr) is not None


def parse(
    idstr: str,
    view: memoryview,
    offset: int,
    *,
    part: str,
    version_id: int,
    state: dict[str, Any],
    limit: SharedLimit | None = None,
) -> tuple[int, list[Leaf]]:
    """Decodes the payload of one section record.

    Parameters
    ----------
    view : the whole stream, as bytes.
    offset : where the payload begins, just after the section's header.
    part : `start`, `part`, `end` (of an iterable section) or `full`.
    version_id : as the section's header gave it.
    state : a dict that the caller keeps for this section from its first record to its last, empty at first.
    limit : how many leaves there may be; what is read takes from it, whether or not the rest can be read.

    Returns
    -------
    The offset just after the payload, and its leaves, which tile it in order.

    Raises
    ------
    StreamError : the bytes are not of this format, or end inside it.
    """
    format_ = format_of(idstr, part)
    if format_ is None:
        raise StreamError("no hand-written format is known by this name", offset=offset, section=idstr)
    payload = Payload(view, offset, part, state, limit)
    try:
        format_.parse_stream(payload, version_id=version_id)
    except StreamError as error:
        error.section = idstr
        raise
    except c.ConstructError as error:  # a size below 0, and the like
        what = str(error).splitlines()[-1]
        raise StreamError(what, offset=payload.offset, section=idstr, expected=f"a payload of {idstr}") from error
    return payload.offset, payload.leaves
