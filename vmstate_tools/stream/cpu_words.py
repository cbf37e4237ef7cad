"""The four words that QEMU checks of a ppc CPU, and the PVR: the names of their fields and their values in a stream."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from vmstate_tools.stream.stream import Stream
    from vmstate_tools.vmstate.layout import Layout

SPR_PVR = 287
"""The number of the processor version register among the special purpose registers (target/ppc/cpu.h: `SPR_PVR`)."""

CPU_WORDS = {
    "pvr": (f"env.spr[{SPR_PVR}]",),
    "msr_mask": ("env.msr_mask", "mig_msr_mask"),
    "insns_flags": ("env.insns_flags", "mig_insns_flags"),
    "insns_flags2": ("env.insns_flags2", "mig_insns_flags2"),
    "nb_bats": ("env.nb_BATs", "mig_nb_BATs"),
}
"""Column of `Collection.cpu` → the names that its field has had in section `cpu` (target/ppc/machine.c:
`vmstate_ppc_cpu`): `env.…` up to 2.7, `mig_…` since 2.8.
"""


def cpu_rows(stream: Stream) -> Iterator[dict[str, Any]]:
    """Yields a dict for each CPU: `section_instance`, and the words of `CPU_WORDS` (int, None where not sent)."""
    for section in stream.distinct_sections:
        if section.idstr != "cpu" or section.part != "full":
            continue
        row: dict[str, Any] = {"section_instance": section.instance_id, **dict.fromkeys(CPU_WORDS)}
        if section.described:
            for column, offset, width in _places(stream.layout(section)):
                at = section.payload_offset + offset
                row[column] = int.from_bytes(stream.view[at : at + width], "big")
        yield row


@functools.lru_cache(maxsize=64)
def _places(layout: Layout) -> list[tuple[str, int, int]]:
    """Returns column, offset and width in bytes of each of `CPU_WORDS` in a section; none where there is no PVR."""
    found = [
        (column, *layout.place(leaf, element))
        for column, names in CPU_WORDS.items()
        for leaf, element in [place for name in names for place in layout.find(name)[:1]]
    ]
    return found if found and found[0][0] == "pvr" else []
