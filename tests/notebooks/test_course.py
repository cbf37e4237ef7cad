"""The course's questions: solutions are right, typical mistakes are not, and no notebook lies here answered."""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import course
from course import Reply, check, questions, same
from course.toy import Description, Field, dump, load, stream
from vmstate_tools.compat import POLICIES
from vmstate_tools.stream.stream import open_stream

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
NUMBERED = [path for path in PATHS if questions(path.stem[:2])]
ALL = [name for path in PATHS for name in questions(path.stem[:2])]

# Typical mistakes: each question has one at least. None of them may be taken for right.
WRONG: dict[str, list[Any]] = {
    "01-footer": [78, 80, 84, 55, "4f", None],
    "01-memory": [0x10000004, 0x04000010, 256, 1 << 27, "256 MiB"],
    "01-words": [
        (0x8000600FE1FF3A61, 0x3FFF6),  # of 2.6.0
        (0x7FFF6, 0x8000600FE1FF7AE1),  # the other way round
        (0xE17AFFE10F600080, 0xF6FF070000000000),  # little-endian
        0x8000600FE1FF7AE1,
        (0x800000010280FF37, 0x8000600FE1FF7AE1),  # msr_mask and insns_flags
    ],
    "01-stops": ["msr_mask", "insns_flags2", "nb_BATs", "cpu", 2],
    "01-flags": [
        ["PPC_64H", "PPC_CILDST"],
        "PPC2_PM_ISA206",
        ["PPC_64BX", "PPC_64H", "PPC_CILDST", "PPC2_PM_ISA206"],
        0x4080,
    ],
    "02-steps": [{"2.7.0"}, ["2.3.0", "2.7.0", "2.8.0"], "2.7.0", 2.7, set()],
    "02-back": [
        ("insns_flags2", ["PPC2_PM_ISA206"]),
        ("insns_flags", ["PPC_64H", "PPC_CILDST"]),
        ("insns_flags", ["PPC_64BX", "PPC_64H"]),
        ("insns_flags2", ["PPC_64BX"]),
        "insns_flags",
    ],
    "02-other-reason": ["cpu:env.insns_flags=-22", "cpu:env.insns_flags2", "spapr_pci", None],
    "04-column": [{"2.6.0"}, {"2.8.0"}, "2.7.0", set(), None],
    "04-hidden": ["env.insns_flags", "nb_BATs", "msr_mask", 1, None],
    "04-not-cpu": [46, 21, 70, "25", None],
    "05-subset": [{"ignore", "subset"}, "ignore", {"machine-gated"}, set(POLICIES), None],
    "05-lost": ["PPC_64H", ["PPC_64BX", "PPC_64H"], "PPC2_PM_ISA206", None],
    "05-bytes": [4, 16, -8, "8", None],
}

WRONG |= {
    "03-power9": [{"2.10.0"}, {"2.8.0", "2.10.0", "2.12.0", "4.0.0", "7.1.0"}, "7.1.0", 4, {"2.7.0"}],
    "03-way-back": ["7.0.0", "2.8.0", "9.1.0", "2.6.0", 6.2, True],
    "03-commit": ["91137619c6555a3c7cdd829f3b91b6da2bf67475", "23ab6d88", "7778a575c705", "PPC_POPCNTB", None],
}


def lamp(*extra: Description, fields: Sequence[Field] = (), version: int = 1) -> Description:
    return Description("lamp", [Field("on", "uint8", 1), *fields], extra, version)


def coarse(brightness: int, type_: str = "uint8") -> Description:
    value = brightness if type_ == "uint16" else brightness // 257
    return Description("lamp/brightness", [Field("brightness", type_, value)], needed=brightness != 65535)


def tint(colour: int) -> Description:
    return Description("lamp/colour", [Field("colour", "uint32", colour)], needed=colour != 0xFFFFFF)


def fine(name: str, brightness: int, needed: bool = True) -> Description:
    return Description(name, [Field("brightness16", "uint16", brightness)], needed=needed)


