from __future__ import annotations

from pathlib import Path

from shell import run


def test_a_report_on_nothing_that_can_be_read(tmp_path: Path) -> None:
    assert "could not be read" in run("report", str(tmp_path / "none.mig"), code=2).stderr
