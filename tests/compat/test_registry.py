"""Sections that some releases forgot to register."""

from __future__ import annotations

import pytest
from captures import capture

from vmstate_tools.compat import Destination, check


@pytest.mark.parametrize(
    ("release", "loads"),
    [("9.1.0", True), ("9.2.1", False), ("10.0.5", False), ("10.0.13", True), ("10.1.0", False), ("10.1.2", True)],
)
def test_releases_that_do_not_read_the_interrupt_presenter(release, loads):
    """As real loads into 9.2.1, 10.0.13 and 10.1.0 went; the stable releases between are by their source."""
    destination = Destination(release, "pseries-7.2", "power8e_v2.1", "tcg")
    verdict = check(capture("qemu-7.2/pseries-7.2/POWER8e_v2.1.mig.zst"), destination)
    assert verdict.loads == loads
    assert loads or verdict.first.section == "icp/server"
