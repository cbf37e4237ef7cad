"""A format is stated once in construct, parsed at an offset of a view and built again.

This is the only place where construct meets the bytes of a stranger. construct raises a dozen kinds of errors, and
compiled code raises `struct.error`, or returns fewer bytes than were asked for; none of that gets past this module.
"""

from __future__ import annotations

import struct
from functools import cached_property
from typing import TYPE_CHECKING

import construct as c

from vmstate_tools.errors import StreamError, TruncatedError, printable

if TYPE_CHECKING:
    from typing import Any

Counted8 = c.Prefixed(c.Int8ub, c.GreedyBytes)
"""Bytes behind their number in one byte (QEMU: `qemu_put_counted_string`)."""

Counted16 = c.Prefixed(c.Int16ub, c.GreedyBytes)
Counted32 = c.Prefixed(c.Int32ub, c.GreedyBytes)


class Window:
    """The bytes [at, end) of a view as the file object that construct reads from; EOFError past the end."""

    __slots__ = ("at", "end", "view")

    def __init__(self, view: memoryview, at: int, end: int) -> None:
        self.view = view
        self.at = at
        self.end = min(end, len(view))

    def read(self, size: int) -> bytes:
        """Returns the next `size` bytes. EOFError where there are fewer: compiled constructs do not look."""
        at = self.at
        stop = at + size
        if stop > self.end or size < 0:
            raise EOFError
        self.at = stop
        return bytes(self.view[at:stop])

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Moves to `offset` of the view; `Peek` goes back with it."""
        assert whence == 0
        self.at = offset
        return offset


class Format:
    """A Format is the format of one record, stated in construct; it parses and builds.

    Parameters
    ----------
    what : what such a record is called.
    fields : constructs with names, as for `construct.Struct`.
    longest : the most bytes that such a record takes; a length in it that reaches further is not believed.
    compiled : compile it when it is first used. That takes a millisecond and halves the time of each record:
        worth it for a record that a stream has thousands of. Not for one with `Bytes` of a fixed size, which
        compiled code builds of any.
    """

    def __init__(self, what: str, *fields: Any, longest: int = 512, compiled: bool = False) -> None:
        self.what = what
        self.struct = c.Struct(*fields)
        self.longest = longest
        self._compiled = compiled

    @cached_property
    def _statement(self) -> Any:
        return self.struct.compile() if self._compiled else self.struct

    @cached_property
    def size(self) -> int:
        """Returns the bytes of a record whose size is always the same."""
        return int(self.struct.sizeof())

    def build(self, values: dict[str, Any], **context: Any) -> bytes:
        """Returns the bytes of a record. Raises StreamError where a value is missing or does not fit its field."""
        try:
            built: bytes = self._statement.build(values, **context)
        except (c.ConstructError, struct.error, LookupError, AttributeError, TypeError, ArithmeticError) as error:
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            raise StreamError(f"{self.what} cannot be built: {what}") from error
        return built

    def read(self, view: memoryview, offset: int, expected: str, **context: Any) -> tuple[Any, int]:
        """Returns the fields of the record at `offset`, a `Container`, and the offset behind it; as `parse`."""
        window = Window(view, offset, offset + self.longest)
        try:
            return self._statement.parse_stream(window, **context), window.at
        except (EOFError, c.StreamError):
            cut = len(view) - offset <= self.longest
            message = "the stream ends inside a record" if cut else "a length that cannot be"
            kind = TruncatedError if cut else StreamError
            raise kind(message, offset=offset, expected=expected) from None
        except (c.ConstructError, struct.error):
            raise StreamError(f"found 0x{view[offset]:02x}", offset=offset, expected=expected) from None

    def __repr__(self) -> str:
        return f"<Format of a {self.what}>"


class Parsed:
    """One record with its place in the view: `offset` and `size` in bytes; `value` holds its fields by name."""

    __slots__ = ("format", "offset", "size", "value")

    def __init__(self, format_: Format, value: Any, offset: int, size: int) -> None:
        self.format = format_
        self.value = value
        self.offset = offset
        self.size = size

    @property
    def end(self) -> int:
        """Returns the offset behind the record."""
        return self.offset + self.size

    def build(self) -> bytes:
        """Returns the record's bytes, made from `value` alone."""
        return self.format.build(self.value)


def parse(format_: Format, view: memoryview, offset: int, expected: str, **context: Any) -> Parsed:
    """Parses one record of `view` at `offset`.

    Raises
    ------
    StreamError : the stream ends inside the record, a length reaches past what such a record can hold, or another
        record stands there; it carries `offset` and what was `expected`.
    """
    value, end = format_.read(view, offset, expected, **context)
    return Parsed(format_, value, offset, end - offset)


def shown_name(raw: bytes) -> str:
    """Returns a name from a stream as text that is safe to show: what is not UTF-8, or not printable, as escapes."""
    return printable(raw.decode("utf-8", "backslashreplace"))
