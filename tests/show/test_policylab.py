"""The policy lab: controls move what is shown, and without a kernel there is a table."""

from __future__ import annotations

import pytest

import vmstate_tools as vt
from vmstate_tools.analysis import policies_compared as proposals
from vmstate_tools.compat import Policy

PNG = b"\x89PNG\r\n"


@pytest.fixture
def lab():
    return vt.policy_lab()


def test_each_control_changes_what_is_shown(lab):
    for control, value in (
        ("policy", "ignore"),
        ("accel", "kvm"),
        ("since", None),
        ("direction", "backward"),
        ("cpu", "POWER8_v2.0"),
        ("machine", "pseries-2.7"),
    ):
        before = bytes(lab.picture.value), lab.summary.value
        getattr(lab, control).value = value
        assert bytes(lab.picture.value).startswith(PNG) and bytes(lab.picture.value) != before[0], control
        assert lab.summary.value != before[1], control
    wanted = proposals.pairs("pseries-2.7", ["POWER8_v2.0"], "ignore", "kvm", None)
    wanted = wanted[wanted["direction"] == "backward"]
    assert lab.pairs["effect"].tolist() == wanted["effect"].tolist() and len(wanted)


def test_it_says_that_it_is_predicted_and_what_is_missed(lab):
    lab.policy.value = "ignore"
    lab.since.value = None
    assert "Predicted" in lab.summary.value and "PPC_64BX" in lab.summary.value


def test_32_bit_machine(lab):
    lab.policy.value = "unused"
    lab.machine.value = "g3beige, 32-bit"
    assert lab.cpu.value == "7400_v2.9"
    forward = lab.pairs[(lab.pairs["source"] == "2.7.0") & (lab.pairs["destination"] == "2.8.0")].iloc[0]
    assert forward["effect"] == "broken" and forward["stopped_by"] == ["length"]
    lab.machine.value = "pseries-2.6"
    assert lab.cpu.value in ("970fx_v3.1", "POWER7_v2.3")


def test_a_policy_of_ones_own_is_offered_and_its_name_is_escaped():
    class Own(Policy):
        name = "<own>"

        def check(self, *_):
            return None

    lab = vt.policy_lab([Own()])
    lab.policy.label = "<own>"
    assert "&lt;own&gt;" in lab.summary.value and "<own>" not in lab.summary.value
    assert (lab.pairs["policy"] == "<own>").all()


def test_reached_by_keyboard_and_shown_without_a_kernel(lab, monkeypatch):
    """Selects and buttons of the browser take the focus by Tab; a page without a kernel takes the HTML."""
    assert {type(c).__name__ for c in lab.children[:6]} == {"Dropdown", "ToggleButtons"}
    assert all(c.description for c in lab.children[:6])
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    lab._ipython_display_()
    static, live = shown
    assert "<table>" in static["text/html"] and "repaired" in static["text/html"] and static["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in live
