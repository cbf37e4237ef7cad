"""Questions of 01-anatomy-of-a-stream. The notebook finds the answers in raw bytes, the library is the other way."""

from __future__ import annotations

from functools import cache
from typing import Any

import vmstate_tools as vt
from course import question, same
from vmstate_tools.data import data_path


@cache
def _words(release: str) -> dict[str, int]:
    with vt.open(data_path("streams", f"qemu-{release}", "pseries-2.6", "POWER8_v2.0.mig.zst")) as s:
        return {word: s.value("cpu", f"env.{word}") for word in ("msr_mask", "insns_flags", "insns_flags2", "nb_BATs")}


@question("01-memory")
def _(answer: Any) -> bool | str:
    """It is the number of 64 bits at the start of the payload, without the flag in its low bits."""
    with vt.open(data_path("streams", "qemu-2.6.0", "pseries-2.6", "POWER8_v2.0.mig.zst")) as s:
        size = int(s.ram.blocks["used_length"].sum())
    wrong = [
        (size | 4, "Sizes are whole pages: what is set in the lowest 12 bits is a flag (4: here comes the list)."),
        (int.from_bytes((size | 4).to_bytes(8, "big"), "little"), "Numbers in a stream are big-endian."),
        (size >> 20, "The answer is in bytes."),
    ]
    return same(answer, size, wrong)


@question("01-footer")
def _(answer: Any) -> bool | str:
    """A footer is the byte 7e and the section's number, the one that the section's header has."""
    with vt.open(data_path("streams", "qemu-2.6.0", "pseries-2.6", "POWER8_v2.0.mig.zst")) as s:
        first, second = s.sections[:2]
    wrong = [
        (second.offset - 5 - first.offset, "Count from the first byte of the file."),
        (second.offset, "That is where the next record begins: the footer has 5 bytes."),
    ]
    return same(answer, second.offset - 5, wrong)


@question("01-words")
def _(answer: Any) -> bool | str:
    """28 bytes before the subsection cpu/fpu of this other stream: 8 + 8 + 8 + 4, as before."""
    old, new = (list(_words(release).values())[1:3] for release in ("2.6.0", "2.7.0"))
    swapped = [int.from_bytes(n.to_bytes(8, "big"), "little") for n in new]
    wrong = [
        (old, "Those are the words that 2.6.0 wrote."),
        (swapped, "Numbers in a stream are big-endian."),
        (new[::-1], "insns_flags comes first."),
    ]
    return same(answer, new, wrong)


@question("01-stops")
def _(answer: Any) -> bool | str:
    """It reads the words in their order, and gives up at the first that is not its own."""
    old, new = _words("2.6.0"), _words("2.7.0")
    stops, *later = [word for word in old if old[word] != new[word]]
    wrong = [(word, "That one differs too, but the load has ended before it.") for word in later]
    wrong += [(word, "That word is the same in both.") for word in old if old[word] == new[word]]
    return same(answer.removeprefix("env."), stops, wrong)


@question("01-flags")
def _(answer: Any) -> bool | str:
    """The bits of both words that are set in what 2.7.0 wrote and not in what 2.6.0 wrote: new & ~old."""
    old, new = _words("2.6.0"), _words("2.7.0")
    found = {word: set(vt.flags.decode(word, new[word] & ~old[word])) for word in ("insns_flags", "insns_flags2")}
    wrong = [(names, f"There is more in the word other than {word}.") for word, names in found.items()]
    return same(answer, set.union(*found.values()), wrong)
