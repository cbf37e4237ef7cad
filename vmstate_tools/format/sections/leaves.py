"""The values of a hand-written section, and the constructs that state them: `U32`, `Raw`, `Text`, `Indexed` …

What is parsed by them is recorded as leaves: each value with its path, offset and size. The leaves of one section
record tile its payload. Statements of sections are made of these and of construct's own `Struct`, `If`, `Array`,
`RepeatUntil`; they parse and build.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import construct as c

from vmstate_tools.errors import StreamError
from vmstate_tools.format.shared_limit import SharedLimit
from vmstate_tools.source.parsing import Counted8

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A leaf takes 200 bytes of memory and 5 µs. A record of a real stream has a few thousand at most, but for those of the
# hash table, which are cut short.
MAX_LEAVES = 1 << 17

_TOP = len("(parsing) -> ")  # what construct's paths begin with


@dataclass(frozen=True, slots=True)
class Leaf:
    """A Leaf is one decoded value of a hand-written section.

    `path` (str) names it as QEMU's code does (`chunk[0].n_valid`); `type` (str) is an integer type of the wire
    (`uint8` … `int64`, big-endian), `buffer` (raw bytes) or `string` (a length byte and text; bytes where that is not
    UTF-8); `offset` is absolute in the view that was parsed, `size` in bytes; `value` an int, bytes or str.
    """

    path: str
    type: str
    offset: int
    size: int
    value: int | bytes | str


class Payload:
    """A Payload is the payload of one section record, as the file object that construct reads; it records leaves.

    Attributes
    ----------
    view, offset : what is read, and where next.
    part : `start`, `part`, `end` or `full`.
    state : what the section's records before this one left for it.
    limit : how many values the sections of the stream may still have, this one and those behind it.
    leaves : the values so far.
    """

    def __init__(
        self, view: memoryview, offset: int, part: str, state: dict[str, Any], limit: SharedLimit | None = None
    ) -> None:
        self.view = view
        self.offset = offset
        self.part = part
        self.state = state
        self.limit = limit or SharedLimit(MAX_LEAVES)
        self.leaves: list[Leaf] = []

    def take(self, path: str, size: int) -> bytes:
        """Returns the next `size` bytes, which are for `path`. Raises StreamError where there are fewer."""
        left = len(self.view) - self.offset
        if size > left:
            raise StreamError(f"{left} bytes left for {named(path)}", offset=self.offset, expected=f"{size} bytes")
        return bytes(self.view[self.offset : self.offset + size])

    def keep(self, path: str, type_: str, size: int, value: int | bytes | str) -> None:
        """Records a value that stands here, and goes on behind it."""
        if len(self.leaves) == MAX_LEAVES or not self.limit.take(1):
            raise StreamError(
                f"more than {len(self.leaves)} values in one record", offset=self.offset, expected="its end"
            )
        self.leaves.append(Leaf(named(path), type_, self.offset, size, value))
        self.offset += size

    def wrong(self, message: str, expected: str) -> StreamError:
        """Returns an error about the value that was read last."""
        return StreamError(message, offset=self.leaves[-1].offset, expected=expected)


def named(path: str) -> str:
    """Returns construct's path of a value, `(parsing) -> a -> b`, as ours: `a.b`."""
    return path[_TOP:].replace(" -> ", ".")


class Number(c.FormatField):
    """A Number is a big-endian integer: `uint8` … `int64`."""

    def __init__(self, type_: str, letter: str) -> None:
        super().__init__(">", letter)
        self.type = type_
        self._numbers = struct.Struct(self.fmtstr)

    def _parse(self, stream: Payload, context: Any, path: str) -> int:
        (value,) = self._numbers.unpack(stream.take(path, self.length))
        stream.keep(path, self.type, self.length, value)
        return int(value)


U8, U16, U32, U64 = (Number(f"uint{8 << i}", "BHLQ"[i]) for i in range(4))
S8, S16, S32, S64 = (Number(f"int{8 << i}", "bhlq"[i]) for i in range(4))


class Raw(c.Construct):
    """So many raw bytes; no leaf for none, as a vmdesc has no field for none. The size may be worked out (`this.n`)."""

    def __init__(self, size: int | Callable[[Any], int]) -> None:
        super().__init__()
        self.size = size

    def _parse(self, stream: Payload, context: Any, path: str) -> bytes:
        size = self.size(context) if callable(self.size) else self.size
        value = stream.take(path, size)
        if size:
            stream.keep(path, "buffer", size, value)
        return value

    def _build(self, obj: bytes, stream: Any, context: Any, path: str) -> bytes:
        stream.write(obj)
        return obj


class _Text(c.Construct):
    """A length byte and so many bytes of text (`qemu_put_counted_string`)."""

    def _parse(self, stream: Payload, context: Any, path: str) -> str | bytes:
        (length,) = stream.take(path, 1)
        raw = stream.take(path, 1 + length)[1:]
        try:
            value: str | bytes = raw.decode()
        except UnicodeDecodeError:
            value = raw
        stream.keep(path, "string", 1 + length, value)
        return value

    def _build(self, obj: str | bytes, stream: Any, context: Any, path: str) -> str | bytes:
        stream.write(Counted8.build(obj.encode() if isinstance(obj, str) else obj))
        return obj


Text = _Text()


class Indexed(c.Subconstruct):
    """An element of an array: its number, which begins with `first`, stands in the paths of what it holds."""

    def __init__(self, subcon: c.Construct, first: int = 0) -> None:
        super().__init__(subcon)
        self.first = first

    def _parse(self, stream: Payload, context: Any, path: str) -> Any:
        return self.subcon._parsereport(stream, context, f"{path}[{context._index + self.first}]")


class Step(c.Construct):
    """A Step looks at what was read so far, or at what follows, and may raise; on the wire it is nothing.

    `see` is called with the context and the payload when a section is parsed; what it returns can be asked for by
    the step's name. It is not called when a section is built: then its name must be among the values.
    """

    def __init__(self, see: Callable[[Any, Payload], Any]) -> None:
        super().__init__()
        self.see = see
        self.flagbuildnone = True

    def _parse(self, stream: Payload, context: Any, path: str) -> Any:
        return self.see(context, stream)

    def _build(self, obj: Any, stream: Any, context: Any, path: str) -> Any:
        return obj


def when(condition: Any, *fields: Any) -> Iterator[Any]:
    """Yields fields of a struct that are there if `condition` is true."""
    return (field.name / c.If(condition, field.subcon) for field in fields)


def many(until: Callable[[Any], bool], *fields: Any) -> c.Construct:
    """Returns the format of structs one after another, up to the one for which `until` is true."""
    return c.RepeatUntil(lambda element, elements, context: until(element), Indexed(c.Struct(*fields)))


_TYPES: dict[str, c.Construct] = {number.type: number for number in (U8, U16, U32, U64, S8, S16, S32, S64)}


def build(leaves: list[Leaf]) -> bytes:
    """Returns the bytes `leaves` stand for, from their types and values alone.

    Raises
    ------
    StreamError : a value does not fit its type.
    """
    return b"".join(map(_encode, leaves))


def _encode(leaf: Leaf) -> bytes:
    value = leaf.value
    try:
        if leaf.type in _TYPES and isinstance(value, int):
            return bytes(_TYPES[leaf.type].build(value))
        if leaf.type == "buffer" and isinstance(value, bytes):
            return value
        if leaf.type == "string" and not isinstance(value, int):
            return bytes(Text.build(value))
    except c.ConstructError:
        pass
    raise StreamError(f"{leaf.path} = {value!r:.40} does not fit {leaf.type}", offset=leaf.offset)
