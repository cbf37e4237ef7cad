from __future__ import annotations

import struct

import zstandard

import vmstate_tools as vt
from vmstate_tools.bundled import data_path


def test_words_stay_exact_beside_streams_that_carry_none() -> None:
    power8 = data_path("streams", "qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")
    q35 = data_path("streams", "qemu-7.2/q35/qemu64+cap-xbzrle.mig.zst")
    data = zstandard.ZstdDecompressor().stream_reader(power8.read_bytes()).read()
    end = data.index(b"\x05\x07cpu/fpu")  # the four words stand right before the first subsection
    msr_mask, flags, flags2, bats = struct.unpack(">QQQI", data[end - 28 : end])
    cpu = vt.load([power8, q35], fields=False).cpu
    assert cpu.loc[0, ["msr_mask", "insns_flags", "insns_flags2", "nb_bats"]].tolist() == [
        msr_mask,
        flags,
        flags2,
        bats,
    ]
    assert cpu.loc[1, ["msr_mask", "insns_flags", "insns_flags2"]].isna().all()
