"""The commands that README and docs/ show are run here, and print what is shown there."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from click.testing import CliRunner

import vmstate_tools
from vmstate_tools.cli.main import main
from vmstate_tools.compat.verdict import STAGES
from vmstate_tools.stream.records import Section

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]

# What README's list of commands calls them stands for these.
A = "data/streams/qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst"
B = "data/streams/qemu-2.7.0/pseries-2.6/POWER8_v2.0.mig.zst"
STAND_FOR = {
    "FILE...": f"{A} {B}",
    "FILE": A,
    "A": A,
    "B": B,
    "BIN": "qemu-system-ppc64",
    "'pseries-2.*'": "pseries-2.6",  # one of them is enough
    "OUT": "out",
    "DIR": "dir",
}
# Left to the tests of the Makefile, or it would fetch packages.
NOT_HERE = ("make ", "pip install .", "conda env create -f environment.yml", "vmstate attach ")


class Shown(NamedTuple):
    command: str
    output: list[str]


def shown(document: str) -> list[Shown]:
    """The commands of a document's console blocks, with the lines shown behind each."""
    found: list[Shown] = []
    for block in re.findall(r"^```console\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Shown(re.sub(r"\s{2,}# .*", "", line[2:]), []))
            else:
                found[-1].output.append(line.rstrip())
    return found


def literal(command: str) -> str:
    return " ".join(STAND_FOR.get(word, word) for word in command.split(" "))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data/ in it, as the checkout has, to write into."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def run(command: str) -> tuple[str, int]:
    words = shlex.split(command)
    if set(words) & {"|", ">"}:
        shell = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
        return shell.stdout + shell.stderr, shell.returncode
    assert words[0] == "vmstate", command
    bare = command.split()  # a shell expands what is not quoted
    arguments = [f for w in words[1:] for f in (sorted(map(str, Path().glob(w))) if w in bare else None) or [w]]
    result = CliRunner().invoke(main, arguments)
    return result.output, result.exit_code


def pattern(lines: list[str]) -> str:
    """`…` alone on a line: any lines; within one: any text."""
    parts = [r"(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + "\n" for line in lines]
    return "".join(parts)


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if shown(d)])
def test_commands_print_what_is_shown(document: str, desk: Path) -> None:
    missing: set[str] = set()
    unmade: set[str] = set()  # what commands that were left out would have written
    ours = [s for s in shown(document) if not s.command.startswith(NOT_HERE)]
    for command, output in ours:
        command = literal(command)
        programs = set(re.findall(r"qemu-system-\w+", command)) | ({"zstd"} & set(command.split()))
        if lacking := {p for p in programs if shutil.which(p) is None}:
            missing |= lacking
            unmade |= set(re.findall(r"(?:-o|>) (\S+)", command))
            continue
        if any(word.split("/")[0] in unmade for word in command.split()):
            continue
        (desk / STAND_FOR["OUT"]).unlink(missing_ok=True)
        printed, code = run(command)
        assert code in (0, 1, 3), (command, printed)
        if output:
            text = "".join(line.rstrip() + "\n" for line in printed.rstrip().splitlines())
            assert re.fullmatch(pattern(output), text), f"$ {command}\n{text}"
    if missing:
        pytest.skip(f"not all of it was run: there is no {', '.join(sorted(missing))}")


def test_every_command_there_is_is_shown() -> None:
    text = "\n".join(s.command for d in DOCUMENTS for s in shown(d))
    assert {name for name in main.commands if not re.search(rf"\bvmstate {name}\b", text)} <= {"catalog"}


def test_commands_elsewhere_in_the_docs_are_marked_as_not_run() -> None:
    """A `$ ` line stands in a console block, which is run; what cannot be run is a `text` block without it."""
    for document in DOCUMENTS:
        outside = re.sub(r"^```console\n.*?^```", "", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
        assert not re.findall(r"^\s*\$ ", outside, re.MULTILINE), document


def test_the_site_has_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    nav = yaml.safe_load(text[text.index("nav:") : text.index("validation:")])["nav"]

    def pages(entry: object) -> set[str]:
        if isinstance(entry, dict):
            return {page for value in entry.values() for page in pages(value)}
        return {page for value in entry for page in pages(value)} if isinstance(entry, list) else {str(entry)}

    assert {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")} <= pages(nav)


def test_the_reference_has_every_public_name() -> None:
    text = (ROOT / "docs/reference/python.md").read_text()
    there = set(re.findall(r"^::: (\S+)", text, re.MULTILINE))
    for name, place in vmstate_tools._PUBLIC.items():
        module, _, attribute = place.partition(":")
        home = f"vmstate_tools.{module}"
        # A module shows all that is in it.
        assert {home, f"{home}.{attribute}"} & there, name


def test_terms_of_the_glossary_are_in_order_and_no_term_is_missing() -> None:
    text = (ROOT / "docs/glossary.md").read_text()
    terms = re.findall(r"^### (.*)", text, re.MULTILINE)
    assert [t.lstrip("-").lower() for t in terms] == sorted(t.lstrip("-").lower() for t in terms)
    anchors = {re.sub(r"[^\w -]", "", t.lower()).strip().replace(" ", "-") for t in terms}
    for document in [*DOCUMENTS, *(str(p.relative_to(ROOT)) for p in (ROOT / "notebooks").glob("*.ipynb"))]:
        links = re.findall(r"glossary\.md#([\w-]+)", (ROOT / document).read_text())
        assert set(links) <= anchors, document


def test_the_glossary_has_the_words_of_this_package() -> None:
    text = (ROOT / "docs/glossary.md").read_text()
    terms = set(re.findall(r"^### (.*)", text, re.MULTILINE))
    ours = {"assumed", "borrowed", "built-in", "class values", "coverage", "expectation", "family", "fingerprint"}
    ours |= {"framing", "gated", "given", "layout", "manifest", "mask", "observed", "obstacle", "opaque", "policy"}
    ours |= {"record", "reference", "remedy", "shared limit", "stage", "verdict", "words"}
    assert ours <= terms
    letters = re.findall(r"\| ([A-I]|start) \| ([^|]*?) (?=\|)", text)
    assert {letter: name.strip("`") for letter, name in letters} == STAGES
    # Every way in which a section can have been read is explained.
    hows = set(re.findall(r"'([\w-]+)'", re.search(r"how : (.*?)\n    \w+ :", Section.__doc__ or "", re.DOTALL)[1]))
    known = {"handwritten": "written by hand", "ram": "RAM block"}
    assert {known.get(how, how) for how in hows} <= terms


def test_sections_of_docstrings_become_lists() -> None:
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "docs/docstrings.py")
    assert spec is not None and spec.loader is not None
    docstrings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docstrings)
    text = "Do it.\n\nParameters\n----------\na, b : what\n    it is.\nc : more.\n\n"
    text += "Returns\n-------\na frame.\n\nAfter : all."
    assert docstrings.markdown(text).split("\n") == [
        *("Do it.", "", "**Parameters**", ""),
        *("- `a`, `b`: what", "    it is.", "- `c`: more.", "", "**Returns**", "", "a frame.", "", "After : all."),
    ]
