from __future__ import annotations

from pathlib import Path

import pytest
from containers import STREAM


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "stream.mig"
    path.write_bytes(STREAM)
    return path
