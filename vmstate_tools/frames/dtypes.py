"""The pandas column types of flag words: a nullable `UInt64` that prints as hex with the flags' names.

The column type of field values, `vmstate_tools.vmstate.value_column`, is registered with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from pandas.api.extensions import register_extension_dtype

from vmstate_tools.frames.names import FLAG_NAMES
from vmstate_tools.vmstate.value_column import ValueArray as ValueArray
from vmstate_tools.vmstate.value_column import ValueDtype as ValueDtype


class _FlagWordArray(pd.arrays.IntegerArray):
    """Nullable UInt64 values that print as flags of the word that their dtype is named after."""

    def _formatter(self, boxed: bool = False) -> Callable[[Any], str]:
        word = self.dtype.name
        return lambda value: "" if value is pd.NA else format_flags(word, int(value))


class InsnsFlagsArray(_FlagWordArray):
    """Values of `insns_flags`."""

    @property
    def dtype(self) -> InsnsFlagsDtype:
        return InsnsFlagsDtype()


class InsnsFlags2Array(_FlagWordArray):
    """Values of `insns_flags2`."""

    @property
    def dtype(self) -> InsnsFlags2Dtype:
        return InsnsFlags2Dtype()


@register_extension_dtype
class InsnsFlagsDtype(pd.UInt64Dtype):
    """A nullable UInt64 that prints the names of `insns_flags` (`PPC_*`)."""

    name = "insns_flags"

    @classmethod
    def construct_array_type(cls) -> type[InsnsFlagsArray]:
        return InsnsFlagsArray


@register_extension_dtype
class InsnsFlags2Dtype(pd.UInt64Dtype):
    """A nullable UInt64 that prints the names of `insns_flags2` (`PPC2_*`)."""

    name = "insns_flags2"

    @classmethod
    def construct_array_type(cls) -> type[InsnsFlags2Array]:
        return InsnsFlags2Array


def format_flags(word: str, value: int) -> str:
    """Returns a flag word as hex and the names of its flags; a bit without a name in `FLAG_NAMES` is given by number.

    Where nothing has filled `FLAG_NAMES`, hex alone.
    """
    text = f"0x{value:016x}"
    if not FLAG_NAMES:
        return text
    names = FLAG_NAMES.get(word, {})
    return " ".join([text, *(names.get(1 << bit, f"bit {bit} (unknown)") for bit in range(64) if value >> bit & 1)])


def flag_words(word: str, values: pd.Series) -> pd.Series:
    """Returns a `UInt64` series as one that prints as flags of `word`; the values stay the same."""
    array: Any = values.astype("UInt64").array
    cls = {"insns_flags": InsnsFlagsArray, "insns_flags2": InsnsFlags2Array}[word]
    return pd.Series(cls(array._data, array._mask), index=values.index, name=values.name)
