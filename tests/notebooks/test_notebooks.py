"""The notebooks run from top to bottom, lie here executed, and print what is committed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from pages import frames

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What differs from one run to the next: addresses of objects, times, folders for a while.
VARYING = re.compile(r"0x[0-9a-f]{12}(?=>)|\b\d+(?:\.\d+)? m?s\b|/tmp/\S+")
NOTHING = {"NaN", "NaT", "None", "<NA>"}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: nbformat.NotebookNode) -> str:
    """Returns the text of all outputs of a cell, without what differs from run to run."""
    streams = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
    results = [output.data.get("text/plain", "") for output in cell.outputs if "data" in output]
    return VARYING.sub("…", "\n".join([streams, *results]))


def pictures(cell: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def empty_frames(cell: nbformat.NotebookNode) -> Iterator[str]:
    """Yields what is wrong with the frames that a cell shows: no rows, or a column without a value."""
    for output in cell.outputs:
        data = output.get("data", {})
        if "Empty DataFrame" in data.get("text/plain", ""):
            yield "an empty frame"
        for rows in frames(data.get("text/html", "")):
            for number, column in enumerate(zip(*rows, strict=True)):
                if set(column) <= NOTHING:
                    yield f"column {number} has no value"


def has_the_same_qemu(committed: nbformat.NotebookNode) -> bool:
    """Returns whether the QEMU that a notebook found when it was committed, if it looked for one, is here as well."""
    text = "\n".join(map(printed, code(committed)))
    found = re.search(r"^found (qemu-system-\w+)$", text, re.MULTILINE)
    if found is None:
        return True
    if shutil.which(found[1]) is None:
        return False
    version = subprocess.run([found[1], "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"version ([\d.]+)", version)
    return match is not None and match[1] in text


def test_there_are_notebooks() -> None:
    wanted = {"01-anatomy-of-a-stream", "02-many-streams", "03-insns-flags-history", "04-where-it-broke"}
    assert wanted | {"05-policy-lab", "06-capture-your-own"} <= {path.stem for path in NOTEBOOKS}


def test_prints_what_is_committed(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    committed = nbformat.read(path, as_version=4)
    (tmp_path / "data").symlink_to(ROOT / "data")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": tmp_path / "notebooks"}}
    start = time.monotonic()
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    assert time.monotonic() - start < 240  # under a minute on an idle machine
    comparable = has_the_same_qemu(committed)
    for now, before in zip(code(notebook), code(committed), strict=True):
        if comparable:
            assert printed(now) == printed(before), now.source
            assert pictures(now) == pictures(before), now.source
        assert not list(empty_frames(now)), now.source


def test_lies_here_executed(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        kinds = {output.output_type for output in cell.outputs}
        assert "error" not in kinds
        assert not any(output.get("name") == "stderr" for output in cell.outputs), cell.source
        assert not list(empty_frames(cell)), cell.source
        if cell.source.splitlines()[-1].startswith("charts."):
            assert pictures(cell), cell.source
    assert sum(bool(cell.outputs) for cell in cells) >= len(cells) - 2


def test_an_empty_frame_and_an_empty_column_are_seen() -> None:
    import pandas as pd

    def cell(frame: pd.DataFrame) -> nbformat.NotebookNode:
        data = {"text/plain": repr(frame), "text/html": frame._repr_html_()}
        return nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("execute_result", data)])

    assert list(empty_frames(cell(pd.DataFrame({"a": []})))) == ["an empty frame"]
    assert list(empty_frames(cell(pd.DataFrame({"a": [1, 2], "b": [None, float("nan")]})))) == ["column 1 has no value"]
    assert not list(empty_frames(cell(pd.DataFrame({"a": [1, None]}))))


def test_refers_to_files_of_the_project_alone(path: Path) -> None:
    text = json.dumps(json.loads(path.read_text(encoding="utf-8")))
    assert str(ROOT) not in text and str(Path.home()) + "/" not in text
    assert "../data/streams" in text
