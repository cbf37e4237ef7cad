"""QEMUs that do not start: machine types and options that a release lacks."""

from __future__ import annotations

import pytest

from vmstate_tools.compat import Destination

CPU = "POWER8_v2.0"


def test_machine_type_and_release_that_do_not_meet():
    destination = Destination("2.5.0", "pseries-2.6", CPU, "tcg")
    assert destination.absent is not None and destination.absent.kind == "no such machine type"
    assert Destination("2.6.0", "pseries-2.6", CPU, "tcg").absent is None


@pytest.mark.parametrize(
    ("release", "machine", "starts"),
    [
        ("10.0.0", "s390-ccw-virtio-4.1", True),
        ("10.1.0", "virt-4.2", True),
        ("10.1.0", "virt-4.1", False),
        ("11.1", "pc-q35-5.2", True),
        ("11.1", "pc-q35-5.1", False),
    ],
)
def test_machine_types_are_deleted_after_six_years(release, machine, starts):
    """include/hw/boards.h of 10.0 and 10.1; 11.1 wrote streams of 5.2, and none of 5.1."""
    absent = Destination(release, machine).absent
    assert (absent is None) == starts
    assert starts or absent.remedy.startswith("load it in a release before 1")


def test_machine_options_come_with_the_machine():
    destination = Destination("7.2", "pseries-2.6,cap-htm=off", CPU, "tcg")
    assert destination.machine == "pseries-2.6" and destination.options == {"cap-htm": "off"}
    assert destination.absent is None
    refused = Destination("7.2", "pseries-2.6", CPU, "tcg").absent
    assert refused is not None and refused.remedy == "-machine cap-htm=off"
