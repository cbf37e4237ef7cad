"""The tests that docs/formats.md names, and whether they passed in a run: `pytest --formats`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FORMATS = Path(__file__).resolve().parent.parent / "docs" / "formats.md"


def rows() -> list[str]:
    """Returns the rows of the table, without its head."""
    return [line for line in FORMATS.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][2:]


def named_test(row: str) -> str | None:
    """Returns the id of the test that a row names, as pytest has it; None where it names none."""
    match = re.search(r"`([\w/]+\.py::test_\w+)` \|$", row)
    return f"tests/{match[1]}" if match else None


class FormatsRan:
    """A pytest plugin: a session fails unless every test that the table names ran in it and passed."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.missing: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid.partition("[")[0])

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.missing = sorted({named_test(row) or row for row in rows()} - self.passed)
        if self.missing and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for name in self.missing:
            terminalreporter.write_line(f"docs/formats.md names a test that did not pass in this run: {name}")
