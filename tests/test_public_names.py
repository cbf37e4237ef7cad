"""What `import vmstate_tools as vt` gives: to the interpreter, and to a type checker that reads a user's file."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vmstate_tools as vt

ROOT = Path(__file__).resolve().parents[1]

RIGHT = """\
import vmstate_tools as vt

stream: vt.Stream = vt.open("guest.mig")
collection: vt.Collection = vt.load(["guest.mig"], errors="collect", progress=False)
verdict: vt.Verdict = vt.check(stream, vt.Destination(release="2.7.0", machine="pseries-2.6"))
names: list[str] = vt.flags.decode("insns_flags", 1, "2.7.0")
found: int = len(vt.lint("guest.mig"))
differences: int = len(vt.diff(stream, vt.open("other.mig"), ram=True))
"""

# A wrong line → the kind of error that mypy must report for it.
WRONG = {
    "vt.nonsense": "attr-defined",
    "vt.open(7)": "arg-type",
    'vt.load("guest.mig", errors="ignore")': "arg-type",
    'vt.Destination(relase="2.7.0")': "call-arg",
    'number: int = vt.load("guest.mig")': "assignment",
    'vt.open("guest.mig").machina': "attr-defined",
}


def mypy(path: Path) -> list[tuple[int, str]]:
    """Returns line and kind of each error in this file, checked with the settings of a user, who has none."""
    command = [sys.executable, "-m", "mypy", "--config-file=", "--cache-dir", str(ROOT / ".mypy_cache" / "user")]
    # The package's own checks are another's matter, and so are libraries without types.
    command += ["--follow-imports=silent", "--no-implicit-reexport", "--ignore-missing-imports", path.name]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(rf"^{re.escape(path.name)}:(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE)
    return [(int(line), kind) for line, kind in found]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder; mypy finds the package as an installed one, by its `py.typed`."""
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    return tmp_path


def test_mypy_accepts_a_users_right_lines(desk: Path) -> None:
    (desk / "right.py").write_text(RIGHT)
    assert mypy(desk / "right.py") == []


def test_mypy_reports_each_wrong_line(desk: Path) -> None:
    (desk / "wrong.py").write_text("import vmstate_tools as vt\n" + "".join(f"{line}\n" for line in WRONG))
    assert mypy(desk / "wrong.py") == list(enumerate(WRONG.values(), 2))


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "vmstate_tools" / "py.typed").is_file()


def test_type_checkers_and_the_interpreter_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "vmstate_tools" / "__init__.py").read_text())
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    )
    seen: dict[str, str] = {}
    for statement in block.body:
        if isinstance(statement, ast.Assign):  # lint, open = lint_file, open_stream
            (names,), values = statement.targets, statement.value
            assert isinstance(names, ast.Tuple) and isinstance(values, ast.Tuple)
            for name, value in zip(names.elts, values.elts, strict=True):
                assert isinstance(name, ast.Name) and isinstance(value, ast.Name)
                seen[name.id] = seen.pop(value.id)
            continue
        assert isinstance(statement, ast.ImportFrom) and statement.module is not None
        for name in statement.names:
            module = statement.module.removeprefix("vmstate_tools.")
            place = f"{module}:{name.name}"
            if (ROOT / "vmstate_tools" / module.replace(".", "/") / f"{name.name}.py").is_file():
                place = f"{module}.{name.name}"
            seen[name.asname or name.name] = place
    assert seen == vt._PUBLIC


def test_every_name_is_there_and_listed() -> None:
    for name in vt._PUBLIC:
        assert getattr(vt, name) is not None
        assert name in vt.__all__
    assert set(vt.__all__) <= set(dir(vt))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = vt.nonsense


def test_importing_it_imports_no_frames() -> None:
    code = "import sys, vmstate_tools; print({'numpy', 'pandas', 'matplotlib', 'construct'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
