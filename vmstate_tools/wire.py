"""The framing records of a stream, as construct formats: these both parse and build.

Facts: `migration/savevm.c` (`qemu_savevm_state_header`, `save_section_header`, `save_section_footer`,
`vmstate_configuration`, `qemu_savevm_command_send`), `migration/savevm.h` and, before 2.8,
`include/migration/migration.h` for the numbers.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import construct as c

from vmstate_tools.errors import StreamError, printable

MAGIC = b"QEVM"
VERSION = 3
VERSION_OBSOLETE = 2


class Record(IntEnum):
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


class Command(IntEnum):
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


PART_NAMES = {
    Record.SECTION_START: "start",
    Record.SECTION_PART: "part",
    Record.SECTION_END: "end",
    Record.SECTION_FULL: "full",
}

# What may stand behind a section.
NEXT_RECORDS = frozenset({Record.EOF, Record.COMMAND, *PART_NAMES})

_BYTES_OF_NAME = c.Prefixed(c.Int8ub, c.GreedyBytes)

FILE_HEADER = c.Struct("magic" / c.Bytes(4), "version" / c.Int32ub)

SECTION_HEADER = c.Struct(  # of START and FULL
    "type" / c.Int8ub,
    "section_id" / c.Int32ub,
    "idstr" / _BYTES_OF_NAME,
    "instance_id" / c.Int32ub,
    "version_id" / c.Int32ub,
)

SECTION_CONTINUED = c.Struct("type" / c.Int8ub, "section_id" / c.Int32ub)  # of PART and END

SECTION_FOOTER = c.Struct("type" / c.Const(int(Record.SECTION_FOOTER), c.Int8ub), "section_id" / c.Int32ub)

COMMAND = c.Struct(
    "type" / c.Const(int(Record.COMMAND), c.Int8ub),
    "command" / c.Int16ub,
    "data" / c.Prefixed(c.Int16ub, c.GreedyBytes),
)

VMDESCRIPTION = c.Struct(
    "type" / c.Const(int(Record.VMDESCRIPTION), c.Int8ub), "json" / c.Prefixed(c.Int32ub, c.GreedyBytes)
)

EOF = c.Struct("type" / c.Const(int(Record.EOF), c.Int8ub))

SUBSECTION_HEADER = c.Struct(
    "type" / c.Const(int(Record.SUBSECTION), c.Int8ub), "name" / _BYTES_OF_NAME, "version_id" / c.Int32ub
)

CONFIGURATION = c.Struct(  # neither section id nor footer; its subsections follow
    "type" / c.Const(int(Record.CONFIGURATION), c.Int8ub), "name" / c.Prefixed(c.Int32ub, c.GreedyBytes)
)


def _subsection(**fields: c.Construct) -> c.Construct:
    return c.Struct(*SUBSECTION_HEADER.subcons, *(name / fmt for name, fmt in fields.items()))


CONFIGURATION_SUBSECTIONS = {  # `vmstate_configuration`
    b"configuration/target-page-bits": _subsection(page_bits=c.Int32ub),  # since 2.8
    b"configuration/capabilities": _subsection(capabilities=c.PrefixedArray(c.Int32ub, _BYTES_OF_NAME)),  # since 4.0
    b"configuration/uuid": _subsection(uuid=c.Bytes(16)),  # since 4.2
}

# Bytes of JSON. No vmdesc seen is larger than 0.2 MB; it grows with the number of devices and CPUs.
MAX_VMDESC = 64 << 20

# How far a record can reach: a u8 name and a few words, or what a length field can hold and still be believed.
_REACH = 300
_REACHES = {id(COMMAND): 5 + 0xFFFF, id(CONFIGURATION): 4096, id(VMDESCRIPTION): 5 + MAX_VMDESC}


@dataclass(frozen=True, slots=True)
class Parsed:
    """A framing record with its place: `offset` and `size` in bytes."""

    format: c.Construct
    value: Any
    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size

    def build(self) -> bytes:
        """The record's bytes, made from `value` alone."""
        built: bytes = self.format.build(self.value)
        return built


def parse(fmt: c.Construct, view: memoryview, offset: int, expected: str) -> Parsed:
    """Parse one record at `offset`; raises StreamError saying what was `expected` there."""
    reach = _REACHES.get(id(fmt), _REACH)
    window = io.BytesIO(view[offset : offset + reach])
    try:
        value = fmt.parse_stream(window)
    except c.StreamError:
        cut = len(view) - offset <= reach
        raise StreamError(
            "the stream ends inside a record" if cut else "a length that cannot be",
            offset=offset,
            expected=expected,
        ) from None
    except c.ConstructError:
        raise StreamError(f"found 0x{view[offset]:02x}", offset=offset, expected=expected) from None
    return Parsed(fmt, value, offset, window.tell())


def name(raw: bytes) -> str:
    """A name from a stream as text that is safe to show: what is not UTF-8, or not printable, as escapes."""
    return printable(raw.decode("utf-8", "backslashreplace"))
