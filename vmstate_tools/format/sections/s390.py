"""Sections of an s390 guest: storage keys and attributes, one byte for each page of 4 KiB, and the clock.

Facts: hw/s390x/s390-skeys.c (`s390_storage_keys_save`, version 1, since 2.5), hw/s390x/s390-stattrib.c (`cmma_save`,
`cmma_load`, version 0, since 2.10), hw/s390x/tod.c (`s390_tod_save`, version 1, since 2.3). The bits of an address
below the page size are flags.
"""

from __future__ import annotations

from typing import Any

import construct as c

from vmstate_tools.format.sections.leaves import U8, U64, Payload, Raw, Step, many, when

_FLAGS = (1 << 12) - 1
_EOS, _KEYS, _MORE, _ERROR, _DONE = 1, 2, 2, 4, 8


def _flags(block: Any) -> int:
    return int(block.addr) & _FLAGS


def _key_flags(block: Any, payload: Payload) -> None:
    if _flags(block) not in (_EOS, _KEYS, _ERROR):
        raise payload.wrong(f"storage key flag {_flags(block):#x}", "1 (end), 2 (keys) or 4 (error)")


def _attribute_flags(block: Any, payload: Payload) -> None:
    if _flags(block) not in (_EOS, _MORE, _ERROR, _DONE):
        raise payload.wrong(f"attribute flag {_flags(block):#x}", "1 (end), 2 (more), 4 (error) or 8 (done)")


def _ends(block: Any) -> bool:
    return _flags(block) in (_EOS, _ERROR)


SKEYS = c.Struct(
    "block"
    / many(
        _ends,
        "addr" / U64,
        Step(_key_flags),
        *when(lambda block: _flags(block) == _KEYS, "pages" / U64, "keys" / Raw(c.this.pages)),
    ),
)

STATTRIB = c.Struct(
    "block"
    / many(
        _ends,
        "addr" / U64,
        Step(_attribute_flags),
        *when(lambda block: _flags(block) == _MORE, "count" / U64, "values" / Raw(c.this.count)),
    ),
)

TODCLOCK = c.Struct("present" / U8, *when(c.this.present != 0, "high" / U8, "low" / U64))
"""The guest's clock, if it was to be had."""
