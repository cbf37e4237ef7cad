"""Columns of flag words print the names of their flags and stay numbers."""

from __future__ import annotations

import pickle

import pandas as pd

from vmstate_tools.facts import flags, frame_names  # noqa: F401 - the second enters the names
from vmstate_tools.frames.dtypes import flag_words


def test_flag_words_are_numbers_that_print_as_names() -> None:
    # PPC_64B, PPC_ALTIVEC (target/ppc/cpu.h), and PPC2_VSX, PPC2_ISA205 of the second word.
    word = flags.encode("insns_flags", ["PPC_64B", "PPC_ALTIVEC"])
    series = flag_words("insns_flags", pd.Series([word, pd.NA], dtype="UInt64", name="insns_flags"))
    assert str(series.dtype) == "insns_flags"
    assert series[0] == word
    assert (series & word).iloc[0] == word
    assert series.isna().tolist() == [False, True]
    line, missing = series.to_string(index=False).splitlines()
    assert line.strip().startswith(f"0x{word:016x}")
    assert set(line.split()[1:]) == {"64B", "ALTIVEC"}
    assert missing.strip() == "<NA>"
    second = flag_words("insns_flags2", pd.Series([flags.encode("insns_flags2", ["PPC2_VSX"])], dtype="UInt64"))
    assert "VSX" in pd.DataFrame({"w": second}).to_string()
    assert "VSX" in pd.DataFrame({"w": second})._repr_html_()
    assert series.max() == word
    assert pd.concat([series, series]).tolist()[0] == word
    assert pickle.loads(pickle.dumps(series))[0] == word
