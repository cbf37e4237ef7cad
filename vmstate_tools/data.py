"""Where the bundled data lies: beside the checkout's package, or inside the installed wheel."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_PACKAGE = os.path.dirname(os.path.realpath(__file__))


def data_file(*parts: str) -> str:
    """Name of a file below `data/`, e.g. `data_file("catalog", "flags.csv")`; it need not exist."""
    installed = os.path.join(_PACKAGE, "_data")
    return os.path.join(
        installed if os.path.isdir(installed) else os.path.join(os.path.dirname(_PACKAGE), "data"), *parts
    )


def data_path(*parts: str) -> Path:
    """The same as a path."""
    from pathlib import Path

    return Path(data_file(*parts))
