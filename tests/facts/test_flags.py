from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import flags
from vmstate_tools.facts.tables import rows

words = st.integers(0, (1 << 64) - 1)

# What streams of POWER8 under TCG carry, written by the binaries of these releases.
P8_26 = {"msr_mask": 0x800000010280FF37, "insns_flags": 0x8000600FE1FF3A61, "insns_flags2": 0x3FFF6}
P8_27 = {"msr_mask": 0x800000010280FF37, "insns_flags": 0x8000600FE1FF7AE1, "insns_flags2": 0x7FFF6}


def test_power8_gained_three_flags_from_2_6_to_2_7() -> None:
    found = flags.diff(P8_26, P8_27)
    assert found["insns_flags"] == (["PPC_64H", "PPC_CILDST"], [])
    assert found["insns_flags2"] == (["PPC2_PM_ISA206"], [])
    assert found["msr_mask"] == ([], [])
    back = flags.diff(P8_27, P8_26)
    assert back["insns_flags"] == ([], ["PPC_64H", "PPC_CILDST"])


def test_a_bit_is_named_by_release() -> None:
    # Bit 14 of insns_flags was nobody's until the cache-inhibited loads and stores took it.
    assert flags.decode("insns_flags", 1 << 14, "2.6.0") == ["bit 14 (unknown)"]
    assert flags.decode("insns_flags", 1 << 14, "2.7.0") == ["PPC_CILDST"]
    assert flags.decode("insns_flags", 1 << 14) == ["PPC_CILDST"]
    # Some bits lost their CPUs and names: 601 and 602 went with 7.0.
    assert flags.decode("insns_flags", 1 << 1, "5.2") == ["PPC_POWER"]
    assert flags.decode("insns_flags", 1 << 1) == ["PPC_POWER"]
    assert flags.decode("insns_flags2", 2, "0.14.0") == ["bit 1 (unknown)"]


def test_names_come_lowest_bit_first() -> None:
    assert flags.decode("insns_flags2", 0x3FFF6, "2.6") == [
        "PPC2_VSX",
        "PPC2_DFP",
        "PPC2_DBRX",
        "PPC2_ISA205",
        "PPC2_VSX207",
        "PPC2_PERM_ISA206",
        "PPC2_DIVE_ISA206",
        "PPC2_ATOMIC_ISA206",
        "PPC2_FP_CVT_ISA206",
        "PPC2_FP_TST_ISA206",
        "PPC2_BCTAR_ISA207",
        "PPC2_LSQ_ISA207",
        "PPC2_ALTIVEC_207",
        "PPC2_ISA207S",
        "PPC2_FP_CVT_S64",
        "PPC2_TM",
    ]


def test_one_bit_of_msr_mask_may_have_several_names() -> None:
    assert flags.decode("msr_mask", 1 << 25, "2.7.0") == ["MSR_SPE/MSR_VR"]
    assert flags.encode("msr_mask", ["MSR_VR"], "2.7.0") == 1 << 25


@given(words, st.sampled_from(flags.WORDS), st.sampled_from([None, "0.10.0", "2.6.0", "2.7.1", "7.2.22", "11.1"]))
def test_encode_undoes_decode(value: int, word: str, release: str | None) -> None:
    names = flags.decode(word, value, release)
    assert len(names) == value.bit_count()
    assert flags.encode(word, names, release) == value


def test_fields_of_a_stream_name_their_word() -> None:
    assert flags.decode("env.insns_flags", 1) == flags.decode("mig_insns_flags", 1) == ["PPC_INSNS_BASE"]


def test_diff_takes_objects_and_leaves_out_absent_words() -> None:
    class Words:
        msr_mask = None
        insns_flags = 1

    assert flags.diff(Words(), {"msr_mask": 1, "insns_flags": 3}) == {"insns_flags": (["PPC_POWER"], [])}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: flags.decode("nb_BATs", 8), "no flag word"),
        (lambda: flags.decode("insns_flags", -1), "unsigned 64-bit"),
        (lambda: flags.decode("insns_flags", 1 << 64), "unsigned 64-bit"),
        (lambda: flags.decode("insns_flags", 1, "Monday"), "does not name a release"),
        (lambda: flags.encode("insns_flags", ["PPC_CILDST"], "2.6.0"), "no flag PPC_CILDST in 2.6.0"),
        (lambda: flags.encode("insns_flags", ["bit 64 (unknown)"]), "no flag"),
        (lambda: flags.describe("PPC_NOTHING"), "no flag"),
    ],
)
def test_bad_input(call: object, says: str) -> None:
    with pytest.raises(CatalogError, match=says):
        call()  # type: ignore[operator]


def test_every_flag_has_a_meaning_and_every_meaning_a_flag() -> None:
    known = {(flag.word, flag.name) for word in flags.WORDS for flag in flags.known(word)}
    told = {(row["word"], row["name"]) for row in rows("catalog", "meanings")}
    assert known == told
    assert all(flag.facility and flag.meaning for word in flags.WORDS for flag in flags.known(word))
    assert all(row["source"] for row in rows("catalog", "meanings"))
    assert flags.describe("PPC_CILDST").value == 0x4000


def test_decoding_needs_no_pandas() -> None:
    code = "import sys; from vmstate_tools import flags; flags.decode('insns_flags', 1); print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
