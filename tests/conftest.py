from __future__ import annotations

from pathlib import Path

import captures as real
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, help="where the browser tests write the pictures of the documentation")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real captures kept beside the checkout (`captures/`, `dumps/`, `outcomes/`)."""
    path = real.SHARED
    if not (path / "captures" / "manifest.csv").is_file():
        pytest.skip("the shared captures are not beside this checkout")
    return path


@pytest.fixture(scope="session")
def captures() -> Path:
    """The folder of real streams: those beside the checkout where there are any, else the bundled ones."""
    return real.ROOT
