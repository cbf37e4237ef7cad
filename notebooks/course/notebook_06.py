"""Questions of 06-capture-your-own: the notebook rewrites streams, the other way is the catalog, and another stream."""

from __future__ import annotations

from typing import Any

import vmstate_tools as vt
from course import question, same
from vmstate_tools.data import data_path


@question("06-bytes")
def _(answer: Any) -> bool | str:
    """Two words of 8 bytes change; count the bytes of the whole stream that are not what they were."""
    old, new = (vt.catalog.stream_words(release, "pseries-2.6", "POWER7_v2.3") for release in ("2.6.0", "2.7.0"))
    changed = [old[word] ^ new[word] for word in ("insns_flags", "insns_flags2")]
    wrong = [
        (16, "That is all the bytes of both words; most of them stay."),
        (sum(bits.bit_count() for bits in changed), "Those are bits."),
    ]
    return same(answer, sum(byte != 0 for bits in changed for byte in bits.to_bytes(8, "big")), wrong)


@question("06-window")
def _(answer: Any) -> bool | str:
    """A bus has a table for its DMA window, which is a section of its own and knows its liobn."""
    with vt.open(data_path("streams", "qemu-2.6.0", "pseries-2.6", "970fx_v3.1.mig.zst")) as s:
        number = s.value("spapr_pci", "dma_liobn")
    return same(answer, ("spapr_iommu", number), [(("spapr_pci", 0), "That field is the one that was not filled in.")])
