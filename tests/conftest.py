from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real captures kept beside the checkout (`captures/`, `dumps/`, `outcomes/`)."""
    path = Path(os.environ.get("VMSTATE_SHARED", ROOT.parent / "shared"))
    if not (path / "captures" / "manifest.csv").is_file():
        pytest.skip("the shared captures are not beside this checkout")
    return path
