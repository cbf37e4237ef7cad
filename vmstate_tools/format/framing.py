"""The framing records of a stream, as formats: these both parse and build.

Facts: `migration/savevm.c` (`qemu_savevm_state_header`, `save_section_header`, `save_section_footer`,
`vmstate_configuration`, `qemu_savevm_command_send`), `migration/savevm.h` and, before 2.8,
`include/migration/migration.h` for the numbers.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError, printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAGIC = b"QEVM"
VERSION = 3
VERSION_OBSOLETE = 2


class Record:
    """The byte that opens a record (`QEMU_VM_*`)."""

    EOF = 0x00
    SECTION_START = 0x01
    SECTION_PART = 0x02
    SECTION_END = 0x03
    SECTION_FULL = 0x04
    SUBSECTION = 0x05  # inside a payload only
    VMDESCRIPTION = 0x06  # since 2.3
    CONFIGURATION = 0x07  # since 2.4, machine types newer than 2.3
    COMMAND = 0x08  # since 2.5
    SECTION_FOOTER = 0x7E  # since 2.4, machine types newer than 2.3


class Command:
    """`enum qemu_vm_cmd` (migration/savevm.c), since 2.5 where nothing else is said."""

    OPEN_RETURN_PATH = 1
    PING = 2
    POSTCOPY_ADVISE = 3
    POSTCOPY_LISTEN = 4
    POSTCOPY_RUN = 5
    POSTCOPY_RAM_DISCARD = 6
    PACKAGED = 7
    ENABLE_COLO = 8  # 3.1 to 10.1
    POSTCOPY_RESUME = 9  # since 3.0
    RECV_BITMAP = 10  # since 3.0
    SWITCHOVER_START = 11  # since 10.0


COMMAND_NAMES = {number: name for name, number in vars(Command).items() if name.isupper()}


PART_NAMES = {
    Record.SECTION_START: "start",
    Record.SECTION_PART: "part",
    Record.SECTION_END: "end",
    Record.SECTION_FULL: "full",
}

# What may stand behind a section.
NEXT_RECORDS = frozenset({Record.EOF, Record.COMMAND, *PART_NAMES})

_NUMBERS = {letter: struct.Struct(f">{letter}") for letter in "BHI"}


class Values(dict):
    """A record's fields by name, in order; also as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Format:
    """What a record consists of. Read and written by the same words, unlike `construct` without its time to start.

    A field is 'B', 'H' or 'I' (a big-endian number of 1, 2 or 4 bytes), one of these and '*' (so many bytes behind
    their number), 'I[]' (so many names, each behind a byte that is its length), an int (so many bytes) or a byte
    (which must be that one).
    """

    def __init__(self, **fields: str | int | bytes) -> None:
        self.fields = fields
        self._steps = [(name, *_step(kind)) for name, kind in fields.items()]

    def read(self, view: memoryview, at: int, end: int) -> tuple[Values, int]:
        """The fields at `at`, and where they end. Raises EOFError past `end`, ValueError for another record."""
        values = Values()
        value: Any
        for name, unpack, size, more in self._steps:
            if at + size > end:
                raise EOFError
            if unpack is None:
                value = bytes(view[at : at + size])
            else:
                (value,) = unpack(view, at)
            at += size
            if more == "*":
                value, at = _bytes(view, at, end, value)
            elif more == "[]":
                number, value = value, []
                for _ in range(number):
                    (length,), at = _bytes(view, at, end, 1)
                    each, at = _bytes(view, at, end, length)
                    value.append(each)
            elif more and value != more[0]:
                raise ValueError(name)
            values[name] = value
        return values, at

    def build(self, values: dict[str, Any]) -> bytes:
        """The record's bytes; what a field always is need not be given."""
        out = bytearray()
        for name, kind in self.fields.items():
            if isinstance(kind, bytes):
                out += kind
            elif isinstance(kind, int):
                out += values[name]
            elif kind.endswith("*"):
                out += _NUMBERS[kind[0]].pack(len(values[name])) + values[name]
            elif kind.endswith("[]"):
                out += _NUMBERS[kind[0]].pack(len(values[name]))
                out += b"".join(bytes([len(each)]) + each for each in values[name])
            else:
                out += _NUMBERS[kind].pack(values[name])
        return bytes(out)


