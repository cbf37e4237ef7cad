"""The picture of the house, the page beside it, the layers and the modules agree."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def picture() -> ModuleType:
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "architecture.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_what_the_script_draws(picture: ModuleType) -> None:
    assert picture.PICTURE.read_text(encoding="utf-8") == picture.draw(), "run python docs/architecture.py"


def test_the_picture_has_every_room_in_the_order_of_the_layers(picture: ModuleType) -> None:
    drawn = re.findall(r'font-size="15" [^>]*bold">(\w+)</text>', picture.PICTURE.read_text(encoding="utf-8"))
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    there = {p.parent.name for p in (ROOT / "vmstate_tools").glob("*/__init__.py")}
    there |= {p.stem for p in (ROOT / "vmstate_tools").glob("*.py") if not p.stem.startswith("__")}
    assert drawn == [name for name in reversed([layer.strip("()") for layer in layers]) if name in there]
    assert set(drawn) == there


def test_every_way_passes_modules_that_there_are_from_lower_rooms_to_higher(picture: ModuleType) -> None:
    order = picture.layers()
    for modules, _ in picture.WAYS.values():
        rooms = [order.index(module.partition("/")[0]) for module in modules]
        assert rooms == sorted(set(rooms))


def test_the_page_names_modules_that_there_are_and_all_of_the_picture(picture: ModuleType) -> None:
    rooms = "|".join(p.parent.name for p in (ROOT / "vmstate_tools").glob("*/__init__.py"))
    named = set(re.findall(rf"`((?:{rooms})/\w+)`", PAGE))
    for module in named:
        path = ROOT / "vmstate_tools" / module
        assert path.with_suffix(".py").is_file() or path.is_dir(), module
    for modules, _ in picture.WAYS.values():
        assert set(modules) <= named
