"""The further connections of a migration that went by postcopy, joined to its main stream.

Neither kind has a header of its own. A *resumed* connection takes over where a broken one ended (`migrate` with
`resume`, since 3.0: `postcopy_do_resume` in migration/migration.c): it begins with MIG_CMD_RECV_BITMAP. The
*postcopy* connection carries the pages that the destination asked for (`postcopy-preempt`, since 7.1): RAM records
from its first byte to an end mark.
"""

from __future__ import annotations

from dataclasses import dataclass

RESUMED = "resumed connection"
POSTCOPY = "postcopy connection"

_RECV_BITMAP = b"\x08\x00\x0a"
_ZERO, _PAGE, _EOS = 0x02, 0x08, 0x10


@dataclass(frozen=True)
class Connection:
    """A Connection is what one connection carried: bytes [start, end) of the joined view."""

    name: str
    kind: str
    start: int
    end: int


def kind_of(head: bytes) -> str | None:
    """Returns the kind of further connection whose first bytes these are: `RESUMED`, `POSTCOPY` or None."""
    if head.startswith(_RECV_BITMAP):
        return RESUMED
    if head == bytes(7) + bytes([_EOS]):
        return POSTCOPY  # nothing was asked for
    if len(head) > 10 and head[0] == 0 and head[6] & 3 == 0 and head[7] in (_ZERO, _PAGE):
        name = head[9 : 9 + head[8]]
        return POSTCOPY if len(name) > 1 and name.isascii() and name.decode().isprintable() else None
    return None