WRONG |= {
    "07-footer": [0, 1, 255, b"~", 0x7E000000],
    "07-minimum": [{(2, 1)}, {(1, 2), (2, 1)}, (2, 1), 2, {1, 2}],
    "07-iommu": ["spapr_iommu", "version", "mig_table", "bypass"],
    "07-policy": ["ignore", {"subset", "ignore"}, {"equal"}, set(POLICIES), "mask"],
    "07-lamp": [
        lamp(),  # no function
        lambda machine, brightness, colour: lamp(),
        lambda machine, brightness, colour: lamp(coarse(brightness), tint(colour)),  # the fine part is cut off
        lambda machine, brightness, colour: lamp(coarse(brightness, "uint16"), tint(colour)),
        lambda machine, brightness, colour: lamp(
            coarse(brightness), fine("lamp/fine", brightness), tint(colour)
        ),  # always
        lambda machine, brightness, colour: lamp(  # a name that lamp/brightness takes for its own
            coarse(brightness), fine("lamp/brightness16", brightness, brightness % 257 != 0), tint(colour)
        ),
        lambda machine, brightness, colour: lamp(  # in place of what release 2 reads
            fine("lamp/fine", brightness, brightness != 65535), tint(colour)
        ),
        lambda machine, brightness, colour: lamp(  # for new machine types alone
            coarse(brightness),
            fine("lamp/fine", brightness, brightness % 257 != 0),
            fields=[Field("colour", "uint32", colour, test=machine != "toy-1")],
        ),
        lambda machine, brightness, colour: lamp(
            fields=[Field("brightness", "uint16", brightness, since=3), Field("colour", "uint32", colour, since=3)],
            version=3,
        ),
    ],
    "06-bytes": [16, 8, 2, 7, 5, None],
    "06-window": [("spapr_pci", 0), ("spapr_iommu", 0), ("spapr_pci", 0x80000000), 0x80000000],
}


def solved(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, Reply]]:
    """Run the solutions of a notebook as a script beside it: question, answer, reply, in order."""
    found: list[tuple[str, Any, Reply]] = []

    def recording(name: str, answer: Any) -> Reply:
        found.append((name, answer, check(name, answer)))
        return found[-1][2]

    monkeypatch.chdir(NOTEBOOKS)
    monkeypatch.setattr(course, "check", recording)
    with contextlib.redirect_stdout(io.StringIO()):
        runpy.run_path(f"solutions/{path.stem}.py")
    return found


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_the_solutions_are_right_and_no_hint_tells_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = solved(path, monkeypatch)
    assert [str(reply) for _, _, reply in found] == [f"{name}: right" for name in questions(path.stem[:2])]
    for name, answer, _ in found:
        said = " ".join(check(name, wrong).hint for wrong in WRONG[name])
        for text in giveaways(answer):
            assert not re.search(rf"(?<!\w){re.escape(text)}(?!\w)", said), (name, text)


def test_a_solution_runs_as_its_first_line_says() -> None:
    path = NOTEBOOKS / "solutions" / "05-policy-lab.py"
    first = path.read_text(encoding="utf-8").splitlines()[0]
    command = re.search(r"in notebooks/: `python (-m [^`]*)`", first)
    assert command is not None
    done = subprocess.run(
        [sys.executable, *command[1].split()], cwd=NOTEBOOKS, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines() == [f"{name}: right" for name in questions("05")]


def giveaways(answer: Any) -> set[str]:
    """How a hint could give an answer away."""
    if isinstance(answer, bool) or answer is None:
        return set()
    if isinstance(answer, int | np.integer):
        return {str(answer), hex(answer), f"{answer:,}"} if answer > 9 else set()
    if isinstance(answer, str):
        return {answer}
    return {text for one in answer for text in giveaways(one)} if isinstance(answer, list | tuple | set) else set()


@pytest.mark.parametrize("name", ALL)
def test_mistakes_are_told_apart(name: str) -> None:
    assert WRONG[name]
    for wrong in WRONG[name]:
        reply = check(name, wrong)
        assert reply.right is False, wrong
        assert len(reply.hint) > 10


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "answer",
    [None, "", -1, [], {}, object(), float("nan"), pd.DataFrame(), np.zeros(3), b"\xff"],
    ids=lambda answer: type(answer).__name__,
)
def test_no_answer_raises(name: str, answer: Any) -> None:
    assert check(name, answer).right is False


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_the_notebook_asks_each_question_once_and_lies_here_unanswered(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    asked = []
    for cell in cells:
        source = "".join(cell["source"])
        for name in re.findall(r'^check\("([^"]+)"', source, re.MULTILINE):
            asked.append(name)
            assert "..." in source, name
            said = "".join("".join(o["data"]["text/plain"]) for o in cell["outputs"] if "data" in o)
            assert said == f"{name}: not answered yet"
            assert any(f"**Question {name}.**" in "".join(c["source"]) for c in cells), name
    assert asked == questions(path.stem[:2])


def test_an_answer_that_is_not_there_yet() -> None:
    for answer in (..., (1, ...), {"a": ...}, [[...]]):
        assert check("01-words", answer) == Reply("01-words", None)
    assert str(check("01-nothing", 1)).startswith("01-nothing: not answered yet. There is no such question")


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        (np.int64(5), 5, True),
        (5.0, 5, True),
        (5, True, False),
        (True, 1, False),
        (1, True, False),
        (True, True, True),
        (b"cpu", "cpu", True),
        (" CPU", "cpu", True),
        (pd.Series(["a", "b"]), {"b", "a"}, True),
        ("a", {"a"}, True),
        ("ab", {"a", "b"}, False),
        (["a", "a"], {"a", "b"}, False),
        (["b", "a"], ["a", "b"], False),
        (("a", 1), ["a", 1], True),
        ({"x": 1}, {"x": 1}, True),
        ({"x": 1, "y": 2}, {"x": 1}, False),
        (0.1 + 0.2, 0.3, True),
        (0.31, 0.3, False),
        (np.array([1, 2]), [1, 2], True),
        (2**64 - 1, 2**64 - 1, True),
        (2**64 - 2, 2**64 - 1, False),
    ],
)
def test_same(answer: Any, truth: Any, right: bool) -> None:
    assert (same(answer, truth) is True) == right


