"""What is checked before and beside the fields of sections."""

from __future__ import annotations

import pytest
from captures import capture

from vmstate_tools.compat import Destination, check


@pytest.mark.parametrize(("release", "kind"), [("7.2.22", "unknown RAM record"), ("2.3.0", "unknown RAM record")])
def test_compressed_pages_need_a_release_and_a_capability(release, kind):
    """7.2.22 said: Received an unexpected compressed page. The flag came with 2.4 (20eb617eac)."""
    verdict = check(capture("qemu-7.2/q35/qemu64+cap-compress.mig.zst"), Destination(release, "q35", "qemu64", "tcg"))
    found = next(o for o in verdict.reasons if o.section == "ram")
    assert (found.stage, found.kind, found.field) == ("C", kind, "compressed page")