def _step(kind: str | int | bytes) -> tuple[Callable[..., tuple[int]] | None, int, str | bytes]:
    """How to read a field: what takes its number, its size in bytes, and what follows or must be."""
    if isinstance(kind, int):
        return None, kind, ""
    number = _NUMBERS["B" if isinstance(kind, bytes) else kind[0]]
    return number.unpack_from, number.size, kind if isinstance(kind, bytes) else kind[1:]


def _bytes(view: memoryview, at: int, end: int, size: int) -> tuple[bytes, int]:
    if at + size > end:
        raise EOFError
    return bytes(view[at : at + size]), at + size


FILE_HEADER = Format(magic=4, version="I")

SECTION_HEADER = Format(type="B", section_id="I", idstr="B*", instance_id="I", version_id="I")  # of START and FULL

SECTION_CONTINUED = Format(type="B", section_id="I")  # of PART and END

SECTION_FOOTER = Format(type=bytes([Record.SECTION_FOOTER]), section_id="I")

COMMAND = Format(type=bytes([Record.COMMAND]), command="H", data="H*")

VMDESCRIPTION = Format(type=bytes([Record.VMDESCRIPTION]), json="I*")

EOF = Format(type=bytes([Record.EOF]))

SUBSECTION_HEADER = Format(type=bytes([Record.SUBSECTION]), name="B*", version_id="I")

CONFIGURATION = Format(type=bytes([Record.CONFIGURATION]), name="I*")  # no section id, no footer; subsections follow

CONFIGURATION_SUBSECTIONS = {  # `vmstate_configuration`
    name: Format(**SUBSECTION_HEADER.fields, **fields)
    for name, fields in (
        (b"configuration/target-page-bits", {"page_bits": "I"}),  # since 2.8
        (b"configuration/capabilities", {"capabilities": "I[]"}),  # since 4.0
        (b"configuration/uuid", {"uuid": 16}),  # since 4.2
    )
}

# Bytes of JSON. No vmdesc seen is larger than 0.2 MB; it grows with the number of devices and CPUs.
MAX_VMDESC = 64 << 20

# How far a record can reach: a u8 name and a few words, or what a length field can hold and still be believed.
_REACH = 300
_REACHES = {id(COMMAND): 5 + 0xFFFF, id(CONFIGURATION): 4096, id(VMDESCRIPTION): 5 + MAX_VMDESC}


class Parsed:
    """A framing record with its place: `offset` and `size` in bytes."""

    __slots__ = ("format", "offset", "size", "value")

    def __init__(self, format_: Format, value: Any, offset: int, size: int) -> None:
        self.format = format_
        self.value = value
        self.offset = offset
        self.size = size

    @property
    def end(self) -> int:
        return self.offset + self.size

    def build(self) -> bytes:
        """The record's bytes, made from `value` alone."""
        return self.format.build(self.value)


def parse(fmt: Format, view: memoryview, offset: int, expected: str) -> Parsed:
    """Parse one record at `offset`; raises StreamError saying what was `expected` there."""
    reach = _REACHES.get(id(fmt), _REACH)
    try:
        value, end = fmt.read(view, offset, min(len(view), offset + reach))
    except EOFError:
        cut = len(view) - offset <= reach
        raise StreamError(
            "the stream ends inside a record" if cut else "a length that cannot be",
            offset=offset,
            expected=expected,
        ) from None
    except ValueError:
        raise StreamError(f"found 0x{view[offset]:02x}", offset=offset, expected=expected) from None
    return Parsed(fmt, value, offset, end - offset)


def name(raw: bytes) -> str:
    """A name from a stream as text that is safe to show: what is not UTF-8, or not printable, as escapes."""
    return printable(raw.decode("utf-8", "backslashreplace"))
