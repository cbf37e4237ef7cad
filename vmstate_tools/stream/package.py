"""A package: the records of the devices behind one command, which postcopy sends in one piece."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError

if TYPE_CHECKING:
    from vmstate_tools.format.framing import Parsed


class Package:
    """Where the package ends that a walk is in. It holds records like any others, and the walk goes on into them.

    Attributes
    ----------
    end : offset of its end in bytes; None outside of a package.
    """

    def __init__(self) -> None:
        self.end: int | None = None

    def enter(self, record: Parsed, view: memoryview) -> None:
        """Notes where the package of this MIG_CMD_PACKAGED ends. Raises StreamError where there can be none."""
        if len(record.value.data) != 4 or self.end is not None:
            raise StreamError(
                "a package in a package" if self.end else f"{len(record.value.data)} bytes of data",
                offset=record.offset,
                expected="a package's size, 4 bytes",
            )
        size = int.from_bytes(record.value.data, "big")
        if size > len(view) - record.end:
            raise StreamError(
                f"a package of {size} bytes",
                offset=record.offset,
                expected=f"at most {len(view) - record.end}",
            )
        self.end = record.end + size

    def leave(self, offset: int) -> None:
        """Leaves the package where `offset` is its end. Raises StreamError where a record went past it."""
        if self.end is None or offset < self.end:
            return
        if offset > self.end:
            raise StreamError("a record goes past the end of its package", offset=self.end, expected="a record's end")
        self.end = None
