"""Steps of device types, properties, machine types and registrations; breaks and what may save them."""

from __future__ import annotations

import subprocess

import pytest
from small_qemu import commit
from source_tables import made_tables  # noqa: F401

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts.breaks import breaks, commits
from vmstate_tools.facts.device_history import changes
from vmstate_tools.facts.source_history import kinds_of, steps

pytestmark = pytest.mark.usefixtures("made_tables")


def verdicts(name):
    return [(s.release, s.name, s.forward, s.back) for s in steps(name)]


def test_what_a_name_is():
    assert kinds_of("acme") == ["description", "device type"]
    assert kinds_of("board-1.0") == kinds_of("board-1.0-machine") == ["machine type"]
    assert kinds_of("fast") == kinds_of("acme.fast") == ["property"]
    for name, near in (("acmy", "near: acme"), ("acme.fats", "near: fast"), ("board-1.00", "near: board-1.0")):
        with pytest.raises(CatalogError, match=near):
            kinds_of(name)


def test_a_device_type():
    found = verdicts("acme")
    assert ("1.1.0", "acme.fast", "depends", "depends") in found  # no list keeps the default
    assert ("1.1.0", "acme.late-word", "loads", "loads") in found  # hw_compat_1_0 keeps what was
    assert ("1.2.0", "acme", "refused", "refused") in found  # the loader compares the device id
    assert verdicts("late") == [("1.1.0", "late", "loads", "refused"), ("1.2.0", "late", "refused", "loads")]


def test_a_property_of_a_device():
    assert verdicts("acme.slot") == [("1.1.0", "acme.slot", "depends", "depends")]
    (step,) = steps("late-word")
    assert step.what == ("late-word comes, default 1", "hw_compat_1_0 sets acme.late-word=off")


def test_a_machine_type():
    found = steps("board-1.0")
    assert [(s.release, s.forward) for s in found] == [("1.1.0", "loads"), ("1.2.0", "depends"), ("1.2.0", "unknown")]
    # The list was there in 1.1: what 1.2 puts into it changes a machine type after the fact.
    assert found[1].what == ("hw_compat_1_0 sets odd.strange=on",)
    assert verdicts("board-1.1")[0] == ("1.1.0", "board-1.1", "loads", "refused")


def test_a_registration():
    (step,) = steps("quiet")
    assert step.kind == "registration" and (step.forward, step.back) == ("depends", "depends")


def test_what_a_subsection_does():
    first, second = changes("acme")
    assert (first.forward, first.back, first.broken, first.certain) == ("refused", "refused", True, True)
    # A raised version with the minimum kept: forward only, whatever the subsection.
    assert (second.forward, second.back, second.broken) == ("loads", "refused", False)
    assert "+ subsection acme/extra if extra_needed" in second.what and second.gates == ("extra_needed",)


def test_breaks_say_how_certain_they_are():
    found = {item.change.name: item for item in breaks()}
    assert set(found) == {
        "acme",
        "always",
        "inner-lax",
    }  # not quiet, which has a test; not stuck, which is never in a stream
    acme, always = found["acme"], found["always"]
    assert acme.devices[0] == "acme" and acme.saved_by == ("hw_compat_1_0 sets acme.late-word=off",)
    assert acme.certainty == "suspicion"
    assert acme.afterwards == ("1.2.0: acme: version 1 → 2",)
    # A subsection without `needed` is sent always; the description's symbol changed with it.
    assert (always.change.forward, always.change.back, always.certainty) == ("loads", "refused", "certain")


def test_a_struct_whose_section_refuses_by_version_is_no_break():
    # `inner` changed in 1.1; `outer`, which holds it, refuses older versions since then, `lax` takes them.
    assert [item.change.name for item in breaks(["inner"])] == []
    assert [item.change.name for item in breaks(["inner-lax"])] == ["inner-lax"]


def test_commits_are_those_that_touch_what_changed(tmp_path):
    clone = tmp_path / "qemu"
    commit(clone, {"hw/acme.c": "VMSTATE_UINT32(ctrl)"}, "v1.0.0")
    commit(clone, {"hw/acme.c": "VMSTATE_UINT32(ctrl) VMSTATE_UINT32(late)"}, "sent-late")
    commit(clone, {"hw/acme.c": "VMSTATE_UINT32(ctrl)  VMSTATE_UINT32(late)"}, "v1.1.0")
    first = next(iter(changes("acme")))
    (found,) = commits(first, [clone])
    log = ["git", "-C", clone, "log", "-1", "--format=%H", "HEAD~1"]
    assert found["commit"] == subprocess.run(log, capture_output=True, text=True, check=True).stdout.strip()
    assert found["subject"] == "sent-late"
    with pytest.raises(CatalogError):
        commits(first, [tmp_path / "nowhere"])
