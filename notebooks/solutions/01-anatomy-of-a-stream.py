# Solutions of 01-anatomy-of-a-stream. Run them in notebooks/: `python -m solutions.01-anatomy-of-a-stream`.

import struct
from pathlib import Path

import vmstate_tools as vt
from course import check
from vmstate_tools.source import zstd


def read(release):
    path = Path(f"../data/streams/qemu-{release}/pseries-2.6/POWER8_v2.0.mig.zst")
    return zstd.decompress(path.read_bytes())


raw, new = read("2.6.0"), read("2.7.0")

# 01-memory. The header has 8 bytes, the configuration 1 + 4 + 11; the section's header 1 + 4 + (1 + 3) + 4 + 4.
# The payload begins with the size of all blocks. Its lowest bits are a flag: memory comes in pages of 4096 bytes.
payload = 8 + 16 + 17
(number,) = struct.unpack_from(">Q", raw, payload)
print(check("01-memory", number & ~0xFFF))

# 01-footer. Behind the size: a block's name with its length, the block's size, and 0x10, which ends the list.
# In the hex dump the byte 7e stands at 0x4f.
name = raw[payload + 8]
footer = payload + 8 + 1 + name + 8 + 8
assert raw[footer] == 0x7E
print(check("01-footer", footer))


# 01-words. As for the first stream.
def words(stream):
    end = stream.index(b"\x05\x07cpu/fpu")
    return struct.unpack_from(">QQQI", stream, end - 28)


msr_mask, insns_flags, insns_flags2, nb_bats = words(new)
print(check("01-words", (insns_flags, insns_flags2)))

# 01-stops. Side by side: the first that differs.
names = ["msr_mask", "insns_flags", "insns_flags2", "nb_BATs"]
print(check("01-stops", next(n for n, a, b in zip(names, words(raw), words(new), strict=True) if a != b)))

# 01-flags. What is set in the new word and not in the old one.
_, old_flags, old_flags2, _ = words(raw)
added = vt.flags.decode("insns_flags", insns_flags & ~old_flags, "2.7.0")
added += vt.flags.decode("insns_flags2", insns_flags2 & ~old_flags2, "2.7.0")
print(check("01-flags", added))
