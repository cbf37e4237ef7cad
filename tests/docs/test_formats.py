from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from formats_table import named_test, rows

ROOT = Path(__file__).resolve().parents[2]


def test_every_row_of_the_table_names_a_test_that_there_is() -> None:
    assert len(rows()) > 40
    for row in rows():
        name = named_test(row)
        assert name is not None, row
        file, _, function = name.partition("::")
        assert f"def {function}(" in (ROOT / file).read_text(), name


def test_a_run_in_which_such_a_test_did_not_pass_fails() -> None:
    """One of the tests runs here, so it is not listed, and the others are."""
    ran = "tests/stream/test_bad_input.py::test_the_obsolete_version_is_named"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--formats", ran]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    listed = {line.rpartition(" ")[2] for line in done.stdout.splitlines() if "did not pass in this run" in line}
    assert done.returncode == 1
    assert listed == {named_test(row) for row in rows()} - {ran}
