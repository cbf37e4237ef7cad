"""Time bombs in the streams of 2016."""

from __future__ import annotations

import pytest

import vmstate_tools as vt
from vmstate_tools.lint import RULES, lint


def test_the_sanity_words_are_internal_state_under_equal(shared):
    with vt.open(shared / "captures/qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst") as stream:
        frame = lint(stream)
    internal = frame[frame["rule"] == "internal state under EQUAL"]
    assert {"env.msr_mask", "env.insns_flags", "env.insns_flags2", "env.nb_BATs"} <= set(internal["field"])
    assert set(internal["section"]) == {"cpu"}
    assert set(frame["rule"]) <= RULES.keys()


def test_gone_since_the_fix(shared):
    with vt.open(shared / "captures/qemu-3.1.0/pseries-3.1/POWER8_v2.0.mig.zst") as stream:
        frame = lint(stream)
    assert frame[frame["rule"] == "internal state under EQUAL"].empty


def test_nothing_else_is_linted():
    with pytest.raises(TypeError, match="dump"):
        lint("a path")
