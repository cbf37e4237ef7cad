from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_conda_environment_holds_what_pyproject_says() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    lines = [line for line in environment["dependencies"] if isinstance(line, str)]
    (pip,) = (line["pip"] for line in environment["dependencies"] if isinstance(line, dict))
    assert pip.pop() == "-e .", "the project itself comes last"
    lines.remove("pip")
    # conda has no environment markers: name and bounds are what can be held against each other.
    conda = {r.name: str(r.specifier) for r in map(Requirement, lines + pip)}
    wanted = PYPROJECT["project"]["dependencies"] + PYPROJECT["dependency-groups"]["dev"]
    ours = {r.name: str(r.specifier) for r in map(Requirement, wanted)}
    ours["python"] = PYPROJECT["project"]["requires-python"]
    assert conda == ours


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_make_commands_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = (ROOT / document).read_text()
    named = set(re.findall(r"(?:`|^\$ |^\s*(?:step \w+ )?)make ([a-z]+)", text, re.MULTILINE))
    assert named
    assert named <= targets


def test_make_help_lists_the_two_commands() -> None:
    command = ["make", "-C", str(ROOT), "--no-print-directory", "help"]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {"make report", "make test"} <= {line[:15].strip() for line in out.stdout.splitlines()}


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "data/DATA.md"])
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_readme_gives_the_figures_of_the_data() -> None:
    streams = len(list((ROOT / "data" / "streams").rglob("*.mig.zst")))
    for document in ("README.md", "CHANGELOG.md"):
        figures = re.findall(r"(\d+) real (?:migration )?streams", (ROOT / document).read_text())
        assert figures == [str(streams)], document


def test_python_bound_is_the_same_everywhere() -> None:
    bound = PYPROJECT["project"]["requires-python"].removeprefix(">=")
    assert f"Python {bound} or newer" in (ROOT / "README.md").read_text()
    assert PYPROJECT["tool"]["mypy"]["python_version"] == bound
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{bound.replace('.', '')}"
    assert f"({bound.replace('.', ', ')})" in (ROOT / "Makefile").read_text()


def test_licence_is_stated_and_packed() -> None:
    assert PYPROJECT["project"]["license"] == "Apache-2.0"
    assert PYPROJECT["project"]["license-files"] == ["LICENSE"]
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:300]
    assert PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"] == {"data": "vmstate_tools/_data"}


def test_nothing_of_the_package_is_ignored_by_git_and_so_left_out_of_the_wheel() -> None:
    files = [str(p) for p in (ROOT / "vmstate_tools").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    command = ["git", "-C", str(ROOT), "check-ignore", "--no-index", "--stdin"]
    ignored = subprocess.run(command, input="\n".join(files), capture_output=True, text=True, check=False)
    assert ignored.stdout == ""


def test_modules_have_moved_to_where_the_changelog_says() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    rows = re.findall(r"^\| (`.*) \| (.*) \|$", text[text.index("### Moved") :], re.MULTILINE)
    assert len(rows) > 40
    for old, new in rows:
        for name in re.findall(r"`([\w.]+)`", new):
            path = ROOT / "vmstate_tools" / name.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").is_file() or "notebooks" in new, (old, name)
