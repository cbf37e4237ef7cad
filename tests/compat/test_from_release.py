"""What is expected of a release that was not observed, and what is assumed on the way."""

from __future__ import annotations

import pytest

from vmstate_tools.compat import from_release, neighbours, observed
from vmstate_tools.release import Release

LENGTH = ("cpu", "cpreg_vmstate_array_len")


def registers(release: str, machine: str) -> tuple[int | None, list[str]]:
    """How many system registers an Arm CPU is taken to have at most, and what is said of it."""
    made, assumptions = from_release.expectation(Release(release), machine, "cortex-a57", "tcg", {})
    return made.find("cpu", 0).values.get(LENGTH), [text for text in assumptions if "system registers" in text]


def seen(release: str, machine: str) -> int:
    """The number in the capture of that release."""
    found = [
        c.expectation.find("cpu", 0).values[LENGTH]
        for c in observed.configurations()
        if (c.release, c.machine_type, c.cpu, c.config) == (release, machine, "cortex-a57", "")
    ]
    return found[0]


def test_what_was_observed_is_expected_as_it_was():
    assert registers("7.2.22", "virt-7.2") == (seen("7.2", "virt-7.2"), [])


def test_a_number_between_two_that_were_observed_is_an_assumption_and_never_nudged():
    most, said = registers("8.2.2", "virt-7.2")
    numbers = {
        c.expectation.find("cpu", 0).values.get(LENGTH) for c in observed.configurations() if c.cpu == "cortex-a57"
    }
    assert most in numbers  # as some release was observed to have it
    assert said == ["cpu: QEMU 8.2.2 has the system registers of the stream; how many it has was not seen"]


def test_beyond_the_newest_release_no_number_is_known():
    most, said = registers("99.0", "virt-7.2")
    assert most is None and len(said) == 1


@pytest.mark.parametrize(
    ("release", "machine", "options", "configuration", "footers"),
    [
        # include/hw/compat.h HW_COMPAT_2_3; migration/savevm.c: 61964c23e5, f68945d42b
        ("2.3.0", "pseries-2.3", {}, None, False),
        ("2.4.0", "pc-i440fx-2.3", {}, None, False),
        ("2.4.0", "pc-i440fx-2.4", {}, "pc-i440fx-2.4", True),
        ("2.4.0", "pseries-2.3", {}, "pseries-2.3", False),  # hw/ppc/spapr.c left it out from 2.6 on only
        ("2.6.0", "pseries-2.3", {}, None, False),
        ("2.12.0", "pseries-2.12", {"migration.send-configuration": "off"}, None, True),
        ("2.12.0", "pseries-2.12", {"migration.send-section-footer": "off"}, "pseries-2.12", False),
    ],
)
def test_framing(release, machine, options, configuration, footers):
    made, _ = from_release.expectation(Release(release), machine, None, "tcg", options)
    assert (made.configuration, made.footers) == (configuration, footers)


def test_a_machine_that_was_never_observed_is_said():
    made, assumptions = from_release.expectation(Release("7.2"), "sifive_u", None, "tcg", {})
    assert not made.exact and any("no machine like sifive_u" in text for text in assumptions)


def test_the_nearest_configuration_is_that_of_the_place_itself():
    place = neighbours.Place(Release("2.7.0"), "pseries-2.6")
    nearest = place.nearest()[0]
    assert (nearest.release, nearest.machine) == ("2.7.0", "pseries-2.6") and place.is_that_of(nearest)
