"""The names of flag bits, for the columns of flag words in frames: importing this module enters them."""

from __future__ import annotations

from vmstate_tools.facts import flags
from vmstate_tools.frames.dtypes import FLAG_NAMES


def name_flags() -> None:
    """Enters the names of all flags into `frames.dtypes.FLAG_NAMES`, without the prefix that those of a word share."""
    for word in ("insns_flags", "insns_flags2"):
        values = {flag.value for flag in flags.known(word)}
        FLAG_NAMES[word] = {
            value: flags.decode(word, value)[0].removeprefix("PPC_").removeprefix("PPC2_") for value in values
        }


name_flags()
