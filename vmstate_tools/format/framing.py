"""The framing of a stream: file header, configuration, sections, commands, end mark and vmdesc.

Facts: `migration/savevm.c` (`qemu_savevm_state_header`, `save_section_header`, `save_section_footer`,
`vmstate_configuration`, `qemu_savevm_command_send`), `migration/savevm.h` and, before 2.8,
`include/migration/migration.h` for the numbers.
"""

from __future__ import annotations

import construct as c

from vmstate_tools.source.parsing import Counted8, Counted16, Counted32, Format, Parsed, parse, shown_name

__all__ = [
    "COMMAND",
    "COMMAND_NAMES",
    "CONFIGURATION",
    "CONFIGURATION_SUBSECTIONS",
    "EOF",
    "FILE_HEADER",
    "MAGIC",
    "MAX_VMDESC",
    "NEXT_RECORDS",
    "PART_NAMES",
    "SECTION_CONTINUED",
    "SECTION_FOOTER",
    "SECTION_HEADER",
    "SUBSECTION_HEADER",
    "VERSION",
    "VERSION_OBSOLETE",
    "VMDESCRIPTION",
    "Command",
    "Format",
    "Parsed",
    "Record",
    "name",
    "parse",
]

MAGIC = b"QEVM"
VERSION = 3
VERSION_OBSOLETE = 2


class Record:
    """A Record is the byte that opens a record (`QEMU_VM_*`)."""

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
    """The number of a command: `enum qemu_vm_cmd` (migration/savevm.c), since 2.5 where nothing else is said."""

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

NEXT_RECORDS = frozenset({Record.EOF, Record.COMMAND, *PART_NAMES})
"""What may stand behind a section."""

MAX_VMDESC = 64 << 20
"""Bytes of JSON. No vmdesc seen is larger than 0.2 MB; it grows with the number of devices and CPUs."""


def _type(record: int) -> c.Construct:
    """Returns the field of the byte that opens such a record. It need not be given to build one."""
    return "type" / c.Const(record, c.Int8ub)


FILE_HEADER = Format("file header", "magic" / c.Bytes(4), "version" / c.Int32ub)

SECTION_HEADER = Format(  # of START and FULL
    "section header",
    "type" / c.Int8ub,
    "section_id" / c.Int32ub,
    "idstr" / Counted8,
    "instance_id" / c.Int32ub,
    "version_id" / c.Int32ub,
    compiled=True,
)

SECTION_CONTINUED = Format("section header", "type" / c.Int8ub, "section_id" / c.Int32ub, compiled=True)  # PART, END

SECTION_FOOTER = Format("section footer", _type(Record.SECTION_FOOTER), "section_id" / c.Int32ub, compiled=True)

COMMAND = Format(
    "command", _type(Record.COMMAND), "command" / c.Int16ub, "data" / Counted16, longest=5 + 0xFFFF, compiled=True
)

VMDESCRIPTION = Format("vmdesc", _type(Record.VMDESCRIPTION), "json" / Counted32, longest=5 + MAX_VMDESC)

EOF = Format("end of file mark", _type(Record.EOF))

SUBSECTION_HEADER = Format(
    "subsection header", _type(Record.SUBSECTION), "name" / Counted8, "version_id" / c.Int32ub, compiled=True
)

CONFIGURATION = Format(  # without section id and footer; subsections follow
    "configuration", _type(Record.CONFIGURATION), "name" / Counted32, longest=4096
)

CONFIGURATION_SUBSECTIONS = {  # `vmstate_configuration`
    name: Format("configuration", *SUBSECTION_HEADER.struct.subcons, *fields, longest=4096)
    for name, fields in (
        (b"configuration/target-page-bits", ["page_bits" / c.Int32ub]),  # since 2.8
        (b"configuration/capabilities", ["capabilities" / c.PrefixedArray(c.Int32ub, Counted8)]),  # since 4.0
        (b"configuration/uuid", ["uuid" / c.Bytes(16)]),  # since 4.2
    )
}

name = shown_name
