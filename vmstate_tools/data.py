"""Where the bundled data lies: beside the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def _root() -> Path:
    package = Path(__file__).resolve().parent
    installed = package / "_data"
    return installed if installed.is_dir() else package.parent / "data"


def data_path(*parts: str) -> Path:
    """Returns the path of a file below `data/`, such as `data_path("catalog", "flags.csv")`; it need not exist."""
    return _root().joinpath(*parts)
