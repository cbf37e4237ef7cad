from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_the_table_of_formats_names_is_there() -> None:
    rows = [line for line in (ROOT / "docs" / "formats.md").read_text().splitlines() if line.startswith("| ")][2:]
    named = [re.search(r"`([\w/]+\.py)::(test_\w+)` \|$", row) for row in rows]
    assert all(named), "a row without a test"
    for match in named:
        assert match is not None
        assert f"def {match[2]}(" in (ROOT / "tests" / match[1]).read_text(), match[0]
