"""The table in CONTRIBUTING.md, the layers in pyproject.toml and the folders agree; nothing imports in circles."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "vmstate_tools"
CONTRACTS = {
    contract["id"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}


def modules() -> dict[str, Path]:
    """The modules of the package, by their dotted names."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def imports() -> dict[str, set[str]]:
    """What each module imports from the package, anywhere in its text: in functions and for type checkers too."""
    there = modules()
    found: dict[str, set[str]] = {name: set() for name in there}
    for name, path in there.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names} & there.keys()
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: imports are absolute"
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                found[name] |= whole & there.keys()
                if whole - there.keys() and node.module in there:
                    found[name].add(str(node.module))
    return found


def room(module: str) -> str:
    """The first part of a module's name below the package: a room, or a module at the top."""
    return module.split(".")[1] if "." in module else ""


ROOMS = sorted({room(name) for name in modules()} - {""})


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle of this graph, [] where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("name", ROOMS)
def test_no_circle_inside_a_room(name: str) -> None:
    graph = {module: uses for module, uses in imports().items() if room(module) == name}
    assert not circle({module: uses & graph.keys() for module, uses in graph.items()})


def test_no_circle_through_the_root() -> None:
    """The root names the public API; only the command uses it from inside the package."""
    graph: dict[str, set[str]] = {}
    for module, uses in imports().items():
        graph.setdefault(room(module), set()).update({room(name) for name in uses} - {room(module)})
    assert {name for name, uses in graph.items() if "" in uses} <= {"cli"}


def test_the_layers_the_table_and_the_folders_name_the_same_rooms() -> None:
    table = re.findall(r"^\| `vmstate_tools/([^`]*)`", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    there = {p.name for p in PACKAGE.glob("*.py") if not p.name.startswith("__")}
    there |= {f"{p.parent.name}/" for p in PACKAGE.glob("*/__init__.py")}
    assert set(table) == there
    layers = [name.strip("()") for name in reversed(CONTRACTS["layers"]["layers"])]
    in_order = [entry.removesuffix("/").removesuffix(".py") for entry in table]
    assert [name for name in layers if name in in_order] == in_order
    assert [name for name in CONTRACTS["layers"]["layers"] if name.strip("()") not in in_order] == []


@pytest.mark.parametrize("name", ROOMS)
def test_no_module_uses_a_private_name_of_another(name: str) -> None:
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())) if room(module) == name else ():
            if isinstance(node, ast.ImportFrom):
                assert not [alias.name for alias in node.names if re.match(r"_[^_]", alias.name)], module


@pytest.mark.parametrize("name", ROOMS)
def test_nothing_is_keyed_by_the_address_of_an_object(name: str) -> None:
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())) if room(module) == name else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "id", f"{module}, line {node.lineno}"


def test_the_core_is_everything_up_to_the_frames() -> None:
    layers = [name.strip("()") for name in reversed(CONTRACTS["layers"]["layers"])]
    rooms = [name for name in layers if (PACKAGE / name / "__init__.py").exists()]
    core = rooms[: rooms.index("frames") + 1]
    assert CONTRACTS["core"]["source_modules"] == [f"vmstate_tools.{name}" for name in core]
    assert CONTRACTS["core"]["forbidden_modules"] == [f"vmstate_tools.{name}" for name in rooms[len(core) :]]


@pytest.mark.parametrize("name", sorted({p.parent.name for p in PACKAGE.glob("*/__init__.py")}))
def test_a_room_says_what_may_stand_in_it(name: str) -> None:
    docstring = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text()))
    assert docstring, f"vmstate_tools/{name}/__init__.py"
    assert docstring.splitlines()[0].endswith(".")


@pytest.mark.parametrize("init", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_the_map_of_a_room_names_modules_that_are_there(init: Path) -> None:
    docstring = ast.get_docstring(ast.parse(init.read_text())) or ""
    for names in re.findall(r"^([a-z_*, 0-9]+) : ", docstring, re.MULTILINE):
        for name in names.split(", "):
            assert list(init.parent.glob(f"{name}.py")) or (init.parent / name).is_dir(), name