def test_a_toy_stream_by_hand() -> None:
    """Byte by byte, from the format: a field, a subsection that is sent and one that is not."""
    subs = [
        Description("d/a", [Field("x", "uint16", 0x1234)], version=3),
        Description("d/b", [Field("y", "bool", 1)], needed=False),
    ]
    device = Description("d", [Field("n", "uint32 equal", 7), Field("z", "uint8", 9, test=False)], subs, version=2)
    raw = stream(device, "m")
    records = [
        b"QEVM\0\0\0\3",
        b"\7\0\0\0\1m",
        b"\4\0\0\0\1\1d\0\0\0\0\0\0\0\2",
        b"\0\0\0\7",
        b"\5\3d/a\0\0\0\3\x12\x34",
        b"\x7e\0\0\0\1\0",
    ]
    assert raw.startswith(b"".join(records) + b"\6")
    with open_stream(raw) as s:
        assert s.build() == raw
        assert s.fields("d")[["path", "type", "value"]].to_numpy().tolist() == [
            ["n", "uint32 equal", 7],
            ["x", "uint16", 0x1234],
        ]
        assert not (s.coverage()["what"] == "opaque").any()
    dumped = dump(device, "m").classes["d"]
    assert dumped.vmsd is not None and (dumped.version_id, dumped.minimum_version_id) == (2, 1)
    assert [(f.name, f.size, f.conditional) for f in dumped.vmsd.fields] == [("n", 4, False), ("z", 1, True)]
    assert [x.name for x in dumped.vmsd.subsections] == ["d/a", "d/b"]


def test_a_toy_destination_compares_and_knows_what_it_does_not_send() -> None:
    def device(n: int, *subs: Description) -> Description:
        return Description("d", [Field("n", "uint32 equal", n)], subs)

    sub = Description("d/b", [Field("y", "uint8", 1)])
    quiet = Description("d/b", [Field("y", "uint8")], needed=False)
    assert load(device(1), device(1), "m").loads
    assert str(load(device(1), device(2), "m").first) == "[F] d/0: n must equal the destination's"
    assert load(device(1, sub), device(1, quiet), "m").loads
    assert load(device(1, quiet), device(1, sub), "m").loads
    first = load(device(1, sub), device(1), "m").first
    assert first is not None and (first.stage, first.field) == ("G", "d/b")


def test_the_path_names_every_notebook_and_each_has_questions() -> None:
    named = re.findall(r"^\| \[[^]]*\]\(([^)]*)\)", (NOTEBOOKS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert named == [path.name for path in PATHS]
    assert NUMBERED == PATHS
    for path in PATHS:
        first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        assert re.search(r"\*\*Goal\.\*\*.*\*\*You need\*\*.*About \d+ minutes", first, re.DOTALL), path.name
