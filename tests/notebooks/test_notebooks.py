"""The notebooks run from top to bottom, and lie here executed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import nbformat
import pytest
from lab import why_not
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_notebooks() -> None:
    wanted = {"01-anatomy-of-a-stream", "02-many-streams", "03-insns-flags-history", "04-where-it-broke"}
    assert wanted | {"05-policy-lab", "06-capture-your-own"} <= {path.stem for path in NOTEBOOKS}


@pytest.mark.skipif(not why_not(), reason="test_browser.py runs them in a browser")
def test_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    pictures = [_pictures(cell) for cell in notebook.cells]
    start = time.monotonic()
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    assert time.monotonic() - start < 240  # under a minute on an idle machine
    assert [_pictures(cell) for cell in notebook.cells] == pictures


def _pictures(cell: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def test_lies_here_executed(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        kinds = {output.output_type for output in cell.outputs}
        assert "error" not in kinds
        assert not any(output.get("name") == "stderr" for output in cell.outputs), cell.source
        if cell.source.splitlines()[-1].startswith("charts."):
            assert _pictures(cell), cell.source
    assert sum(bool(cell.outputs) for cell in code) >= len(code) - 2


def test_refers_to_files_of_the_project_alone(path: Path) -> None:
    text = json.dumps(json.loads(path.read_text(encoding="utf-8")))
    assert str(ROOT) not in text and str(Path.home()) + "/" not in text
    assert "../data/streams" in text
