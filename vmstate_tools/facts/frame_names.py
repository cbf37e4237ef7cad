"""The names that frames show for flag bits and CPU models; importing this module enters them into `frames.names`."""

from __future__ import annotations

from vmstate_tools.facts import flags
from vmstate_tools.facts.model_names import spellings
from vmstate_tools.frames.names import FLAG_NAMES, MODEL_NAMES


def enter_names() -> None:
    """Enters the names of all flags, without the prefix that all of a word share, and the spelling of CPU models."""
    for word in ("insns_flags", "insns_flags2"):
        values = {flag.value for flag in flags.known(word)}
        FLAG_NAMES[word] = {
            value: flags.decode(word, value)[0].removeprefix("PPC_").removeprefix("PPC2_") for value in values
        }
    MODEL_NAMES.update(spellings())


enter_names()
